// An HTTP/1.1 client that posts to one server over one kept connection. Belongs to one thread.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net.h"

namespace umbel::bench {

/// The agent of Flower's own client: it takes 102 lines, so its polls are held for long.
inline constexpr std::string_view kHttpxAgent = "python-httpx/0.28.1";

struct ReplyHead {
  int status = 0;
  uint64_t content_length = 0;
  bool close = false;
  size_t size = 0;  // of the head itself
};
/// The head of the first final reply in `bytes`: interim ones (1xx) are counted into `size`.
/// returns  nullopt while it is not complete.
/// errors   kInvalidArgument: not HTTP/1.1, or chunked.
Result<std::optional<ReplyHead>> ParseReplyHead(std::string_view bytes);

struct HttpReply {
  int status = 0;
  std::string body;  // empty when a sink took it
};

class HttpClient {
 public:
  using Sink = std::function<void(std::span<const char>)>;

  explicit HttpClient(const Endpoint& endpoint);

  /// headers  complete "name: value\r\n" lines besides host, agent, types and length.
  /// parts    the body.
  /// sink     takes the body of a reply with status 200, in pieces.
  Result<HttpReply> Post(std::string_view path, std::string_view headers,
                         std::span<const std::string_view> parts, const Sink& sink = nullptr);
  /// When the last request's last byte was handed to the system.
  std::chrono::system_clock::time_point sent_at() const { return sent_at_; }

 private:
  Result<HttpReply> ReadReply(const Sink& sink);

  Endpoint endpoint_;
  std::optional<Socket> socket_;
  std::vector<char> buffer_;
  std::chrono::system_clock::time_point sent_at_;
};

/// What Post sends before the body.
std::string RequestHead(std::string_view path, std::string_view headers, uint64_t content_length);

}  // namespace umbel::bench
