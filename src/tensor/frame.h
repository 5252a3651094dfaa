// Frames of Flower's streams: a length as uint32, big-endian, then one message.
// A decoder belongs to one thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::tensor {

/// What a Flower client accepts at most.
inline constexpr size_t kFrameMax = 2'147'483'647;

/// message  at most kFrameMax bytes.
std::string EncodeFrame(std::string_view message);

/// Takes a stream in any pieces and gives its messages back. Memory: what was fed and not taken;
/// a declared length allocates nothing.
class FrameDecoder {
 public:
  explicit FrameDecoder(size_t message_max) : message_max_(message_max) {}

  void Feed(std::string_view bytes);
  /// The next complete message, or nullopt until more is fed.
  /// errors  kResourceExhausted: a length above the maximum; for good.
  Result<std::optional<std::string>> Next();
  /// True between frames: a stream may end here.
  bool AtBoundary() const { return taken_ == buffer_.size(); }

 private:
  size_t message_max_;
  std::string buffer_;
  size_t taken_ = 0;  // of the buffer's front
};

}  // namespace umbel::tensor
