#include "tensor/frame.h"

namespace umbel::tensor {
namespace {

constexpr size_t kPrefix = 4;
// Below this, taken bytes stay in front: a stream of small frames is not moved for each of them.
constexpr size_t kCompactAt = size_t{64} << 10;

}  // namespace

std::string EncodeFrame(std::string_view message) {
  UMBEL_CHECK(message.size() <= kFrameMax);
  std::string frame;
  frame.reserve(kPrefix + message.size());
  for (size_t shift = 32; shift > 0; shift -= 8)
    frame.push_back(static_cast<char>(message.size() >> (shift - 8) & 0xff));
  frame.append(message);
  return frame;
}

void FrameDecoder::Feed(std::string_view bytes) {
  if (taken_ == buffer_.size() || taken_ >= kCompactAt) {
    buffer_.erase(0, taken_);
    taken_ = 0;
  }
  buffer_.append(bytes);
}

Result<std::optional<std::string>> FrameDecoder::Next() {
  const std::string_view rest = std::string_view(buffer_).substr(taken_);
  if (rest.size() < kPrefix) return std::nullopt;
  size_t size = 0;
  for (size_t i = 0; i < kPrefix; ++i) size = size << 8 | static_cast<uint8_t>(rest[i]);
  if (size > message_max_)
    return Fail(Code::kResourceExhausted,
                fmt::format("frame: length {} is above {}", size, message_max_));
  if (rest.size() - kPrefix < size) return std::nullopt;
  taken_ += kPrefix + size;
  return std::string(rest.substr(kPrefix, size));
}

}  // namespace umbel::tensor
