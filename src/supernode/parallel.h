// Several coroutines at once on one io_context thread. For .cc files: it brings in Asio.
#pragma once

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <cstddef>
#include <deque>
#include <memory>

#include "http/tasks.h"

namespace umbel::supernode {

using http::Bell;
using http::Task;

/// Calls `Task<Status> work(size_t i)` for i in [0, count), at most `width` at a time, in order of
/// i. The first error lets no further one begin, and is returned once all that began have ended.
template <typename F>
Task<Status> ForEach(size_t count, size_t width, F work) {
  const auto executor = co_await boost::asio::this_coro::executor;
  Bell ended(executor);
  size_t next = 0, live = 0;
  Status first;
  const auto worker = [&]() -> Task<void> {
    while (first.ok() && next < count) {
      Status done = co_await work(next++);
      if (!done.ok() && first.ok()) first = std::move(done);
    }
    --live;
    ended.Ring();
  };
  for (size_t i = 0; i < std::min(width, count); ++i) {
    ++live;
    boost::asio::co_spawn(executor, worker(), boost::asio::detached);
  }
  while (live > 0) co_await ended.Wait();
  co_return first;
}

}  // namespace umbel::supernode
