// A number of bytes that requests share: who finds none left waits, so memory stays bounded.
// Safe from any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

#include "base/wake.h"

namespace umbel::http {

class Budget {
 public:
  explicit Budget(size_t bytes) : free_(bytes), total_(bytes) {}

  size_t total() const { return total_; }

  /// False when `bytes` are not free now; `waiter` is then woken when some come back.
  bool TryTake(size_t bytes, const std::shared_ptr<Wakeable>& waiter) {
    std::lock_guard lock(mutex_);
    if (bytes > free_) {
      waiting_.Add(waiter);
      return false;
    }
    free_ -= bytes;
    return true;
  }
  void Give(size_t bytes) {
    std::lock_guard lock(mutex_);
    free_ += bytes;
    waiting_.WakeAll();
  }

 private:
  std::mutex mutex_;
  size_t free_;
  const size_t total_;
  WaitList waiting_;
};

}  // namespace umbel::http
