#include "superlink/rounds/clipped.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "aggregation/clipping.h"
#include "base/testing.h"
#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/rounds_testing.h"

namespace umbel::superlink::rounds {
namespace {

using aggregation::Params;
using testing::ArrayOf;
using testing::BytesOf;
using testing::ModelOf;
using testing::UpdateOf;
using testing::ValuesOf;
using umbel::testing::TempDir;

constexpr uint64_t kSeed = 7;
const std::string kFixed = "ServerSideFixedClipping";
const std::string kAdaptive = "ServerSideAdaptiveClipping";

ModelArray Floats(const std::vector<float>& values, const std::string& name = "w") {
  return ArrayOf(name, "<f4", {values.size()}, BytesOf(values));
}

Plan PlanOf(const std::string& strategy, Params params = {}) {
  Plan plan;
  plan.strategy = *aggregation::MakeStrategy(strategy, params);
  return plan;
}

Plan Wrapped(Plan plan, const std::string& wrapper, Params params) {
  params.try_emplace("noise_multiplier", 0.0);
  params.try_emplace("num_sampled_clients", int64_t{3});
  plan.strategy = aggregation::WrapStrategy(wrapper, params, plan.strategy).value();
  return plan;
}

Plan Fixed(double norm, double noise = 0) {
  return Wrapped(PlanOf("FedAvg"), kFixed, {{"clipping_norm", norm}, {"noise_multiplier", noise}});
}

std::unique_ptr<Aggregator> Make(const Plan& plan, const Model& model, uint64_t seed = kSeed,
                                 const ClippingState& state = {}) {
  return MakeAggregator(plan, model, seed, state).value();
}

std::vector<float> NextOf(Aggregator& aggregator, uint32_t round = 1) {
  return ValuesOf<float>(aggregator.Finish(round)->arrays[0]);
}

/// Updates of two arrays around a model, some of them far away.
struct World {
  Model model;
  std::vector<Update> updates;
};
World RandomWorld(size_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto draw = [&](const Model* around, float far) {
    std::vector<ModelArray> arrays;
    for (const auto& [name, size] : {std::pair("a", size_t{70'000}), std::pair("b", size_t{5})}) {
      std::vector<float> values(size);
      for (float& value : values) value = far * normal(random);
      if (around != nullptr) {
        std::vector<float> base(size);
        EXPECT_TRUE(around->arrays[arrays.size()]
                        .file
                        .Read(around->arrays[arrays.size()].npy.data_offset,
                              {reinterpret_cast<char*>(base.data()), size * sizeof(float)})
                        .ok());
        for (size_t i = 0; i < size; ++i) values[i] += base[i];
      }
      arrays.push_back(Floats(values, name));
    }
    return arrays;
  };
  World world{ModelOf(draw(nullptr, 1)), {}};
  for (size_t i = 0; i < count; ++i) {
    Update update = UpdateOf(10 + i, static_cast<double>(1 + i * 7),
                             draw(&world.model, i % 2 == 0 ? 0.001f : 3));
    update.metrics.emplace_back("train_loss", 0.5 + static_cast<double>(i));
    world.updates.push_back(std::move(update));
  }
  return world;
}

std::vector<std::vector<double>> All(const NextModel& next) {
  std::vector<std::vector<double>> out;
  for (const NewArray& array : next.arrays) {
    if (array.dtype == "<f8") {
      out.push_back(ValuesOf<double>(array));
    } else {
      const auto narrow = ValuesOf<float>(array);
      out.emplace_back(narrow.begin(), narrow.end());
    }
  }
  return out;
}

TEST(Clipped, ShortensWhatIsTooLongAndNothingElse) {
  const Model model = ModelOf({Floats({1, 1})});
  const auto clipped = Make(Fixed(1), model);
  ASSERT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats({4, 5})}), UpdateOf(2, 1, {Floats({1, 1.5f})})})
                  ->empty());
  // (3, 4) becomes (0.6, 0.8); (0, 0.5) stays.
  const auto next = NextOf(*clipped);
  EXPECT_FLOAT_EQ(next[0], 1.3f);
  EXPECT_FLOAT_EQ(next[1], 1.65f);
}

