// Every element type, in both byte orders and at any alignment, against the same numbers as
// doubles.
#include "aggregation/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/exact_sum_cases.h"
#include "aggregation/exact_sum_oracle.h"

namespace umbel::aggregation {
namespace {

using testing::Random;

/// A number of a component as two doubles whose sum it is.
struct Value {
  double high = 0;
  double low = 0;
};

double HalfValue(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double fraction = bits & 1023;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

/// Random bytes of one finite component, native order, and what they mean.
Value RandomComponent(ElementType type, Random& random, std::byte* out) {
  const size_t size = type.component_size();
  uint64_t bits = random();
  if (size < 8) bits &= (uint64_t{1} << (8 * size)) - 1;
  Value value;
  switch (type.kind) {
    case Kind::kBool:
      bits &= 1;
      value.high = static_cast<double>(bits);
      break;
    case Kind::kInt: {
      const auto shift = static_cast<int>(64 - 8 * size);
      const auto number = static_cast<int64_t>(bits << shift) >> shift;
      value.low = static_cast<double>(number & 0xffff);
      value.high = static_cast<double>(number - (number & 0xffff));
      break;
    }
    case Kind::kUnsigned:
      value.low = static_cast<double>(bits & 0xffff);
      value.high = static_cast<double>(bits - (bits & 0xffff));
      break;
    case Kind::kFloat:
    case Kind::kComplex:
      if (size == 2) {
        if ((bits & 0x7c00) == 0x7c00) bits ^= 0x4000;
        value.high = HalfValue(static_cast<uint16_t>(bits));
      } else if (size == 4) {
        const auto number = testing::AnyFinite<float>(random);
        bits = std::bit_cast<uint32_t>(number);
        value.high = static_cast<double>(number);
      } else {
        value.high = testing::AnyFinite<double>(random);
        bits = std::bit_cast<uint64_t>(value.high);
      }
      break;
  }
  std::memcpy(out, &bits, size);
  return value;
}

double ResultAt(ElementType result, const std::byte* at) {
  if (result.component_size() == 2) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return HalfValue(bits);
  }
  if (result.component_size() == 4) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return double{value};
  }
  double value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

class EveryDtype : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryDtype, MeanIsRoundedOnce) {
  Random random(testing::Seed(GetParam().c_str()));
  const ElementType type = ParseDtype(GetParam()).value().type;
  const ElementType result = ResultType(type);
  for (const size_t count : {size_t{1}, size_t{3}, size_t{256}, size_t{700}}) {
    const size_t components = count * type.components();
    ExactSum sum = ExactSum::Make(type, count, {}).value();
    WeightTotal total;
    std::vector<oracle::Sum> expected(components);
    for (int client = 0; client < 7; ++client) {
      const bool swapped = client % 2 == 1;
      const double weight = static_cast<double>(1 + random() % 9);
      std::vector<std::byte> bytes(1 + count * type.item_size);  // from an odd address on
      for (size_t i = 0; i < components; ++i) {
        std::byte* const at = bytes.data() + 1 + i * type.component_size();
        const Value value = RandomComponent(type, random, at);
        expected[i].Add(value.high, weight);
        expected[i].products += oracle::Scaled(value.low) * oracle::Scaled(weight);
        if (swapped) std::reverse(at, at + type.component_size());
      }
      const Update update{std::span(bytes).subspan(1), weight, swapped};
      ASSERT_TRUE(sum.Fold({&update, 1}, 0, count).has_value());
      ASSERT_TRUE(total.Add(weight).has_value());
    }
    std::vector<std::byte> mean(count * result.item_size);
    ASSERT_TRUE(sum.Mean(Divisor(total), 0, count, mean).has_value());
    const int precision = result.component_size() == 2   ? 11
                          : result.component_size() == 4 ? 24
                                                         : 53;
    const int exponent_min = precision == 11 ? -14 : precision == 24 ? -126 : -1022;
    for (size_t i = 0; i < components; ++i)
      EXPECT_TRUE(oracle::IsRounded(expected[i],
                                    ResultAt(result, mean.data() + i * result.component_size()),
                                    precision, exponent_min))
          << GetParam() << " " << i << " of " << components;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryDtype,
                         ::testing::Values("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8",
                                           "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"),
                         [](const auto& one) { return one.param.substr(1); });

TEST(Dtype, NumPysNamesAreRead) {
  EXPECT_EQ(ParseDtype("<f4").value(), (Dtype{{Kind::kFloat, 4}, false}));
  EXPECT_EQ(ParseDtype(">c16").value(), (Dtype{{Kind::kComplex, 16}, true}));
  EXPECT_EQ(ParseDtype("|u1").value(), (Dtype{{Kind::kUnsigned, 1}, false}));
  for (const char* refused : {"<f16", "<c32", "|S3", "<U2", "|V8", "|O", "<M8", "", "f4", "|f4",
                              "<f3", "<b2", "<i", "<i44", "<f 4"}) {
    const auto dtype = ParseDtype(refused);
    ASSERT_FALSE(dtype.has_value()) << refused;
    EXPECT_EQ(dtype.error().code, Code::kInvalidArgument);
    EXPECT_NE(dtype.error().message.find(refused), std::string::npos);
  }
}

/// As `numpy.ones((), dtype) * 0.5` has it in NumPy 2, for arrays and scalars alike.
TEST(Dtype, ResultsAreNumPys) {
  const std::pair<const char*, const char*> kPairs[] = {
      {"|b1", "<f8"}, {"|i1", "<f8"}, {"|u1", "<f8"}, {"<i2", "<f8"},  {"<u2", "<f8"},
      {"<i4", "<f8"}, {"<u4", "<f8"}, {"<i8", "<f8"}, {">u8", "<f8"},  {"<f2", "<f2"},
      {">f4", "<f4"}, {"<f8", "<f8"}, {"<c8", "<c8"}, {">c16", "<c16"}};
  for (const auto& [from, to] : kPairs)
    EXPECT_EQ(ResultType(ParseDtype(from).value().type).Descr(), to);
}

TEST(Layout, ByteOrderIsFreeAndElementOrderIsNot) {
  const auto layout = [](const char* dtype, std::vector<uint64_t> shape, bool fortran) {
    return LayoutOf({.dtype = dtype, .fortran_order = fortran, .shape = std::move(shape)}).value();
  };
  EXPECT_TRUE(CheckSame(layout("<f4", {2, 3}, true), layout(">f4", {2, 3}, true)).has_value());
  EXPECT_FALSE(CheckSame(layout("<f4", {2, 3}, true), layout("<f4", {2, 3}, false)).has_value());
  EXPECT_TRUE(CheckSame(layout("<f4", {1, 3}, true), layout("<f4", {1, 3}, false)).has_value());
  EXPECT_TRUE(
      CheckSame(layout("<f4", {9, 0, 3}, true), layout("<f4", {9, 0, 3}, false)).has_value());
  EXPECT_FALSE(CheckSame(layout("<f4", {6}, false), layout("<f4", {2, 3}, false)).has_value());
  EXPECT_FALSE(CheckSame(layout("<f4", {6}, false), layout("<f8", {6}, false)).has_value());
}

TEST(ExactSumShapes, AnEmptyArrayHasNoMeanToTell) {
  ExactSum sum = ExactSum::Make({Kind::kFloat, 4}, 0, {}).value();
  const Update update{};
  EXPECT_TRUE(sum.Fold({&update, 1}, 0, 0).has_value());
  EXPECT_TRUE(sum.Mean(Divisor::One(), 0, 0, {}).has_value());
  EXPECT_EQ(sum.memory_bytes(), 0U);
}

}  // namespace
}  // namespace umbel::aggregation
