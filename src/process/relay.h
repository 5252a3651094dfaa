// Doors out of a network namespace: ports of its loopback behind which are the same ports of ours.
// For `umbel confine`: one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace umbel::process {

/// Listens on these ports of loopback, in this process's namespace.
Result<std::vector<Fd>> OpenDoors(const std::vector<uint16_t>& ports);
/// Hands the listeners to the process at the other end of a Unix socket.
Status SendDoors(int socket, const std::vector<Fd>& doors);
/// Takes the listeners from the other end, as many as there are ports, and carries what comes
/// through each to the port of loopback in this process's namespace, and back: for each connection
/// in a child of its own. Never returns; ends when the other end is gone before it has sent all.
[[noreturn]] void ServeDoors(int socket, const std::vector<uint16_t>& ports);

}  // namespace umbel::process
