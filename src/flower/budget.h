// What reading a stranger's records may cost. Belongs to one thread.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace umbel::flower {

class Budget {
 public:
  explicit Budget(uint64_t bytes) : left_(bytes), all_(bytes) {}

  uint64_t left() const { return left_; }
  /// errors  kResourceExhausted: more than what is left.
  Status Take(uint64_t bytes) {
    if (bytes > left_)
      return Fail(Code::kResourceExhausted, fmt::format("records take more than {} bytes", all_));
    left_ -= bytes;
    return {};
  }

 private:
  uint64_t left_;
  uint64_t all_;
};

/// Of one message or state: bodies as they are read and values as they are held, a thing that is
/// named twice counting twice. Arrays are not read.
inline constexpr uint64_t kRecordsMax = uint64_t{64} << 20;

}  // namespace umbel::flower
