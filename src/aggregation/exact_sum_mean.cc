// Rounding of sums: the fast way for what it can prove, integers for the rest.
#include <bit>
#include <cmath>
#include <cstring>

#include "aggregation/exact_sum.h"
#include "aggregation/exact_sum_round.h"

namespace umbel::aggregation {
namespace {

constexpr int kScaleMax = 900;  // a double's exponent, with room for what it is multiplied by
constexpr size_t kFastLimbs = 3;

const FloatFormat& FormatOf(size_t size) {
  return size == 2 ? kFloat16 : size == 4 ? kFloat32 : kFloat64;
}

QuotientPlan PlanFor(const Divisor& divisor, int scale, const FloatFormat& format) {
  return {.divisor = divisor.approximate(),
          .scale = std::ldexp(1.0, scale),
          .normal_min = std::ldexp(1.0, format.exponent_min),
          .normal_max = std::ldexp(2 - std::ldexp(1.0, 1 - format.precision), format.exponent_max),
          .drop = 53 - format.precision,
          .divisor_is_exact = divisor.approximate_is_exact()};
}

void StoreFloat(double value, std::byte* out) {
  const auto rounded = static_cast<float>(value);
  std::memcpy(out, &rounded, sizeof rounded);
}

void StoreHalf(double value, std::byte* out) {
  const auto bits = std::bit_cast<uint64_t>(value);
  uint16_t half = 0;
  if (const double size = std::abs(value); size != 0) {
    const uint64_t significand = (bits & ((uint64_t{1} << 52) - 1)) | (uint64_t{1} << 52);
    half =
        static_cast<uint16_t>(RoundToFormat(significand, false, std::ilogb(size) - 52, kFloat16));
  }
  half = static_cast<uint16_t>(half | (bits >> 63 << 15));
  std::memcpy(out, &half, sizeof half);
}

}  // namespace

Status ExactSum::Mean(const Divisor& divisor, uint64_t first, uint64_t n,
                      std::span<std::byte> out) const {
  return Rounded(divisor, first, n, out);
}

Status ExactSum::Sum(uint64_t first, uint64_t n, std::span<std::byte> out) const {
  return Rounded(Divisor::One(), first, n, out);
}

Status ExactSum::Rounded(const Divisor& divisor, uint64_t first, uint64_t n,
                         std::span<std::byte> out) const {
  UMBEL_TRY(CheckRange(first, n, ResultType(type_).item_size, out.size()));
  const size_t width = ResultType(type_).component_size();
  const uint64_t begin = first * type_.components();
  const uint64_t end = begin + n * type_.components();
  for (uint64_t at = begin; at < end;) {
    const auto from = static_cast<size_t>(at % kBlock);
    const auto some = static_cast<size_t>(std::min<uint64_t>(kBlock - from, end - at));
    RoundBlock(divisor, static_cast<size_t>(at / kBlock), from, some,
               out.data() + (at - begin) * width);
    at += some;
  }
  return {};
}

void ExactSum::RoundBlock(const Divisor& divisor, size_t block, size_t from, size_t n,
                          std::byte* out) const {
  const size_t width = ResultType(type_).component_size();
  const LimbView view = View(block);
  if (view.size == 0) {
    std::memset(out, 0, n * width);
    return;
  }
  const FloatFormat& format = FormatOf(width);
  const int scale = 64 * view.low - divisor.approximate_exponent();
  const auto round = [&](size_t lane) {
    const uint64_t bits = RoundQuotient(view.limbs + from + lane, view.size, view.lanes,
                                        64 * view.low, divisor, format);
    std::memcpy(out + lane * width, &bits, width);
  };
  if (width == sizeof(double) || view.size > kFastLimbs || std::abs(scale) > kScaleMax) {
    for (size_t lane = 0; lane < n; ++lane) round(lane);
    return;
  }
  double quotients[kBlock];
  uint8_t unproven[kBlock];
  const size_t left = kernels_->quotient(view.limbs, view.size, view.lanes,
                                         PlanFor(divisor, scale, format), quotients, unproven);
  if (width == sizeof(float))
    for (size_t lane = 0; lane < n; ++lane) StoreFloat(quotients[from + lane], out + lane * width);
  else
    for (size_t lane = 0; lane < n; ++lane) StoreHalf(quotients[from + lane], out + lane * width);
  if (left == 0) return;
  for (size_t lane = 0; lane < n; ++lane)
    if (unproven[from + lane] != 0) round(lane);
}

}  // namespace umbel::aggregation
