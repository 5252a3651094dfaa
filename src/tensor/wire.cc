#include "tensor/wire.h"

#include <array>

namespace umbel::tensor {
namespace {

constexpr size_t kGroupDepthMax = 16;
// Bytes of a varint. libprotobuf reads tags and lengths of at most five.
constexpr size_t kShort = 5;
constexpr size_t kLong = 10;

tl::unexpected<Error> Broken(size_t at, std::string_view what) {
  return Fail(Code::kInvalidArgument, fmt::format("protobuf byte {}: {}", at, what));
}

}  // namespace

Result<uint64_t> WireCursor::ReadVarint(size_t end, size_t bytes_max) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes_max; ++i) {
    if (at_ >= end) return Broken(at_, "a number is cut off");
    const auto byte = static_cast<uint8_t>(wire_[at_++]);
    if (i == 9 && byte > 1) return Broken(at_, "a number is above 64 bits");
    value |= uint64_t{byte & 0x7fU} << (7 * i);
    if (byte < 0x80) return value;
  }
  return Broken(at_, fmt::format("a number is longer than {} bytes", bytes_max));
}

Result<WireTag> WireCursor::ReadTag(size_t end) {
  const size_t start = at_;
  UMBEL_ASSIGN(const uint64_t raw, ReadVarint(end, kShort));
  const uint64_t field = raw >> 3;
  const auto type = static_cast<uint8_t>(raw & 7);
  if (field == 0 || field > 0x1fffffff) return Broken(start, "a field number is out of range");
  if (type > 5) return Broken(start, "a wire type is unknown");
  return WireTag{static_cast<uint32_t>(field), static_cast<WireType>(type)};
}

Result<uint64_t> WireCursor::ReadNumber(size_t end) { return ReadVarint(end, kLong); }

Result<size_t> WireCursor::ReadLength(size_t end) {
  const size_t start = at_;
  UMBEL_ASSIGN(const uint64_t length, ReadVarint(end, kShort));
  if (length > end - at_)
    return Broken(start, fmt::format("length {} is above the {} bytes left", length, end - at_));
  return static_cast<size_t>(length);
}

std::string_view WireCursor::Take(size_t size) {
  const std::string_view taken = wire_.substr(at_, size);
  at_ += taken.size();
  return taken;
}

Status WireCursor::SkipPlain(WireTag tag, size_t end) {
  size_t size = 0;
  switch (tag.type) {
    case WireType::kVarint: {
      UMBEL_TRY(ReadVarint(end, kLong));
      return {};
    }
    case WireType::kBytes: {
      UMBEL_ASSIGN(size, ReadLength(end));
      break;
    }
    case WireType::kFixed64:
      size = 8;
      break;
    case WireType::kFixed32:
      size = 4;
      break;
    case WireType::kGroupStart:
    case WireType::kGroupEnd:
      return Broken(at_, "a group ends that did not start");
  }
  if (size > end - at_) return Broken(at_, "a fixed number is cut off");
  at_ += size;
  return {};
}

Status WireCursor::Skip(WireTag tag, size_t end) {
  if (tag.type != WireType::kGroupStart) return SkipPlain(tag, end);
  std::array<uint32_t, kGroupDepthMax> open{tag.field};
  size_t depth = 1;
  while (depth > 0) {
    UMBEL_ASSIGN(const WireTag inner, ReadTag(end));
    if (inner.type == WireType::kGroupStart) {
      if (depth == kGroupDepthMax) return Broken(at_, "groups are nested too deep");
      open[depth++] = inner.field;
    } else if (inner.type == WireType::kGroupEnd) {
      if (open[--depth] != inner.field) return Broken(at_, "a group ends that did not start");
    } else {
      UMBEL_TRY(SkipPlain(inner, end));
    }
  }
  return {};
}

void AppendVarint(uint64_t value, std::string& out) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(0x80 | (value & 0x7f)));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void AppendBytesField(uint32_t field, std::string_view value, std::string& out) {
  AppendVarint(uint64_t{field} << 3 | uint64_t{static_cast<uint8_t>(WireType::kBytes)}, out);
  AppendVarint(value.size(), out);
  out.append(value);
}

}  // namespace umbel::tensor
