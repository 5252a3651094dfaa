// One instance as the ground's thread sees it. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "orchestrator/ground.h"
#include "orchestrator/local/records.h"

namespace umbel::orchestrator {

enum class Stage {
  kWaiting,  // for a place
  kDue,      // has a place, and is started at act_at
  kUp,       // has a keeper
  kEnding,   // its keeper was told to end it; at act_at it is killed
  kOver,     // has had its end
};

struct Instance {
  using Steady = std::chrono::steady_clock;

  uint64_t id = 0;  // the order in which they were wanted; a changed spec is another instance
  std::string folder;
  InstanceSpec spec;
  InstanceStatus status;
  Stage stage = Stage::kWaiting;
  std::string seat;    // the node whose room it takes
  bool wanted = true;  // else it is forgotten when nothing of it is left
  bool adopted = false;

  pid_t pid = 0;  // of the keeper
  uint64_t start_ticks = 0;
  Fd pidfd;
  Fd report;
  Steady::time_point started;
  std::optional<Steady::time_point> act_at;
  uint32_t failures = 0;  // in a row
  std::string last_end;
  std::vector<std::promise<void>> gone;  // kept when nothing of it is left

  bool has_process() const { return pid != 0; }
  KeptState Kept() const {
    KeptState kept;
    kept.node = status.node;
    kept.state = status.state;
    kept.detail = status.detail;
    kept.last_end = last_end;
    kept.starts = status.starts;
    kept.failures = failures;
    kept.over = stage == Stage::kOver;
    kept.since = status.since;
    kept.pid = pid;
    kept.start_ticks = start_ticks;
    kept.boot = BootId();
    return kept;
  }
};

}  // namespace umbel::orchestrator
