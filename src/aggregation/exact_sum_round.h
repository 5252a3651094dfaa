// A sum over a divisor as a float of any size, rounded once, half to even. Integers throughout, so
// it is right by itself; what is faster is measured against it. Pure; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aggregation/weight_total.h"

namespace umbel::aggregation {

struct FloatFormat {
  int precision;     // bits of a significand
  int exponent_min;  // of the smallest normal number
  int exponent_max;
};
inline constexpr FloatFormat kFloat16{11, -14, 15};
inline constexpr FloatFormat kFloat32{24, -126, 127};
inline constexpr FloatFormat kFloat64{53, -1022, 1023};

/// (significand + a bit where `more`) * 2^exponent, as the format's bits without sign; infinity
/// above its range.
///
/// significand  not 0; at least precision + 2 bits long where `more` is set.
uint64_t RoundToFormat(uint64_t significand, bool more, int exponent, const FloatFormat& format);

/// The bits of (sum * 2^exponent / divisor) in the format, in its low bits.
///
/// limbs   two's complement, little-endian: limb k at limbs[k * stride]; at most 80 of them.
/// cost    about 20 ns with divisors of 64 bits; more with longer ones where they matter.
uint64_t RoundQuotient(const uint64_t* limbs, size_t size, size_t stride, int exponent,
                       const Divisor& divisor, const FloatFormat& format);

}  // namespace umbel::aggregation
