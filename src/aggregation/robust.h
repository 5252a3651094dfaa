// Robust rules coordinate by coordinate: of n updates' blocks, one block. Each looks at the sorted
// values of a coordinate only, so the order of the updates cannot show. Blocks may be of any size.
// Functions; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/element.h"

namespace umbel::aggregation {

// Of all three:
//   type     of the updates; the result has MeanType of it.
//   updates  one block of each, of one size; 1 or more.
//   out      as many elements as each block has.
//   errors   kInvalidArgument: no updates, sizes that differ, an element that is not finite.
//   cost     O(n log² n) comparisons a coordinate, many coordinates at a time by the vector unit;
//   of
//            memory at most 2 MB, beyond 1000 updates 2 KB an update.

/// The median (Yin et al., ICML 2018, arXiv:1803.01498); of an even number, the mean of the middle
/// two, in the arithmetic of NumPy's median (float16: in float32), where that does not overflow.
Status Median(NumberType type, std::span<const std::span<const std::byte>> updates,
              std::span<std::byte> out);

/// Coordinate-wise trimmed mean (the same paper): without the floor(beta * n) smallest and largest.
/// Sums in float64, smallest value first.
///
/// beta    errors  kInvalidArgument: not in [0, 0.5).
Status TrimmedMean(NumberType type, std::span<const std::span<const std::byte>> updates,
                   double beta, std::span<std::byte> out);

/// Bulyan's second half (El Mhamdi et al., ICML 2018, arXiv:1802.07927): the mean of the `closest`
/// values nearest to the median. Of two equally far the smaller is taken (Flower: either).
///
/// closest  errors  kInvalidArgument: not in [1, n].
Status MeanAroundMedian(NumberType type, std::span<const std::span<const std::byte>> updates,
                        size_t closest, std::span<std::byte> out);

}  // namespace umbel::aggregation
