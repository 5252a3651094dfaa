#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace umbel {
namespace {

Status Replace(const std::string& path, std::string_view content, bool sync) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  {
    const Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) return Fail(SystemError("create", temporary));
    size_t done = 0;
    while (done < content.size()) {
      const ssize_t n = ::write(fd.get(), content.data() + done, content.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(SystemError("write", temporary));
      done += static_cast<size_t>(n);
    }
    if (sync && ::fsync(fd.get()) != 0) return Fail(SystemError("sync", temporary));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Fail(SystemError("rename", temporary));
  return {};
}

}  // namespace

void Fd::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Error SystemError(std::string_view what, std::string_view path) {
  const int number = errno;
  Code code = Code::kUnavailable;
  if (number == ENOENT) code = Code::kNotFound;
  if (number == EACCES || number == EPERM) code = Code::kPermissionDenied;
  if (number == ENOSPC || number == EMFILE || number == ENFILE || number == EDQUOT)
    code = Code::kResourceExhausted;
  return Error{code, fmt::format("cannot {} '{}': {}", what, path, std::strerror(number))};
}

Result<std::string> ReadFile(const std::string& path, size_t limit) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Fail(SystemError("open", path));
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("read", path));
    if (n == 0) return content;
    if (content.size() + static_cast<size_t>(n) > limit)
      return Fail(Code::kResourceExhausted,
                  fmt::format("'{}' is larger than {} bytes", path, limit));
    content.append(buffer, static_cast<size_t>(n));
  }
}

Status WriteFileAtomic(const std::string& path, std::string_view content) {
  return Replace(path, content, false);
}

Status WriteFileDurable(const std::string& path, std::string_view content) {
  UMBEL_TRY(Replace(path, content, true));
  const std::string folder = std::filesystem::path(path).parent_path();
  return SyncPath(folder.empty() ? "." : folder);
}

Status SyncPath(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Fail(SystemError("open", path));
  if (::fsync(fd.get()) != 0) return Fail(SystemError("sync", path));
  return {};
}

Status MakeDirectories(const std::string& path) {
  std::error_code error;
  const bool created = std::filesystem::create_directories(path, error);
  if (error)
    return Fail(Code::kUnavailable,
                fmt::format("cannot create folder '{}': {}", path, error.message()));
  if (created && ::chmod(path.c_str(), 0700) != 0) return Fail(SystemError("chmod", path));
  return {};
}

}  // namespace umbel
