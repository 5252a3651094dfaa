// Child processes that outlive us: started behind a gate, found again after a restart. Any thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace umbel::process {

/// A process that has been created and waits at its gate; it goes on when the gate is opened and
/// ends by itself when the gate is closed without that, for instance because we died.
struct GatedProcess {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  Fd gate;

  Status Open();
};

/// The guarded command line of `umbel guard`: see guard.cc.
struct GuardSpec {
  std::string lock_file;    // held by whichever SuperLink owns the state
  std::string status_file;  // where the command's end is written
  std::string output_file;  // standard output and error of the command
  int64_t orphan_seconds = 600;
  std::vector<std::string> command;
  std::string python_path;  // a folder after those of $PYTHONPATH; "": none
};

/// Starts `umbel guard` in a session and process group of its own.
Result<GatedProcess> SpawnGuard(const GuardSpec& spec);

/// Clock ticks since boot at which the process started; 0 when there is no such process.
uint64_t StartTicks(pid_t pid);
/// A descriptor that becomes readable at the process's end. Invalid when it is not there, or when
/// its number now belongs to another process.
Fd OpenPidFd(pid_t pid, uint64_t start_ticks);
/// Sends to every process of the group.
void SignalGroup(pid_t group, int signal);
/// Waits until the process behind `pidfd` has ended, at most `limit`. True when it has.
bool WaitForEnd(int pidfd, std::chrono::milliseconds limit);
/// The status of waitpid; nullopt when it has not ended, or is not our child.
std::optional<int> Reap(int pidfd);
/// Whether the process that stands in the lock file holds its lock. Asked of the kernel: to try the
/// lock would be to hold it for a moment, in which a SuperLink that starts would be refused.
bool LockIsHeld(const std::string& lock_file);

/// Entry point of the `guard` command.
int GuardMain(int argc, char** argv);

}  // namespace umbel::process
