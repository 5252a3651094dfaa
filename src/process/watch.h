// What a process has started: found in /proc, and ended. For machines without control groups, and
// for the worker's leftovers. Any thread; EndTree blocks.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"

namespace umbel::process {

/// A number alone may be given to another process; with the time of its start it may not.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;

  bool operator==(const ProcessId&) const = default;
};

/// One process as /proc tells it.
struct ProcessEntry {
  ProcessId id;
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  bool ended = false;  // only waits for its parent
};

/// All processes that we can see. Not one moment's: what forks or ends meanwhile may be missed.
std::vector<ProcessEntry> AllProcesses();
/// The one of that number; nullopt when there is none.
std::optional<ProcessEntry> FindProcess(pid_t pid);
/// The descendant of `root` that bears this number in a process namespace below ours; nullopt when
/// there is none.
std::optional<ProcessEntry> FindInside(pid_t root, pid_t number);
/// Children of `root`, their children and so on, those that have ended too. Whoever double-forks
/// below a subreaper stays among its descendants.
std::vector<ProcessEntry> Descendants(pid_t root);

/// Ends `root` and what it has started: SIGTERM to its process group; when `grace` is over, or all
/// have ended, SIGKILL to everything found until nothing is. Found are the descendants of `root`,
/// those seen earlier and theirs, and all of the session or group that `root` leads. What leaves
/// its session while `root` ends by itself can be missed, unless `root` is killed first: only a
/// control group is sure. Does not reap.
/// errors  kDeadlineExceeded: some were still there 10 s after `grace`.
Status EndTree(const ProcessId& root, std::chrono::milliseconds grace);

/// As EndTree, but of everything below this process, which must be a subreaper: SIGKILL at once.
/// errors  kDeadlineExceeded: some were still there after 10 s.
Status EndDescendants();

/// From now on what our descendants leave behind becomes our child.
Status BecomeSubreaper();
/// Reaps children that have ended, but none of `own`, which others wait for. How many there were.
int ReapAdopted(const std::vector<pid_t>& own);

}  // namespace umbel::process
