#include "aggregation/robust.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "aggregation/exact_scalar.h"
#include "aggregation/sort_columns.h"

namespace umbel::aggregation {
namespace {

using Updates = std::span<const std::span<const std::byte>>;

constexpr size_t kScratchBytes = size_t{256} << 10;  // what a core's second cache holds easily
constexpr size_t kColumnsMin = 64;
constexpr size_t kColumnsMax = 4096;

/// Mean of two as NumPy has it: their sum in T, halved; the halves' sum where the sum overflows.
template <typename T>
T Middle(T a, T b) {
  const T sum = a + b;
  return std::isfinite(sum) ? sum / 2 : a / 2 + b / 2;
}

/// Of column c of sorted rows.
template <typename T>
T MedianOf(const T* values, size_t rows, size_t columns, size_t c) {
  const T high = values[(rows / 2) * columns + c];
  return rows % 2 != 0 ? high : Middle(values[(rows / 2 - 1) * columns + c], high);
}

/// Calls `reduce(sorted rows, number of columns, results)` for piece after piece of columns. T is
/// what the elements are compared in.
template <typename T, typename Reduce>
Status ForColumns(NumberType type, Updates updates, std::span<std::byte> out, Reduce reduce) {
  const size_t rows = updates.size();
  const size_t size = ElementSize(type);
  const NumberType result = MeanType(type);
  const size_t count = updates[0].size() / size;
  const size_t columns = std::min(
      count, std::clamp(kScratchBytes / sizeof(T) / rows / 16 * 16, kColumnsMin, kColumnsMax));
  std::vector<T> values(rows * columns);
  std::vector<T> results(columns);
  for (size_t from = 0; from < count; from += columns) {
    const size_t piece = std::min(columns, count - from);
    for (size_t row = 0; row < rows; ++row) {
      const auto target = std::span(values).subspan(row * piece, piece);
      Load(type, updates[row].subspan(from * size, piece * size), target);
      if (!AllFinite(target))
        return Fail(Code::kInvalidArgument, fmt::format("update {} has a value that is not finite "
                                                        "among elements {} to {} of its block",
                                                        row, from, from + piece - 1));
    }
    // Zeros of two signs are equal, so their order would be the updates'.
    for (T& value : std::span(values).first(rows * piece)) value = value + T{0};
    SortColumns(values.data(), rows, piece);
    reduce(values.data(), piece, results.data());
    Store(std::span<const T>(results).first(piece), result,
          out.subspan(from * ElementSize(result), piece * ElementSize(result)));
  }
  return {};
}

/// The same in the type that holds all values of `type`: float for halves and floats, else double.
/// Integers beyond 2^53 are rounded, as NumPy's mean does.
template <typename Reduce>
Status ForSorted(NumberType type, Updates updates, std::span<std::byte> out, Reduce reduce) {
  if (updates.empty()) return Fail(Code::kInvalidArgument, "no updates");
  for (const auto& update : updates)
    if (update.size() != updates[0].size() || update.size() % ElementSize(type) != 0)
      return Fail(Code::kInvalidArgument,
                  fmt::format("blocks of {} and {} bytes of {}", updates[0].size(), update.size(),
                              ElementName(type)));
  UMBEL_CHECK(out.size() == updates[0].size() / ElementSize(type) * ElementSize(MeanType(type)));
  const bool narrow = type == NumberType::kFloat16 || type == NumberType::kFloat32;
  return narrow ? ForColumns<float>(type, updates, out, reduce)
                : ForColumns<double>(type, updates, out, reduce);
}

/// Mean of rows [from, to) of each column: sums in float64, row after row.
template <typename T>
void MeanOfRows(const T* values, size_t from, size_t to, size_t columns, T* results) {
  std::vector<double> sums(columns, 0.0);
  for (size_t row = from; row < to; ++row)
    for (size_t c = 0; c < columns; ++c) sums[c] += static_cast<double>(values[row * columns + c]);
  const auto number = static_cast<double>(to - from);
  for (size_t c = 0; c < columns; ++c) {
    double mean = sums[c] / number;
    if (!std::isfinite(mean)) {  // values near the largest double
      mean = 0;
      for (size_t row = from; row < to; ++row)
        mean += static_cast<double>(values[row * columns + c]) / number;
    }
    results[c] = static_cast<T>(mean);
  }
}

}  // namespace

Status Median(NumberType type, Updates updates, std::span<std::byte> out) {
  return ForSorted(type, updates, out, [&](const auto* values, size_t columns, auto* results) {
    for (size_t c = 0; c < columns; ++c) results[c] = MedianOf(values, updates.size(), columns, c);
  });
}

Status TrimmedMean(NumberType type, Updates updates, double beta, std::span<std::byte> out) {
  if (!(beta >= 0 && beta < 0.5))
    return Fail(Code::kInvalidArgument, fmt::format("beta {} not in [0, 0.5)", beta));
  const auto cut = static_cast<size_t>(beta * static_cast<double>(updates.size()));
  return ForSorted(type, updates, out, [&](const auto* values, size_t columns, auto* results) {
    MeanOfRows(values, cut, updates.size() - cut, columns, results);
  });
}

Status MeanAroundMedian(NumberType type, Updates updates, size_t closest,
                        std::span<std::byte> out) {
  if (closest == 0 || closest > updates.size())
    return Fail(Code::kInvalidArgument,
                fmt::format("closest {} not in [1, {}]", closest, updates.size()));
  return ForSorted(type, updates, out, [&](const auto* values, size_t columns, auto* results) {
    using T = std::remove_cvref_t<decltype(*results)>;
    for (size_t c = 0; c < columns; ++c) {
      T median = MedianOf(values, updates.size(), columns, c);
      if (type == NumberType::kFloat16) median = static_cast<T>(Half(median));
      // The closest are neighbours in the order of size: cut at the end that is farther.
      size_t from = 0, to = updates.size();
      while (to - from > closest) {
        const T below = median - values[from * columns + c];
        const T above = values[(to - 1) * columns + c] - median;
        if (below > above) {
          ++from;
        } else {
          --to;
        }
      }
      double sum = 0;
      for (size_t row = from; row < to; ++row)
        sum += static_cast<double>(values[row * columns + c]);
      results[c] = static_cast<T>(sum / static_cast<double>(closest));
    }
  });
}

}  // namespace umbel::aggregation
