#include "net.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace umbel::bench {
namespace {

const sockaddr* Generic(const sockaddr_in& address) {
  return static_cast<const sockaddr*>(static_cast<const void*>(&address));
}
sockaddr* Generic(sockaddr_in& address) {
  return static_cast<sockaddr*>(static_cast<void*>(&address));
}

}  // namespace

Result<Endpoint> Loopback(const std::string& host, int port) {
  Endpoint endpoint;
  endpoint.address.sin_family = AF_INET;
  endpoint.address.sin_port = htons(static_cast<uint16_t>(port));
  if (::inet_pton(AF_INET, host.c_str(), &endpoint.address.sin_addr) != 1 ||
      (ntohl(endpoint.address.sin_addr.s_addr) >> 24) != 127)
    return Fail(Code::kInvalidArgument, fmt::format("host '{}' not in 127.0.0.0/8", host));
  return endpoint;
}

Result<Socket> Socket::Dial(const Endpoint& endpoint, std::chrono::seconds timeout) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Fail(SystemError("open", "socket"));
  timeval limit{};
  limit.tv_sec = timeout.count();
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (::connect(fd.get(), Generic(endpoint.address), sizeof endpoint.address) != 0)
    return Fail(SystemError("connect", "socket"));
  return Socket(std::move(fd));
}

Status Socket::Send(std::span<const std::string_view> parts) {
  std::array<iovec, 8> vectors{};
  UMBEL_CHECK(parts.size() <= vectors.size());
  size_t count = 0;
  for (const std::string_view part : parts)
    if (!part.empty()) vectors[count++] = {const_cast<char*>(part.data()), part.size()};
  size_t first = 0;
  while (first < count) {
    msghdr message{};
    message.msg_iov = &vectors[first];
    message.msg_iovlen = count - first;
    const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("send", "socket"));
    for (auto left = static_cast<size_t>(n); left > 0;) {
      iovec& vector = vectors[first];
      const size_t taken = std::min(left, vector.iov_len);
      vector.iov_base = static_cast<char*>(vector.iov_base) + taken;
      vector.iov_len -= taken;
      left -= taken;
      if (vector.iov_len == 0) ++first;
    }
  }
  return {};
}

Result<size_t> Socket::Receive(std::span<char> buffer) {
  for (;;) {
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return Fail(SystemError("receive", "socket"));
  }
}

Result<Listener> Listen() {
  Listener listener;
  listener.fd = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UMBEL_ASSIGN(listener.endpoint, Loopback("127.0.0.1", 0));
  sockaddr_in& address = listener.endpoint.address;
  socklen_t size = sizeof address;
  if (!listener.fd.valid() || ::bind(listener.fd.get(), Generic(address), size) != 0 ||
      ::listen(listener.fd.get(), 128) != 0 ||
      ::getsockname(listener.fd.get(), Generic(address), &size) != 0)
    return Fail(SystemError("listen", "socket"));
  return listener;
}

Status RaiseDescriptors(size_t count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return Fail(SystemError("read", "RLIMIT_NOFILE"));
  if (limit.rlim_cur >= count) return {};
  limit.rlim_cur = count;
  limit.rlim_max = std::max<rlim_t>(limit.rlim_max, count);  // above the old one: root only
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return Fail(SystemError("raise", "RLIMIT_NOFILE"));
  return {};
}

}  // namespace umbel::bench
