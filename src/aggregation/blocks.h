// The updates of a round as blocks, wherever they lie: what lets a rule that needs all updates at
// once run over a spool in bounded memory. Functions; safe from any thread as far as the source is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "aggregation/element.h"
#include "base/result.h"

namespace umbel::aggregation {

/// One array of a model.
struct ArrayLayout {
  NumberType type = NumberType::kFloat32;
  uint64_t count = 0;  // elements
};

class BlockSource {
 public:
  virtual ~BlockSource() = default;

  /// Elements [first, first + count) of an array of one update, in C order and this machine's byte
  /// order. The bytes stay valid until the next call for the same update. A source that is used by
  /// several threads at once keeps the blocks of each apart.
  virtual Result<std::span<const std::byte>> Block(size_t update, size_t array, uint64_t first,
                                                   size_t count) = 0;
};

/// Elements of a block: 256 KB of float32, so that blocks of a few updates stay in the cache.
inline constexpr size_t kBlockElements = size_t{1} << 16;

/// Walks a model block by block.
///
/// updates  which of the source's, in this order.
/// use      called as Status(size_t array, uint64_t first, std::span<const std::span<const
///          std::byte>> blocks), one block for each of `updates`.
template <typename Use>
Status ForEachBlock(BlockSource& source, std::span<const size_t> updates,
                    std::span<const ArrayLayout> model, Use use, size_t elements = kBlockElements) {
  std::vector<std::span<const std::byte>> blocks(updates.size());
  for (size_t array = 0; array < model.size(); ++array) {
    for (uint64_t first = 0; first < model[array].count; first += elements) {
      const auto count =
          static_cast<size_t>(std::min<uint64_t>(elements, model[array].count - first));
      for (size_t i = 0; i < updates.size(); ++i) {
        UMBEL_ASSIGN(blocks[i], source.Block(updates[i], array, first, count));
      }
      UMBEL_TRY(use(array, first, std::span<const std::span<const std::byte>>(blocks)));
    }
  }
  return {};
}

}  // namespace umbel::aggregation
