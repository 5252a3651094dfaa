// Frames and descriptors over one Unix socket. Belongs to the io_context's one thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/result.h"
#include "http/exchange.h"

namespace boost::asio {
class any_io_executor;
}

namespace umbel::supernode {

using http::Task;

class FrameSocket {
 public:
  /// Both ends of a new pair, close-on-exec.
  static Result<std::pair<Fd, Fd>> Pair();

  FrameSocket(const boost::asio::any_io_executor& executor, Fd socket);
  ~FrameSocket();
  FrameSocket(const FrameSocket&) = delete;
  FrameSocket& operator=(const FrameSocket&) = delete;

  /// Sends a whole frame, the descriptors with its first byte. One Send at a time.
  /// errors  kUnavailable: the other end is gone.
  Task<Status> Send(std::string frame, std::span<const int> descriptors);
  /// The next frame's payload. One Receive at a time.
  /// errors  kUnavailable: the other end is gone; kResourceExhausted: longer than `max`.
  Task<Result<std::string>> Receive(size_t max);
  /// Ends a Receive under way.
  void Close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace umbel::supernode