TEST(Clipped, EveryStrategySeesWhatWasClippedBefore) {
  const World world = RandomWorld(9);
  const double norm = 2;
  std::vector<Update> before = world.updates;
  size_t shortened = 0;
  for (Update& update : before) {
    aggregation::UpdateNorm sum;
    std::vector<std::pair<std::string, std::string>> bytes;
    for (size_t a = 0; a < 2; ++a) {
      for (const ModelArray* array : {std::as_const(update).arrays.data() + a,
                                      std::as_const(world.model).arrays.data() + a}) {
        bytes.emplace_back(array->name, std::string(array->data_bytes(), '\0'));
        ASSERT_TRUE(array->file.Read(array->npy.data_offset, bytes.back().second).ok());
      }
    }
    const auto block = [&](size_t a) {
      using aggregation::NumberType;
      return aggregation::UpdateBlock{
          NumberType::kFloat32, std::as_bytes(std::span<const char>(bytes[2 * a].second)),
          NumberType::kFloat32, std::as_bytes(std::span<const char>(bytes[2 * a + 1].second))};
    };
    for (size_t a = 0; a < 2; ++a) ASSERT_TRUE(sum.Add(block(a)).ok());
    const double factor = aggregation::ClipFactor(sum.Norm(), norm);
    shortened += factor < 1;
    for (size_t a = 0; a < 2; ++a) {
      std::vector<float> out(bytes[2 * a].second.size() / sizeof(float));
      ASSERT_TRUE(
          aggregation::ClipBlock(block(a), factor, std::as_writable_bytes(std::span(out))).ok());
      update.arrays[a] = Floats(out, bytes[2 * a].first);
    }
  }
  EXPECT_EQ(shortened, 4u);
  const std::pair<const char*, Params> kAll[] = {
      {"FedAvg", {}},
      {"FedProx", {{"proximal_mu", 0.1}}},
      {"FedAvgM", {{"server_momentum", 0.9}}},
      {"FedAdagrad", {}},
      {"FedAdam", {}},
      {"FedYogi", {}},
      {"FedMedian", {}},
      {"FedTrimmedAvg", {}},
      {"Krum", {{"num_malicious_nodes", int64_t{1}}}},
      {"MultiKrum", {{"num_malicious_nodes", int64_t{1}}, {"num_nodes_to_select", int64_t{3}}}},
      {"Bulyan", {{"num_malicious_nodes", int64_t{1}}}},
      {"QFedAvg", {{"client_learning_rate", 0.5}}},
  };
  for (const auto& [name, params] : kAll) {
    const Plan plan = PlanOf(name, params);
    const auto plain = Make(plan, world.model);
    ASSERT_TRUE(plain->Add(before)->empty()) << name;
    auto expected = plain->Finish(1);
    ASSERT_TRUE(expected.ok()) << name << expected.error().message;
    const Plan around = Wrapped(plan, kFixed, {{"clipping_norm", norm}});
    const auto clipped = Make(around, world.model);
    ASSERT_TRUE(clipped->Add(world.updates)->empty()) << name;
    auto next = clipped->Finish(1);
    ASSERT_TRUE(next.ok()) << name << next.error().message;
    EXPECT_EQ(All(*next), All(*expected)) << name;
    EXPECT_EQ(next->moments.size(), expected->moments.size()) << name;
    EXPECT_EQ(clipped->Selected(), plain->Selected()) << name;
  }
}

TEST(Clipped, NeitherOrderNorACheckpointShows) {
  World world = RandomWorld(6);
  const Plan plan = Wrapped(PlanOf("FedAvg"), kAdaptive,
                            {{"initial_clipping_norm", 2.0},
                             {"noise_multiplier", 0.5},
                             {"num_sampled_clients", int64_t{6}}});
  const auto whole = Make(plan, world.model);
  ASSERT_TRUE(whole->Add(world.updates)->empty());
  EXPECT_EQ(whole->Clipping()->replies, 6u);
  EXPECT_EQ(whole->Clipping()->clipped, 3u);
  const auto expected = All(*whole->Finish(2));
  std::reverse(world.updates.begin(), world.updates.end());
  const auto half = Make(plan, world.model);
  ASSERT_TRUE(half->Add({world.updates.begin(), world.updates.begin() + 2})->empty());
  const TempDir folder;
  ASSERT_TRUE(half->CanSave());
  ASSERT_TRUE(half->Save(folder.path() + "/sums").ok());
  const auto rest = Make(plan, world.model, kSeed, *half->Clipping());
  ASSERT_TRUE(rest->Load(folder.path() + "/sums").ok());
  ASSERT_TRUE(rest->Add({world.updates.begin() + 2, world.updates.end()})->empty());
  EXPECT_EQ(All(*rest->Finish(2)), expected);
  EXPECT_EQ(rest->Clipping()->norm, whole->Clipping()->norm);
  EXPECT_EQ(rest->Clipping()->replies, 0u);
}

TEST(Clipped, ItsNormFollowsTheQuantile) {
  const Model model = ModelOf({Floats({0, 0})});
  const Plan plan = Wrapped(PlanOf("FedAvg"), kAdaptive, {});
  ClippingState state;
  double norm = 0.1;
  for (uint32_t round = 1; round <= 3; ++round) {
    const auto clipped = Make(plan, model, kSeed, state);
    ASSERT_TRUE(clipped
                    ->Add({UpdateOf(1, 1, {Floats({3, 4})}), UpdateOf(2, 1, {Floats({0, 0.01f})}),
                           UpdateOf(3, 1, {Floats({0, 0})})})
                    ->empty());
    ASSERT_TRUE(clipped->Finish(round).ok());
    norm *= std::exp(-0.2 * (1.0 / 3 - 0.5));
    state = *clipped->Clipping();
    EXPECT_DOUBLE_EQ(state.norm, norm);
  }
}

