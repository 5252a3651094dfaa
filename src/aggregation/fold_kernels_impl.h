// The inner loops over a vector type V, for the files that are compiled for one kind of CPU each.
// All of it has internal linkage, so that code for a newer CPU cannot replace shared code.
//
// V::U are kLanes unsigned 64-bit integers, V::D as many doubles, V::M a mask of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "aggregation/fold_kernels.h"

namespace umbel::aggregation {
namespace {

// Adding it to a double below 2^51 leaves the double's integer part in the low bits of the sum.
constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
constexpr uint64_t kMagicBits = 0x4338000000000000;
constexpr uint64_t kSignBit = uint64_t{1} << 63;
constexpr uint64_t kHighMask = ~((uint64_t{1} << 27) - 1);
constexpr uint64_t kNear = 8;  // units in the last place that a quotient may be off, and more

template <class V>
struct Loops {
  using U = typename V::U;
  using D = typename V::D;
  using M = typename V::M;
  static constexpr size_t kUnroll = 4;
  static constexpr size_t kStep = V::kLanes * kUnroll;
  static_assert(kLaneStep % kStep == 0);

  static Extent ExtentF4(const void* x, size_t lanes) {
    const char* bytes = static_cast<const char*>(x);
    int32_t max = 0;
    int32_t min = INT32_MAX;
    for (size_t i = 0; i < lanes; ++i) {
      int32_t bits;
      std::memcpy(&bits, bytes + 4 * i, sizeof bits);
      bits &= INT32_MAX;
      max = max > bits ? max : bits;
      const int32_t less = (bits - 1) & INT32_MAX;  // zero becomes the largest
      min = min < less ? min : less;
    }
    const bool any = max != 0;
    return {static_cast<uint64_t>(max), any ? static_cast<uint64_t>(min) : UINT64_MAX};
  }

  static Extent ExtentF8(const void* x, size_t lanes) {
    const char* bytes = static_cast<const char*>(x);
    int64_t max = 0;
    int64_t min = INT64_MAX;
    for (size_t i = 0; i < lanes; ++i) {
      int64_t bits;
      std::memcpy(&bits, bytes + 8 * i, sizeof bits);
      bits &= INT64_MAX;
      max = max > bits ? max : bits;
      const int64_t less = (bits - 1) & INT64_MAX;
      min = min < less ? min : less;
    }
    const bool any = max != 0;
    return {static_cast<uint64_t>(max), any ? static_cast<uint64_t>(min) : UINT64_MAX};
  }

  template <Part kPart, bool kBanded>
  static void Accumulate(const KernelItem* items, size_t count, size_t lanes, const Digits& digits,
                         uint64_t* low, uint64_t* high) {
    const D scale1 = V::SetD(digits.scale1);
    const D scale2 = V::SetD(digits.scale2);
    const D magic = V::SetD(kMagic);
    for (size_t at = 0; at < lanes; at += kStep) {
      U lows[kUnroll];
      U highs[kUnroll];
      for (size_t j = 0; j < kUnroll; ++j) lows[j] = highs[j] = V::Set(0);
      for (size_t item = 0; item < count; ++item) {
        const U weight = V::Set(items[item].weight);
        const char* bytes = static_cast<const char*>(items[item].x);
        for (size_t j = 0; j < kUnroll; ++j) {
          const size_t lane = at + j * V::kLanes;
          D x = kPart == Part::kWhole ? V::LoadF4(bytes + 4 * lane) : V::LoadF8(bytes + 8 * lane);
          if constexpr (kBanded) {
            const U bits = V::And(V::Bits(x), V::Set(~kSignBit));
            const M inside = V::Less(V::Sub(bits, V::Set(digits.from)), V::Set(digits.width));
            x = V::Keep(inside, x);
          }
          if constexpr (kPart != Part::kWhole) {
            const D first = V::FromBits(V::And(V::Bits(x), V::Set(kHighMask)));
            x = V::MulD(kPart == Part::kHigh ? first : V::SubD(x, first), scale1);
            x = V::MulAdd(x, scale2, magic);
          } else {
            x = V::MulAdd(x, scale1, magic);
          }
          V::Deposit(V::Bits(x), weight, lows[j], highs[j]);
        }
      }
      for (size_t j = 0; j < kUnroll; ++j) {
        V::Store(low + at + j * V::kLanes, lows[j]);
        V::Store(high + at + j * V::kLanes, highs[j]);
      }
    }
  }

