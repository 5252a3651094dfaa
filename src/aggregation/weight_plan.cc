#include "aggregation/weight_plan.h"

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <map>

#include "aggregation/weight_total.h"

namespace umbel::aggregation {
namespace {

/// An exponent that the sum does not go above.
int SumExponent(std::span<const double> weights, const std::vector<SplitWeight>& split) {
  double sum = 0;
  for (const double weight : weights) sum += weight;
  // The sum of at most 256 positive doubles is off by less than 2^-44 of itself.
  if (const double above = sum * (1 + 0x1p-40); std::isfinite(above) && sum >= 0x1p-1000)
    return std::ilogb(above) + 1;
  int top = INT_MIN;
  for (const SplitWeight& weight : split)
    top = std::max(top, weight.exponent + static_cast<int>(std::bit_width(weight.mantissa)));
  return top + static_cast<int>(std::bit_width(weights.size()));
}

}  // namespace

SplitWeight SplitOf(double weight) {
  const auto bits = std::bit_cast<uint64_t>(weight);
  const int field = static_cast<int>(bits >> 52);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  const uint64_t mantissa = field == 0 ? fraction : fraction | (uint64_t{1} << 52);
  const int zeros = std::countr_zero(mantissa);
  return {mantissa >> zeros, std::max(field, 1) - 1075 + zeros};
}

Result<WeightPlan> MakeWeightPlan(std::span<const double> weights, int weight_bits) {
  WeightPlan plan;
  plan.low_exponent = INT_MAX;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (const Status fine = CheckWeight(weights[i]); !fine.has_value())
      return Fail(fine.error().code, fmt::format("update {}: {}", i, fine.error().message));
    plan.weights.push_back(SplitOf(weights[i]));
    plan.low_exponent = std::min(plan.low_exponent, plan.weights.back().exponent);
  }
  plan.sum_exponent = SumExponent(weights, plan.weights);

  std::map<int, WeightPass> passes;  // by digit
  const uint64_t mask = (uint64_t{1} << weight_bits) - 1;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int position = plan.weights[i].exponent - plan.low_exponent;
    int digit = position / weight_bits;
    unsigned __int128 rest = plan.weights[i].mantissa;
    for (rest <<= position % weight_bits; rest != 0; rest >>= weight_bits, ++digit) {
      const uint64_t piece = static_cast<uint64_t>(rest) & mask;
      if (piece == 0) continue;
      WeightPass& pass = passes[digit];
      pass.exponent = plan.low_exponent + digit * weight_bits;
      pass.sum += piece;
      pass.pieces.push_back({i, piece});
    }
  }
  for (auto& [digit, pass] : passes) plan.passes.push_back(std::move(pass));
  return plan;
}

}  // namespace umbel::aggregation
