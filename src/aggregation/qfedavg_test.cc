#include "aggregation/qfedavg.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

namespace umbel::aggregation {
namespace {

StrategySpec Spec(double q, double rate = 0.5) {
  return MakeStrategy("QFedAvg", {{"client_learning_rate", rate}, {"q", q}}).value();
}

struct Round {
  std::vector<float> current;
  std::vector<std::vector<float>> replies;
  std::vector<double> losses;

  explicit Round(std::mt19937_64& engine) {
    std::normal_distribution<float> normal;
    const size_t width = 1 + engine() % 300;
    const auto fill = [&] {
      std::vector<float> out(width);
      for (float& value : out) value = normal(engine);
      return out;
    };
    current = fill();
    const size_t count = 1 + engine() % 12;
    for (size_t i = 0; i < count; ++i) {
      replies.push_back(fill());
      losses.push_back(std::fabs(double{normal(engine)}));
    }
  }

  std::vector<double> Next(const StrategySpec& spec, size_t block) const {
    std::vector<QFedAvgTerm> terms;
    for (size_t k = 0; k < replies.size(); ++k) {
      ExactScalar squares;
      EXPECT_TRUE(AddGradientSquares(spec,
                                     {NumberType::kFloat32, std::as_bytes(std::span(replies[k])),
                                      NumberType::kFloat32, std::as_bytes(std::span(current))},
                                     squares)
                      .ok());
      terms.push_back(QFedAvgTermOf(spec, losses[k], squares).value());
    }
    std::vector<double> out(current.size());
    for (size_t from = 0; from < out.size(); from += block) {
      const size_t count = std::min(block, out.size() - from);
      std::vector<std::span<const std::byte>> views;
      for (const auto& reply : replies)
        views.push_back(std::as_bytes(std::span(reply).subspan(from, count)));
      const Status status =
          QFedAvgBlock(spec, NumberType::kFloat32,
                       std::as_bytes(std::span(current).subspan(from, count)), NumberType::kFloat32,
                       views, terms, std::as_writable_bytes(std::span(out).subspan(from, count)));
      EXPECT_TRUE(status.ok()) << status.error().ToString();
    }
    return out;
  }
};

TEST(QFedAvg, WithoutFairnessIsThePlainMean) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    const Round round(engine);
    const auto next = round.Next(Spec(0), 1000);
    for (size_t i = 0; i < next.size(); ++i) {
      double mean = 0;
      for (const auto& reply : round.replies) mean += reply[i];
      mean /= static_cast<double>(round.replies.size());
      RC_ASSERT(std::fabs(next[i] - mean) < 1e-5);
    }
  }));
}

TEST(QFedAvg, NeitherOrderNorBlocksShow) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    Round round(engine);
    const auto spec = Spec(0.3);
    const auto next = round.Next(spec, 10'000);
    std::vector<size_t> order(round.replies.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), engine);
    const Round before = round;
    for (size_t i = 0; i < order.size(); ++i) {
      round.replies[i] = before.replies[order[i]];
      round.losses[i] = before.losses[order[i]];
    }
    const auto again = round.Next(spec, 1 + engine() % 100);
    RC_ASSERT(std::memcmp(next.data(), again.data(), 8 * next.size()) == 0);
  }));
}

TEST(QFedAvg, TheWorseOffCountMore) {
  // Replies 0 and 2 with a model of 1: the second has the higher loss, and pulls.
  const auto next = [](double q) {
    std::mt19937_64 engine(1);
    Round round(engine);
    round.current = {1};
    round.replies = {{0}, {2}};
    round.losses = {0.1, 10};
    return round.Next(Spec(q), 1)[0];
  };
  EXPECT_NEAR(next(0), 1, 1e-12);
  EXPECT_GT(next(0.5), next(0));
}

TEST(QFedAvg, RefusesWhatHasNoWeight) {
  const ExactScalar none;
  EXPECT_TRUE(QFedAvgTermOf(Spec(0.1), 0, none).ok());
  EXPECT_EQ(QFedAvgTermOf(Spec(0.1), -3, none).error().message,
            "train_loss -3 gives no finite weight for q 0.1");
  EXPECT_FALSE(QFedAvgTermOf(Spec(0), NAN, none).ok());
  const std::vector<float> x = {1};
  const auto bytes = std::as_bytes(std::span(x));
  const std::span<const std::byte> replies[] = {bytes};
  double out = 0;
  const auto target = std::as_writable_bytes(std::span(&out, 1));
  const auto run = [&](std::vector<QFedAvgTerm> terms) {
    return QFedAvgBlock(Spec(1), NumberType::kFloat32, bytes, NumberType::kFloat32, replies, terms,
                        target)
        .ok();
  };
  EXPECT_TRUE(run({{1, 1}}));
  EXPECT_FALSE(run({{1, 0}}));
  EXPECT_FALSE(run({}));
  EXPECT_FALSE(run({{1, 1}, {1, 1}}));
}

}  // namespace
}  // namespace umbel::aggregation
