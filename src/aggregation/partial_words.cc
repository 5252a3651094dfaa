#include "aggregation/partial_words.h"

#include <algorithm>
#include <bit>

namespace umbel::aggregation {

static_assert(std::endian::native == std::endian::little);

namespace {

constexpr size_t kPieceWords = kPieceBytes / sizeof(uint64_t);

}  // namespace

WordSink::WordSink(const ByteWriter& writer) : writer_(writer) { held_.reserve(kPieceWords + 1); }

Status WordSink::Put(uint64_t word) { return Put(std::span(&word, 1)); }

Status WordSink::Put(std::span<const uint64_t> words) {
  while (!words.empty()) {
    const auto some = words.first(std::min(words.size(), kPieceWords - held_.size()));
    for (const uint64_t word : some) checksum_.Add(word);
    held_.insert(held_.end(), some.begin(), some.end());
    words = words.subspan(some.size());
    if (held_.size() == kPieceWords) UMBEL_TRY(Flush());
  }
  return {};
}

Status WordSink::Finish() {
  held_.push_back(checksum_.value());
  return Flush();
}

Status WordSink::Flush() {
  UMBEL_TRY(writer_(std::as_bytes(std::span(held_))));
  held_.clear();
  return {};
}

Result<uint64_t> WordSource::Take() {
  uint64_t word = 0;
  UMBEL_TRY(Take({&word, 1}));
  return word;
}

Status WordSource::Take(std::span<uint64_t> words) {
  UMBEL_TRY(reader_(std::as_writable_bytes(words)));
  for (const uint64_t word : words) checksum_.Add(word);
  return {};
}

Status WordSource::Finish() {
  uint64_t word = 0;
  UMBEL_TRY(reader_(std::as_writable_bytes(std::span(&word, 1))));
  if (word != checksum_.value()) return Fail(Code::kDataLoss, "the checkpoint's checksum is wrong");
  return {};
}

}  // namespace umbel::aggregation
