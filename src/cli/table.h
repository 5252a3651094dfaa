// Tables with rounded corners, for terminals. Functions; any thread.
#pragma once

#include <string>
#include <vector>

namespace umbel::cli {

/// One cell: its lines, from above. Shorter cells of a row stand in its middle.
using Cell = std::vector<std::string>;

/// The head and rows in boxes; each row has an empty line above and below.
std::string DrawTable(const std::vector<std::string>& head,
                      const std::vector<std::vector<Cell>>& rows);

/// Columns that a terminal gives to this UTF-8 text: one for each code point.
size_t ColumnsOf(const std::string& text);

/// "3 s ago" of what IsoFormat wrote; as it is when it cannot be read.
std::string Ago(const std::string& iso);

}  // namespace umbel::cli
