#include "tracking/process_metrics.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "base/file.h"
#include "process/watch.h"

namespace umbel::tracking {
namespace {

using Steady = std::chrono::steady_clock;

double Positive(long value) { return value > 0 ? static_cast<double>(value) : 1; }

/// As MLflow rounds them.
double Tenths(double value) { return std::round(value * 10) / 10; }

}  // namespace

std::optional<ProcessUse> ReadProcessUse(std::string_view stat) {
  const size_t name_end = stat.rfind(')');  // the name may hold anything
  if (name_end == std::string_view::npos) return std::nullopt;
  std::string_view rest = stat.substr(name_end + 1);
  ProcessUse use;
  // Fields are counted as in proc(5); the state, behind the name, is the third.
  for (int field = 3; field <= 24; ++field) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" \n"), rest.size()));
    const std::string_view word = rest.substr(0, rest.find_first_of(" \n"));
    rest.remove_prefix(word.size());
    if (word.empty()) return std::nullopt;
    const bool ticks = field >= 14 && field <= 17;
    if (!ticks && field != 24) continue;
    int64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    (ticks ? use.ticks : use.pages) += static_cast<uint64_t>(std::max<int64_t>(value, 0));
  }
  return use;
}

ProcessMetrics::ProcessMetrics(std::vector<pid_t> roots, std::string disk)
    : roots_(std::move(roots)),
      disk_(std::move(disk)),
      ticks_before_(Measure().ticks),
      before_(Steady::now()) {}

ProcessMetrics::Total ProcessMetrics::Measure() const {
  std::set<pid_t> pids(roots_.begin(), roots_.end());
  for (const pid_t root : roots_)
    for (const process::ProcessEntry& entry : process::Descendants(root)) pids.insert(entry.id.pid);
  Total total;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  for (const pid_t pid : pids) {
    const auto stat = ReadFile(fmt::format("/proc/{}/stat", pid), 4096);
    if (!stat.ok()) continue;  // it has ended meanwhile
    const auto use = ReadProcessUse(*stat);
    if (!use) continue;
    total.ticks += use->ticks;
    total.bytes += use->pages * page;
    ++total.processes;
  }
  return total;
}

std::vector<Metric> ProcessMetrics::Sample(WallTime at, int64_t step) {
  std::vector<Metric> metrics;
  const auto add = [&](const char* key, double value) {
    metrics.push_back({fmt::format("system/{}", key), Tenths(value), at, step});
  };
  const Total total = Measure();
  const auto now = Steady::now();
  if (total.processes > 0) {
    // What has left the tree takes its time along: then the sum is smaller than before.
    const uint64_t ticks = total.ticks > ticks_before_ ? total.ticks - ticks_before_ : 0;
    const double used = static_cast<double>(ticks) / Positive(::sysconf(_SC_CLK_TCK));
    const double passed = std::chrono::duration<double>(now - before_).count() *
                          Positive(::sysconf(_SC_NPROCESSORS_ONLN));
    if (passed > 0) add("cpu_utilization_percentage", std::min(used / passed * 100, 100.0));
    const auto bytes = static_cast<double>(total.bytes);
    const double memory = Positive(::sysconf(_SC_PHYS_PAGES)) * Positive(::sysconf(_SC_PAGESIZE));
    add("system_memory_usage_megabytes", bytes / 1e6);
    add("system_memory_usage_percentage", bytes / memory * 100);
  }
  ticks_before_ = total.ticks;
  before_ = now;
  struct statvfs disk {};
  if (!disk_.empty() && ::statvfs(disk_.c_str(), &disk) == 0 && disk.f_blocks > 0) {
    const auto size = static_cast<double>(disk.f_frsize);
    const double used = static_cast<double>(disk.f_blocks - disk.f_bfree) * size;
    const double available = static_cast<double>(disk.f_bavail) * size;
    add("disk_usage_percentage", used / std::max(used + available, 1.0) * 100);
    add("disk_usage_megabytes", used / 1e6);
    add("disk_available_megabytes", available / 1e6);
  }
  return metrics;
}

}  // namespace umbel::tracking
