// File descriptors and small file helpers. Values; a Fd belongs to one owner.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace umbel {

/// Owns one file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { Close(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Close();

 private:
  int fd_ = -1;
};

/// "cannot <what> '<path>': <strerror(errno)>", with the code that fits errno.
Error SystemError(std::string_view what, std::string_view path);

/// errors  kNotFound, kUnavailable, or kResourceExhausted above `limit` bytes.
Result<std::string> ReadFile(const std::string& path, size_t limit = size_t{64} << 20);
/// Writes a temporary neighbour, then renames it over `path`. Mode 0600.
Status WriteFileAtomic(const std::string& path, std::string_view content);
/// As WriteFileAtomic, and survives the machine too: returns when file and name are on the disk.
Status WriteFileDurable(const std::string& path, std::string_view content);
/// Returns when the disk has what was written to the file, or the names in the folder, `path`.
Status SyncPath(const std::string& path);
/// Creates the folder and its parents, the last one with mode 0700.
Status MakeDirectories(const std::string& path);

}  // namespace umbel
