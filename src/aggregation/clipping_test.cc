#include "aggregation/clipping.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <random>

namespace umbel::aggregation {
namespace {

template <typename T>
std::span<const std::byte> Bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::vector<float> Normals(uint64_t seed, size_t count) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) value = normal(engine);
  return out;
}

// The known answers that the authors of Random123 publish.
TEST(Noise, PhiloxGivesItsKnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Noise, NeitherBlocksNorOrderShow) {
  const Noise noise(1234567890123, 7);
  std::vector<double> whole(1001);
  noise.Normal(3, 0, whole);
  EXPECT_TRUE(rc::check([&] {
    const auto from = *rc::gen::inRange<size_t>(0, whole.size());
    const auto count = *rc::gen::inRange<size_t>(0, whole.size() - from + 1);
    std::vector<double> part(count);
    noise.Normal(3, from, part);
    RC_ASSERT(std::equal(part.begin(), part.end(), whole.begin() + static_cast<long>(from)));
  }));
  for (const auto& [other, stream] :
       {std::pair(Noise(1234567890124, 7), 3u), std::pair(Noise(1234567890123, 8), 3u),
        std::pair(noise, 4u)}) {
    std::vector<double> numbers(whole.size());
    other.Normal(stream, 0, numbers);
    size_t same = 0;
    for (size_t i = 0; i < whole.size(); ++i) same += numbers[i] == whole[i];
    EXPECT_EQ(same, 0u);
  }
}

TEST(Noise, IsNormal) {
  std::vector<double> numbers(400'000);
  Noise(42, 1).Normal(0, 0, numbers);
  double sum = 0, squares = 0, fourth = 0, neighbours = 0;
  size_t beyond_two = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double x = numbers[i];
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    neighbours += x * numbers[(i + 1) % numbers.size()];
    beyond_two += std::fabs(x) > 2;
  }
  const auto n = static_cast<double>(numbers.size());
  // Five standard errors each.
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96 / n));
  EXPECT_NEAR(neighbours / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(static_cast<double>(beyond_two) / n, 0.0455003, 5 * std::sqrt(0.0434 / n));
}

