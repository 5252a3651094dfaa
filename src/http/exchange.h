// One HTTP request and its reply, as a handler sees them. Belongs to the coroutine it was given to;
// only waker() may be shared with other threads.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/wake.h"

namespace umbel::http {

template <typename T>
using Task = boost::asio::awaitable<T>;

/// Not an aggregate: GCC 12 destroys a braced temporary twice when it is a coroutine's argument.
struct Response {
  Response() = default;
  Response(int s, std::string type, std::string text, std::string headers = {})
      : status(s),
        content_type(std::move(type)),
        body(std::move(text)),
        extra_headers(std::move(headers)) {}

  int status = 200;
  std::string content_type;  // "" sends none
  std::string body;
  std::string extra_headers;  // complete "Name: value\r\n" lines
};

/// How a hold ended.
enum class HoldEnd { kWoken, kDeadline, kGone, kStopping };

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual std::string_view method() const = 0;
  /// Path without the query; not percent-decoded: our routes need none.
  virtual std::string_view path() const = 0;
  /// What follows the path's '?', not percent-decoded; "" when there is none.
  virtual std::string_view query() const = 0;
  /// First value of the header, "" when absent. Names match without regard to case.
  virtual std::string_view Header(std::string_view name) const = 0;
  virtual size_t HeaderCount(std::string_view name) const = 0;
  /// The peer's numeric address, without port.
  virtual const std::string& peer_address() const = 0;

  /// errors  kResourceExhausted: longer than `limit`, or no memory left to hold it (wire_code 503);
  ///         kDeadlineExceeded: the peer sends too slowly; kInvalidArgument: broken framing;
  ///         kCancelled: the peer is gone.
  virtual Task<Result<std::string>> ReadBody(size_t limit) = 0;
  /// The next bytes of the body, 0 at its end. Errors as ReadBody's.
  virtual Task<Result<size_t>> ReadSome(std::span<char> buffer) = 0;
  /// nullopt when the request is chunked.
  virtual std::optional<uint64_t> content_length() const = 0;
  /// Takes `bytes` from the server's budget for bodies until the exchange ends, waiting if need be.
  /// errors  kResourceExhausted with wire_code 503 when none came free in time.
  virtual Task<Status> Reserve(size_t bytes) = 0;

  /// Waits until waker() is woken, `deadline` has passed or the peer is gone. With `interim`, a
  /// `102 Processing` line goes out every 15 s or so, which keeps an httpx client from timing out.
  virtual Task<HoldEnd> Hold(std::chrono::steady_clock::time_point deadline, bool interim) = 0;
  /// May outlive the connection, which it then wakes in vain, but not the server.
  virtual std::shared_ptr<Wakeable> waker() = 0;

  virtual Task<Status> Reply(Response response) = 0;
  /// A body of `prefix` and then `size` bytes of `fd` from `offset`, without a copy where possible.
  virtual Task<Status> ReplyFile(std::string content_type, std::string prefix, int fd,
                                 uint64_t offset, uint64_t size) = 0;
  /// A chunked reply of unknown length.
  virtual Task<Status> BeginStream(std::string content_type) = 0;
  virtual Task<Status> WriteStream(std::string_view bytes) = 0;
  virtual Task<Status> EndStream() = 0;

  /// Status of the reply so far; 0 before any.
  virtual int replied() const = 0;
};

}  // namespace umbel::http
