#include "process/relay.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace umbel::process {
namespace {

constexpr size_t kDoorsMax = 16;

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

const sockaddr* Generic(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

/// What came from one end and has not gone to the other.
struct Way {
  int from;
  int to;
  char bytes[65536];
  size_t begin = 0;
  size_t end = 0;
  bool open = true;

  /// false: the connection is of no more use.
  bool Move(short from_events, short to_events) {
    if (begin == end && open && from_events != 0) {
      const ssize_t n = ::recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      begin = 0;
      end = static_cast<size_t>(n);
      if (n == 0) {
        open = false;
        ::shutdown(to, SHUT_WR);
      }
    }
    if (begin != end && to_events != 0) {
      const ssize_t n = ::send(to, bytes + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      begin += static_cast<size_t>(n);
    }
    return true;
  }
  short reads() const { return begin == end && open ? POLLIN : 0; }
  short writes() const { return begin != end ? POLLOUT : 0; }
};

[[noreturn]] void Carry(int inner, uint16_t port) {
  const Fd outer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  if (!outer.valid() || ::connect(outer.get(), Generic(address), sizeof address) != 0) ::_exit(1);
  Way out{inner, outer.get(), {}};
  Way in{outer.get(), inner, {}};
  while (out.open || in.open || out.writes() != 0 || in.writes() != 0) {
    pollfd entries[] = {{inner, static_cast<short>(out.reads() | in.writes()), 0},
                        {outer.get(), static_cast<short>(in.reads() | out.writes()), 0}};
    // Neither is asked for anything more: an end that is only told of again and again.
    if (entries[0].events == 0) entries[0].fd = -1;
    if (entries[1].events == 0) entries[1].fd = -1;
    if (::poll(entries, 2, -1) < 0 && errno != EINTR) break;
    if (!out.Move(entries[0].revents, entries[1].revents) ||
        !in.Move(entries[1].revents, entries[0].revents))
      break;
  }
  ::_exit(0);
}

/// Waits for `count` listeners. Fewer when the other end is gone.
std::vector<Fd> ReceiveDoors(int socket, size_t count) {
  std::vector<Fd> doors;
  while (doors.size() < count) {
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    const cmsghdr* const header = n == 1 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS) break;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    doors.emplace_back(fd);
  }
  return doors;
}

}  // namespace

Result<std::vector<Fd>> OpenDoors(const std::vector<uint16_t>& ports) {
  if (ports.size() > kDoorsMax)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} ports; at most {}", ports.size(), kDoorsMax));
  std::vector<Fd> doors;
  for (const uint16_t port : ports) {
    Fd door(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_in address = Loopback(port);
    if (!door.valid() || ::bind(door.get(), Generic(address), sizeof address) != 0 ||
        ::listen(door.get(), 16) != 0)
      return Fail(Code::kFailedPrecondition,
                  fmt::format("cannot open port {}: {}", port, std::strerror(errno)));
    doors.push_back(std::move(door));
  }
  return doors;
}

Status SendDoors(int socket, const std::vector<Fd>& doors) {
  for (const Fd& door : doors) {
    char byte = 'd';
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = door.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
      return Fail(Code::kFailedPrecondition,
                  fmt::format("cannot pass a port on: {}", std::strerror(errno)));
  }
  return {};
}

void ServeDoors(int socket, const std::vector<uint16_t>& ports) {
  const std::vector<Fd> doors = ReceiveDoors(socket, ports.size());
  if (doors.size() != ports.size()) ::_exit(1);
  ::signal(SIGCHLD, SIG_IGN);  // nobody asks how a connection ended
  const pid_t parent = ::getpid();
  std::vector<pollfd> entries;
  for (const Fd& door : doors) entries.push_back({door.get(), POLLIN, 0});
  for (;;) {
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    for (size_t i = 0; i < doors.size(); ++i) {
      if (entries[i].revents == 0) continue;
      const Fd inner(::accept4(doors[i].get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!inner.valid() || ::fork() != 0) continue;
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);
      Carry(inner.get(), ports[i]);
    }
  }
}

}  // namespace umbel::process
