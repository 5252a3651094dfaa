#include "aggregation/weight_total.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "aggregation/exact_sum_cases.h"
#include "aggregation/exact_sum_oracle.h"
#include "aggregation/weight_plan.h"

namespace umbel::aggregation {
namespace {

using testing::kAllWeights;
using testing::Random;

TEST(WeightTotal, IsExactInAnyOrder) {
  Random random(testing::Seed("IsExactInAnyOrder"));
  for (const auto kind : kAllWeights) {
    std::vector<double> weights;
    oracle::Sum sum;  // of the weights as values, each counted once
    for (int i = 0; i < 50; ++i) weights.push_back(testing::MakeWeight(kind, random));
    if (kind == testing::Weights::kHostile)
      for (double& weight : weights) weight = std::min(weight, 1e306);
    WeightTotal total;
    for (const double weight : weights) {
      ASSERT_TRUE(total.Add(weight).has_value());
      sum.products += oracle::Scaled(weight) * oracle::Scaled(1);
    }
    sum.weights = oracle::Scaled(1);
    EXPECT_TRUE(oracle::IsRounded(sum, total.ToDouble(), 53, -1022));
    std::shuffle(weights.begin(), weights.end(), random);
    WeightTotal halves[2];
    for (size_t i = 0; i < weights.size(); ++i)
      ASSERT_TRUE(halves[i % 2].Add(weights[i]).has_value());
    ASSERT_TRUE(halves[0].Merge(halves[1]).has_value());
    EXPECT_EQ(halves[0], total);
    for (const double weight : weights) ASSERT_TRUE(total.Remove(weight).has_value());
    EXPECT_TRUE(total.IsZero());
  }
}

TEST(WeightTotal, RefusesWhatIsNoWeight) {
  WeightTotal total;
  ASSERT_TRUE(total.Add(3).has_value());
  for (const double weight : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                              std::numeric_limits<double>::infinity()})
    EXPECT_EQ(total.Add(weight).error().code, Code::kInvalidArgument);
  EXPECT_EQ(total.Remove(4).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(total.ToDouble(), 3);
}

TEST(WeightPlan, PiecesMakeTheWeights) {
  Random random(testing::Seed("PiecesMakeTheWeights"));
  for (const auto kind : kAllWeights) {
    for (const int bits : {24, 52}) {
      std::vector<double> weights;
      for (int i = 0; i < 40; ++i) weights.push_back(testing::MakeWeight(kind, random));
      const WeightPlan plan = MakeWeightPlan(weights, bits).value();
      std::vector<oracle::Integer> sums(weights.size());
      for (const WeightPass& pass : plan.passes) {
        EXPECT_GE(pass.exponent, plan.low_exponent);
        for (const auto& piece : pass.pieces) {
          EXPECT_LT(piece.weight, uint64_t{1} << bits);
          sums[piece.update] += oracle::Integer::Of(piece.weight, pass.exponent + 1100, false);
        }
      }
      oracle::Integer all;
      for (size_t i = 0; i < weights.size(); ++i) {
        const oracle::Integer expected =
            oracle::Scaled(weights[i]) * oracle::Integer::Of(1, 20, false);
        EXPECT_EQ(sums[i].Compare(expected), 0);
        all += expected;
      }
      EXPECT_LE(all.Compare(oracle::Integer::Of(1, plan.sum_exponent + 1100, false)), 0);
      EXPECT_TRUE(kind != testing::Weights::kExamples || plan.passes.size() == 1);
    }
  }
}

}  // namespace
}  // namespace umbel::aggregation
