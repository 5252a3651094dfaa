// Sorting many short columns at once: the comparators of a sorting network, each over a whole row.
// Functions; safe from any thread.
#pragma once

#include <cstddef>

namespace umbel::aggregation {

/// Sorts each column of a row-major table, ascending from row to row. Which of two zeros comes
/// first is open.
///
/// values  rows x columns, none NaN or infinite.
/// cost    O(rows log² rows) comparators a column, as many columns at a time as a vector holds.
void SortColumns(float* values, size_t rows, size_t columns);
void SortColumns(double* values, size_t rows, size_t columns);

}  // namespace umbel::aggregation
