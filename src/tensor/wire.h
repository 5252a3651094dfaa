// A cursor over protobuf's wire format for the few messages read by hand. Belongs to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::tensor {

enum class WireType : uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kGroupStart = 3,
  kGroupEnd = 4,
  kFixed32 = 5,
};

struct WireTag {
  uint32_t field = 0;
  WireType type = WireType::kVarint;
};

class WireCursor {
 public:
  explicit WireCursor(std::string_view wire) : wire_(wire) {}

  size_t at() const { return at_; }

  /// The readers stop at `end`, which is at most the size of the whole. errors  kInvalidArgument.
  Result<WireTag> ReadTag(size_t end);
  /// A varint of 64 bits.
  Result<uint64_t> ReadNumber(size_t end);
  /// A length that fits before `end`.
  Result<size_t> ReadLength(size_t end);
  std::string_view Take(size_t size);
  /// Skips the value after `tag`, a group with all it holds (16 groups deep at most).
  Status Skip(WireTag tag, size_t end);

 private:
  Result<uint64_t> ReadVarint(size_t end, size_t bytes_max);
  Status SkipPlain(WireTag tag, size_t end);

  std::string_view wire_;
  size_t at_ = 0;
};

void AppendVarint(uint64_t value, std::string& out);
/// A length-delimited field.
void AppendBytesField(uint32_t field, std::string_view value, std::string& out);

}  // namespace umbel::tensor
