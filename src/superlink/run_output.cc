#include "superlink/run_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "base/utf8.h"

namespace umbel::superlink {
namespace {

constexpr size_t kReadPiece = size_t{128} << 10;
constexpr size_t kRecentMax = 4096;
constexpr uint64_t kFarewellMax = uint64_t{64} << 10;

// What flwr-serverapp 1.41 prints: when its last call fails, and when a signal ends it.
constexpr std::string_view kUnheard = "Failed to push task output";
constexpr std::string_view kSignalled = "Task stopped by user.";

}  // namespace

RunOutput::RunOutput(Engine& engine, RunId run_id, TaskId task_id, const std::string& path,
                     uint64_t offset)
    : engine_(engine),
      run_id_(run_id),
      task_id_(task_id),
      file_(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600)),
      offset_(offset) {}

void RunOutput::Drain(bool to_the_end) {
  std::lock_guard lock(mutex_);
  std::string piece(kReadPiece, '\0');
  for (;;) {
    const ssize_t n = ::pread(file_.get(), piece.data(), piece.size(), static_cast<off_t>(offset_));
    if (n <= 0) return;
    const std::string_view raw(piece.data(), static_cast<size_t>(n));
    const size_t take = to_the_end ? raw.size() : WholeCharacters(raw);
    if (take == 0) return;
    std::string text = ValidUtf8(raw.substr(0, take));
    offset_ += take;
    recent_ += text;
    if (recent_.size() > kRecentMax) recent_.erase(0, recent_.size() - kRecentMax);
    engine_.AppendLog(run_id_, task_id_, std::move(text), offset_);
  }
}

std::string RunOutput::last_line() const {
  std::lock_guard lock(mutex_);
  const size_t end = recent_.find_last_not_of("\n ");
  if (end == std::string::npos) return "";
  const size_t newline = recent_.find_last_of('\n', end);
  const size_t start = newline == std::string::npos ? 0 : newline + 1;
  return ValidUtf8(std::string_view(recent_).substr(start, end - start + 1));
}

bool RunOutput::EndsUnheard() const {
  struct stat file;
  if (::fstat(file_.get(), &file) != 0) return false;
  const uint64_t size = static_cast<uint64_t>(file.st_size);
  std::string end(static_cast<size_t>(std::min(size, kFarewellMax)), '\0');
  const ssize_t n =
      ::pread(file_.get(), end.data(), end.size(), static_cast<off_t>(size - end.size()));
  if (n != static_cast<ssize_t>(end.size())) return false;
  return end.find(kUnheard) != std::string::npos && end.find(kSignalled) == std::string::npos;
}

}  // namespace umbel::superlink
