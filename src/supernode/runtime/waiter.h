// A coroutine as one of a WaitList. For .cc files: it brings in Asio.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <memory>
#include <utility>

#include "base/wake.h"
#include "http/exchange.h"

namespace umbel::supernode {

/// One coroutine's own. What woke it before it waits is not lost.
class Waiter final : public Wakeable, public std::enable_shared_from_this<Waiter> {
 public:
  explicit Waiter(boost::asio::any_io_executor executor) : timer_(std::move(executor)) {}

  void Wake() override {
    boost::asio::post(timer_.get_executor(), [self = shared_from_this()] {
      self->woken_ = true;
      self->timer_.cancel();
    });
  }

  /// Until Wake() or the deadline.
  http::Task<void> Wait(std::chrono::steady_clock::time_point deadline) {
    const auto self = shared_from_this();
    timer_.expires_at(deadline);
    if (!woken_) co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    woken_ = false;
  }

 private:
  boost::asio::steady_timer timer_;
  bool woken_ = false;
};

}  // namespace umbel::supernode
