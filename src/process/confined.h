// Processes that run user code: `umbel confine` sets everything up and becomes the command. Any
// thread may call; but see SpawnConfined about the thread that starts one.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "process/view.h"

namespace umbel::process {

/// `from` here is `to` there, whatever their flags.
struct PassedFd {
  int from = -1;
  int to = -1;  // 0 to 255
};

/// What is started. It sees nothing of ours but what stands here.
struct CommandSpec {
  /// The program first; without a slash in it, it is looked for in PATH of `environment`.
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "KEY=value"; all of it
  std::string directory;                 // empty: ours
  /// Of 0, 1 and 2 those that are not passed are /dev/null.
  std::vector<PassedFd> descriptors;
  bool output_pipe = false;  // 1 and 2 both go to Child::output
};

/// What it may do. 0: as it is. With root's own uid all of it holds against accidents only: root
/// can leave its control group and raise its limits.
struct Confinement {
  uid_t uid = 0;  // needs root; should be nobody else's, as `processes` counts the whole user
  gid_t gid = 0;  // the same number as uid; other groups are dropped
  uint64_t open_files = 0;
  uint64_t file_bytes = 0;  // of one file
  /// Only where there is no control group: the kernel holds root to neither, and address space is
  /// far more than memory.
  uint64_t processes = 0;
  uint64_t address_space_bytes = 0;
  bool network = true;  // false needs root or user namespaces; leaves loopback of its own
  /// Of the file system only this, of all processes only its own, and no right over anything
  /// else: needs what `network` = false needs, and Linux 5.12. Two more processes stand between us
  /// and the command, which pass signals on to its group, and its end to us; when Child::pid has
  /// ended without being killed, nothing that the command has started is left.
  std::optional<View> view;
  /// With a view and without network: ports of loopback here that are reached all the same, by the
  /// same numbers. At most 16.
  std::vector<uint16_t> reached;
  bool subreaper = false;       // adopts what its descendants leave behind
  bool die_with_parent = true;  // SIGKILL when the thread that started it ends
  int oom_score_more = 500;     // the kernel takes it before us when memory is short
};

/// Whether a process can be without network and with a view here, tried with one that does nothing.
/// errors  what the system does not allow.
Status TryIsolation();

/// A process behind its gate. It ends by itself when the gate is closed without being opened.
struct Child {
  pid_t pid = 0;  // also its session and process group; with a view the command's are others
  uint64_t start_ticks = 0;
  Fd pidfd;   // readable when it has ended; see Reap in process.h
  Fd gate;    // open it when the process is in its control group
  Fd report;  // see AwaitStart
  Fd output;  // read end, when asked for

  Status Open();
  /// Blocks until the command itself runs or could not be started, at most `limit`. To wait
  /// otherwise: read `report` to its end and give all of it to StartReport.
  /// errors  why it could not be started; kDeadlineExceeded.
  Status AwaitStart(std::chrono::milliseconds limit);
};

/// Starts `umbel confine` from this very binary. The kernel takes the calling thread, not the
/// process, for the parent of die_with_parent: it must live as long as the child may.
/// errors  kInvalidArgument: no program, a bad descriptor or variable; kResourceExhausted.
Result<Child> SpawnConfined(const CommandSpec& command, const Confinement& confinement);
Status StartReport(std::string_view report);

/// Entry point of the `confine` command. Returns only when it cannot become the command.
int ConfineMain(int argc, char** argv);

}  // namespace umbel::process
