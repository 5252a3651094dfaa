// float16 as NumPy computes with it: each operation in float32, its result rounded to half
// (nearest, ties to even). Values; safe from any thread.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace umbel::aggregation {

class Half {
 public:
  Half() = default;
  explicit Half(float value) : bits_(Encode(value)) {}
  explicit Half(double value) : bits_(EncodeDouble(value)) {}
  explicit Half(int value) : Half(static_cast<float>(value)) {}
  explicit operator float() const { return Decode(bits_); }
  explicit operator double() const { return double{Decode(bits_)}; }

  friend Half operator+(Half a, Half b) { return Half(float(a) + float(b)); }
  friend Half operator-(Half a, Half b) { return Half(float(a) - float(b)); }
  friend Half operator*(Half a, Half b) { return Half(float(a) * float(b)); }
  friend Half operator/(Half a, Half b) { return Half(float(a) / float(b)); }
  friend bool operator<(Half a, Half b) { return float(a) < float(b); }
  friend bool operator==(Half a, Half b) { return float(a) == float(b); }
  friend Half sqrt(Half a) { return Half(std::sqrt(float(a))); }
  friend bool isfinite(Half a) { return (a.bits_ & 0x7c00) != 0x7c00; }

 private:
  static float Decode(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t rest = half & 0x7fff;
    if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f80'0000 | (rest & 0x3ff) << 13);
    if (rest >= 0x0400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
    const float tiny = static_cast<float>(rest) * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
  }

  static uint16_t Encode(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    const uint32_t rest = bits & 0x7fff'ffff;
    if (rest > 0x7f80'0000) return sign | 0x7e00;
    if (rest >= 0x477f'f000) return sign | 0x7c00;  // from half way beyond 65504: infinity
    if (rest < 0x3880'0000) {                       // below 2^-14: steps of 2^-24
      const float steps = std::bit_cast<float>(rest) * 0x1p24f;
      return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(steps)));
    }
    const uint32_t even = rest + 0xfff + ((rest >> 13) & 1);
    return static_cast<uint16_t>(sign | ((even - (112u << 23)) >> 13));
  }

  /// Through float32, rounded to odd there, so that the second rounding is the only one that
  /// counts.
  static uint16_t EncodeDouble(double value) {
    auto narrow = static_cast<float>(value);
    if (double{narrow} != value && std::isfinite(narrow)) {
      auto bits = std::bit_cast<uint32_t>(narrow);
      if (std::fabs(double{narrow}) > std::fabs(value)) --bits;
      narrow = std::bit_cast<float>(bits | 1);
    }
    return Encode(narrow);
  }

  uint16_t bits_ = 0;
};

}  // namespace umbel::aggregation