  static void AccumulateF4(const KernelItem* items, size_t count, size_t lanes,
                           const Digits& digits, uint64_t* low, uint64_t* high) {
    if (digits.banded)
      Accumulate<Part::kWhole, true>(items, count, lanes, digits, low, high);
    else
      Accumulate<Part::kWhole, false>(items, count, lanes, digits, low, high);
  }

  static void AccumulateF8(const KernelItem* items, size_t count, size_t lanes,
                           const Digits& digits, Part part, uint64_t* low, uint64_t* high) {
    if (part == Part::kHigh && digits.banded)
      Accumulate<Part::kHigh, true>(items, count, lanes, digits, low, high);
    else if (part == Part::kHigh)
      Accumulate<Part::kHigh, false>(items, count, lanes, digits, low, high);
    else if (digits.banded)
      Accumulate<Part::kLow, true>(items, count, lanes, digits, low, high);
    else
      Accumulate<Part::kLow, false>(items, count, lanes, digits, low, high);
  }

  template <bool kNegate>
  static uint64_t AddSigned(uint64_t* limbs, size_t size, size_t lanes, size_t at, int shift,
                            const uint64_t* low, const uint64_t* high, uint64_t bias_low,
                            uint64_t bias_high) {
    const U bias0 = V::Set(bias_low);
    const U bias1 = V::Set(bias_high);
    U top = V::Set(0);
    for (size_t lane = 0; lane < lanes; lane += V::kLanes) {
      const U highs = V::Load(high + lane);
      const U lows = V::Load(low + lane);
      U v0 = V::Add(lows, V::template Shl<V::kHighUnit>(highs));
      U v1 = V::Plus(V::template Shr<64 - V::kHighUnit>(highs), V::Less(v0, lows));
      if constexpr (kNegate) {
        v1 = V::Minus(V::Sub(bias1, v1), V::Less(bias0, v0));
        v0 = V::Sub(bias0, v0);
      } else {
        v1 = V::Minus(V::Sub(v1, bias1), V::Less(v0, bias0));
        v0 = V::Sub(v0, bias0);
      }
      const U sign = V::Sign(v1);
      U parts[3];
      if (shift == 0) {
        parts[0] = v0;
        parts[1] = v1;
        parts[2] = sign;
      } else {
        parts[0] = V::ShlBy(v0, shift);
        parts[1] = V::Or(V::ShlBy(v1, shift), V::ShrBy(v0, 64 - shift));
        parts[2] = V::Or(V::ShlBy(sign, shift), V::ShrBy(v1, 64 - shift));
      }
      uint64_t* limb = limbs + at * lanes + lane;
      U x = V::Add(V::Load(limb), parts[0]);
      M carry = V::Less(x, parts[0]);
      V::Store(limb, x);
      for (size_t k = at + 1; k < size; ++k) {
        limb += lanes;
        const U part = k == at + 1 ? parts[1] : k == at + 2 ? parts[2] : sign;
        const U sum = V::Add(V::Load(limb), part);
        x = V::Plus(sum, carry);
        carry = V::OrM(V::Less(sum, part), V::Less(x, sum));
        V::Store(limb, x);
      }
      top = V::Or(top, V::Xor(x, V::Sign(x)));
    }
    return V::OrAll(top);
  }

  static uint64_t Add(uint64_t* limbs, size_t size, size_t lanes, size_t at, int shift, bool negate,
                      const uint64_t* low, const uint64_t* high, uint64_t bias_low,
                      uint64_t bias_high) {
    return negate ? AddSigned<true>(limbs, size, lanes, at, shift, low, high, bias_low, bias_high)
                  : AddSigned<false>(limbs, size, lanes, at, shift, low, high, bias_low, bias_high);
  }

