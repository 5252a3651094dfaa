#include "aggregation/weight_total.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "aggregation/exact_sum_round.h"
#include "aggregation/weight_plan.h"

namespace umbel::aggregation {
namespace {

constexpr size_t kWords = WeightTotal::kWords;

/// The weight over three words, the first of them at index `at`.
struct Placed {
  size_t at;
  std::array<uint64_t, 2> words;
};

Placed Place(double weight) {
  const SplitWeight split = SplitOf(weight);
  const auto position = static_cast<unsigned>(split.exponent - WeightTotal::kLowExponent);
  const unsigned shift = position % 64;
  return {position / 64,
          {split.mantissa << shift, shift == 0 ? 0 : split.mantissa >> (64 - shift)}};
}

/// Adds words to `sum` from `at` on; false where it ran over.
bool AddWords(std::array<uint64_t, kWords>& sum, size_t at, std::span<const uint64_t> words) {
  uint64_t carry = 0;
  for (size_t i = at; i < kWords && (carry != 0 || i - at < words.size()); ++i) {
    const unsigned __int128 wide = static_cast<unsigned __int128>(sum[i]) + carry +
                                   (i - at < words.size() ? words[i - at] : 0);
    sum[i] = static_cast<uint64_t>(wide);
    carry = static_cast<uint64_t>(wide >> 64);
  }
  return carry == 0;
}

bool SubtractWords(std::array<uint64_t, kWords>& sum, size_t at, std::span<const uint64_t> words) {
  uint64_t borrow = 0;
  for (size_t i = at; i < kWords && (borrow != 0 || i - at < words.size()); ++i) {
    const unsigned __int128 wide = static_cast<unsigned __int128>(sum[i]) - borrow -
                                   (i - at < words.size() ? words[i - at] : 0);
    sum[i] = static_cast<uint64_t>(wide);
    borrow = static_cast<uint64_t>(wide >> 64) != 0 ? 1 : 0;
  }
  return borrow == 0;
}

}  // namespace

Status CheckWeight(double weight) {
  if (std::isfinite(weight) && weight > 0) return {};
  return Fail(Code::kInvalidArgument, fmt::format("weight {} is not finite and above 0", weight));
}

Status WeightTotal::Add(double weight) {
  UMBEL_TRY(CheckWeight(weight));
  const Placed placed = Place(weight);
  auto sum = words_;
  if (!AddWords(sum, placed.at, placed.words))
    return Fail(Code::kOutOfRange, "the total of the weights is above 2^1152");
  words_ = sum;
  return {};
}

Status WeightTotal::Remove(double weight) {
  UMBEL_TRY(CheckWeight(weight));
  const Placed placed = Place(weight);
  auto sum = words_;
  if (!SubtractWords(sum, placed.at, placed.words))
    return Fail(Code::kFailedPrecondition,
                fmt::format("weight {} is more than the total {}", weight, ToDouble()));
  words_ = sum;
  return {};
}

Status WeightTotal::Merge(const WeightTotal& other) {
  auto sum = words_;
  if (!AddWords(sum, 0, other.words_))
    return Fail(Code::kOutOfRange, "the total of the weights is above 2^1152");
  words_ = sum;
  return {};
}

bool WeightTotal::IsZero() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
}

double WeightTotal::ToDouble() const {
  std::array<uint64_t, kWords + 1> limbs{};  // the last for the sign
  std::copy(words_.begin(), words_.end(), limbs.begin());
  const uint64_t bits =
      RoundQuotient(limbs.data(), limbs.size(), 1, kLowExponent, Divisor::One(), kFloat64);
  return std::bit_cast<double>(bits);
}

WeightTotal WeightTotal::FromWords(std::span<const uint64_t, kWords> words) {
  WeightTotal total;
  std::copy(words.begin(), words.end(), total.words_.begin());
  return total;
}

Divisor::Divisor(const WeightTotal& total) {
  UMBEL_CHECK(!total.IsZero());
  const auto words = total.words();
  size_t first = 0;
  size_t last = kWords - 1;
  while (words[first] == 0) ++first;
  while (words[last] == 0) --last;
  const int shift = std::countr_zero(words[first]);
  exponent_ = WeightTotal::kLowExponent + static_cast<int>(64 * first) + shift;
  for (size_t i = first; i <= last; ++i) {
    const uint64_t above = i < last && shift != 0 ? words[i + 1] << (64 - shift) : 0;
    words_.push_back((words[i] >> shift) | above);
  }
  if (words_.back() == 0) words_.pop_back();
  Finish();
}

Divisor Divisor::One() {
  Divisor one;
  one.words_ = {1};
  one.Finish();
  return one;
}

void Divisor::Finish() {
  const int clear = std::countl_zero(words_.back());
  top_ = words_.back() << clear;
  if (words_.size() > 1 && clear != 0) top_ |= words_[words_.size() - 2] >> (64 - clear);
  top_exponent_ = exponent_ + static_cast<int>(64 * (words_.size() - 1)) - clear;
  approximate_ = std::ldexp(static_cast<double>(top_ >> 11), -52);
  approximate_exponent_ = top_exponent_ + 63;
  approximate_is_exact_ = fits_top() && (top_ & 0x7ff) == 0;
}

}  // namespace umbel::aggregation
