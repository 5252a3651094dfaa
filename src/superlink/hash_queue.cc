#include "superlink/hash_queue.h"

#include <algorithm>
#include <boost/asio/async_result.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/cpu.h"

namespace umbel::superlink {
namespace asio = boost::asio;
namespace {

/// A batch of eight pieces takes longer to hash, and the kernel takes in what is sent meanwhile.
constexpr std::chrono::microseconds kPatience{500};
constexpr size_t kHastyMax = 64;

/// How many pieces go well together; more gain nothing.
size_t Lanes() {
  const CpuFeatures& cpu = CpuPath();
  if (cpu.sha_ni) return 2;
  if (cpu.avx512) return 16;
  return cpu.avx2 ? 8 : 1;
}

/// How many of `waiting` pieces one thread takes. With SHA instructions two fill the unit, so
/// threads share them out in pairs. Vector lanes want all there are: others go on reading
/// meanwhile.
size_t Share(size_t waiting, size_t threads) {
  if (!CpuPath().sha_ni) return std::min(waiting, std::max<size_t>(Lanes(), 1));
  return std::min(waiting, ((waiting + threads - 1) / threads + 1) / 2 * 2);
}

}  // namespace

struct HashQueue::Timer {
  asio::steady_timer timer;
  size_t waited_with;  // pieces that waited when it began
};

HashQueue::HashQueue(size_t threads) : threads_(threads) {}
HashQueue::~HashQueue() = default;

HashQueue::Transfer::Transfer(HashQueue& queue) : queue_(queue) {
  const std::lock_guard lock(queue_.mutex_);
  ++queue_.transfers_;
}

HashQueue::Transfer::~Transfer() {
  const std::lock_guard lock(queue_.mutex_);
  --queue_.transfers_;
}

http::Task<void> HashQueue::Transfer::Add(tensor::HashStream& stream, std::string_view bytes) {
  const auto executor = co_await asio::this_coro::executor;
  auto& context = static_cast<asio::io_context&>(asio::query(executor, asio::execution::context));
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
      [&](auto handler) {
        const auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        queue_.Put({{&stream, bytes, nullptr}, [shared] { asio::post(std::move(*shared)); }},
                   context);
      },
      asio::use_awaitable);
}

size_t HashQueue::Wanted() const { return std::min(transfers_, Lanes()); }

void HashQueue::Put(Waiting waiting, asio::io_context& context) {
  bool patient = false;
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(waiting));
    if (timer_ && waiting_.size() >= Wanted()) timer_->timer.cancel();
    if (std::exchange(coming_, true)) return;
    patient = hasty_ == 0;
    if (!patient) --hasty_;
  }
  // Behind whatever can be read already.
  asio::post(context, [this, &context, patient] { Run(context, patient); });
}

void HashQueue::Drop() {
  std::vector<Waiting> dropped;
  std::unique_ptr<Timer> timer;
  const std::lock_guard lock(mutex_);
  dropped.swap(waiting_);
  timer.swap(timer_);
}

void HashQueue::Run(asio::io_context& context, bool patient) {
  std::vector<Waiting> mine;
  bool more = false;
  {
    const std::lock_guard lock(mutex_);
    if (patient && waiting_.size() < Wanted()) {
      timer_ =
          std::make_unique<Timer>(Timer{asio::steady_timer(context, kPatience), waiting_.size()});
      timer_->timer.async_wait([this, &context](const auto&) { Run(context, false); });
      return;
    }
    if (const auto timer = std::move(timer_)) {
      // Where others are slow, waiting for them is in vain, and is tried ever less.
      const bool in_vain = waiting_.size() <= timer->waited_with;
      hasty_next_ = in_vain ? std::min(2 * hasty_next_, kHastyMax) : 1;
      hasty_ = in_vain ? hasty_next_ : 0;
    }
    const auto end =
        waiting_.begin() + static_cast<std::ptrdiff_t>(Share(waiting_.size(), threads_));
    mine.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    more = coming_ = !waiting_.empty();
  }
  if (more) asio::post(context, [this, &context] { Run(context, false); });
  std::vector<tensor::HashPiece> pieces;
  pieces.reserve(mine.size());
  for (const Waiting& one : mine) pieces.push_back(one.piece);
  tensor::HashPieces(pieces);
  for (const Waiting& one : mine) one.resume();
}

}  // namespace umbel::superlink
