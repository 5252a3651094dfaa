// The exact sum of weights. A value; one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

/// A weight is a finite double above 0: Flower's weight key may hold a float.
///
/// errors  kInvalidArgument.
Status CheckWeight(double weight);

/// Holds up to 2^32 weights of any size without loss, in 280 bytes.
class WeightTotal {
 public:
  static constexpr size_t kWords = 35;
  static constexpr int kLowExponent = -17 * 64;  // word 0 counts 2^kLowExponent

  /// errors  kInvalidArgument: CheckWeight; kOutOfRange: more than a total holds.
  Status Add(double weight);
  /// errors  kInvalidArgument: CheckWeight; kFailedPrecondition: more than there is.
  Status Remove(double weight);
  /// errors  kOutOfRange: more than a total holds.
  Status Merge(const WeightTotal& other);

  bool IsZero() const;
  /// The nearest double, ties to even.
  double ToDouble() const;

  std::span<const uint64_t, kWords> words() const { return words_; }
  static WeightTotal FromWords(std::span<const uint64_t, kWords> words);

  bool operator==(const WeightTotal&) const = default;

 private:
  std::array<uint64_t, kWords> words_{};
};

/// A total as an odd integer times a power of two, made once to divide many sums by it.
class Divisor {
 public:
  /// total  not zero.
  explicit Divisor(const WeightTotal& total);
  static Divisor One();

  /// Its highest 64 bits, the first of them set, times 2^top_exponent; less than one unit is
  /// missing where it has more.
  uint64_t top() const { return top_; }
  int top_exponent() const { return top_exponent_; }
  bool fits_top() const { return words_.size() == 1; }
  /// All of it: little-endian words times 2^exponent.
  std::span<const uint64_t> words() const { return words_; }
  int exponent() const { return exponent_; }
  /// In [1, 2), times 2^approximate_exponent: off by less than 2^-52 of itself, or not at all.
  double approximate() const { return approximate_; }
  int approximate_exponent() const { return approximate_exponent_; }
  bool approximate_is_exact() const { return approximate_is_exact_; }

 private:
  Divisor() = default;
  void Finish();

  std::vector<uint64_t> words_;
  int exponent_ = 0;
  uint64_t top_ = 0;
  int top_exponent_ = 0;
  double approximate_ = 1;
  int approximate_exponent_ = 0;
  bool approximate_is_exact_ = true;
};

}  // namespace umbel::aggregation
