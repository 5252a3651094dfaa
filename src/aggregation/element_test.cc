#include "aggregation/element.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <limits>

namespace umbel::aggregation {
namespace {

float Value(uint16_t bits) { return static_cast<float>(std::bit_cast<Half>(bits)); }
uint16_t Bits(Half half) { return std::bit_cast<uint16_t>(half); }

TEST(Half, EveryHalfIsReadAndWritten) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = Value(half);
    if (std::isnan(value)) continue;
    // By definition: sign, exponent of 5 bits, mantissa of 10.
    const int exponent = (half >> 10) & 31, mantissa = half & 1023;
    float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                               : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    if (exponent == 31) size = std::numeric_limits<float>::infinity();
    EXPECT_EQ(value, (half & 0x8000) != 0 ? -size : size);
    EXPECT_EQ(Bits(Half(value)), half);
    EXPECT_EQ(Bits(Half(double{value})), half);
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const auto next = static_cast<uint16_t>(bits + 1);
    const double low = Value(bits), high = Value(next), half_way = (low + high) / 2;
    EXPECT_EQ(Bits(Half(half_way)), bits % 2 == 0 ? bits : next);
    EXPECT_EQ(Bits(Half(static_cast<float>(half_way))), bits % 2 == 0 ? bits : next);
    // Beyond what a float32 between them can say.
    EXPECT_EQ(Bits(Half(std::nextafter(half_way, 0.0))), bits);
    EXPECT_EQ(Bits(Half(std::nextafter(half_way, 1e9))), next);
  }
  EXPECT_EQ(Bits(Half(65519.99)), 0x7bff);
  EXPECT_EQ(Bits(Half(65520.0)), 0x7c00);
  EXPECT_EQ(Bits(Half(-1e300)), 0xfc00);
}

TEST(Element, NamesAndSizes) {
  for (int i = 0; i <= static_cast<int>(NumberType::kFloat64); ++i) {
    const auto type = static_cast<NumberType>(i);
    EXPECT_EQ(NumberTypeOf(ElementName(type)).value(), type);
  }
  EXPECT_FALSE(NumberTypeOf("complex64").ok());
  EXPECT_FALSE(NumberTypeOf("<f4").ok());
}

TEST(Element, LoadsAtAnyAlignment) {
  EXPECT_TRUE(rc::check([](const std::vector<int64_t>& values, const std::vector<float>& floats) {
    std::vector<std::byte> bytes(1 + 8 * values.size());
    if (!values.empty()) std::memcpy(bytes.data() + 1, values.data(), 8 * values.size());
    std::vector<double> out(values.size());
    Load(NumberType::kInt64, std::span(bytes).subspan(1), std::span(out));
    for (size_t i = 0; i < out.size(); ++i) RC_ASSERT(out[i] == static_cast<double>(values[i]));
    std::vector<std::byte> stored(2 * floats.size());
    Store(std::span<const float>(floats), NumberType::kFloat16, stored);
    std::vector<Half> halves(floats.size());
    Load(NumberType::kFloat16, stored, std::span(halves));
    for (size_t i = 0; i < floats.size(); ++i) RC_ASSERT(Bits(halves[i]) == Bits(Half(floats[i])));
  }));
}

TEST(Element, PromotesAsNumPy) {
  using enum NumberType;
  EXPECT_EQ(Promote(kFloat32, kFloat16), kFloat32);
  EXPECT_EQ(Promote(kBool, kFloat16), kFloat16);
  EXPECT_EQ(Promote(kFloat16, kInt16), kFloat32);
  EXPECT_EQ(Promote(kFloat32, kUint16), kFloat32);
  EXPECT_EQ(Promote(kInt32, kFloat32), kFloat64);
  EXPECT_EQ(MeanType(kFloat16), kFloat16);
  EXPECT_EQ(MeanType(kBool), kFloat64);
}

}  // namespace
}  // namespace umbel::aggregation
