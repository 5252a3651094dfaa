#include "http_client.h"

#include <strings.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace umbel::bench {
namespace {

constexpr size_t kBuffer = size_t{256} << 10;

/// The value of a header in a reply's head, "" when absent.
std::string_view HeaderOf(std::string_view head, std::string_view name) {
  size_t at = head.find("\r\n");
  while (at != std::string_view::npos && at + 2 < head.size()) {
    const size_t begin = at + 2;
    at = head.find("\r\n", begin);
    const std::string_view line = head.substr(begin, at - begin);
    const size_t colon = line.find(':');
    if (colon != name.size() || ::strncasecmp(line.data(), name.data(), name.size()) != 0) continue;
    const size_t value = line.find_first_not_of(' ', colon + 1);
    return value == std::string_view::npos ? std::string_view{} : line.substr(value);
  }
  return {};
}

}  // namespace

Result<std::optional<ReplyHead>> ParseReplyHead(std::string_view bytes) {
  ReplyHead out;
  for (;;) {
    const std::string_view rest = bytes.substr(out.size);
    const size_t end = rest.find("\r\n\r\n");
    if (end == std::string_view::npos) return std::optional<ReplyHead>();
    const std::string_view head = rest.substr(0, end + 2);
    if (!head.starts_with("HTTP/1.1 ") || head.size() < 14)
      return Fail(Code::kInvalidArgument, "the reply is not HTTP/1.1");
    std::from_chars(head.data() + 9, head.data() + 12, out.status);
    out.size += end + 4;
    if (out.status < 200) continue;
    if (!HeaderOf(head, "transfer-encoding").empty())
      return Fail(Code::kInvalidArgument, "the reply is chunked");
    const std::string_view length = HeaderOf(head, "content-length");
    std::from_chars(length.data(), length.data() + length.size(), out.content_length);
    out.close = HeaderOf(head, "connection") == "close";
    return std::optional(out);
  }
}

std::string RequestHead(std::string_view path, std::string_view headers, uint64_t content_length) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: {}\r\n"
      "content-type: application/protobuf\r\naccept: application/protobuf\r\n"
      "{}content-length: {}\r\n\r\n",
      path, kHttpxAgent, headers, content_length);
}

HttpClient::HttpClient(const Endpoint& endpoint) : endpoint_(endpoint), buffer_(kBuffer) {}

Result<HttpReply> HttpClient::Post(std::string_view path, std::string_view headers,
                                   std::span<const std::string_view> parts, const Sink& sink) {
  if (!socket_) {
    UMBEL_ASSIGN(socket_, Socket::Dial(endpoint_));
  }
  uint64_t length = 0;
  for (const std::string_view part : parts) length += part.size();
  const std::string head = RequestHead(path, headers, length);
  std::array<std::string_view, 8> all{head};
  UMBEL_CHECK(parts.size() < all.size());
  std::copy(parts.begin(), parts.end(), all.begin() + 1);
  auto reply = [&]() -> Result<HttpReply> {
    UMBEL_TRY(socket_->Send(std::span(all).first(parts.size() + 1)));
    sent_at_ = std::chrono::system_clock::now();
    return ReadReply(sink);
  }();
  if (!reply.ok()) socket_.reset();
  return reply;
}

Result<HttpReply> HttpClient::ReadReply(const Sink& sink) {
  size_t filled = 0;
  std::optional<ReplyHead> head;
  while (!head) {
    UMBEL_ASSIGN(const size_t got, socket_->Receive(std::span(buffer_).subspan(filled)));
    if (got == 0) return Fail(Code::kUnavailable, "the server closed before it replied");
    filled += got;
    UMBEL_ASSIGN(head, ParseReplyHead({buffer_.data(), filled}));
  }
  HttpReply reply;
  reply.status = head->status;
  uint64_t left = head->content_length;
  const bool streams = sink && head->status == 200;
  if (!streams) reply.body.reserve(left);
  std::span<const char> piece(buffer_.data() + head->size, filled - head->size);
  for (;;) {
    if (piece.size() > left) return Fail(Code::kInvalidArgument, "more bytes than were announced");
    if (streams) {
      sink(piece);
    } else {
      reply.body.append(piece.data(), piece.size());
    }
    left -= piece.size();
    if (left == 0) break;
    UMBEL_ASSIGN(const size_t got, socket_->Receive(buffer_));
    if (got == 0) return Fail(Code::kUnavailable, "the reply's body ended early");
    piece = std::span<const char>(buffer_).first(got);
  }
  if (head->close) socket_.reset();
  return reply;
}

}  // namespace umbel::bench
