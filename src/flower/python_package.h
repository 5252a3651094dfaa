// Python that travels inside the binary. Functions; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::flower {

struct SourceFile {
  std::string_view name;  // "main.py"
  std::string_view text;
};

/// Writes the files to `<root>/<hash of them>/<package>/`, unless they are there; other users may
/// read them.
///
/// package  "_umbel_worker", or a path like "umbel/serverapp".
/// returns  the folder above the package, for Python's path.
/// errors   kUnavailable, kResourceExhausted: they cannot be written.
Result<std::string> WritePackage(std::span<const SourceFile> files, const std::string& root,
                                 const std::string& package);

}  // namespace umbel::flower
