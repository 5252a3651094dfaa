// What a process and all it has started use, under the names that MLflow gives to system metrics,
// so that its GUI shows them as such. One thread.
//
// MLflow's own are the whole machine's; these are the tree's alone, since on one machine many
// projects share it. Disk is the file system's.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "tracking/mlflow.h"

namespace umbel::tracking {

/// Of one process, from /proc/PID/stat.
struct ProcessUse {
  uint64_t ticks = 0;  // CPU time, with that of children that were waited for
  uint64_t pages = 0;  // resident
};
/// nullopt when the text is not such a file.
std::optional<ProcessUse> ReadProcessUse(std::string_view stat);

class ProcessMetrics {
 public:
  /// roots  processes whose trees are measured together; those that are gone count nothing.
  /// disk   a path on the file system to tell of; "" for none.
  ProcessMetrics(std::vector<pid_t> roots, std::string disk);

  /// `system/cpu_utilization_percentage`, of all CPUs, since the sample before (the first: since
  /// the construction); `system/system_memory_usage_megabytes` and `…_percentage`;
  /// `system/disk_usage_percentage`, `system/disk_usage_megabytes`,
  /// `system/disk_available_megabytes`. Megabytes are 10^6 bytes. What cannot be read is left out.
  std::vector<Metric> Sample(WallTime at, int64_t step);

 private:
  struct Total {
    uint64_t ticks = 0;
    uint64_t bytes = 0;
    size_t processes = 0;
  };
  Total Measure() const;

  const std::vector<pid_t> roots_;
  const std::string disk_;
  uint64_t ticks_before_ = 0;
  std::chrono::steady_clock::time_point before_;
};

}  // namespace umbel::tracking
