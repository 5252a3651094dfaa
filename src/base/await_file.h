// Waits for a file that somebody else makes. Any thread; blocks.
#pragma once

#include <string>

#include "base/result.h"

namespace umbel {

/// Returns when there is something of that name: a file, a folder, a socket.
/// stop     a descriptor that ends the wait when it is readable; -1: none.
/// returns  false: it was `stop`.
/// errors   a folder on the way cannot be watched.
Result<bool> AwaitFile(const std::string& path, int stop);

}  // namespace umbel
