// Objects that arrive at the same time are hashed side by side: a piece waits until the other
// connections that are readable have been read, and goes with theirs through the lanes of
// tensor/hash_lanes.h. Any thread of the server.
#pragma once

#include <cstddef>
#include <functional>
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
  explicit HashQueue(size_t threads) : threads_(threads) {}

  /// Takes the next bytes of an object. Both are borrowed until it returns.
  http::Task<void> Add(tensor::HashStream& stream, std::string_view bytes);
  /// Ends those that wait, when the server's threads have ended and before its io_context goes.
  void Drop();

 private:
  struct Waiting {
    tensor::HashPiece piece;
    std::function<void()> resume;  // from any thread
  };

  void Put(Waiting waiting, boost::asio::io_context& context);
  void Run(boost::asio::io_context& context);

  const size_t threads_;
  std::mutex mutex_;
  std::vector<Waiting> waiting_;
  bool coming_ = false;  // a call of Run, which will look at all that waits
};

}  // namespace umbel::superlink
