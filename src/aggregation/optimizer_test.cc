#include "aggregation/optimizer.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <random>

namespace umbel::aggregation {
namespace {

// tests/strategies compares with Flower's classes. Here: what must hold without them.

std::vector<float> Normals(std::mt19937_64& engine, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) value = normal(engine);
  return out;
}

StrategySpec Make(std::string_view name, Params params = {}) {
  return MakeStrategy(name, params).value();
}

std::vector<StrategySpec> Optimisers() {
  return {Make("FedAvgM", {{"server_momentum", 0.9}}),
          Make("FedAvgM", {{"server_learning_rate", 0.5}}), Make("FedAdagrad"), Make("FedAdam"),
          Make("FedYogi")};
}

/// A model of float32 with its moments.
struct State {
  std::vector<std::byte> model, first, second;

  State(const StrategySpec& spec, std::span<const float> start) {
    const auto bytes = std::as_bytes(start);
    model.assign(bytes.begin(), bytes.end());
    if (MomentsOf(spec).first) first.resize(bytes.size());
    if (MomentsOf(spec).second) second.resize(bytes.size());
  }

  void Step(const StrategySpec& spec, uint64_t round, std::span<const float> mean, size_t from,
            size_t count, std::vector<std::byte>& next) {
    const NumberType result =
        OptimizerTypesOf(spec, NumberType::kFloat32, NumberType::kFloat32).result;
    const size_t size = ElementSize(result);
    next.resize(mean.size() * size);
    const auto part = [&](auto bytes) {
      return bytes.empty() ? bytes : bytes.subspan(4 * from, 4 * count);
    };
    const Status status =
        OptimizerStep(spec, round,
                      {.current_type = NumberType::kFloat32,
                       .current = part(std::span<const std::byte>(model)),
                       .mean_type = NumberType::kFloat32,
                       .mean = part(std::as_bytes(mean)),
                       .first = part(std::span(first)),
                       .second = part(std::span(second)),
                       .next = std::span(next).subspan(size * from, size * count)});
    ASSERT_TRUE(status.ok()) << status.error().ToString();
  }
};

TEST(Optimizer, BlocksAreTheWhole) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    const size_t count = 1 + engine() % 10'000;
    const auto start = Normals(engine, count), mean = Normals(engine, count);
    for (const StrategySpec& spec : Optimisers()) {
      State whole(spec, start), parts(spec, start);
      std::vector<std::byte> next, next_of_parts;
      for (uint64_t round = 1; round <= 2; ++round) {
        whole.Step(spec, round, mean, 0, count, next);
        const size_t block = 1 + engine() % count;
        const size_t blocks = (count + block - 1) / block;
        for (size_t b = blocks; b-- > 0;)  // backwards
          parts.Step(spec, round, mean, b * block, std::min(block, count - b * block),
                     next_of_parts);
        RC_ASSERT(next == next_of_parts);
        RC_ASSERT(whole.first == parts.first);
        RC_ASSERT(whole.second == parts.second);
      }
    }
  }));
}

// One element by hand.
TEST(Optimizer, FirstRounds) {
  const std::vector<float> x = {1}, mean = {3};
  const auto step = [&](const StrategySpec& spec) {
    State state(spec, x);
    std::vector<std::byte> next;
    state.Step(spec, 1, mean, 0, 1, next);
    double value = 0;
    Load(OptimizerTypesOf(spec, NumberType::kFloat32, NumberType::kFloat32).result, next,
         std::span(&value, 1));
    return value;
  };
  EXPECT_EQ(step(Make("FedAvgM", {{"server_learning_rate", 0.5}})), 2);
  EXPECT_EQ(step(Make("FedAvgM", {{"server_momentum", 0.9}})), 3);
  EXPECT_NEAR(step(Make("FedAdagrad")), 1 + 0.1 * 2 / (2 + 1e-3), 1e-6);
  EXPECT_NEAR(step(Make("FedYogi")), 1 + 0.01 * 0.2 / (std::sqrt(0.04) + 1e-3), 1e-6);
  EXPECT_NEAR(step(Make("FedAdam")),
              1 + 0.1 * std::sqrt(1 - 0.99 * 0.99) / (1 - 0.81) * 0.2 / (std::sqrt(0.04) + 1e-3),
              1e-6);
}

TEST(Optimizer, WhatIsTheMean) {
  for (const char* name : {"FedAvg", "FedProx", "FedAvgM", "FedMedian", "Krum"}) {
    EXPECT_TRUE(IsMean(Make(name))) << name;
    EXPECT_FALSE(MomentsOf(Make(name)).first || MomentsOf(Make(name)).second);
  }
  for (const StrategySpec& spec : Optimisers()) EXPECT_FALSE(IsMean(spec)) << spec.name();
}

TEST(Optimizer, TypesAreNumPys) {
  using enum NumberType;
  const auto check = [](const StrategySpec& spec, NumberType current, NumberType mean,
                        NumberType compute, NumberType result) {
    const OptimizerTypes types = OptimizerTypesOf(spec, current, mean);
    EXPECT_EQ(types.compute, compute);
    EXPECT_EQ(types.result, result);
  };
  check(Make("FedYogi"), kFloat32, kFloat32, kFloat32, kFloat32);
  check(Make("FedAdam"), kFloat32, kFloat32, kFloat32, kFloat64);
  check(Make("FedAdam"), kFloat64, kFloat32, kFloat64, kFloat64);
  check(Make("FedAdagrad"), kInt64, kInt64, kFloat64, kFloat64);
  check(Make("FedAdagrad"), kFloat16, kFloat16, kFloat16, kFloat16);
  check(Make("FedAvg"), kFloat64, kFloat32, kFloat32, kFloat32);
}

TEST(Optimizer, SizesMustMatch) {
  const StrategySpec spec = Make("FedAdagrad");
  std::vector<float> a(4), b(4), v(4), next(4);
  const auto run = [&](size_t mean, size_t moment, size_t out) {
    const auto bytes = [](std::vector<float>& of, size_t count) {
      return std::as_writable_bytes(std::span(of)).first(4 * count);
    };
    return OptimizerStep(spec, 1,
                         {.current = bytes(a, 4),
                          .mean = bytes(b, mean),
                          .first = {},
                          .second = bytes(v, moment),
                          .next = bytes(next, out)})
        .ok();
  };
  EXPECT_TRUE(run(4, 4, 4));
  EXPECT_FALSE(run(3, 4, 4));
  EXPECT_FALSE(run(4, 0, 4));
  EXPECT_FALSE(run(4, 4, 3));
}

}  // namespace
}  // namespace umbel::aggregation
