// The file system as a process in a view of its own sees it: a new root with the system's programs
// and libraries, a few devices, /proc, and what is named; all else of this machine is not there.
// For `umbel confine`, between its start and the user's program: one thread.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace umbel::process {

/// Paths are absolute. What a path resolves to is seen under its own name too, so that symbolic
/// links on the way may stay what they are.
struct View {
  std::vector<std::string> shown;     // files, folders, sockets, devices; read-only
  std::vector<std::string> writable;  // folders
  std::string temporary;              // the folder that is /tmp there; "": in memory, and empty

  bool operator==(const View&) const = default;
};

/// Makes it the root of this process, which must be the first of its process namespace (of that is
/// /proc) and may change its mount namespace.
/// returns  /proc once more, as it can be written.
/// errors   what is to be seen and is not there, or what the system refuses.
Result<Fd> EnterView(const View& view);

}  // namespace umbel::process
