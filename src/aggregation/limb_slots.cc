#include "aggregation/limb_slots.h"

#include <sys/mman.h>

namespace umbel::aggregation {

LimbSlots::LimbSlots(size_t count) {
  void* const made = ::mmap(nullptr, count * kSlotBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) return;
  begin_ = static_cast<std::byte*>(made);
  count_ = count;
}

LimbSlots::~LimbSlots() {
  if (begin_ != nullptr) ::munmap(begin_, count_ * kSlotBytes);
}

void LimbSlots::GiveBack(size_t index) const {
  ::madvise(begin_ + index * kSlotBytes, kSlotBytes, MADV_DONTNEED);
}

}  // namespace umbel::aggregation
