#include "aggregation/exact_scalar.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace umbel::aggregation {
namespace {

// The processor's own +, *, / and fma are correctly rounded: an oracle for sums of one or two
// terms. Doubles are drawn by their bits, so that every exponent, subnormals and both zeros come
// up.
std::vector<double> AnyDoubles(std::mt19937_64& engine, size_t count) {
  std::vector<double> out;
  while (out.size() < count) {
    uint64_t bits = engine();
    switch (engine() % 6) {
      case 0:
        bits &= 0x801f'ffff'ffff'ffffu;
        break;  // (nearly) subnormal
      case 1:
        bits = (bits & 0x803f'ffff'ffff'ffffu) | 0x3fc0'0000'0000'0000u;
        break;  // near 1
      case 2:
        bits &= ~((uint64_t{1} << 40) - 1);
        break;  // short mantissa
      case 3:
        bits |= 0x7fc0'0000'0000'0000u;
        break;  // huge
      default:
        break;
    }
    const auto value = std::bit_cast<double>(bits);
    if (std::isfinite(value)) out.push_back(value);
  }
  return out;
}

std::vector<float> AnyFloats(std::mt19937_64& engine, size_t count) {
  std::vector<float> out;
  while (out.size() < count) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(engine()));
    if (std::isfinite(value)) out.push_back(value);
  }
  return out;
}

void Ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.error().ToString(); }

ExactScalar SumOf(std::span<const double> values) {
  ExactScalar sum;
  for (const double value : values) Ok(sum.Add(value));
  return sum;
}

TEST(ExactScalar, OneAndTwoTermsRoundAsTheProcessorDoes) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    for (int i = 0; i < 100; ++i) {
      const auto v = AnyDoubles(engine, 3);
      const double a = v[0], b = v[1], c = v[2];
      RC_ASSERT(SumOf(std::vector{a}).Round() == a);
      RC_ASSERT(SumOf(std::vector{a, b}).Round() == a + b);
      ExactScalar product;
      Ok(product.AddProduct(a, b));
      RC_ASSERT(product.Round() == a * b);
      Ok(product.Add(c));
      if (std::isfinite(a * b)) RC_ASSERT(product.Round() == std::fma(a, b, c));
      Ok(product.SubtractProduct(a, b));
      Ok(product.Subtract(c));
      RC_ASSERT(product.Sign() == 0);
      if (b != 0) {
        RC_ASSERT(RoundedQuotient(SumOf(std::vector{a}), SumOf(std::vector{b})).value() == a / b);
      }
    }
  }));
}

TEST(ExactScalar, TiesGoToEven) {
  const double half_ulp = std::ldexp(1.0, -53);
  EXPECT_EQ(SumOf(std::vector{1.0, half_ulp}).Round(), 1.0);
  EXPECT_EQ(SumOf(std::vector{1.0 + 2 * half_ulp, half_ulp}).Round(), 1.0 + 4 * half_ulp);
  EXPECT_EQ(SumOf(std::vector{1.0, half_ulp, 5e-324}).Round(), 1.0 + 2 * half_ulp);
  EXPECT_EQ(SumOf(std::vector{-1.0, -half_ulp, -5e-324}).Round(), -1.0 - 2 * half_ulp);
  ExactScalar tiny;  // half of the smallest, then a bit more
  Ok(tiny.AddProduct(5e-324, 0.5));
  EXPECT_EQ(tiny.Round(), 0.0);
  Ok(tiny.AddProduct(5e-324, 5e-324));
  EXPECT_EQ(tiny.Round(), 5e-324);
}

TEST(ExactScalar, AQuotientOfSumsIsRoundedOnce) {
  // 1/3 of a sum that has no double: (2^60 + 1) / 3 = 384307168202282325.67, and doubles are 64
  // apart.
  const auto n = SumOf(std::vector{std::ldexp(1.0, 60), 1.0});
  EXPECT_EQ(RoundedQuotient(n, SumOf(std::vector{3.0})).value(), 384307168202282325.0);
  const double max = std::numeric_limits<double>::max();
  EXPECT_EQ(RoundedQuotient(SumOf(std::vector{max, max, max}), SumOf(std::vector{3.0})).value(),
            max);
  EXPECT_FALSE(RoundedQuotient(n, SumOf(std::vector{1.0, -1.0})).ok());
  EXPECT_EQ(RoundedQuotient(ExactScalar(), n).value(), 0.0);
}

