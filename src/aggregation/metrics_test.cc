#include "aggregation/metrics.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace umbel::aggregation {
namespace {

std::string ErrorOf(std::vector<Metrics> replies) {
  const auto result = MeanOfMetrics(replies, "n");
  return result.ok() ? "" : result.error().message;
}

double MeanOf(std::vector<std::pair<MetricValue, MetricValue>> values_and_weights) {
  std::vector<Metrics> replies;
  for (const auto& [value, weight] : values_and_weights)
    replies.push_back({{"x", value}, {"n", weight}});
  const auto result = MeanOfMetrics(replies, "n");
  EXPECT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result->size(), 1u);
  return std::get<double>((*result)[0].second);
}

TEST(Metrics, NumbersAndListsAreWeighedAndTheWeightIsLeftOut) {
  const std::vector<Metrics> replies = {
      {{"loss", 1.0}, {"n", int64_t{1}}, {"hits", std::vector<int64_t>{1, 2}}},
      {{"n", int64_t{3}}, {"hits", std::vector<int64_t>{5, 2}}, {"loss", 2.0}}};
  EXPECT_EQ(MeanOfMetrics(replies, "n").value(),
            (Metrics{{"loss", 1.75}, {"hits", std::vector<double>{4, 2}}}));
}

TEST(Metrics, MeansAreCorrectlyRounded) {
  // Sums of doubles would be 0 and 2^63.
  EXPECT_EQ(MeanOf({{1e300, 1.0}, {1.0, 1.0}, {-1e300, 1.0}}), 1.0 / 3);
  const int64_t big = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(MeanOf({{big, int64_t{1}}, {-big + 1, int64_t{1}}}), 0.5);
  EXPECT_EQ(MeanOf({{uint64_t{0} - 1, uint64_t{1}}, {int64_t{-1}, uint64_t{1}}}),
            static_cast<double>(uint64_t{0} - 2) / 2);
  EXPECT_EQ(MeanOf({{0.1, big}, {0.1, int64_t{1}}}), 0.1);
  EXPECT_EQ(MeanOf({{0.3, 1e-300}}), 0.3);
}

TEST(Metrics, OrderDoesNotShowAndMeansAreBetween) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<double> normal;
    std::vector<Metrics> replies(1 + engine() % 20);
    for (Metrics& metrics : replies)
      metrics = {{"x", std::ldexp(normal(engine), static_cast<int>(engine() % 100))},
                 {"n", engine() % 2 == 0 ? MetricValue(1 + std::fabs(normal(engine)))
                                         : MetricValue(1 + engine() % 1000)}};
    const Metrics mean = MeanOfMetrics(replies, "n").value();
    double low = HUGE_VAL, high = -HUGE_VAL;
    for (const Metrics& metrics : replies) {
      low = std::min(low, std::get<double>(metrics[0].second));
      high = std::max(high, std::get<double>(metrics[0].second));
    }
    const double value = std::get<double>(mean[0].second);
    RC_ASSERT(low <= value && value <= high);
    std::shuffle(replies.begin(), replies.end(), engine);
    RC_ASSERT(MeanOfMetrics(replies, "n").value() == mean);
  }));
}

TEST(Metrics, WhatIsNotFiniteGoesThrough) {
  EXPECT_EQ(MeanOf({{HUGE_VAL, 1.0}, {1.0, 1.0}}), HUGE_VAL);
  EXPECT_TRUE(std::isnan(MeanOf({{HUGE_VAL, 1.0}, {-HUGE_VAL, 1.0}})));
  EXPECT_TRUE(std::isnan(MeanOf({{std::nan(""), 1.0}, {1.0, 1.0}})));
}

TEST(Metrics, AnErrorNamesTheReplyAndTheKey) {
  const MetricValue one = int64_t{1};
  const Metrics good = {{"x", 1.0}, {"n", one}};
  EXPECT_EQ(ErrorOf({}), "metrics of no replies");
  EXPECT_EQ(ErrorOf({good, {{"x", 1.0}, {"m", one}}}), "metrics of reply 1: 'n' is missing");
  EXPECT_EQ(ErrorOf({good, {{"y", 1.0}, {"n", one}}}),
            "metrics of reply 1: 'y' is not in the first");
  EXPECT_EQ(ErrorOf({good, {{"n", one}}}), "metrics of reply 1: 1 keys, not 2 as in the first");
  for (const auto& [weight, text] : std::vector<std::pair<MetricValue, std::string>>{
           {int64_t{0}, "0"}, {int64_t{-3}, "-3"}, {-0.5, "-0.5"}, {HUGE_VAL, "inf"}})
    EXPECT_EQ(ErrorOf({{{"n", weight}}}), "metrics of reply 0: 'n' " + text + " not in (0, inf)");
  EXPECT_NE(ErrorOf({{{"n", std::nan("")}}}), "");
  EXPECT_EQ(ErrorOf({{{"n", std::vector<double>{1}}}}),
            "metrics of reply 0: 'n' is a list, not a weight");
  EXPECT_EQ(ErrorOf({good, {{"x", std::vector<double>{1}}, {"n", one}}}),
            "metrics of reply 1: 'x' is a list, in the first a number");
  const Metrics list = {{"x", std::vector<double>{1}}, {"n", one}};
  EXPECT_EQ(ErrorOf({list, {{"x", std::vector<double>{1, 2}}, {"n", one}}}),
            "metrics of reply 1: 'x' has 2 values, in the first 1");
}

}  // namespace
}  // namespace umbel::aggregation
