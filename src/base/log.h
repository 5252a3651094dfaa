// Structured logging: a constant message, keys apart. Safe from any thread.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace umbel {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

/// One key and its value, already text. Never tensors, tokens or data rows.
struct LogField {
  std::string_view key;
  std::string value;

  template <typename T>
  LogField(std::string_view k, const T& v) : key(k), value(fmt::format("{}", v)) {}
};

using LogFields = std::initializer_list<LogField>;

void LogWrite(LogLevel level, std::string_view message, LogFields fields);

inline void LogDebug(std::string_view m, LogFields f = {}) { LogWrite(LogLevel::kDebug, m, f); }
inline void LogInfo(std::string_view m, LogFields f = {}) { LogWrite(LogLevel::kInfo, m, f); }
inline void LogWarn(std::string_view m, LogFields f = {}) { LogWrite(LogLevel::kWarn, m, f); }
inline void LogError(std::string_view m, LogFields f = {}) { LogWrite(LogLevel::kError, m, f); }

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  std::string file;  // "" writes to standard error only
  std::chrono::hours rotation_interval{24};
  int rotation_backup_count = 7;
};

/// Call once, before threads start.
/// errors  kUnavailable: the log file cannot be opened.
Status LogStart(const LogOptions& options);

}  // namespace umbel
