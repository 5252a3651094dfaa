// Exact dot products at the speed of vectors. A block of doubles is cut into slices, each a
// multiple of a power of two with 21 bits; then products of slices are whole numbers of 42 bits,
// and 1024 of them add up in a double without rounding, in any order. (After Ozaki et al., Numer.
// Algorithms 59, 2012.) Values; an object belongs to one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "aggregation/exact_scalar.h"

namespace umbel::aggregation {

class Sliced {
 public:
  static constexpr size_t kWidth = 1024;

  /// values  at most kWidth, all finite.
  /// cost    float32 of one magnitude takes 2 slices, float64 3 or 4, values of many magnitudes up
  /// to
  ///         6; the few values that need more are kept apart.
  void Cut(std::span<const double> values);

  /// Adds the dot product of two blocks of one size; they may be the same.
  /// cost  of 2 and 2 slices below 1 ns an element with AVX-512.
  static void AddDot(const Sliced& a, const Sliced& b, ExactScalar& sum);

 private:
  static constexpr size_t kSlicesMax = 6;

  size_t size_ = 0;
  size_t width_ = 0;  // of values and slices: with zeros up to a multiple of the vector's
  size_t slices_ = 0;
  std::array<std::vector<double>, kSlicesMax> slice_;
  // What the slices leave over, by place.
  std::vector<std::pair<size_t, double>> rest_;
  std::vector<double> values_;

  double SlicedPart(size_t place) const;
};

}  // namespace umbel::aggregation
