// Rows of a labelled data set cut into partitions. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace umbel::dataset {

using Partitions = std::vector<std::vector<uint32_t>>;  // row numbers, in a random order

/// Shuffled and cut into parts that differ by one row at most.
/// errors  kInvalidArgument: no parts, or fewer rows than parts.
Result<Partitions> SplitIid(size_t rows, size_t parts, uint64_t seed);

/// The rows of each label go to the parts by proportions drawn from a symmetric Dirichlet
/// distribution (Hsu et al. 2019, arXiv:1909.06335): the smaller alpha, the fewer labels a part
/// has. Drawn anew until each part has `rows_min` rows. errors  kInvalidArgument: no parts, alpha
/// not in (0, 1e6]; kFailedPrecondition: a part stays too
///         small after many draws.
Result<Partitions> SplitDirichlet(std::span<const uint8_t> labels, size_t parts, double alpha,
                                  uint64_t seed, size_t rows_min = 10);

}  // namespace umbel::dataset
