#include "manager/ports.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/file.h"

namespace umbel::manager {
namespace {

bool IsFree(uint16_t port, uint32_t address) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return false;
  // As servers bind: what a closed connection left behind is in nobody's way.
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(address);
  return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0 &&
         ::listen(socket.get(), 1) == 0;
}

}  // namespace

Result<uint16_t> ChoosePort(uint16_t first, const std::set<uint16_t>& taken) {
  for (uint32_t port = first; port < first + 1000u && port <= 65535; ++port) {
    const auto candidate = static_cast<uint16_t>(port);
    if (!taken.contains(candidate) && IsFree(candidate, INADDR_LOOPBACK)) return candidate;
  }
  return Fail(Code::kResourceExhausted,
              fmt::format("no port is free from {} upward; end what listens there", first));
}

}  // namespace umbel::manager
