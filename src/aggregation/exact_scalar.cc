#include "aggregation/exact_scalar.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace umbel::aggregation {
namespace {

using uint128 = unsigned __int128;
using int128 = __int128;

constexpr int kBase = -2176;     // the exponent of place 0; below 2 * -1074, and whole places
constexpr int kPlacesMax = 140;  // 2^(32 * 140 - 2176): every product, 2^200 times
constexpr uint32_t kCarryAt = 1u << 29;  // deposits are below 2^32 a digit, which holds 2^63
constexpr char kVersion = 1;

template <typename T>
struct Format;
template <>
struct Format<float> {
  using Bits = uint32_t;
  using Bin = int64_t;
  static constexpr int kMantissa = 23, kExponents = 256, kBias = 150;
  static constexpr size_t kTables = 2;
  static constexpr size_t kChunk = size_t{1} << 15;  // 2^14 a table, of 48 bits each
};
template <>
struct Format<double> {
  using Bits = uint64_t;
  using Bin = int128;
  static constexpr int kMantissa = 52, kExponents = 2048, kBias = 1075;
  static constexpr size_t kTables = 1;
  static constexpr size_t kChunk = size_t{1} << 20;  // of 106 bits each
};

/// value = mantissa * 2^(exponent - Format<T>::kBias), for finite values.
template <typename T>
struct Parts {
  int64_t mantissa;
  int exponent;  // 1 .. kExponents - 2

  explicit Parts(T value) {
    using F = Format<T>;
    using Bits = typename F::Bits;
    const Bits bits = std::bit_cast<Bits>(value);
    const int field = static_cast<int>(bits >> F::kMantissa) & (F::kExponents - 1);
    const Bits fraction = bits & ((Bits{1} << F::kMantissa) - 1);
    const Bits size = fraction | (Bits{field != 0} << F::kMantissa);
    const int64_t sign = -static_cast<int64_t>(bits >> (8 * sizeof(T) - 1));  // 0 or -1
    mantissa = (static_cast<int64_t>(size) ^ sign) - sign;
    exponent = field + (field == 0);
  }
};

template <typename T>
bool Finite(std::span<const T> values) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  constexpr Bits kField = Bits{F::kExponents - 1} << F::kMantissa;
  Bits top = 0;  // the sign bit is set by a field of ones only
  for (const T value : values)
    top |= (std::bit_cast<Bits>(value) & kField) + (Bits{1} << F::kMantissa);
  return (top >> (8 * sizeof(T) - 1)) == 0;
}

uint128 Absolute(int128 value) {
  return value < 0 ? -static_cast<uint128>(value) : static_cast<uint128>(value);
}

void Trim(std::vector<uint32_t>& digits) {
  while (!digits.empty() && digits.back() == 0) digits.pop_back();
}

// Natural numbers, least digit first, without zeros at the top.
using Natural = std::vector<uint32_t>;

std::strong_ordering CompareNatural(const Natural& a, const Natural& b) {
  if (a.size() != b.size()) return a.size() <=> b.size();
  for (size_t i = a.size(); i-- > 0;)
    if (a[i] != b[i]) return a[i] <=> b[i];
  return std::strong_ordering::equal;
}

int BitLength(const Natural& a) {
  return a.empty() ? 0 : static_cast<int>(32 * a.size()) - std::countl_zero(a.back());
}

Natural ShiftLeft(const Natural& a, int bits) {
  const size_t places = static_cast<size_t>(bits) / 32;
  const int rest = bits % 32;
  Natural out(places, 0);
  uint64_t carry = 0;
  for (const uint32_t digit : a) {
    carry |= static_cast<uint64_t>(digit) << rest;
    out.push_back(static_cast<uint32_t>(carry));
    carry >>= 32;
  }
  out.push_back(static_cast<uint32_t>(carry));
  Trim(out);
  return out;
}

/// a -= b, for a >= b.
void SubtractNatural(Natural& a, const Natural& b) {
  int64_t carry = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    carry += static_cast<int64_t>(a[i]) - (i < b.size() ? static_cast<int64_t>(b[i]) : 0);
    a[i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  Trim(a);
}

}  // namespace

bool AllFinite(std::span<const float> values) { return Finite(values); }
bool AllFinite(std::span<const double> values) { return Finite(values); }

