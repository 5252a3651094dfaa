#include "aggregation/exact_sum_round.h"

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>
#include <utility>
#include <vector>

namespace umbel::aggregation {
namespace {

using Wide = unsigned __int128;

constexpr size_t kLimbsMax = 80;

/// value * multiplier * 2^shift, little-endian, in `size` words that it fits in.
std::vector<uint64_t> Product(std::span<const uint64_t> value, uint64_t multiplier, int shift,
                              size_t size) {
  std::vector<uint64_t> out(size + 2);
  const auto skip = static_cast<size_t>(shift) / 64;
  const unsigned bits = static_cast<unsigned>(shift) % 64;
  uint64_t carry = 0;
  for (size_t i = 0; i <= value.size(); ++i) {
    const Wide part = static_cast<Wide>(i < value.size() ? value[i] : 0) * multiplier + carry;
    const auto word = static_cast<uint64_t>(part);
    carry = static_cast<uint64_t>(part >> 64);
    if (word == 0) continue;
    UMBEL_CHECK(i + skip + 1 < out.size());
    out[i + skip] |= word << bits;
    if (bits != 0) out[i + skip + 1] |= word >> (64 - bits);
  }
  return out;
}

/// The largest q <= most with q * 2^exponent * divisor <= magnitude * 2^magnitude_exponent, and
/// whether something is left. Some q not far below `most` is.
std::pair<uint64_t, bool> LongQuotient(std::span<const uint64_t> magnitude, int magnitude_exponent,
                                       const Divisor& divisor, int exponent, uint64_t most) {
  const int low = std::min(magnitude_exponent, divisor.exponent() + exponent);
  const int shift = magnitude_exponent - low;
  const int divisor_shift = divisor.exponent() + exponent - low;
  const size_t size =
      2 + std::max(magnitude.size() + static_cast<size_t>(shift) / 64,
                   divisor.words().size() + static_cast<size_t>(divisor_shift) / 64 + 1);
  const std::vector<uint64_t> sum = Product(magnitude, 1, shift, size);
  while (true) {
    const std::vector<uint64_t> product = Product(divisor.words(), most, divisor_shift, size);
    const auto [a, b] = std::mismatch(sum.rbegin(), sum.rend(), product.rbegin());
    if (a == sum.rend()) return {most, false};
    if (*a > *b) return {most, true};
    --most;
  }
}

}  // namespace

uint64_t RoundToFormat(uint64_t significand, bool more, int exponent, const FloatFormat& format) {
  const int top = exponent + static_cast<int>(std::bit_width(significand)) - 1;
  const bool normal = top >= format.exponent_min;
  const int drop = (normal ? top : format.exponent_min) - (format.precision - 1) - exponent;
  uint64_t kept = 0;
  if (drop <= 0) {
    kept = significand << -drop;
  } else if (drop <= 64) {
    kept = drop == 64 ? 0 : significand >> drop;
    const uint64_t rest = drop == 64 ? significand : significand & ((uint64_t{1} << drop) - 1);
    const uint64_t half = uint64_t{1} << (drop - 1);
    if (rest > half || (rest == half && (more || (kept & 1) != 0))) ++kept;
  }
  // A carry out of the significand goes on into the exponent, as it should.
  const auto hidden = uint64_t{1} << (format.precision - 1);
  const uint64_t infinity = static_cast<uint64_t>(2 * format.exponent_max + 1) * hidden;
  if (top > format.exponent_max) return infinity;
  if (normal) kept += static_cast<uint64_t>(top - format.exponent_min) * hidden;
  return std::min(kept, infinity);
}

uint64_t RoundQuotient(const uint64_t* limbs, size_t size, size_t stride, int exponent,
                       const Divisor& divisor, const FloatFormat& format) {
  UMBEL_CHECK(size <= kLimbsMax);
  std::array<uint64_t, kLimbsMax + 2> padded;  // two zeros below, to take three words from any
  padded[0] = padded[1] = 0;
  uint64_t* const magnitude = padded.data() + 2;
  const bool negative = (limbs[(size - 1) * stride] >> 63) != 0;
  uint64_t carry = negative ? 1 : 0;
  size_t top = size;
  for (size_t i = 0; i < size; ++i) {
    const uint64_t word = negative ? ~limbs[i * stride] : limbs[i * stride];
    magnitude[i] = word + carry;
    carry = magnitude[i] < word ? 1 : 0;
    if (magnitude[i] != 0) top = i;
  }
  if (top == size) return 0;

  const uint64_t* const words = magnitude + top;
  const int clear = std::countl_zero(words[0]);
  Wide first = (static_cast<Wide>(words[0]) << 64) | words[-1];
  uint64_t left = words[-2];
  if (clear != 0) {
    first = (first << clear) | (left >> (64 - clear));
    left <<= clear;
  }
  bool more = left != 0 || (first & 1) != 0;
  for (size_t i = 0; i + 2 < top && !more; ++i) more = magnitude[i] != 0;
  first >>= 1;  // below the divisor's first 64 bits times 2^64
  const int first_exponent = exponent + 64 * (static_cast<int>(top) - 1) - clear + 1;
  const int unit = first_exponent - divisor.top_exponent();

  auto quotient = static_cast<uint64_t>(first / divisor.top());
  more = more || first % divisor.top() != 0;
  uint64_t bits = 0;
  if (divisor.fits_top()) {
    bits = RoundToFormat(quotient, more, unit, format);
  } else {
    // The divisor is less than one unit above its first bits, the sum less than one above its own.
    const auto least = static_cast<uint64_t>(first / (static_cast<Wide>(divisor.top()) + 1));
    const auto most =
        static_cast<uint64_t>(std::min<Wide>((first + 1) / divisor.top(), UINT64_MAX));
    bits = RoundToFormat(most, true, unit, format);
    if (bits != RoundToFormat(least, false, unit, format)) {
      std::tie(quotient, more) = LongQuotient({magnitude, top + 1}, exponent, divisor, unit, most);
      bits = RoundToFormat(quotient, more, unit, format);
    }
  }
  const int width = format.precision +
                    static_cast<int>(std::bit_width(static_cast<unsigned>(format.exponent_max)));
  return bits | (negative ? uint64_t{1} << width : 0);
}

}  // namespace umbel::aggregation
