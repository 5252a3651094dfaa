// Small things that coroutines on an io_context need. For .cc files: it brings in Asio.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "http/exchange.h"

namespace umbel::http {

inline Task<void> Sleep(std::chrono::steady_clock::duration time) {
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
  co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
}

/// Something to wait for: whoever waits goes on when it is rung. One thread.
class Bell {
 public:
  explicit Bell(const boost::asio::any_io_executor& executor)
      : timer_(executor, std::chrono::steady_clock::time_point::max()) {}

  void Ring() { timer_.cancel(); }
  /// Looks at nothing itself: wait in a loop around the condition.
  Task<void> Wait() {
    co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }

 private:
  boost::asio::steady_timer timer_;
};

/// Runs blocking work on a pool; the coroutine goes on where it was. The pool is to be joined
/// before the io_context goes.
template <typename F>
Task<std::invoke_result_t<F>> RunOn(boost::asio::thread_pool& pool, F work) {
  using R = std::invoke_result_t<F>;
  const auto home = co_await boost::asio::this_coro::executor;
  std::optional<R> result;
  bool done = false;  // set here, where it is read
  Bell bell(home);
  boost::asio::post(pool, [&, home] {
    result.emplace(work());
    boost::asio::post(home, [&] {
      done = true;
      bell.Ring();
    });
  });
  while (!done) co_await bell.Wait();
  co_return std::move(*result);
}

}  // namespace umbel::http
