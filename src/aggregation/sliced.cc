#include "aggregation/sliced.h"

#include <algorithm>
#include <cmath>

#include "aggregation/widest.h"

namespace umbel::aggregation {
namespace {

constexpr int kSliceBits = 21;
constexpr size_t kLanes = 32;  // enough additions under way to hide how long each takes
constexpr size_t kRestMax = Sliced::kWidth / 64;  // more, and another slice is worth it
// Where neither a product of slices (down to 2^-126 of the largest value each) nor a sum of them
// leaves the range of normal doubles.
constexpr int kExponentMin = -300, kExponentMax = 500;

void Ok(const Status& status) { UMBEL_CHECK(status.ok()); }  // all values are finite

/// Nothing is rounded, so the order of additions does not matter.
UMBEL_WIDEST double Dot(const double* __restrict a, const double* __restrict b, size_t width) {
  double lanes[kLanes] = {};
  for (size_t i = 0; i < width; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  for (size_t half = kLanes / 2; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

UMBEL_WIDEST double Largest(const double* values, size_t width) {
  double lanes[kLanes] = {};
  for (size_t i = 0; i < width; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double size = std::fabs(values[i + lane]);
      lanes[lane] = size > lanes[lane] ? size : lanes[lane];
    }
  return *std::max_element(lanes, lanes + kLanes);
}

/// Moves from `rest` to `slice` what is a multiple of the unit that `magic` stands for: 1.5 * 2^52
/// units, so that an addition rounds to units. Returns how many values leave something.
UMBEL_WIDEST size_t CutSlice(double magic, double* __restrict rest, double* __restrict slice,
                             size_t width) {
  double left = 0;
  double lanes[kLanes] = {};
  for (size_t i = 0; i < width; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double value = rest[i + lane];
      const double part = (value + magic) - magic;
      const double after = value - part;
      slice[i + lane] = part;
      rest[i + lane] = after;
      lanes[lane] += after != 0 ? 1.0 : 0.0;
    }
  for (const double lane : lanes) left += lane;
  return static_cast<size_t>(left);
}

}  // namespace

void Sliced::Cut(std::span<const double> values) {
  UMBEL_CHECK(values.size() <= kWidth);
  size_ = values.size();
  width_ = (values.size() + kLanes - 1) / kLanes * kLanes;
  values_.assign(values.begin(), values.end());
  values_.resize(width_, 0.0);
  slices_ = 0;
  rest_.clear();
  const double largest = Largest(values_.data(), width_);
  if (largest == 0) return;
  std::array<double, kWidth> rest;
  std::copy(values_.begin(), values_.end(), rest.begin());
  const int exponent = std::ilogb(largest) + 1;  // largest < 2^exponent
  size_t left = width_;
  if (exponent >= kExponentMin && exponent <= kExponentMax) {
    while (left != 0 && slices_ < kSlicesMax && (slices_ == 0 || left > kRestMax)) {
      std::vector<double>& slice = slice_[slices_++];
      slice.resize(width_);
      const int unit = exponent - kSliceBits * static_cast<int>(slices_);
      left = CutSlice(std::ldexp(1.5, unit + 52), rest.data(), slice.data(), width_);
    }
  }
  if (left == 0) return;
  for (size_t i = 0; i < size_; ++i)
    if (rest[i] != 0) rest_.emplace_back(i, rest[i]);
}

double Sliced::SlicedPart(size_t place) const {
  double sum = 0;  // the value without its lowest bits: exact
  for (size_t s = 0; s < slices_; ++s) sum += slice_[s][place];
  return sum;
}

void Sliced::AddDot(const Sliced& a, const Sliced& b, ExactScalar& sum) {
  UMBEL_CHECK(a.size_ == b.size_);
  for (size_t s = 0; s < a.slices_; ++s)
    for (size_t t = 0; t < b.slices_; ++t)
      Ok(sum.Add(Dot(a.slice_[s].data(), b.slice_[t].data(), a.width_)));
  for (const auto& [place, rest] : a.rest_) Ok(sum.AddProduct(rest, b.values_[place]));
  for (const auto& [place, rest] : b.rest_) Ok(sum.AddProduct(a.SlicedPart(place), rest));
}

}  // namespace umbel::aggregation