void ExactScalar::Cover(int from, int to) {
  if (digits_.empty()) first_ = from;
  if (from < first_) {
    digits_.insert(digits_.begin(), static_cast<size_t>(first_ - from), 0);
    first_ = from;
  }
  const auto size = static_cast<size_t>(to - first_);
  if (digits_.size() < size) digits_.resize(size, 0);
}

void ExactScalar::Add(bool negative, uint128 mantissa, int exponent) {
  if (mantissa == 0) return;
  if (++waiting_ >= kCarryAt) Carry();
  const int bit = exponent - kBase;
  const int place = bit / 32;
  const int shift = bit % 32;
  // The mantissa's upper half apart, as 128 bits and the shift do not fit into 128.
  const uint128 low = (mantissa & ~uint64_t{0}) << shift;
  const uint128 high = (mantissa >> 64) << shift;
  const uint32_t parts[] = {static_cast<uint32_t>(low),        static_cast<uint32_t>(low >> 32),
                            static_cast<uint32_t>(low >> 64),  static_cast<uint32_t>(high),
                            static_cast<uint32_t>(high >> 32), static_cast<uint32_t>(high >> 64)};
  constexpr int kPlaces[] = {0, 1, 2, 2, 3, 4};
  int used = 5;
  while (parts[used] == 0) --used;
  Cover(place, place + kPlaces[used] + 1);
  int64_t* digits = digits_.data() + (place - first_);
  for (int i = 0; i <= used; ++i) {
    const auto part = static_cast<int64_t>(parts[i]);
    digits[kPlaces[i]] += negative ? -part : part;
  }
}

Status ExactScalar::Deposit(double value, bool negate) {
  if (!std::isfinite(value))
    return Fail(Code::kInvalidArgument, fmt::format("value {} is not finite", value));
  const Parts<double> parts(value);
  Add((parts.mantissa < 0) != negate, Absolute(parts.mantissa),
      parts.exponent - Format<double>::kBias);
  return {};
}

Status ExactScalar::DepositProduct(double a, double b, bool negate) {
  if (!std::isfinite(a) || !std::isfinite(b))
    return Fail(Code::kInvalidArgument, fmt::format("product {} * {} is not finite", a, b));
  const Parts<double> x(a), y(b);
  const int128 product = static_cast<int128>(x.mantissa) * y.mantissa;
  Add((product < 0) != negate, Absolute(product),
      x.exponent + y.exponent - 2 * Format<double>::kBias);
  return {};
}

// Mantissas are summed in one integer per exponent, which costs an addition each; the integers go
// to the digits once a chunk.
template <typename T, bool kProducts>
Status ExactScalar::AddBlock(std::span<const T> a, std::span<const T> b) {
  using F = Format<T>;
  using Bin = typename F::Bin;
  if (!Finite(a) || (kProducts && a.data() != b.data() && !Finite(b)))
    return Fail(Code::kInvalidArgument, "a value is not finite");
  UMBEL_CHECK(!kProducts || a.size() == b.size());
  constexpr size_t kBins = kProducts ? 2 * F::kExponents : F::kExponents;
  std::array<std::array<Bin, kBins>, F::kTables> bins;
  for (size_t from = 0; from < a.size(); from += F::kChunk) {
    const size_t count = std::min(F::kChunk, a.size() - from);
    for (auto& table : bins) table.fill(0);
    for (size_t i = 0; i < count; ++i) {
      const Parts<T> x(a[from + i]);
      auto& table = bins[i % F::kTables];
      if constexpr (kProducts) {
        const Parts<T> y(b[from + i]);
        table[static_cast<size_t>(x.exponent + y.exponent)] +=
            static_cast<Bin>(x.mantissa) * y.mantissa;
      } else {
        table[static_cast<size_t>(x.exponent)] += x.mantissa;
      }
    }
    for (size_t exponent = 0; exponent < kBins; ++exponent) {
      Bin sum = 0;
      for (const auto& table : bins) sum += table[exponent];
      if (sum == 0) continue;
      Add(sum < 0, Absolute(sum), static_cast<int>(exponent) - (kProducts ? 2 : 1) * F::kBias);
    }
  }
  return {};
}

