#include "orchestrator/local/machine.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <thread>
#include <vector>

#include "base/log.h"
#include "process/confined.h"

namespace umbel::orchestrator {
namespace {

std::string Describe(const Machine& machine, const std::string& found) {
  std::vector<std::string_view> held, not_held;
  (machine.bounds_memory() ? held : not_held).push_back("memory");
  (machine.bounds_cpu() ? held : not_held).push_back("CPU");
  (machine.bounds_processes() ? held : not_held).push_back("number of processes");
  not_held.push_back("storage, which is only set aside");
  std::string text =
      held.empty()
          ? fmt::format("Instances are held to none of their limits ({})", found)
          : fmt::format("Instances are held to their {} ({})", fmt::join(held, ", "), found);
  text += fmt::format("; not to: {}.", fmt::join(not_held, ", "));
  if (!machine.bounds_memory())
    text +=
        " In the place of memory, each of their processes is held to that much and 4 GB of "
        "address space.";
  text += machine.isolation().ok()
              ? " User code gets namespaces of its own."
              : fmt::format(" User code cannot be kept from network, files and processes: {}.",
                            machine.isolation().error().message);
  return text;
}

}  // namespace

Machine::Machine(bool use_groups)
    : groups_(use_groups ? process::CgroupParent::Open(true) : nullptr),
      isolation_(process::TryIsolation()),
      text_(Describe(*this, groups_ ? groups_->found() : "control groups are not used")) {}

void Machine::ClearStaleGroups() const {
  if (!groups_) return;
  if (const auto cleared = groups_->ClearStale(); !cleared.ok())
    LogWarn("cannot clear control groups of the dead", {{"error", cleared.error().message}});
}

Resources ShareOfMachine(const std::string& folder, size_t n) {
  n = std::max<size_t>(n, 1);
  Resources share;
  const auto pages = static_cast<uint64_t>(std::max<long>(::sysconf(_SC_PHYS_PAGES), 0));
  const auto page = static_cast<uint64_t>(std::max<long>(::sysconf(_SC_PAGESIZE), 0));
  share.memory_bytes = pages * page / 5 * 4 / n;
  share.cpu_millicores = 1000 * std::max<uint64_t>(std::thread::hardware_concurrency(), 1);
  struct statvfs space;
  if (::statvfs(folder.c_str(), &space) == 0)
    share.storage_bytes = static_cast<uint64_t>(space.f_bavail) * space.f_frsize / n;
  return share;
}

}  // namespace umbel::orchestrator
