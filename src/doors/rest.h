// What the REST doors have in common: a server, the words of a request, threads for what blocks.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "http/exchange.h"

namespace umbel::doors {

/// Path and query, percent-decoded.
class Request {
 public:
  /// Slashes that are doubled, or at the end, say nothing.
  Request(std::string_view path, std::string_view query);

  const std::vector<std::string>& parts() const { return parts_; }
  /// "" beyond the path's end.
  const std::string& part(size_t i) const;
  std::optional<std::string> Text(std::string_view key) const;
  /// errors  kInvalidArgument: "wait: 'x' is not in 0 to 60".
  Result<uint64_t> Number(std::string_view key, uint64_t otherwise, uint64_t max) const;

 private:
  std::vector<std::string> parts_;
  std::vector<std::pair<std::string, std::string>> values_;
};

/// JSON for the peer. Not an aggregate: see http::Response.
struct Answer {
  explicit Answer(std::string b, int s = 200) : body(std::move(b)), status(s) {}

  std::string body;
  int status = 200;
  std::string content_type = "application/json";
  std::string extra_headers;  // complete lines
};

class Rest {
 public:
  struct Options {
    std::string host;
    uint16_t port = 0;  // 0: the system picks one
  };
  using Handle = std::function<http::Task<Result<Answer>>(http::Exchange&, const Request&)>;
  /// One row of a door's table. HEAD is answered as GET is.
  struct Route {
    std::string_view method;
    std::string_view path;  // "/api/v1/projects/{project}": what is in braces may be anything
    Handle handle;
  };
  /// The same answer for everybody.
  static Handle Always(Answer answer);
  /// An error in the door's own form.
  using Refuse = std::function<Answer(const Error&)>;

  /// Handles and `refuse` run on the server's thread. What is in no row is refused with 404, or
  /// with 405 and an Allow header where only the method is another.
  /// errors  kUnavailable: the address is in use.
  static Result<std::unique_ptr<Rest>> Start(const Options& options, std::vector<Route> routes,
                                             Refuse refuse);
  virtual ~Rest() = default;

  virtual uint16_t port() const = 0;
  /// Answers what is held, then closes. Idempotent.
  virtual void Stop() = 0;

  /// What `work` returns, a Result, from a thread on which it may block.
  template <typename F>
  http::Task<std::invoke_result_t<F>> OnPool(http::Exchange& exchange, F work) {
    struct Job {
      std::optional<std::invoke_result_t<F>> result;
      std::atomic<bool> done{false};
    };
    const auto job = std::make_shared<Job>();
    Post([job, work = std::move(work), waker = exchange.waker()]() mutable {
      job->result.emplace(work());
      job->done.store(true, std::memory_order_release);
      waker->Wake();
    });
    while (!job->done.load(std::memory_order_acquire)) {
      const auto until = std::chrono::steady_clock::now() + std::chrono::hours(1);
      const auto end = co_await exchange.Hold(until, false);
      if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
      if (end == http::HoldEnd::kStopping && !job->done.load(std::memory_order_acquire))
        co_return Fail(Code::kUnavailable, "umbel is stopping");
    }
    co_return std::move(*job->result);
  }

 private:
  virtual void Post(std::function<void()> work) = 0;
};

/// What follows "Authorization: Bearer "; "" without it.
std::string_view BearerOf(const http::Exchange& exchange);

}  // namespace umbel::doors