  /// |sum| as a double, off by at most 4 units in the last place; where `exact`, not at all.
  template <size_t kSize>
  static size_t QuotientOf(const uint64_t* limbs, size_t lanes, const QuotientPlan& plan,
                           double* quotients, uint8_t* unproven) {
    const uint64_t drop_mask = (uint64_t{1} << plan.drop) - 1;
    const uint64_t half = uint64_t{1} << (plan.drop - 1);
    const D divisor = V::SetD(plan.divisor);
    size_t count = 0;
    for (size_t lane = 0; lane < lanes; lane += V::kLanes) {
      U limb[kSize];
      for (size_t k = 0; k < kSize; ++k) limb[k] = V::Load(limbs + k * lanes + lane);
      const U sign = V::Sign(limb[kSize - 1]);
      M carry = V::Less(V::Set(0), sign);
      for (size_t k = 0; k < kSize; ++k) {
        const U flipped = V::Xor(limb[k], sign);
        limb[k] = V::Plus(flipped, carry);
        carry = V::Less(limb[k], flipped);
      }
      // The highest limb first: then what each addition loses is what is left of its summand.
      D sum = V::FromU(limb[kSize - 1]);
      M exact = V::FitsD(limb[kSize - 1]);
      for (size_t k = kSize - 1; k-- > 0;) {
        const D scaled = V::MulD(sum, V::SetD(18446744073709551616.0));
        const D part = V::FromU(limb[k]);
        sum = V::AddD(scaled, part);
        exact = V::AndM(exact, V::AndM(V::FitsD(limb[k]), V::Equal(V::SubD(sum, scaled), part)));
      }
      D quotient = V::DivD(sum, divisor);
      U bits = V::Bits(quotient);
      // Proven, unless it is so close to the middle of two results that its error matters...
      const U rest = V::And(V::Sub(bits, V::Set(half - kNear)), V::Set(drop_mask));
      M bad = V::Less(rest, V::Set(2 * kNear + 1));
      if (V::Any(bad) && plan.divisor_is_exact) {
        // ...where an exact sum still tells: the remainder says on which side of it the mean is.
        const D remainder = V::Remainder(sum, quotient, divisor);
        const M middle = V::EqualU(V::And(bits, V::Set(drop_mask)), V::Set(half));
        const M above = V::AndM(middle, V::Positive(remainder));
        const M below = V::AndM(middle, V::Negative(remainder));
        bits = V::Minus(V::Plus(bits, V::AndM(above, exact)), V::AndM(below, exact));
        bad = V::AndNotM(exact, bad);
      }
      D mean = V::MulD(V::FromBits(bits), V::SetD(plan.scale));
      const U size = V::Bits(mean);
      const M out = V::OrM(V::Less(size, V::Bits(V::SetD(plan.normal_min))),
                           V::Less(V::Bits(V::SetD(plan.normal_max)), size));
      bad = V::OrM(bad, V::AndM(out, V::Less(V::Set(0), V::Bits(sum))));
      V::Store(reinterpret_cast<uint64_t*>(quotients + lane),
               V::Or(size, V::And(sign, V::Set(kSignBit))));
      count += V::Flags(bad, unproven + lane);
    }
    return count;
  }

  static size_t Quotient(const uint64_t* limbs, size_t size, size_t lanes, const QuotientPlan& plan,
                         double* quotients, uint8_t* unproven) {
    if (size == 1) return QuotientOf<1>(limbs, lanes, plan, quotients, unproven);
    if (size == 2) return QuotientOf<2>(limbs, lanes, plan, quotients, unproven);
    return QuotientOf<3>(limbs, lanes, plan, quotients, unproven);
  }

  static constexpr Kernels Table(const char* name) {
    return {name,     V::kWeightBits, V::kHighUnit, V::kBias, ExtentF4,
            ExtentF8, AccumulateF4,   AccumulateF8, Add,      Quotient};
  }
};

}  // namespace
}  // namespace umbel::aggregation