TEST(Noise, IsAddedInTheArraysType) {
  const Noise noise(9, 2);
  std::vector<float> block = Normals(1, 10'000);
  const std::vector<float> before = block;
  ASSERT_TRUE(
      AddNoise(noise, 5, 77, 0.25, NumberType::kFloat32, std::as_writable_bytes(std::span(block)))
          .ok());
  std::vector<double> numbers(block.size());
  noise.Normal(5, 77, numbers);
  for (size_t i = 0; i < block.size(); ++i)
    EXPECT_EQ(block[i], before[i] + static_cast<float>(numbers[i] * 0.25));
  std::vector<int64_t> whole(4);
  EXPECT_FALSE(
      AddNoise(noise, 0, 0, 1, NumberType::kInt64, std::as_writable_bytes(std::span(whole))).ok());
}

TEST(Clipping, TheNormIsThatOfTheWholeUpdateInAnyBlocks) {
  const auto reply = Normals(1, 50'000), current = Normals(2, 50'000);
  long double sum = 0;
  for (size_t i = 0; i < reply.size(); ++i) {
    const float difference = reply[i] - current[i];
    sum += static_cast<long double>(difference) * difference;
  }
  UpdateNorm whole, parts, backwards;
  const auto block = [&](size_t from, size_t count) {
    return UpdateBlock{NumberType::kFloat32, Bytes(reply).subspan(4 * from, 4 * count),
                       NumberType::kFloat32, Bytes(current).subspan(4 * from, 4 * count)};
  };
  ASSERT_TRUE(whole.Add(block(0, reply.size())).ok());
  for (size_t from = 0; from < reply.size(); from += 625)
    ASSERT_TRUE(parts.Add(block(from, 625)).ok());
  for (size_t from = reply.size(); from != 0; from -= 5000) {
    UpdateNorm part;
    ASSERT_TRUE(part.Add(block(from - 5000, 5000)).ok());
    backwards.Merge(part);
  }
  EXPECT_NEAR(whole.Norm(), static_cast<double>(std::sqrt(sum)), 1e-12 * whole.Norm());
  EXPECT_EQ(whole.Norm(), parts.Norm());
  EXPECT_EQ(whole.Norm(), backwards.Norm());
}

TEST(Clipping, AClippedUpdateHasTheNorm) {
  const auto reply = Normals(1, 30'000), current = Normals(2, 30'000);
  const UpdateBlock block{NumberType::kFloat32, Bytes(reply), NumberType::kFloat32, Bytes(current)};
  UpdateNorm norm;
  ASSERT_TRUE(norm.Add(block).ok());
  for (const double limit : {0.5, 3.0, 1000.0}) {
    std::vector<float> out(reply.size());
    const double factor = ClipFactor(norm.Norm(), limit);
    ASSERT_TRUE(ClipBlock(block, factor, std::as_writable_bytes(std::span(out))).ok());
    UpdateNorm clipped;
    ASSERT_TRUE(
        clipped.Add({NumberType::kFloat32, Bytes(out), NumberType::kFloat32, Bytes(current)}).ok());
    EXPECT_NEAR(clipped.Norm(), std::min(limit, norm.Norm()), 1e-4 * limit);
    for (size_t i = 0; i < out.size(); i += 999)
      EXPECT_EQ(out[i], current[i] + (reply[i] - current[i]) * static_cast<float>(factor));
  }
  EXPECT_EQ(ClipFactor(0, 1), 1);
  EXPECT_EQ(ClipFactor(1, 1), 1);
}

TEST(Clipping, TypesArePromoted) {
  const std::vector<int64_t> whole = {10, -20};
  const std::vector<float> current = {1, 2};
  const UpdateBlock mixed{NumberType::kInt64, Bytes(whole), NumberType::kFloat32, Bytes(current)};
  EXPECT_EQ(ClippedType(mixed), NumberType::kFloat64);
  std::vector<double> out(2);
  ASSERT_TRUE(ClipBlock(mixed, 0.5, std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(out, (std::vector<double>{5.5, -9}));
  UpdateNorm norm;
  EXPECT_FALSE(
      norm.Add({NumberType::kInt64, Bytes(whole), NumberType::kFloat32, Bytes(current).first(4)})
          .ok());
  const std::vector<float> bad = {1, std::nanf("")};
  EXPECT_FALSE(
      norm.Add({NumberType::kFloat32, Bytes(bad), NumberType::kFloat32, Bytes(current)}).ok());
}

TEST(Clipping, TheNormFollowsTheQuantile) {
  const StrategySpec spec =
      WrapStrategy("DifferentialPrivacyServerSideAdaptiveClipping",
                   {{"noise_multiplier", 0.0}, {"num_sampled_clients", int64_t{10}}},
                   MakeStrategy("FedAvg", {}).value())
          .value();
  const AdaptiveNoise quiet = AdaptiveNoiseOf(spec).value();
  EXPECT_EQ(quiet.noise_multiplier, 0);
  EXPECT_EQ(quiet.count_deviation, 0);
  const Noise noise(1, 1);
  EXPECT_EQ(NextClippingNorm(spec, quiet, 0.1, 5, 10, noise), 0.1);
  EXPECT_DOUBLE_EQ(NextClippingNorm(spec, quiet, 0.1, 10, 10, noise), 0.1 * std::exp(-0.1));
  // With noise the same seed and round give the same norm.
  const AdaptiveNoise loud{.count_deviation = 1, .noise_multiplier = 1};
  const double norm = NextClippingNorm(spec, loud, 0.1, 5, 10, noise);
  EXPECT_NE(norm, 0.1);
  EXPECT_EQ(norm, NextClippingNorm(spec, loud, 0.1, 5, 10, Noise(1, 1)));
  EXPECT_NE(norm, NextClippingNorm(spec, loud, 0.1, 5, 10, Noise(1, 2)));
}

}  // namespace
}  // namespace umbel::aggregation
