#include "orchestrator/local/instance_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>

namespace umbel::orchestrator {
namespace {

constexpr std::string_view kPrefix = "log.";

std::string PathOf(const std::string& folder, uint64_t begin) {
  return fmt::format("{}/{}{:020}", folder, kPrefix, begin);
}

/// Paths by the offset of their first byte.
Result<std::map<uint64_t, std::string>> Files(const std::string& folder) {
  std::map<uint64_t, std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().native();
    if (!name.starts_with(kPrefix)) continue;
    uint64_t begin = 0;
    const char* const last = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), last, begin);
    if (parsed.ec == std::errc() && parsed.ptr == last) files[begin] = it->path().native();
  }
  if (error)
    return Fail(
        error == std::errc::no_such_file_or_directory ? Code::kNotFound : Code::kUnavailable,
        fmt::format("cannot list '{}': {}", folder, error.message()));
  return files;
}

std::optional<uint64_t> SizeOf(const std::string& path) {
  struct stat file;
  if (::stat(path.c_str(), &file) != 0) return std::nullopt;
  return static_cast<uint64_t>(file.st_size);
}

}  // namespace

LogWriter::LogWriter(std::string folder, uint64_t bytes_max)
    : folder_(std::move(folder)), half_(std::max<uint64_t>(bytes_max / 2, 1)) {
  const auto files = Files(folder_);
  if (!files.ok() || files->empty()) return;
  for (auto it = files->begin(); it != files->end(); ++it) {
    if (std::next(it) == files->end()) {
      begin_ = it->first;
      path_ = it->second;
    } else {
      if (!older_.empty()) ::unlink(older_.c_str());
      older_ = it->second;
    }
  }
  size_ = SizeOf(path_).value_or(0);
  file_ = Fd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
}

bool LogWriter::Next() {
  const uint64_t begin = begin_ + size_;
  std::string path = PathOf(folder_, begin);
  Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file.valid()) return false;
  if (!older_.empty()) ::unlink(older_.c_str());
  older_ = std::exchange(path_, std::move(path));
  file_ = std::move(file);
  begin_ = begin;
  size_ = 0;
  return true;
}

size_t LogWriter::Write(std::string_view text) {
  while (!text.empty()) {
    if ((!file_.valid() || size_ >= half_) && !Next()) break;
    const size_t room = static_cast<size_t>(std::min<uint64_t>(text.size(), half_ - size_));
    const ssize_t n = ::write(file_.get(), text.data(), room);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOSPC && !older_.empty()) {
      // The newest lines are worth more than the oldest.
      ::unlink(older_.c_str());
      older_.clear();
      continue;
    }
    if (n <= 0) break;
    size_ += static_cast<uint64_t>(n);
    text.remove_prefix(static_cast<size_t>(n));
  }
  return text.size();
}

void LogWriter::Append(std::string_view text) {
  if (lost_ != 0) {
    if (Write(fmt::format("\n[umbel] the disk did not take {} bytes of output\n", lost_)) != 0) {
      lost_ += text.size();
      return;
    }
    lost_ = 0;
  }
  lost_ += Write(text);
}

Result<LogPart> ReadLog(const std::string& folder, uint64_t offset, size_t limit) {
  LogPart part;
  limit = std::min(limit, kLogReadMax);
  UMBEL_ASSIGN(const auto files, Files(folder));
  if (files.empty()) return part;
  part.next = std::max(offset, files.begin()->first);
  for (const auto& [begin, path] : files) {
    if (part.bytes.size() >= limit) break;
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) {
      if (errno == ENOENT) continue;  // it has just become too old
      return Fail(SystemError("open", path));
    }
    // Nothing stands between two files but what went with an older one.
    if (part.bytes.empty()) part.next = std::max(part.next, begin);
    if (part.next < begin) break;
    while (part.bytes.size() < limit) {
      char buffer[16384];
      const ssize_t n =
          ::pread(file.get(), buffer, std::min(sizeof buffer, limit - part.bytes.size()),
                  static_cast<off_t>(part.next - begin));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(SystemError("read", path));
      if (n == 0) break;
      part.bytes.append(buffer, static_cast<size_t>(n));
      part.next += static_cast<uint64_t>(n);
    }
  }
  if (part.bytes.empty()) {  // never behind the end, where nothing would be read for good
    const auto& [begin, path] = *files.rbegin();
    if (const auto size = SizeOf(path)) part.next = std::min(part.next, begin + *size);
  }
  return part;
}

}  // namespace umbel::orchestrator