Status ExactScalar::AddValues(std::span<const float> values) {
  return AddBlock<float, false>(values, {});
}
Status ExactScalar::AddValues(std::span<const double> values) {
  return AddBlock<double, false>(values, {});
}
Status ExactScalar::AddSquares(std::span<const float> values) {
  return AddBlock<float, true>(values, values);
}
Status ExactScalar::AddSquares(std::span<const double> values) {
  return AddBlock<double, true>(values, values);
}
Status ExactScalar::AddProducts(std::span<const float> a, std::span<const float> b) {
  return AddBlock<float, true>(a, b);
}
Status ExactScalar::AddProducts(std::span<const double> a, std::span<const double> b) {
  return AddBlock<double, true>(a, b);
}

void ExactScalar::Combine(const ExactScalar& other, bool negate) {
  if (other.digits_.empty()) return;
  if (this == &other) {
    const ExactScalar copy = other;
    return Combine(copy, negate);
  }
  if (waiting_ + other.waiting_ + 1 >= kCarryAt) Carry();
  if (waiting_ + other.waiting_ + 1 >= kCarryAt) {
    ExactScalar carried = other;
    carried.Carry();
    return Combine(carried, negate);
  }
  const int end = other.first_ + static_cast<int>(other.digits_.size());
  Cover(other.first_, end);
  for (size_t i = 0; i < other.digits_.size(); ++i) {
    int64_t& digit = digits_[static_cast<size_t>(other.first_ - first_) + i];
    digit += negate ? -other.digits_[i] : other.digits_[i];
  }
  waiting_ += other.waiting_ + 1;
}

void ExactScalar::Carry() {
  int64_t carry = 0;
  for (int64_t& digit : digits_) {
    carry += digit;
    digit = static_cast<int64_t>(static_cast<uint32_t>(carry));
    carry >>= 32;
  }
  if (carry != 0) digits_.push_back(carry);
  waiting_ = 1;  // digits are again below 2^32, as after one deposit
}

ExactScalar::Magnitude ExactScalar::Canonical() const {
  Magnitude out;
  // As many carries as fit into 64 bits: two more digits, then a sign that is 0 or -1.
  const auto digit = [&](size_t i) { return i < digits_.size() ? digits_[i] : 0; };
  const auto run = [&](int64_t sign) {
    int64_t carry = 0;
    out.digits.clear();
    for (size_t i = 0; i < digits_.size() + 2; ++i) {
      carry += sign * digit(i);
      out.digits.push_back(static_cast<uint32_t>(carry));
      carry >>= 32;
    }
    return carry;
  };
  if (run(1) < 0) {
    out.negative = true;
    run(-1);
  }
  Trim(out.digits);
  const auto zeros = static_cast<size_t>(
      std::find_if(out.digits.begin(), out.digits.end(), [](uint32_t d) { return d != 0; }) -
      out.digits.begin());
  out.digits.erase(out.digits.begin(), out.digits.begin() + static_cast<std::ptrdiff_t>(zeros));
  out.first = out.digits.empty() ? 0 : first_ + static_cast<int>(zeros);
  return out;
}

/// The double nearest to ±(top + sticky) * 2^exponent, where top has its highest bit set and sticky
/// stands for something above 0 and below 1.
double ExactScalar::RoundBits(bool negative, uint64_t top, bool sticky, int64_t exponent) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // Bits to drop: 11, or more where doubles are subnormal.
  int64_t drop = 11;
  if (exponent + drop < -1074) drop = -1074 - exponent;
  if (exponent > 1024) return negative ? -kInfinity : kInfinity;
  if (drop > 64) return negative ? -0.0 : 0.0;  // below half of the smallest
  const uint64_t kept = drop == 64 ? 0 : top >> drop;
  const uint64_t half = uint64_t{1} << (drop - 1);
  const uint64_t rest = drop == 64 ? top : top & ((half << 1) - 1);
  const bool up = rest > half || (rest == half && (sticky || (kept & 1) != 0));
  const double size = std::ldexp(static_cast<double>(kept + up), static_cast<int>(exponent + drop));
  return negative ? -size : size;
}

