#include "base/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

namespace umbel {
namespace {

/// Appends to `path`; every `interval` the file becomes path.1, path.1 becomes path.2, and so on,
/// as flower-superlink names its backups' count and interval.
class RotatingSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  RotatingSink(std::string path, std::chrono::hours interval, int backups)
      : path_(std::move(path)), interval_(interval), backups_(backups) {}
  ~RotatingSink() override {
    if (file_ != nullptr) std::fclose(file_);
  }

  bool Open() {
    file_ = std::fopen(path_.c_str(), "ae");
    rotate_at_ = std::chrono::steady_clock::now() + interval_;
    return file_ != nullptr;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (std::chrono::steady_clock::now() >= rotate_at_) Rotate();
    if (file_ == nullptr) return;
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::fwrite(line.data(), 1, line.size(), file_);
  }
  void flush_() override {
    if (file_ != nullptr) std::fflush(file_);
  }

 private:
  void Rotate() {
    if (file_ != nullptr) std::fclose(file_);
    for (int i = backups_; i > 0; --i) {
      const std::string from = i == 1 ? path_ : fmt::format("{}.{}", path_, i - 1);
      std::rename(from.c_str(), fmt::format("{}.{}", path_, i).c_str());
    }
    if (backups_ <= 0) std::remove(path_.c_str());
    Open();
  }

  std::string path_;
  std::chrono::hours interval_;
  int backups_;
  std::FILE* file_ = nullptr;
  std::chrono::steady_clock::time_point rotate_at_;
};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

/// Quotes a value with spaces or control characters, so that one event stays one line.
void AppendValue(std::string& line, std::string_view value) {
  const bool plain = !value.empty() && value.find_first_of(" \"=\n\r\t") == std::string_view::npos;
  if (plain) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    if (c == '\n') {
      line += "\\n";
    } else if (c == '"') {
      line += "\\\"";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      line += ' ';
    } else {
      line += c;
    }
  }
  line += '"';
}

/// Makes the registry before there are threads: the first lines of two of them would race for it.
[[maybe_unused]] spdlog::logger* const kFirst = spdlog::default_logger_raw();

}  // namespace

void LogWrite(LogLevel level, std::string_view message, LogFields fields) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (!logger->should_log(ToSpdlog(level))) return;
  std::string line(message);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    AppendValue(line, field.value);
  }
  logger->log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

Status LogStart(const LogOptions& options) {
  std::vector<spdlog::sink_ptr> sinks{std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  if (!options.file.empty()) {
    auto file = std::make_shared<RotatingSink>(options.file, options.rotation_interval,
                                               options.rotation_backup_count);
    if (!file->Open())
      return Fail(Code::kUnavailable,
                  fmt::format("cannot open log file '{}': {}", options.file, std::strerror(errno)));
    sinks.push_back(std::move(file));
  }
  auto logger = std::make_shared<spdlog::logger>("umbel", sinks.begin(), sinks.end());
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-5l%$ %v");
  logger->set_level(ToSpdlog(options.level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

}  // namespace umbel
