#include "base/clock.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <optional>

namespace umbel {
namespace {

/// Takes exactly `width` decimal digits from the front of `text`.
std::optional<int> TakeNumber(std::string_view& text, size_t width) {
  if (text.size() < width) return std::nullopt;
  int value = 0;
  for (size_t i = 0; i < width; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(width);
  return value;
}

bool TakeChar(std::string_view& text, std::string_view choices) {
  if (text.empty() || choices.find(text[0]) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Micros> ParseOffset(std::string_view& text) {
  if (TakeChar(text, "Z")) return Micros(0);
  if (text.empty()) return std::nullopt;
  const int sign = text[0] == '-' ? -1 : 1;
  if (!TakeChar(text, "+-")) return std::nullopt;
  const auto hours = TakeNumber(text, 2);
  if (!hours || *hours > 23 || !TakeChar(text, ":")) return std::nullopt;
  const auto minutes = TakeNumber(text, 2);
  if (!minutes || *minutes > 59) return std::nullopt;
  return sign * (std::chrono::hours(*hours) + std::chrono::minutes(*minutes));
}

std::optional<WallTime> Parse(std::string_view text) {
  const auto year = TakeNumber(text, 4);
  if (!year || !TakeChar(text, "-")) return std::nullopt;
  const auto month = TakeNumber(text, 2);
  if (!month || !TakeChar(text, "-")) return std::nullopt;
  const auto day = TakeNumber(text, 2);
  if (!day || !TakeChar(text, "T ")) return std::nullopt;
  const auto hour = TakeNumber(text, 2);
  if (!hour || *hour > 23 || !TakeChar(text, ":")) return std::nullopt;
  const auto minute = TakeNumber(text, 2);
  if (!minute || *minute > 59 || !TakeChar(text, ":")) return std::nullopt;
  const auto second = TakeNumber(text, 2);
  if (!second || *second > 59) return std::nullopt;
  int micros = 0;
  if (TakeChar(text, ".")) {
    const auto fraction = TakeNumber(text, 6);
    if (!fraction) return std::nullopt;
    micros = *fraction;
  }
  const auto offset = ParseOffset(text);
  if (!offset || !text.empty()) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  const WallTime time = WallTime(std::chrono::sys_days(date).time_since_epoch()) +
                        std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
                        std::chrono::seconds(*second) + Micros(micros) - *offset;
  // In UTC too it must be a year of four digits, or IsoFormat could not write it again.
  const auto utc_year = std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(time));
  if (utc_year.year() < std::chrono::year(1) || utc_year.year() > std::chrono::year(9999))
    return std::nullopt;
  return time;
}

}  // namespace

WallTime FromUnixSeconds(double seconds) {
  constexpr double kLimit = 9e12;  // in seconds; times 1e6 still fits 63 bits
  if (std::isnan(seconds)) seconds = 0;
  return WallTime(Micros(std::llround(std::clamp(seconds, -kLimit, kLimit) * 1e6)));
}

std::string IsoFormat(WallTime time) {
  if (time == WallTime{}) return {};
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t seconds = whole.time_since_epoch().count();
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     (time - whole).count());
}

Result<WallTime> ParseIso(std::string_view text) {
  if (const auto time = Parse(text)) return *time;
  return Fail(Code::kInvalidArgument,
              fmt::format("'{}' is not an ISO-8601 time with an offset", text.substr(0, 64)));
}

}  // namespace umbel
