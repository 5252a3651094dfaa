// Sums as words: type, count, then each block in the smallest window that holds its values.
#include <algorithm>

#include "aggregation/exact_sum.h"

namespace umbel::aggregation {
namespace {

constexpr int kSizeBits = 8;

uint64_t TypeWord(ElementType type) {
  return static_cast<uint64_t>(type.kind) << kSizeBits | type.item_size;
}

Result<ElementType> TypeOf(uint64_t word) {
  for (const std::string_view known : {"|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4",
                                       "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"}) {
    UMBEL_ASSIGN(const Dtype dtype, ParseDtype(known));
    if (TypeWord(dtype.type) == word) return dtype.type;
  }
  return Fail(Code::kDataLoss, fmt::format("a sum of elements of unknown type {:#x}", word));
}

}  // namespace

Status ExactSum::Write(WordSink& sink) const {
  UMBEL_TRY(sink.Put(TypeWord(type_)));
  UMBEL_TRY(sink.Put(count_));
  for (size_t i = 0; i < block_count(); ++i) {
    const Window window = Needed(i);
    if (window.size == 0) {
      UMBEL_TRY(sink.Put(0));
      continue;
    }
    UMBEL_TRY(sink.Put(static_cast<uint64_t>(window.low - kLimbMin) << kSizeBits | window.size));
    const LimbView view = View(i);
    const auto skip = static_cast<size_t>(window.low - view.low);
    for (size_t k = skip; k < skip + window.size; ++k)
      UMBEL_TRY(sink.Put({view.limbs + k * view.lanes, Filled(i)}));
  }
  return {};
}

Result<ExactSum> ExactSum::Read(WordSource& source, const Options& options, uint64_t count_max) {
  UMBEL_ASSIGN(const uint64_t type_word, source.Take());
  UMBEL_ASSIGN(const ElementType type, TypeOf(type_word));
  UMBEL_ASSIGN(const uint64_t count, source.Take());
  if (count > count_max)
    return Fail(Code::kResourceExhausted,
                fmt::format("a sum of {} elements, above {}", count, count_max));
  UMBEL_ASSIGN(ExactSum sum, Make(type, count, options));
  for (size_t i = 0; i < sum.block_count(); ++i) {
    UMBEL_ASSIGN(const uint64_t head, source.Take());
    if (head == 0) continue;
    const uint64_t size = head & 0xff;
    const uint64_t place = head >> kSizeBits;
    constexpr uint64_t kPlaces = kLimbEnd - kLimbMin;
    if (size == 0 || place > kPlaces || size > kPlaces - place)
      return Fail(Code::kDataLoss, fmt::format("block {}: {} limbs at {}", i, size, place));
    const Window window{static_cast<int>(place) + kLimbMin, static_cast<size_t>(size)};
    UMBEL_TRY(sum.SetWindow(i, window, std::max<size_t>(window.size, 2)));
    const LimbView view = sum.View(i);
    for (size_t k = 0; k < view.size; ++k)
      UMBEL_TRY(source.Take({view.limbs + k * view.lanes, sum.Filled(i)}));
    if (sum.Needed(i) != window)
      return Fail(Code::kDataLoss, fmt::format("block {}: {} limbs where fewer do", i, size));
    sum.blocks_[i].bound = static_cast<int16_t>(BoundOf(view));
  }
  return sum;
}

}  // namespace umbel::aggregation
