#include "cli/table.h"

#include <algorithm>

#include "base/clock.h"

namespace umbel::cli {
namespace {

std::string Repeat(const char* piece, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += piece;
  return all;
}

std::string Rule(const std::vector<size_t>& widths, const char* left, const char* middle,
                 const char* right) {
  std::string line = left;
  for (size_t i = 0; i < widths.size(); ++i)
    line += Repeat("─", widths[i] + 2) + (i + 1 < widths.size() ? middle : right);
  return line + "\n";
}

}  // namespace

size_t ColumnsOf(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string DrawTable(const std::vector<std::string>& head,
                      const std::vector<std::vector<Cell>>& rows) {
  std::vector<size_t> widths;
  for (const std::string& title : head) widths.push_back(ColumnsOf(title));
  for (const auto& row : rows)
    for (size_t i = 0; i < widths.size() && i < row.size(); ++i)
      for (const std::string& line : row[i]) widths[i] = std::max(widths[i], ColumnsOf(line));
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = "│";
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string cell = i < cells.size() ? cells[i] : "";
      text += " " + cell + std::string(widths[i] - ColumnsOf(cell) + 1, ' ') + "│";
    }
    return text + "\n";
  };
  std::string all = Rule(widths, "╭", "┬", "╮") + line(head);
  for (const auto& row : rows) {
    all += Rule(widths, "├", "┼", "┤");
    size_t height = 1;
    for (const Cell& cell : row) height = std::max(height, cell.size());
    all += line({});
    for (size_t i = 0; i < height; ++i) {
      std::vector<std::string> cells;
      for (const Cell& cell : row) {
        const size_t above = (height - std::min(height, cell.size())) / 2;
        cells.push_back(i >= above && i - above < cell.size() ? cell[i - above] : "");
      }
      all += line(cells);
    }
    all += line({});
  }
  return all + Rule(widths, "╰", "┴", "╯");
}

std::string Ago(const std::string& iso) {
  const auto at = ParseIso(iso);
  if (!at.ok()) return iso;
  const double seconds = UnixSeconds(SystemClock().Now()) - UnixSeconds(*at);
  if (seconds < 120) return fmt::format("{:.0f} s ago", std::max(seconds, 0.0));
  if (seconds < 7200) return fmt::format("{:.0f} min ago", seconds / 60);
  if (seconds < 172800) return fmt::format("{:.0f} h ago", seconds / 3600);
  return fmt::format("{:.0f} days ago", seconds / 86400);
}

}  // namespace umbel::cli
