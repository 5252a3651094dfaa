#include "superlink/rounds/stop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Evaluation {
  double accuracy;
  double loss;
};

uint32_t BestOf(const std::vector<Evaluation>& rounds) {
  StopRules rules;
  rules.metric = "accuracy";
  rules.tie_metric = "loss";
  ::umbel::rounds::Progress progress;
  uint32_t number = 0;
  for (const Evaluation& round : rounds) {
    progress.set_round(++number);
    CountRound(rules, {{"accuracy", round.accuracy}, {"loss", round.loss}}, &progress);
  }
  return progress.best_round();
}

TEST(CountRound, TheBestValueWins) { EXPECT_EQ(BestOf({{0.5, 1}, {0.7, 2}, {0.6, 0.1}}), 2u); }

TEST(CountRound, OfEqualValuesTheSmallerTieMetricWins) {
  EXPECT_EQ(BestOf({{0.7, 1}, {0.7, 0.5}, {0.7, 0.6}}), 2u);
  EXPECT_EQ(BestOf({{0.7, 1}, {0.7, 1}}), 1u);
}

TEST(CountRound, WhatIsNoNumberNeverWins) {
  EXPECT_EQ(BestOf({{kNan, 0}, {0.1, 9}}), 2u);
  EXPECT_EQ(BestOf({{0.1, 9}, {kNan, 0}}), 1u);
  EXPECT_EQ(BestOf({{kNan, 0}}), 0u);
  EXPECT_EQ(BestOf({{0.7, kNan}, {0.7, 3}}), 2u);
  EXPECT_EQ(BestOf({{0.7, 3}, {0.7, kNan}}), 1u);
}

TEST(CountRound, WithoutATieMetricTheFirstOfEqualsStays) {
  StopRules rules;
  rules.metric = "accuracy";
  ::umbel::rounds::Progress progress;
  for (uint32_t round = 1; round <= 2; ++round) {
    progress.set_round(round);
    CountRound(rules, {{"accuracy", 0.5}, {"loss", 1.0 / round}}, &progress);
  }
  EXPECT_EQ(progress.best_round(), 1u);
}

TEST(CountRound, WhatIsNoNumberUsesUpPatience) {
  StopRules rules;
  rules.metric = "accuracy";
  rules.patience = 2;
  ::umbel::rounds::Progress progress;
  const auto count = [&](double accuracy) {
    progress.set_round(progress.round() + 1);
    CountRound(rules, {{"accuracy", accuracy}}, &progress);
    return WhyStop(rules, {{"accuracy", accuracy}}, progress, 0);
  };
  EXPECT_EQ(count(kNan), "");
  EXPECT_EQ(count(kNan), "no accuracy that is a number for 2 rounds");
  EXPECT_EQ(count(0.5), "");
  EXPECT_EQ(count(kNan), "");
  EXPECT_EQ(count(kNan), "no accuracy better than 0.5 for 2 rounds");
}

TEST(CountRound, RoundsWithoutTheMetricDoNotCount) {
  StopRules rules;
  rules.metric = "accuracy";
  rules.patience = 1;
  ::umbel::rounds::Progress progress;
  CountRound(rules, {{"loss", 1.0}}, &progress);
  EXPECT_EQ(WhyStop(rules, {{"loss", 1.0}}, progress, 0), "");
}

}  // namespace
}  // namespace umbel::superlink::rounds
