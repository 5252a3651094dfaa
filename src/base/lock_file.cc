#include "base/lock_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <thread>

namespace umbel {
namespace {

/// The pid written in the file; 0 when there is none.
int64_t RecordedPid(int fd) {
  char text[32];
  const ssize_t size = ::pread(fd, text, sizeof text, 0);
  int64_t pid = 0;
  if (size > 0) std::from_chars(text, text + size, pid);
  return pid;
}

bool Alive(int64_t pid) {
  return pid > 0 && (::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM);
}

}  // namespace

Result<LockFile> LockFile::Take(const std::string& path, const std::string& what) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return Fail(SystemError("open the lock", path));
  // A child that a killed owner had just forked holds the lock until it execs: the recorded owner
  // is dead then, and the lock is about to be free.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return Fail(SystemError("lock", path));
    const int64_t pid = RecordedPid(fd.get());
    if (Alive(pid) || std::chrono::steady_clock::now() >= deadline)
      return Fail(Code::kAlreadyExists, fmt::format("{} is in use by process {}", what, pid));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return Fail(SystemError("write", path));
  return LockFile(std::move(fd));
}

LockFile::~LockFile() {
  // So that nobody is told of a process that let go long ago.
  if (fd_.valid()) [[maybe_unused]]
    const int ignored = ::ftruncate(fd_.get(), 0);
}

}  // namespace umbel
