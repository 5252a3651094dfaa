// Memory for the limbs of a large sum's blocks: a page for each, side by side, that is there once
// it is touched. One allocation for each would be a system call for each, on threads but the first.
// Different pages may be used by different threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace umbel::aggregation {

class LimbSlots {
 public:
  static constexpr size_t kSlotBytes = 4096;

  /// None.
  LimbSlots() = default;
  /// None either where the system has no addresses to give.
  explicit LimbSlots(size_t count);
  ~LimbSlots();
  LimbSlots(LimbSlots&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  LimbSlots& operator=(LimbSlots&& other) noexcept {
    std::swap(begin_, other.begin_);
    std::swap(count_, other.count_);
    return *this;
  }

  /// The slot, aligned to its size; nullptr: there are none.
  uint64_t* At(size_t index) const {
    return begin_ == nullptr ? nullptr : reinterpret_cast<uint64_t*>(begin_ + index * kSlotBytes);
  }
  /// What is in it is gone, and its memory the system's again.
  void GiveBack(size_t index) const;

 private:
  std::byte* begin_ = nullptr;
  size_t count_ = 0;
};

}  // namespace umbel::aggregation
