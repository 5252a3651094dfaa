// Objects that arrive at the same time are hashed side by side: a piece waits, for a moment, until
// as many others do as tensor/hash_lanes.h can make use of, and goes with theirs. Any thread of the
// server.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "http/exchange.h"
#include "tensor/hash_lanes.h"

namespace boost::asio {
class io_context;
}

namespace umbel::superlink {

class HashQueue {
 public:
  /// threads  that may hash at once: what waits is dealt out among them.
  explicit HashQueue(size_t threads);
  ~HashQueue();

  /// An object under way: others wait for pieces of it. The queue outlives it.
  class Transfer {
   public:
    explicit Transfer(HashQueue& queue);
    ~Transfer();
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    /// Takes the next bytes of the object. Both are borrowed until it returns.
    http::Task<void> Add(tensor::HashStream& stream, std::string_view bytes);

   private:
    HashQueue& queue_;
  };

  /// Ends those that wait, when the server's threads have ended and before its io_context goes.
  void Drop();

 private:
  struct Waiting {
    tensor::HashPiece piece;
    std::function<void()> resume;  // from any thread
  };
  struct Timer;

  void Put(Waiting waiting, boost::asio::io_context& context);
  void Run(boost::asio::io_context& context, bool patient);
  size_t Wanted() const;

  const size_t threads_;
  std::mutex mutex_;
  size_t transfers_ = 0;
  std::vector<Waiting> waiting_;
  bool coming_ = false;           // a call of Run, which will look at all that waits
  std::unique_ptr<Timer> timer_;  // until that call, if it is being waited for; else null
  size_t hasty_ = 0;              // so many batches are not waited for
  size_t hasty_next_ = 1;
};

}  // namespace umbel::superlink
