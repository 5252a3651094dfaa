// For tests that start instances: keeper and launcher are the test's own binary, as they are
// umbel's. A test binary without this would start itself again, and again.
#pragma once

#include <cstdlib>
#include <cstring>

#include "orchestrator/local/keeper.h"
#include "process/confined.h"

namespace umbel::orchestrator::testing {

/// Before main, so that gtest never sees the arguments of others.
[[gnu::constructor]] inline void BecomeKeeper(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "confine") == 0)
    std::_Exit(process::ConfineMain(argc, argv));
  if (argc > 1 && std::strcmp(argv[1], "keeper") == 0) std::_Exit(KeeperMain(argc, argv));
}

}  // namespace umbel::orchestrator::testing
