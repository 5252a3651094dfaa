// What an earlier ground of the same folder has left.
#include <charconv>
#include <filesystem>
#include <map>
#include <sstream>

#include "base/log.h"
#include "orchestrator/local/instances.h"
#include "orchestrator/spec.h"
#include "process/process.h"

namespace umbel::orchestrator {
namespace {

using Steady = Instance::Steady;

}  // namespace

Status Instances::Adopt() {
  ReadDownNodes();
  std::map<uint64_t, std::string> folders;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder_, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().native();
    uint64_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    if (parsed.ec == std::errc() && *parsed.ptr == '-' && id != 0)
      folders[id] = it->path().native();
  }
  if (error)
    return Fail(Code::kUnavailable, fmt::format("cannot list '{}': {}", folder_, error.message()));
  std::map<std::string, uint64_t> newest;
  for (const auto& [id, folder] : folders) {
    next_id_ = id + 1;
    Instance& instance = instances_[id];
    instance.id = id;
    instance.folder = folder;
    auto spec = ReadWanted(folder);
    if (spec.ok())
      if (const Status checked = CheckSpec(*spec); !checked.ok()) spec = Fail(checked.error());
    if (spec.ok()) {
      instance.spec = std::move(*spec);
      // An Apply that did not come to its end wanted the newer one.
      if (const auto it = newest.find(instance.spec.name); it != newest.end()) {
        UMBEL_TRY(RemoveWanted(instances_.at(it->second).folder));
        instances_.at(it->second).wanted = false;
      }
      newest[instance.spec.name] = id;
    } else {
      instance.wanted = false;
      if (spec.error().code != Code::kNotFound)
        LogError("an instance cannot be read and is given up",
                 {{"folder", folder}, {"error", spec.error().message}});
    }
    instance.status.name = instance.spec.name;
  }
  for (auto it = instances_.begin(); it != instances_.end();) {
    const uint64_t id = it->first;
    ++it;  // what is gone already is forgotten
    UMBEL_TRY(AdoptOne(id));
  }
  changed_ = true;
  return {};
}

Status Instances::AdoptOne(uint64_t id) {
  Instance& instance = instances_.at(id);
  instance.adopted = true;
  auto kept = ReadState(instance.folder);
  if (!kept.ok()) {  // it was never started, as that would have been written down first
    kept = KeptState();
    kept->since = clock_.Now();
  }
  InstanceStatus& status = instance.status;
  status.node = instance.seat = kept->node;
  for (const Node& node : nodes_)
    if (node.name == status.node) status.address = node.address;
  status.state = kept->state;
  status.detail = kept->detail;
  status.starts = kept->starts;
  status.since = kept->since;
  instance.failures = kept->failures;
  instance.last_end = kept->last_end;
  instance.pid = kept->pid;
  instance.start_ticks = kept->start_ticks;
  instance.started =
      Steady::now() - std::clamp<Steady::duration>(clock_.Now() - kept->since, Steady::duration(0),
                                                   options_.healthy_after);
  if (kept->pid != 0) {
    instance.stage = Stage::kUp;
    const bool rebooted = kept->boot != BootId();
    if (!rebooted) instance.pidfd = process::OpenPidFd(kept->pid, kept->start_ticks);
    if (!instance.pidfd.valid()) {
      TakeEnd(id, rebooted);
      return {};
    }
    UMBEL_TRY(Follow(instance.pidfd.get(), 2 * id));
    if (!instance.wanted) {
      EndKindly(instance, "");
      return {};
    }
    LogInfo("took over an instance", {{"instance", instance.spec.name}, {"pid", kept->pid}});
    // Its keeper tells nobody when the command starts: that is a matter of milliseconds.
    if (status.state == InstanceState::kStarting)
      Set(instance, InstanceState::kRunning, status.detail);
  } else if (!instance.wanted) {
    Forget(id);
  } else if (kept->over) {
    instance.stage = Stage::kOver;
    instance.seat.clear();
  } else if (!instance.seat.empty()) {
    instance.stage = Stage::kDue;
    instance.act_at = Steady::now();
    if (instance.failures != 0) *instance.act_at += Backoff(instance.failures - 1);
  }
  return {};
}

void Instances::ReadDownNodes() {
  const auto text = ReadFile(options_.folder + "/nodes-down");
  if (!text.ok()) return;
  std::istringstream lines(*text);
  for (std::string name; std::getline(lines, name);)
    for (Node& node : nodes_)
      if (node.name == name) node.up = false;
}

Status Instances::WriteDownNodes() const {
  std::string text;
  for (const Node& node : nodes_)
    if (!node.up) text += node.name + "\n";
  return WriteFileAtomic(options_.folder + "/nodes-down", text);
}

}  // namespace umbel::orchestrator
