#include "superlink/hash_queue.h"

#include <algorithm>
#include <boost/asio/async_result.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iterator>
#include <memory>
#include <utility>

#include "base/cpu.h"

namespace umbel::superlink {
namespace asio = boost::asio;
namespace {

constexpr size_t kLanes = 16;  // more gain nothing

/// How many of `waiting` pieces one thread takes. With SHA instructions two fill the unit, so
/// threads share them out in pairs. Vector lanes want all there are: others go on reading
/// meanwhile.
size_t Share(size_t waiting, size_t threads) {
  if (!CpuPath().sha_ni) return std::min(waiting, kLanes);
  return std::min(waiting, ((waiting + threads - 1) / threads + 1) / 2 * 2);
}

}  // namespace

http::Task<void> HashQueue::Add(tensor::HashStream& stream, std::string_view bytes) {
  const auto executor = co_await asio::this_coro::executor;
  auto& context = static_cast<asio::io_context&>(asio::query(executor, asio::execution::context));
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [&](auto handler) {
        const auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        Put({{&stream, bytes, nullptr}, [shared] { asio::post(std::move(*shared)); }}, context);
      },
      asio::use_awaitable);
}

void HashQueue::Put(Waiting waiting, asio::io_context& context) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(waiting));
    if (std::exchange(coming_, true)) return;
  }
  // Behind whatever can be read already.
  asio::post(context, [this, &context] { Run(context); });
}

void HashQueue::Drop() {
  std::vector<Waiting> dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(waiting_);
}

void HashQueue::Run(asio::io_context& context) {
  std::vector<Waiting> mine;
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    const auto end =
        waiting_.begin() + static_cast<std::ptrdiff_t>(Share(waiting_.size(), threads_));
    mine.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    more = coming_ = !waiting_.empty();
  }
  if (more) asio::post(context, [this, &context] { Run(context); });
  std::vector<tensor::HashPiece> pieces;
  pieces.reserve(mine.size());
  for (const Waiting& one : mine) pieces.push_back(one.piece);
  tensor::HashPieces(pieces);
  for (const Waiting& one : mine) one.resume();
}

}  // namespace umbel::superlink
