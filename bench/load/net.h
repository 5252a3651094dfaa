// TCP to servers of this machine, blocking, with a deadline for each call. A Socket has one owner.
#pragma once

#include <netinet/in.h>

#include <chrono>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"

namespace umbel::bench {

struct Endpoint {
  sockaddr_in address{};
};

/// errors  kInvalidArgument: not an address in 127.0.0.0/8; load goes to this machine only.
Result<Endpoint> Loopback(const std::string& host, int port);

class Socket {
 public:
  /// timeout  for each later call too.
  static Result<Socket> Dial(const Endpoint& endpoint,
                             std::chrono::seconds timeout = std::chrono::seconds(60));

  /// All of the parts, in as few system calls as they fit.
  Status Send(std::span<const std::string_view> parts);
  Status Send(std::string_view bytes) { return Send(std::span(&bytes, 1)); }
  /// returns  bytes read; 0 when the peer has closed its side.
  Result<size_t> Receive(std::span<char> buffer);
  int fd() const { return fd_.get(); }
  Fd Take() && { return std::move(fd_); }

 private:
  explicit Socket(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

/// A listening socket on a free loopback port, and that port.
struct Listener {
  Fd fd;
  Endpoint endpoint;
};
Result<Listener> Listen();

/// Lets this process hold `count` descriptors, as far as the system allows.
Status RaiseDescriptors(size_t count);

}  // namespace umbel::bench
