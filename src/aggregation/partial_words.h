// A stream of 64-bit words with a checksum: what checkpoints of sums are written in. A sink or
// source belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

/// Takes the next bytes of a checkpoint; called with at most kPieceBytes + 8 at a time.
using ByteWriter = std::function<Status(std::span<const std::byte>)>;
/// Fills all of the span with the next bytes, or fails.
using ByteReader = std::function<Status(std::span<std::byte>)>;

inline constexpr size_t kPieceBytes = 64 * 1024;

/// Of words in order; finds any single changed word for sure. It is no secret and no signature.
class Checksum {
 public:
  void Add(uint64_t word) {
    state_ = (state_ ^ word) * 0x9e3779b97f4a7c15;
    state_ ^= state_ >> 32;
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0x243f6a8885a308d3;
};

/// Little-endian words, in pieces.
class WordSink {
 public:
  explicit WordSink(const ByteWriter& writer);

  Status Put(uint64_t word);
  Status Put(std::span<const uint64_t> words);
  /// Writes the checksum of all words so far, and what is still held.
  Status Finish();

 private:
  Status Flush();

  const ByteWriter& writer_;
  Checksum checksum_;
  std::vector<uint64_t> held_;
};

class WordSource {
 public:
  explicit WordSource(const ByteReader& reader) : reader_(reader) {}

  Result<uint64_t> Take();
  Status Take(std::span<uint64_t> words);
  /// errors  kDataLoss: the next word is not the checksum of those before it.
  Status Finish();

 private:
  const ByteReader& reader_;
  Checksum checksum_;
};

}  // namespace umbel::aggregation
