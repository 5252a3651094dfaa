// Exact sums of doubles and of products of two doubles: for what is summed across the coordinates
// of a model (norms, distances) or across the replies of a round (metrics, losses). Nothing is
// rounded before the end, so neither order nor grouping nor threads can show in the result. A
// value; one thread at a time.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

/// True if no element is NaN or infinite. cost  memory bandwidth.
bool AllFinite(std::span<const float> values);
bool AllFinite(std::span<const double> values);

/// A fixed-point number wide enough for every product of two doubles (2^-2148 up to 2^2048, and
/// 2^64 of them), of which only the digits in use are kept: about 100 bytes for a norm of float32,
/// at most 1.2 KB. After Kulisch's long accumulator; digits of 32 bits in int64, so that carries
/// can wait.
class ExactScalar {
 public:
  /// errors  kInvalidArgument: a value is not finite; the sum is as before.
  Status Add(double value) { return Deposit(value, false); }
  Status Subtract(double value) { return Deposit(value, true); }
  Status AddProduct(double a, double b) { return DepositProduct(a, b, false); }
  Status SubtractProduct(double a, double b) { return DepositProduct(a, b, true); }

  /// Whole blocks; best with 10 000 elements or more, as each call clears its tables.
  ///
  /// AddProducts  a[i] * b[i]; a and b are of one size.
  /// cost         1-2 ns an element, 64 KB of stack. errors  kInvalidArgument: a value is not
  /// finite;
  ///              the sum is as before.
  Status AddValues(std::span<const float> values);
  Status AddValues(std::span<const double> values);
  Status AddSquares(std::span<const float> values);
  Status AddSquares(std::span<const double> values);
  Status AddProducts(std::span<const float> a, std::span<const float> b);
  Status AddProducts(std::span<const double> a, std::span<const double> b);

  void Merge(const ExactScalar& other) { Combine(other, false); }
  /// Takes out again what was merged or added.
  void Remove(const ExactScalar& other) { Combine(other, true); }

  /// The nearest double, ties to even; beyond the largest, infinity.
  double Round() const;
  /// -1, 0 or 1.
  int Sign() const;

  /// Compare the numbers, not the histories.
  friend bool operator==(const ExactScalar& a, const ExactScalar& b);
  friend std::strong_ordering operator<=>(const ExactScalar& a, const ExactScalar& b);

  /// Equal numbers give equal bytes: version, sign, first digit, count, digits; little-endian.
  std::string Serialize() const;
  /// errors  kInvalidArgument: not the bytes that Serialize() writes for some number.
  static Result<ExactScalar> Parse(std::string_view bytes);

 private:
  friend Result<double> RoundedQuotient(const ExactScalar& numerator,
                                        const ExactScalar& denominator);
  /// Sign and digits without zeros at either end; zero has none.
  struct Magnitude {
    bool negative = false;
    int first = 0;  // place of digits[0]
    std::vector<uint32_t> digits;
  };

  Status Deposit(double value, bool negate);
  Status DepositProduct(double a, double b, bool negate);
  /// Adds ±mantissa * 2^exponent; exponent >= -2148.
  void Add(bool negative, unsigned __int128 mantissa, int exponent);
  void Combine(const ExactScalar& other, bool negate);
  void Cover(int from, int to);
  void Carry();
  Magnitude Canonical() const;
  static double RoundBits(bool negative, uint64_t top, bool sticky, int64_t exponent);

  template <typename T, bool kProducts>
  Status AddBlock(std::span<const T> a, std::span<const T> b);

  int first_ = 0;                // place of digits_[0]; a place is worth 2^(32 * place - 2176)
  std::vector<int64_t> digits_;  // signed, and beyond 32 bits while carries wait
  uint32_t waiting_ = 0;         // deposits since the last carry
};

/// numerator / denominator as the nearest double, ties to even: a weighted mean, when they are the
/// sum of w * x and the sum of w. errors  kInvalidArgument: the denominator is zero.
Result<double> RoundedQuotient(const ExactScalar& numerator, const ExactScalar& denominator);

}  // namespace umbel::aggregation