TEST(ExactScalar, NeitherOrderNorGroupingShows) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    auto values = AnyDoubles(engine, 1 + engine() % 60);
    const ExactScalar all = SumOf(values);
    std::shuffle(values.begin(), values.end(), engine);
    const auto cut = static_cast<std::ptrdiff_t>(engine() % (values.size() + 1));
    ExactScalar left = SumOf(std::vector(values.begin(), values.begin() + cut));
    const ExactScalar right = SumOf(std::vector(values.begin() + cut, values.end()));
    ExactScalar merged = left;
    merged.Merge(right);
    RC_ASSERT(merged == all);
    RC_ASSERT(merged.Serialize() == all.Serialize());
    RC_ASSERT(merged.Round() == all.Round());
    merged.Remove(right);
    RC_ASSERT(merged == left);
    RC_ASSERT((left <=> all) == (0 <=> right.Sign()));
    const auto read = ExactScalar::Parse(all.Serialize());
    RC_ASSERT(read.ok());
    RC_ASSERT(*read == all);
    RC_ASSERT(read->Serialize() == all.Serialize());
    merged.Merge(merged);
    left.Merge(ExactScalar(left));
    RC_ASSERT(merged == left);
  }));
}

TEST(ExactScalar, BlocksAreTheirElements) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    const size_t count = engine() % 300;
    const auto check = [&](const auto& a, const auto& b) {
      ExactScalar values, squares, products, values_1, squares_1, products_1;
      using T = typename std::decay_t<decltype(a)>::value_type;
      Ok(values.AddValues(std::span<const T>(a)));
      Ok(squares.AddSquares(std::span<const T>(a)));
      Ok(products.AddProducts(std::span<const T>(a), std::span<const T>(b)));
      for (size_t i = 0; i < count; ++i) {
        Ok(values_1.Add(double{a[i]}));
        Ok(squares_1.AddProduct(a[i], a[i]));
        Ok(products_1.AddProduct(a[i], b[i]));
      }
      RC_ASSERT(values == values_1);
      RC_ASSERT(squares == squares_1);
      RC_ASSERT(products == products_1);
    };
    check(AnyFloats(engine, count), AnyFloats(engine, count));
    check(AnyDoubles(engine, count), AnyDoubles(engine, count));
  }));
}

TEST(ExactScalar, LongBlocksOfTheLargestDoNotOverflowATable) {
  // More elements than one chunk, all of one exponent and a mantissa of ones.
  const std::vector<float> floats(200'000, -std::nextafter(2.0f, 0.0f));
  ExactScalar sum;
  Ok(sum.AddProducts(floats, floats));
  ExactScalar one;
  Ok(one.AddProduct(floats[0], floats[0]));
  EXPECT_EQ(sum.Round(), 200'000 * one.Round());  // 48 + 18 bits: rounded, and so is the product
  EXPECT_EQ(RoundedQuotient(sum, one).value(), 200'000.0);
  const std::vector<double> doubles((size_t{1} << 21) + 5, -std::nextafter(2.0, 0.0));
  ExactScalar big, unit;
  Ok(big.AddSquares(doubles));
  Ok(unit.AddProduct(doubles[0], doubles[0]));
  EXPECT_EQ(RoundedQuotient(big, unit).value(), static_cast<double>(doubles.size()));
}

TEST(ExactScalar, RefusesWhatIsNotFinite) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    ExactScalar sum = SumOf(std::vector{3.0});
    EXPECT_FALSE(sum.Add(bad).ok());
    EXPECT_FALSE(sum.AddProduct(0.0, bad).ok());
    std::vector<float> floats(1000, 1.0f);
    floats[777] = static_cast<float>(bad);
    EXPECT_FALSE(sum.AddSquares(floats).ok());
    EXPECT_FALSE(sum.AddProducts(std::vector<float>(1000, 1.0f), floats).ok());
    EXPECT_EQ(sum.Round(), 3.0);
    EXPECT_FALSE(AllFinite(floats));
  }
  EXPECT_TRUE(AllFinite(std::vector<double>{std::numeric_limits<double>::max(), 0, -5e-324}));
}

TEST(ExactScalar, ParsesOnlyWhatItWrites) {
  std::mt19937_64 engine(7);
  const std::string good = SumOf(AnyDoubles(engine, 5)).Serialize();
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_FALSE(ExactScalar::Parse(good.substr(0, cut)).ok()) << cut;
  EXPECT_FALSE(ExactScalar::Parse(good + std::string(4, '\0')).ok());
  EXPECT_TRUE(rc::check([&](uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string bytes = good;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto read = ExactScalar::Parse(bytes);
    if (read.ok()) RC_ASSERT(read->Serialize() == bytes);
  }));
}

}  // namespace
}  // namespace umbel::aggregation
