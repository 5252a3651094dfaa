// Krum and MultiKrum (Blanchard et al., NeurIPS 2017, arXiv:1703.02757) and the selection of Bulyan
// (El Mhamdi et al., ICML 2018, arXiv:1802.07927): which updates to aggregate, from the distances
// between all of them. What is selected is then averaged, for Bulyan by MeanAroundMedian
// (robust.h). A DistanceSums belongs to one thread at a time; functions are safe from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "aggregation/blocks.h"
#include "aggregation/exact_scalar.h"
#include "aggregation/sliced.h"

namespace umbel::aggregation {

/// Squared Euclidean distances; symmetric, with zeros where an update meets itself or its equal.
struct DistanceMatrix {
  size_t updates = 0;
  std::vector<double> values;  // row by row

  double at(size_t i, size_t j) const { return values[i * updates + j]; }
};

/// Sums norms and dot products of all pairs, block by block. Nothing is rounded before the end, so
/// blocks may come in any order and from several threads' sums, and a distance is the double
/// nearest to the true one. (Flower's are float32 for a float32 model, and may be negative or not
/// zero for equal updates; where it compares such rounding errors, we differ.)
class DistanceSums {
 public:
  explicit DistanceSums(size_t updates);

  /// Adds one block of an array, of each update. An int64 beyond 2^53 counts as its float64.
  ///
  /// errors  kInvalidArgument: not one block of each update, sizes that differ, a value that is not
  ///         finite; the sums are then as before.
  /// cost    (updates + 1) / 2 dot products an element (sliced.h); 33 KB an update.
  Status Add(NumberType type, std::span<const std::span<const std::byte>> blocks);
  /// Takes in the sums of other blocks of the same updates.
  void Merge(const DistanceSums& other);
  DistanceMatrix Finish() const;

 private:
  size_t updates_;
  std::vector<ExactScalar> dots_;  // of i and j <= i at i * (i + 1) / 2 + j
  std::vector<Sliced> sliced_;     // scratch
};

/// Distances of whole updates. errors  those of the source and of DistanceSums::Add.
Result<DistanceMatrix> Distances(BlockSource& source, size_t updates,
                                 std::span<const ArrayLayout> model);

/// An update's score is the sum of its distances to its max(1, n - f - 2) nearest others, where n
/// is the number of updates and f that of malicious nodes.
///
/// returns  the `select` updates of the lowest scores (or all), best first; of equal scores the
/// first
///          update goes first, as in Flower wherever NumPy's argsort is stable. So let the order of
///          the updates be that of their nodes' ids, not that of arrival.
std::vector<size_t> SelectKrum(const DistanceMatrix& distances, uint64_t malicious,
                               uint64_t select);

/// How many updates Bulyan selects (by SelectKrum), and how many values it averages around the
/// median of those.
struct BulyanCounts {
  size_t select = 0;   // n - 2f
  size_t closest = 0;  // n - 4f
};
/// errors  kFailedPrecondition: fewer than 4f + 3 updates; the model then stays as it is.
Result<BulyanCounts> BulyanCountsOf(size_t updates, uint64_t malicious);

}  // namespace umbel::aggregation