double ExactScalar::Round() const {
  const Magnitude m = Canonical();
  if (m.digits.empty()) return 0;
  const int length = BitLength(m.digits);
  // The highest 64 bits, from (up to) the three highest digits.
  uint128 high = 0;
  const size_t size = m.digits.size();
  for (size_t i = 0; i < 3; ++i) high = (high << 32) | (i < size ? m.digits[size - 1 - i] : 0);
  const int spare = 32 - std::countl_zero(m.digits.back());  // bits of `high` above its lower 64
  const auto top = static_cast<uint64_t>(high >> spare);
  bool sticky = (high & ((uint128{1} << spare) - 1)) != 0;
  for (size_t i = 0; i + 3 < size; ++i) sticky = sticky || m.digits[i] != 0;
  return RoundBits(m.negative, top, sticky, int64_t{32} * m.first + kBase + length - 64);
}

int ExactScalar::Sign() const {
  const Magnitude m = Canonical();
  return m.digits.empty() ? 0 : m.negative ? -1 : 1;
}

bool operator==(const ExactScalar& a, const ExactScalar& b) { return (a <=> b) == 0; }

std::strong_ordering operator<=>(const ExactScalar& a, const ExactScalar& b) {
  ExactScalar difference = a;
  difference.Remove(b);
  return difference.Sign() <=> 0;
}

std::string ExactScalar::Serialize() const {
  const Magnitude m = Canonical();
  std::string out = {kVersion, m.negative ? '\1' : '\0', static_cast<char>(m.first),
                     static_cast<char>(m.digits.size())};
  for (const uint32_t digit : m.digits)
    for (int byte = 0; byte < 4; ++byte) out.push_back(static_cast<char>(digit >> (8 * byte)));
  return out;
}

Result<ExactScalar> ExactScalar::Parse(std::string_view bytes) {
  const auto bad = [&](std::string_view why) {
    return Fail(Code::kInvalidArgument,
                fmt::format("exact sum of {} bytes: {}", bytes.size(), why));
  };
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  if (bytes.size() < 4) return bad("shorter than its head of 4");
  if (bytes[0] != kVersion) return bad(fmt::format("version {} is not 1", byte(0)));
  if (byte(1) > 1) return bad(fmt::format("sign {} is not 0 or 1", byte(1)));
  const size_t count = byte(3);
  if (bytes.size() != 4 + 4 * count) return bad(fmt::format("not of {} digits", count));
  if (byte(2) + count > kPlacesMax) return bad("more digits than a sum can have");
  if (count == 0 && (byte(1) != 0 || byte(2) != 0)) return bad("zero with a sign or a place");
  ExactScalar out;
  out.first_ = byte(2);
  for (size_t i = 0; i < count; ++i) {
    uint32_t digit = 0;
    for (size_t b = 4; b-- > 0;) digit = (digit << 8) | byte(4 + 4 * i + b);
    if (digit == 0 && (i == 0 || i + 1 == count)) return bad("a zero at an end");
    out.digits_.push_back(byte(1) != 0 ? -static_cast<int64_t>(digit) : int64_t{digit});
  }
  out.waiting_ = count != 0;
  return out;
}

Result<double> RoundedQuotient(const ExactScalar& numerator, const ExactScalar& denominator) {
  ExactScalar::Magnitude n = numerator.Canonical();
  ExactScalar::Magnitude d = denominator.Canonical();
  if (d.digits.empty()) return Fail(Code::kInvalidArgument, "quotient of a sum by zero");
  if (n.digits.empty()) return 0.0;
  // n / d = (N / D) * 2^scale; shifted so that N's quotient by D has 64 or 65 bits.
  int64_t scale = int64_t{32} * (n.first - d.first);
  const int shift = BitLength(d.digits) - BitLength(n.digits) + 64;
  Natural rest = shift >= 0 ? ShiftLeft(n.digits, shift) : n.digits;
  if (shift < 0) d.digits = ShiftLeft(d.digits, -shift);
  scale -= shift;
  Natural divisor = ShiftLeft(d.digits, 64);
  uint128 quotient = 0;
  for (int i = 0; i <= 64; ++i) {
    quotient <<= 1;
    if (CompareNatural(rest, divisor) >= 0) {
      SubtractNatural(rest, divisor);
      quotient |= 1;
    }
    rest = ShiftLeft(rest, 1);
  }
  bool sticky = !rest.empty();
  if ((quotient >> 64) != 0) {
    sticky = sticky || (quotient & 1) != 0;
    quotient >>= 1;
    ++scale;
  }
  return ExactScalar::RoundBits(n.negative != d.negative, static_cast<uint64_t>(quotient), sticky,
                                scale);
}

}  // namespace umbel::aggregation
