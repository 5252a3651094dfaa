// The proofs of the fast quotient, against integers; and which kernels there are.
#include "aggregation/fold_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "aggregation/exact_sum_cases.h"
#include "aggregation/exact_sum_round.h"
#include "aggregation/fold_cpu.h"

namespace umbel::aggregation {
namespace {

using testing::Random;

constexpr size_t kLanes = 64;

QuotientPlan PlanFor(const Divisor& divisor) {
  return {.divisor = divisor.approximate(),
          .scale = std::ldexp(1.0, -divisor.approximate_exponent()),
          .normal_min = std::ldexp(1.0, -126),
          .normal_max = static_cast<double>(std::numeric_limits<float>::max()),
          .drop = 29,
          .divisor_is_exact = divisor.approximate_is_exact()};
}

Divisor Of(double weight) {
  WeightTotal total;
  EXPECT_TRUE(total.Add(weight).has_value());
  return Divisor(total);
}

/// Runs the quotient and compares what it calls proven. Returns how many it does not.
size_t Check(const Kernels& kernels, const std::vector<uint64_t>& limbs, const Divisor& divisor) {
  const size_t size = limbs.size() / kLanes;
  double quotients[kLanes];
  uint8_t unproven[kLanes];
  const size_t left =
      kernels.quotient(limbs.data(), size, kLanes, PlanFor(divisor), quotients, unproven);
  size_t counted = 0;
  for (size_t i = 0; i < kLanes; ++i) {
    counted += unproven[i];
    if (unproven[i] != 0) continue;
    const auto expected =
        static_cast<uint32_t>(RoundQuotient(limbs.data() + i, size, kLanes, 0, divisor, kFloat32));
    EXPECT_EQ(std::bit_cast<uint32_t>(static_cast<float>(quotients[i])), expected)
        << kernels.name << " size " << size << " lane " << i;
  }
  EXPECT_EQ(counted, left);
  return left;
}

/// A signed number of at most 63 bits, shifted, into all limbs.
void Put(std::vector<uint64_t>& limbs, size_t lane, int64_t number, int shift) {
  const auto wide = static_cast<__int128>(number);
  for (size_t k = 0; k * kLanes < limbs.size(); ++k) {
    const int at = static_cast<int>(64 * k) - shift;  // the bit of the number that limb k begins at
    const __int128 part =
        at >= 0 ? wide >> std::min(at, 127)
                : static_cast<__int128>(static_cast<unsigned __int128>(wide) << std::min(-at, 127));
    limbs[k * kLanes + lane] = static_cast<uint64_t>(part);
  }
}

TEST(Quotient, HalvesAreProvenAndEven) {
  Random random(testing::Seed("HalvesAreProvenAndEven"));
  for (const Kernels* kernels : SupportedKernels()) {
    for (const double weight : {2.0, 3.0, 5.0, 4096.0, 12345.0}) {
      for (const size_t size : {size_t{1}, size_t{2}, size_t{3}}) {
        std::vector<uint64_t> limbs(size * kLanes);
        for (size_t i = 0; i < kLanes; ++i) {
          // The middle between two floats times the weight, and now and then one beside it.
          auto middle = static_cast<int64_t>((random() % (1 << 24)) | (1 << 24) | 1);
          middle *= static_cast<int64_t>(weight);
          if (random() % 4 == 0) middle += static_cast<int64_t>(random() % 3) - 1;
          // Not so far that floats end.
          const int shift = static_cast<int>(random() % std::min<size_t>(64 * size - 50, 85));
          Put(limbs, i, random() % 2 == 0 ? middle : -middle, shift);
        }
        EXPECT_EQ(Check(*kernels, limbs, Of(weight)), 0U) << kernels->name << " " << weight;
      }
    }
  }
}

TEST(Quotient, WhatIsProvenIsRight) {
  Random random(testing::Seed("WhatIsProvenIsRight"));
  size_t lanes = 0;
  size_t left = 0;
  for (int turn = 0; turn < (testing::FullSize() ? 20000 : 200); ++turn) {
    for (const Kernels* kernels : SupportedKernels()) {
      const size_t size = 1 + random() % 2;
      std::vector<uint64_t> limbs(size * kLanes);
      for (uint64_t& limb : limbs) {
        limb = random();
        // Long runs of equal bits: carries, signs, conversions at the edge.
        if (random() % 2 == 0)
          limb = (random() % 2 == 0 ? ~uint64_t{0} : 0) ^ (limb >> (random() % 64));
        if (random() % 4 == 0) limb <<= random() % 64;
      }
      const double weight = random() % 2 == 0
                                ? static_cast<double>(1 + random() % 5000)
                                : testing::MakeWeight(testing::Weights::kLarge, random);
      left += Check(*kernels, limbs, Of(weight));
      lanes += kLanes;
    }
  }
  EXPECT_LT(left, lanes / 10);  // zero by zero is proven; the rest is nearly always
}

TEST(Kernels, AreThoseThatAreAllowed) {
  const auto name_of_best = [](const CpuFeatures& allowed) {
    return std::string(SupportedKernels(allowed).back()->name);
  };
  EXPECT_EQ(name_of_best({}), "generic");
  const CpuFeatures present = PresentCpu();
  if (present.avx2) {
    EXPECT_EQ(name_of_best({.avx2 = true}), "avx2");
  }
  if (present.avx512) {
    EXPECT_TRUE(name_of_best({.avx2 = true, .avx512 = true}).starts_with("avx512"));
  }
}

}  // namespace
}  // namespace umbel::aggregation
