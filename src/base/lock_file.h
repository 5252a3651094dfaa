// One owner per directory: a locked file with the owner's pid inside. Belongs to one thread.
#pragma once

#include <string>
#include <utility>

#include "base/file.h"
#include "base/result.h"

namespace umbel {

/// Held until destroyed or until the process dies, however it dies.
class LockFile {
 public:
  /// path  the lock file, created when missing and never removed (removing it would let two
  ///       processes lock two different files of one name).
  /// what  what it guards, for messages.
  /// errors  kAlreadyExists: another live process holds it; the message names its pid.
  static Result<LockFile> Take(const std::string& path, const std::string& what);

  LockFile(LockFile&&) = default;
  LockFile& operator=(LockFile&&) = default;
  ~LockFile();

 private:
  explicit LockFile(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

}  // namespace umbel
