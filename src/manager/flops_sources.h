// The Python package `umbel.flops` travels inside the binary. Functions; any thread.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "flower/python_package.h"

namespace umbel::manager {

/// Generated at build time from python/umbel/flops.
std::span<const flower::SourceFile> FlopsSources();

/// Writes them below `root`, unless they are there.
/// returns  the folder for Python's path.
inline Result<std::string> WriteFlopsSources(const std::string& root) {
  return flower::WritePackage(FlopsSources(), root, "umbel/flops");
}

}  // namespace umbel::manager
