// For tests that start guards: the launcher is the test's own binary, as `umbel guard` is the
// SuperLink's. A test binary without this would start itself again, and again.
#pragma once

#include <cstdlib>
#include <cstring>

#include "process/process.h"

namespace umbel::process::testing {

/// Before main, so that gtest never sees the guard's arguments.
[[gnu::constructor]] inline void BecomeGuard(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "guard") == 0) std::_Exit(GuardMain(argc, argv));
}

}  // namespace umbel::process::testing
