// For tests: sums of products of doubles as plain big integers, and whether a float is their
// correctly rounded mean. Shares nothing with the code under test.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace umbel::aggregation::oracle {

/// An integer of any size, as sign and base 2^32 digits.
class Integer {
 public:
  Integer() = default;

  /// mantissa * 2^shift; shift >= 0.
  static Integer Of(uint64_t mantissa, int shift, bool negative) {
    Integer out;
    out.negative_ = negative;
    out.digits_.assign(static_cast<size_t>(shift / 32), 0);
    unsigned __int128 rest = static_cast<unsigned __int128>(mantissa) << (shift % 32);
    for (; rest != 0; rest >>= 32) out.digits_.push_back(static_cast<uint32_t>(rest));
    out.Trim();
    return out;
  }

  int sign() const { return digits_.empty() ? 0 : negative_ ? -1 : 1; }

  Integer operator-() const {
    Integer out = *this;
    out.negative_ = !negative_;
    return out;
  }

  Integer& operator+=(const Integer& other) {
    if (negative_ == other.negative_ || digits_.empty() || other.digits_.empty()) {
      if (digits_.empty()) negative_ = other.negative_;
      AddMagnitude(other);
    } else if (Larger(digits_, other.digits_)) {
      SubtractMagnitude(other);
    } else {
      Integer out = other;
      out.SubtractMagnitude(*this);
      *this = out;
    }
    Trim();
    return *this;
  }

  Integer operator*(const Integer& other) const {
    Integer out;
    out.negative_ = negative_ != other.negative_;
    out.digits_.assign(digits_.size() + other.digits_.size(), 0);
    for (size_t i = 0; i < digits_.size(); ++i) {
      if (digits_[i] == 0) continue;
      uint64_t carry = 0;
      for (size_t j = 0; j < other.digits_.size() || carry != 0; ++j) {
        const uint64_t factor = j < other.digits_.size() ? other.digits_[j] : 0;
        carry += out.digits_[i + j] + uint64_t{digits_[i]} * factor;
        out.digits_[i + j] = static_cast<uint32_t>(carry);
        carry >>= 32;
      }
    }
    out.Trim();
    return out;
  }

  /// -1, 0 or 1.
  int Compare(const Integer& other) const {
    Integer difference = *this;
    difference += -other;
    return difference.sign();
  }

 private:
  static bool Larger(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
    if (a.size() != b.size()) return a.size() > b.size();
    return std::lexicographical_compare(b.rbegin(), b.rend(), a.rbegin(), a.rend());
  }
  void AddMagnitude(const Integer& other) {
    digits_.resize(std::max(digits_.size(), other.digits_.size()) + 1);
    uint64_t carry = 0;
    for (size_t i = 0; i < digits_.size(); ++i) {
      carry += uint64_t{digits_[i]} + (i < other.digits_.size() ? other.digits_[i] : 0);
      digits_[i] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
  }
  void SubtractMagnitude(const Integer& other) {
    int64_t borrow = 0;
    for (size_t i = 0; i < digits_.size(); ++i) {
      borrow += int64_t{digits_[i]} - (i < other.digits_.size() ? int64_t{other.digits_[i]} : 0);
      digits_[i] = static_cast<uint32_t>(borrow);
      borrow >>= 32;
    }
  }
  void Trim() {
    while (!digits_.empty() && digits_.back() == 0) digits_.pop_back();
    if (digits_.empty()) negative_ = false;
  }

  bool negative_ = false;
  std::vector<uint32_t> digits_;
};

constexpr int kUnit = 1080;  // a double is an integer in units of 2^-kUnit

/// A finite double in units of 2^-kUnit, halves of its last place included.
inline Integer Scaled(double value) {
  if (value == 0) return {};
  int exponent = 0;
  const double fraction = std::frexp(std::abs(value), &exponent);
  const auto mantissa = static_cast<uint64_t>(std::ldexp(fraction, 53));
  const int shift = exponent - 53 + kUnit;  // negative only for subnormals, which end in zeros
  return shift >= 0 ? Integer::Of(mantissa, shift, value < 0)
                    : Integer::Of(mantissa >> -shift, 0, value < 0);
}

/// Sums of weight * value and of weight.
struct Sum {
  Integer products;  // in units of 2^-(2 kUnit)
  Integer weights;   // in units of 2^-kUnit

  void Add(double value, double weight) {
    products += Scaled(value) * Scaled(weight);
    weights += Scaled(weight);
  }
};

/// Whether `mean`, a number of a format with so many bits of significand, is the correctly rounded
/// quotient, half to even: no farther from it than the middles between it and its neighbours.
inline bool IsRounded(const Sum& sum, double mean, int precision, int exponent_min) {
  if (!std::isfinite(mean)) return false;
  int exponent = 0;
  std::frexp(mean, &exponent);
  const bool normal = mean != 0 && exponent - 1 >= exponent_min;
  const int last = (normal ? exponent - 1 : exponent_min) - (precision - 1);
  // Below a power of two numbers are twice as close.
  const bool power =
      normal && exponent - 1 > exponent_min && std::abs(mean) == std::ldexp(1.0, exponent - 1);
  const double magnitude = std::abs(mean);
  const Integer center = Scaled(magnitude);
  const bool negative = sum.products.sign() < 0;
  if (mean != 0 && std::signbit(mean) != negative) return false;
  const Integer target = negative ? -sum.products : sum.products;

  Integer above = center;
  above += Integer::Of(1, last - 1 + kUnit, false);
  Integer below = center;
  below += Integer::Of(1, last - (power ? 2 : 1) + kUnit, true);
  const int high = target.Compare(above * sum.weights);
  const int low = target.Compare(below * sum.weights);
  const auto steps = static_cast<uint64_t>(std::ldexp(magnitude, -last));
  const bool even = steps % 2 == 0;
  return (high < 0 || (high == 0 && even)) && (low > 0 || (low == 0 && (even || power)));
}

}  // namespace umbel::aggregation::oracle
