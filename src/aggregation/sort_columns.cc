// Compiled for finite numbers (CMakeLists.txt), where minimum and maximum are one instruction.
#include "aggregation/sort_columns.h"

#include "aggregation/widest.h"

namespace umbel::aggregation {
namespace {

/// Batcher's merge exchange (Knuth, TAOCP 3, algorithm 5.2.2M).
template <typename T>
[[gnu::always_inline]] inline void MergeExchange(T* values, size_t rows, size_t columns) {
  if (rows < 2) return;
  size_t top = 1;
  while (2 * top < rows) top *= 2;
  for (size_t p = top; p > 0; p /= 2) {
    size_t q = top, r = 0, d = p;
    for (;;) {
      for (size_t i = 0; i + d < rows; ++i) {
        if ((i & p) != r) continue;
        T* __restrict low = values + i * columns;
        T* __restrict high = values + (i + d) * columns;
        for (size_t c = 0; c < columns; ++c) {
          const T a = low[c], b = high[c];
          low[c] = b < a ? b : a;
          high[c] = b < a ? a : b;
        }
      }
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
}

}  // namespace

UMBEL_WIDEST void SortColumns(float* values, size_t rows, size_t columns) {
  MergeExchange(values, rows, columns);
}
UMBEL_WIDEST void SortColumns(double* values, size_t rows, size_t columns) {
  MergeExchange(values, rows, columns);
}

}  // namespace umbel::aggregation
