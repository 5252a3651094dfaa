#include "dataset/split.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <numeric>

namespace umbel::dataset {
namespace {

/// All rows, each once.
bool Complete(const Partitions& partitions, size_t rows) {
  std::vector<uint32_t> all;
  for (const auto& part : partitions) all.insert(all.end(), part.begin(), part.end());
  std::sort(all.begin(), all.end());
  std::vector<uint32_t> wanted(rows);
  std::iota(wanted.begin(), wanted.end(), 0U);
  return all == wanted;
}

std::vector<uint8_t> Labels(size_t rows) {
  std::vector<uint8_t> labels(rows);
  for (size_t i = 0; i < rows; ++i) labels[i] = static_cast<uint8_t>(i % 10);
  return labels;
}

/// The largest share of one label in a part, averaged over the parts.
double Skew(const Partitions& partitions) {
  double sum = 0;
  for (const auto& part : partitions) {
    std::array<double, 10> of{};
    for (const uint32_t row : part) of[row % 10] += 1;
    sum += *std::max_element(of.begin(), of.end()) / static_cast<double>(part.size());
  }
  return sum / static_cast<double>(partitions.size());
}

TEST(SplitTest, IidPartsAreCompleteEvenAndRepeatable) {
  rc::check("iid", [](uint64_t seed) {
    const auto parts = *rc::gen::inRange<size_t>(1, 20);
    const auto rows = *rc::gen::inRange<size_t>(parts, 500);
    const auto split = SplitIid(rows, parts, seed);
    RC_ASSERT(split.ok());
    RC_ASSERT(split->size() == parts);
    RC_ASSERT(Complete(*split, rows));
    for (const auto& part : *split)
      RC_ASSERT(part.size() == rows / parts || part.size() == rows / parts + 1);
    RC_ASSERT(*split == *SplitIid(rows, parts, seed));
  });
  EXPECT_NE(*SplitIid(500, 2, 1), *SplitIid(500, 2, 2));
}

TEST(SplitTest, DirichletPartsAreCompleteAndRepeatable) {
  rc::check("dirichlet", [](uint64_t seed) {
    const auto parts = *rc::gen::inRange<size_t>(1, 8);
    const double alpha = *rc::gen::element(0.3, 1.0, 100.0);
    const std::vector<uint8_t> labels = Labels(2000);
    const auto split = SplitDirichlet(labels, parts, alpha, seed);
    if (!split.ok()) return;
    RC_ASSERT(split->size() == parts);
    RC_ASSERT(Complete(*split, labels.size()));
    for (const auto& part : *split) RC_ASSERT(part.size() >= 10U);
    RC_ASSERT(*split == *SplitDirichlet(labels, parts, alpha, seed));
  });
}

TEST(SplitTest, ASmallAlphaSkewsLabels) {
  const std::vector<uint8_t> labels = Labels(10'000);
  const auto skewed = SplitDirichlet(labels, 4, 0.1, 7), even = SplitDirichlet(labels, 4, 1000, 7);
  ASSERT_TRUE(skewed.ok() && even.ok());
  EXPECT_GT(Skew(*skewed), 0.25);
  EXPECT_LT(Skew(*even), 0.13);
}

TEST(SplitTest, WhatCannotBeSplitIsSaid) {
  EXPECT_FALSE(SplitIid(10, 0, 1).ok());
  EXPECT_FALSE(SplitIid(10, 11, 1).ok());
  for (const double alpha : {0.0, -1.0, 2e6, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(SplitDirichlet(Labels(100), 2, alpha, 1).error().code, Code::kInvalidArgument);
  EXPECT_EQ(SplitDirichlet(Labels(100), 20, 1, 1).error().code, Code::kFailedPrecondition);
}

}  // namespace
}  // namespace umbel::dataset