TEST(Clipped, TheNormMovesEvenIfTheStrategyMakesNoModel) {
  const Model model = ModelOf({Floats({0})});
  const Plan plan = Wrapped(PlanOf("Bulyan", {{"num_malicious_nodes", int64_t{1}}}), kAdaptive, {});
  const auto clipped = Make(plan, model);
  ASSERT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats({3})})})->empty());
  EXPECT_EQ(clipped->Finish(1).error().code, Code::kFailedPrecondition);
  EXPECT_DOUBLE_EQ(clipped->Clipping()->norm, 0.1 * std::exp(-0.2 * 0.5));
}

TEST(Clipped, AReplyWithAnErrorLeavesEverythingAsItIs) {
  const Model model = ModelOf({Floats({0})});
  const auto clipped = Make(Wrapped(PlanOf("FedAvg"), kAdaptive, {}), model);
  ASSERT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats({3})})})->empty());
  clipped->NoteFailures(1);
  EXPECT_EQ(clipped->Finish(1).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(clipped->Clipping()->norm, 0.1);
  EXPECT_EQ(clipped->Clipping()->clipped, 0u);
}

TEST(Clipped, WhatIsRefusedLeavesNoTrace) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Model model = ModelOf({Floats({-1, -kMax})});
  const auto clipped = Make(Wrapped(PlanOf("FedAvg"), kAdaptive, {}), model);
  const std::vector<uint64_t> shape = {2};
  const auto refused =
      *clipped->Add({UpdateOf(1, 1, {Floats({kNan, 0})}), UpdateOf(2, 1, {Floats({-1, -kMax})}),
                     UpdateOf(3, 1, {Floats({0, kMax})}),
                     UpdateOf(4, 1, {ArrayOf("w", "<c8", shape, std::string(16, '\0'))}),
                     UpdateOf(5, 1, {ArrayOf("w", ">f4", shape, std::string(8, '\0'))})});
  const Outcome kWhy[] = {Outcome::kNonFinite, Outcome::kNonFinite, Outcome::kWrongDtype,
                          Outcome::kWrongDtype};
  ASSERT_EQ(refused.size(), std::size(kWhy));
  for (size_t i = 0; i < refused.size(); ++i) {
    EXPECT_EQ(refused[i].outcome, kWhy[i]) << refused[i].detail;
    EXPECT_EQ(refused[i].index, i == 0 ? 0 : i + 1);
  }
  EXPECT_EQ(clipped->Clipping()->replies, 1u);
  EXPECT_EQ(clipped->Clipping()->clipped, 0u);
  EXPECT_EQ(NextOf(*clipped), (std::vector<float>{-1, -kMax}));
}

TEST(Clipped, NoiseIsThatOfTheSeedAndTheRound) {
  const size_t size = 20'000;
  const Model model = ModelOf({Floats(std::vector<float>(size))});
  const auto noise_of = [&](uint64_t seed, uint32_t round) {
    const auto clipped = Make(Fixed(6, 0.5), model, seed);
    EXPECT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats(std::vector<float>(size))})})->empty());
    return NextOf(*clipped, round);
  };
  const auto noise = noise_of(1, 1);
  EXPECT_EQ(noise, noise_of(1, 1));
  EXPECT_NE(noise, noise_of(2, 1));
  EXPECT_NE(noise, noise_of(1, 2));
  double squares = 0, sum = 0;
  for (const float value : noise) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const double deviation = 0.5 * 6 / 3;
  const auto count = static_cast<double>(size);
  EXPECT_NEAR(sum / count, 0, 5 * deviation / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), deviation, 0.03 * deviation);
  // Wherever it is cut.
  const auto clipped = Make(Fixed(6, 0.5), model, 1);
  ASSERT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats(std::vector<float>(size))})})->empty());
  const auto next = *clipped->Finish(1);
  std::vector<float> piece(101);
  ASSERT_TRUE(next.arrays[0]
                  .fill(4'001, piece.size(),
                        {reinterpret_cast<char*>(piece.data()), piece.size() * sizeof(float)})
                  .ok());
  EXPECT_TRUE(std::equal(piece.begin(), piece.end(), noise.begin() + 4'001));
}

TEST(Clipped, MomentsGetNoNoise) {
  const Model model = ModelOf({Floats({0, 0})});
  const auto moments_of = [&](double noise) {
    const auto clipped = Make(
        Wrapped(PlanOf("FedAdam"), kFixed, {{"clipping_norm", 1.0}, {"noise_multiplier", noise}}),
        model);
    EXPECT_TRUE(clipped->Add({UpdateOf(1, 1, {Floats({3, 4})})})->empty());
    const auto next = *clipped->Finish(1);
    return std::pair(ValuesOf<float>(next.moments[0][0]), ValuesOf<double>(next.arrays[0]));
  };
  EXPECT_EQ(moments_of(0).first, moments_of(1).first);
  EXPECT_NE(moments_of(0).second, moments_of(1).second);
}

TEST(Clipped, RefusesAModelThatCannotBeClipped) {
  const Model model = ModelOf({ArrayOf("w", "<c8", {1}, std::string(8, '\0'))});
  EXPECT_EQ(MakeAggregator(Fixed(1), model, kSeed, {}).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace umbel::superlink::rounds
