// How a group of weights is deposited: as integers the kernels can multiply by. Pure functions;
// safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

/// A finite double above 0 as an odd integer times a power of two.
struct SplitWeight {
  uint64_t mantissa;  // below 2^53
  int exponent;
};
SplitWeight SplitOf(double weight);

/// One pass of the kernels over some updates of the group, their weights in units of 2^exponent.
struct WeightPass {
  struct Piece {
    size_t update;
    uint64_t weight;  // not 0, below 2^weight_bits
  };
  int exponent = 0;
  unsigned __int128 sum = 0;  // of the pieces
  std::vector<Piece> pieces;
};

struct WeightPlan {
  std::vector<WeightPass> passes;
  std::vector<SplitWeight> weights;
  int low_exponent = 0;  // each weight is a multiple of 2^low_exponent
  int sum_exponent = 0;  // their sum is at most 2^sum_exponent
};

/// Integer weights, as numbers of examples are, make one pass.
///
/// weights  1 to kGroupMax.
/// errors   kInvalidArgument, which names the update by its index.
Result<WeightPlan> MakeWeightPlan(std::span<const double> weights, int weight_bits);

}  // namespace umbel::aggregation
