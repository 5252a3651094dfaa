// The Python worker travels inside the binary. Functions; any thread.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "flower/python_package.h"

namespace umbel::supernode {

/// Generated at build time from python/umbel/worker.
std::span<const flower::SourceFile> WorkerSources();

/// Writes them below `root`, unless they are there.
/// returns  DIR of the protocol's command line.
inline Result<std::string> WriteWorkerSources(const std::string& root) {
  return flower::WritePackage(WorkerSources(), root, "_umbel_worker");
}

}  // namespace umbel::supernode
