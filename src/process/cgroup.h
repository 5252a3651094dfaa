// Control groups: bounds on memory, processes and CPU that hold for a process and all it ever
// starts, and the sure way to end them. v2 where its controllers are given to us, else those v1
// hierarchies that can be written. Always below the group we are in ourselves, so that its bounds
// still hold. A CgroupParent: any thread. A Cgroup: one thread at a time, and what may block says
// so.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace umbel::process {

/// 0: no limit.
struct CgroupLimits {
  uint64_t memory_bytes = 0;  // memory and swap together
  uint64_t processes = 0;     // the kernel counts threads too
  uint64_t cpu_millicores = 0;
};

/// One group's folder in one hierarchy, or the folder that groups are made in.
struct CgroupFolder {
  std::string path;
  bool unified = false;  // cgroup v2
  bool memory = false;   // what we use it for
  bool processes = false;
  bool kill = false;
  bool cpu = false;
};

/// One group. Moved-from and removed ones are empty.
class Cgroup {
 public:
  Cgroup() = default;
  Cgroup(Cgroup&& other) noexcept : folders_(std::exchange(other.folders_, {})) {}
  Cgroup& operator=(Cgroup&& other) noexcept;
  /// As Remove(): may block when there are processes left.
  ~Cgroup();

  bool valid() const { return !folders_.empty(); }
  /// Moves a process with all its threads, not with its children: it should not have any yet.
  /// errors  kNotFound: no such process.
  Status Add(pid_t pid);
  /// All processes of the group and of groups made below it; those that have ended and only wait
  /// for their parent are not among them.
  std::vector<pid_t> Pids() const;
  /// Ends all processes, however they multiply. Blocks until they are gone.
  /// errors  kDeadlineExceeded: some were still there after 10 s.
  Status Kill();
  /// How many processes the kernel has ended because the group's memory was used up.
  uint64_t OomKills() const;
  /// How often a new process or thread was refused, the limit being reached.
  uint64_t RefusedForks() const;
  /// The most memory that was in use at one time; 0 when the kernel cannot tell.
  uint64_t PeakBytes() const;
  /// Kills what is left, then removes the group. Safe to call again.
  Status Remove();

 private:
  friend class CgroupParent;

  std::vector<CgroupFolder> folders_;
};

/// The folder `umbel-<pid>-<start ticks>` that all groups of this process are made in.
class CgroupParent {
 public:
  /// Looks what this machine lets us use. On v2 this process may move itself to a group
  /// `umbel-node` below its own, since processes may not stand beside groups with limits.
  /// with_cpu  look for a way to bound CPU too.
  static std::unique_ptr<CgroupParent> Open(bool with_cpu = false);
  /// As Open, from other texts than /proc/self/mountinfo and /proc/self/cgroup.
  static std::unique_ptr<CgroupParent> Find(std::string_view mounts, std::string_view own_groups,
                                            bool with_cpu = false);
  ~CgroupParent();
  CgroupParent(const CgroupParent&) = delete;
  CgroupParent& operator=(const CgroupParent&) = delete;

  /// Whether groups bound memory, bound processes, can be ended as one, and bound CPU. All false:
  /// none.
  bool memory() const { return memory_; }
  bool processes() const { return processes_; }
  bool kill() const { return kill_; }
  bool cpu() const { return cpu_; }
  /// For people: "cgroup v1: memory, pids, freezer", or what is missing and why.
  const std::string& found() const { return found_; }

  /// name    letters, digits, '.', '_' and '-'; of no other living group of this parent.
  /// errors  kFailedPrecondition: a limit that is asked for cannot be kept here, or none found;
  ///         kAlreadyExists; kInvalidArgument: the name.
  Result<Cgroup> Create(std::string_view name, const CgroupLimits& limits);
  /// Kills and removes what umbel processes that are dead have left where we make our groups; may
  /// block. Returns how many of them there were. Living ones hold a lock on their folder.
  Result<size_t> ClearStale();

 private:
  CgroupParent() = default;
  bool Use(CgroupFolder base, std::string* why);

  std::vector<CgroupFolder> bases_;  // our own groups
  std::vector<CgroupFolder> homes_;  // umbel-<pid>-<start ticks> below them
  std::vector<Fd> locks_;
  bool memory_ = false;
  bool processes_ = false;
  bool kill_ = false;
  bool cpu_ = false;
  std::string found_;
};

}  // namespace umbel::process
