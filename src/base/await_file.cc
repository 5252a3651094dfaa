#include "base/await_file.h"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/file.h"

namespace umbel {

Result<bool> AwaitFile(const std::string& path, int stop) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path wanted = fs::absolute(path, error);
  for (;;) {
    // What is missing first on the way to it, and the folder in which that will appear.
    fs::path missing = wanted;
    if (::access(wanted.c_str(), F_OK) == 0) return true;
    while (missing.has_relative_path() && ::access(missing.parent_path().c_str(), F_OK) != 0)
      missing = missing.parent_path();
    const Fd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!watch.valid()) return Fail(SystemError("watch", path));
    if (::inotify_add_watch(watch.get(), missing.parent_path().c_str(),
                            IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF) < 0) {
      if (errno == ENOENT) continue;  // gone meanwhile
      return Fail(SystemError("watch", missing.parent_path().native()));
    }
    if (::access(missing.c_str(), F_OK) == 0) continue;  // a moment before
    pollfd entries[] = {{watch.get(), POLLIN, 0}, {stop, POLLIN, 0}};
    while (::poll(entries, 2, -1) < 0 && errno == EINTR) {
    }
    if (entries[1].revents != 0) return false;
  }
}

}  // namespace umbel
