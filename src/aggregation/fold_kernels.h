// The inner loops of a fold, once for each kind of CPU. Pure functions over plain memory; safe from
// any thread. Plain C types only: the files that implement them are compiled with flags of their
// own and must not instantiate anything the rest of the program shares.
#pragma once

#include <cstddef>
#include <cstdint>

namespace umbel::aggregation {

/// Coordinates of a block; all of its limbs begin at the same power of two.
inline constexpr size_t kBlock = 256;
/// Lanes come in multiples of this; a block at an array's end may have fewer than kBlock.
inline constexpr size_t kLaneStep = 32;
/// Updates of one group.
inline constexpr size_t kGroupMax = 256;

struct KernelItem {
  const void* x;    // lanes floats or doubles, native, any alignment
  uint64_t weight;  // below 2^weight_bits
};

/// Of |x| as bit patterns.
struct Extent {
  uint64_t max;           // 0: all are zero
  uint64_t min_less_one;  // of the values that are not zero; all ones where there are none
};

/// Which numbers of a block an accumulation takes, and on which grid.
struct Digits {
  uint64_t from;  // |x| as bits of a double is in [from, from + width); others count as zero
  uint64_t width;
  double scale1;  // x * scale1 * scale2 is an integer below 2^51
  double scale2;
  bool banded;  // false: all numbers are inside
};

enum class Part { kWhole, kHigh, kLow };  // of a double: its first 26 bits, and what is left

struct QuotientPlan {
  double divisor;
  double scale;       // the quotient times this is the mean
  double normal_min;  // below it, and not zero: not proven
  double normal_max;  // above it: not proven
  int drop;           // bits of a double's fraction that the result has no room for
  bool divisor_is_exact;
};

struct Kernels {
  const char* name;
  int weight_bits;
  int high_unit;  // an accumulator is high * 2^high_unit + low
  uint64_t bias;  // what an item adds to it for each unit of weight, besides x

  Extent (*extent_f4)(const void* x, size_t lanes);
  Extent (*extent_f8)(const void* x, size_t lanes);

  /// low, high: for each lane the sum over at most kGroupMax items of weight * (bias + digits).
  void (*accumulate_f4)(const KernelItem* items, size_t count, size_t lanes, const Digits& digits,
                        uint64_t* low, uint64_t* high);
  void (*accumulate_f8)(const KernelItem* items, size_t count, size_t lanes, const Digits& digits,
                        Part part, uint64_t* low, uint64_t* high);

  /// Adds (or with `negate` subtracts) accumulators less their bias, times 2^shift, to numbers of
  /// `size` limbs in two's complement, beginning at limb `at`. shift < 64. Modulo 2^(64 size).
  /// returns  the bits that are set in the highest limb of any |value|, about: limb ^ sign.
  uint64_t (*add)(uint64_t* limbs, size_t size, size_t lanes, size_t at, int shift, bool negate,
                  const uint64_t* low, const uint64_t* high, uint64_t bias_low, uint64_t bias_high);

  /// quotients[i] rounds to the result type as sum / divisor does, unless unproven[i]. size <= 3.
  /// returns  how many are not proven.
  size_t (*quotient)(const uint64_t* limbs, size_t size, size_t lanes, const QuotientPlan& plan,
                     double* quotients, uint8_t* unproven);
};

const Kernels& GenericKernels();
// nullptr where they are not compiled in. Whether the CPU can run them is SupportedKernels'
// business.
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* Avx512IfmaKernels();

}  // namespace umbel::aggregation
