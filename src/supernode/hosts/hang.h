// Tells a forked process that waits for a lock nobody holds any more from one that is only slow:
// what a library's threads held at the fork stays locked in the child for ever. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>

namespace umbel::supernode {

class HangWatch {
 public:
  static constexpr std::chrono::seconds kEvery{1};
  /// Only in these first seconds of a call.
  static constexpr std::chrono::seconds kFirst{15};

  explicit HangWatch(pid_t pid) : pid_(pid) {}

  /// True when for the last four looks every thread has waited on a futex and used no time at all.
  /// False where /proc does not tell.
  bool Hangs();

 private:
  const pid_t pid_;
  uint64_t ticks_ = 0;
  int still_ = 0;
};

}  // namespace umbel::supernode
