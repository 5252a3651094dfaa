// Bytes that the sums of a round may grow to. Safe from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace umbel::aggregation {

/// Shared by all sums of a round; outlives them. What a sum takes it gives back when it shrinks or
/// goes away.
class Budget {
 public:
  explicit Budget(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  /// False, and nothing taken, where it would go above the limit.
  bool Take(uint64_t bytes) {
    uint64_t used = used_.load(std::memory_order_relaxed);
    do {
      if (bytes > bytes_max_ - used) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    return true;
  }
  void Give(uint64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  uint64_t bytes_max() const { return bytes_max_; }

 private:
  const uint64_t bytes_max_;
  std::atomic<uint64_t> used_ = 0;
};

/// Bytes taken for something that may not come to pass; given back with it.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Budget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}
  ~Reservation() {
    if (budget_ != nullptr) budget_->Give(bytes_);
  }
  Reservation(Reservation&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
  Reservation& operator=(Reservation&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  /// They are used now, and whoever uses them gives them back.
  void Keep() { budget_ = nullptr; }

 private:
  Budget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace umbel::aggregation
