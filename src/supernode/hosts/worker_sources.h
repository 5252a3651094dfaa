// The Python worker travels inside the binary. Functions; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::supernode {

struct SourceFile {
  std::string_view name;  // "main.py"
  std::string_view text;
};
/// Generated at build time from python/umbel/worker.
std::span<const SourceFile> WorkerSources();

/// Writes them to `<root>/<hash of the sources>/_umbel_worker/`, unless they are there.
/// returns  DIR of the protocol's command line.
Result<std::string> WriteWorkerSources(const std::string& root);

}  // namespace umbel::supernode
