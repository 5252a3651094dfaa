// `umbel keeper`: the parent of one instance. It outlives the ground that started it, so that the
// instance does, and another ground finds both by the keeper's number and start time.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "base/file.h"
#include "base/result.h"

namespace umbel::orchestrator {

struct KeeperOptions {
  std::string folder;     // of the instance, see records.h
  std::string node;       // that it runs on
  std::string lock_file;  // held by whichever ground owns the instance
  uint32_t start = 1;     // the how manieth it is
  std::string previous;   // how the start before this one ended
  uint64_t log_bytes_max = 0;
  std::chrono::milliseconds grace{};    // between SIGTERM and SIGKILL
  std::chrono::seconds orphan_grace{};  // without a ground it ends after this; 0: never
  bool use_groups = false;              // bounds by control groups, else by rlimits
  bool bound_cpu = false;
  uint64_t processes_max = 0;
};

/// A keeper that waits at its gate: it does nothing before the gate is opened, and ends by itself
/// when that does not happen, for instance because we died.
struct Keeper {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  Fd pidfd;
  Fd gate;
  Fd report;  // gives one byte when the command runs; its end without one: it does not, see the
              // record

  Status Open();
};

/// Starts this very binary as a keeper. SIGTERM to it ends the instance: the command's process
/// group is told with SIGTERM, and when the command has ended or `grace` is over nothing of it is
/// left.
Result<Keeper> SpawnKeeper(const KeeperOptions& options);

/// Entry point of the `keeper` command.
int KeeperMain(int argc, char** argv);

}  // namespace umbel::orchestrator
