#include "orchestrator/local/instances.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/log.h"

namespace umbel::orchestrator {
namespace {

using std::chrono::milliseconds;
using Steady = Instance::Steady;

}  // namespace

void RemoveFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error)
    LogWarn("cannot remove what an instance has left",
            {{"folder", folder}, {"error", error.message()}});
}

std::string LockPath(const std::string& folder) { return folder + "/lock"; }

Instances::Instances(const LocalGroundOptions& options, const Clock& clock, const Machine& machine)
    : options_(options),
      clock_(clock),
      machine_(machine),
      folder_(options.folder + "/instances"),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      nodes_(options.nodes) {}

int Instances::Patience() const {
  std::optional<Steady::time_point> next;
  for (const auto& [_, instance] : instances_)
    if (instance.act_at && !(shut_down_ && instance.stage == Stage::kDue) &&
        (!next || *instance.act_at < *next))
      next = instance.act_at;
  if (!next) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*next - Steady::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
}

Status Instances::Follow(int fd, uint64_t what) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = what;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return Fail(SystemError("watch", "process"));
  return {};
}

void Instances::Take(uint64_t data) {
  const auto it = instances_.find(data / 2);
  if (it == instances_.end()) return;  // something earlier was its end
  if (data % 2 == 1)
    TakeReport(it->second);
  else
    TakeEnd(it->first);
}

View Instances::Look() const {
  View view;
  for (const auto& [_, instance] : instances_)
    if (instance.wanted)
      view.instances[instance.spec.name] = {instance.status, instance.folder,
                                            instance.stage == Stage::kOver};
  for (NodeLoad& load : Loads()) view.nodes.push_back(std::move(load.node));
  return view;
}

Status Instances::SetUp(std::string_view name, bool up) {
  const auto node = std::find_if(nodes_.begin(), nodes_.end(),
                                 [&](const Node& each) { return each.name == name; });
  if (node == nodes_.end()) return Fail(Code::kNotFound, fmt::format("no node '{}'", name));
  const bool before = std::exchange(node->up, up);
  if (Status written = WriteDownNodes(); !written.ok()) {
    node->up = before;
    return written;
  }
  changed_ = true;
  return {};
}

std::vector<Leaving> Instances::Shutdown() {
  shut_down_ = true;
  std::vector<Leaving> all;
  for (auto& [_, instance] : instances_) {
    if (!instance.has_process()) continue;
    all.push_back(Leave(instance));
    if (instance.stage == Stage::kUp) EndKindly(instance, "the ground is shut down");
  }
  return all;
}

Instance* Instances::Wanted(std::string_view name) {
  for (auto& [_, instance] : instances_)
    if (instance.wanted && instance.spec.name == name) return &instance;
  return nullptr;
}

Result<std::vector<Leaving>> Instances::Apply(const InstanceSpec& spec) {
  std::vector<Leaving> leaving;
  if (shut_down_) return Fail(Code::kUnavailable, "the ground is shut down");
  Instance* const before = Wanted(spec.name);
  if (before && before->spec == spec) return leaving;
  Instance instance;
  instance.id = next_id_++;
  instance.folder = fmt::format("{}/{:08}-{}", folder_, instance.id, spec.name);
  instance.spec = spec;
  instance.status.name = spec.name;
  instance.status.since = clock_.Now();
  UMBEL_TRY(MakeDirectories(instance.folder));
  if (Status written = WriteWanted(instance.folder, spec); !written.ok()) {
    RemoveFolder(instance.folder);
    return Fail(written.error());
  }
  if (before) {
    if (Status removed = RemoveWanted(before->folder); !removed.ok()) {
      RemoveFolder(instance.folder);
      return Fail(removed.error());
    }
    leaving.push_back(Leave(*before));
    UMBEL_TRY(Unwant(*before));
  }
  instances_.emplace(instance.id, std::move(instance));
  changed_ = true;
  return leaving;
}

Result<std::vector<Leaving>> Instances::Remove(std::string_view name) {
  std::vector<Leaving> leaving;
  std::vector<uint64_t> ids;  // one that is wanted, and perhaps others that are still ending
  for (auto& [id, instance] : instances_)
    if (instance.spec.name == name) ids.push_back(id);
  for (const uint64_t id : ids) {
    Instance& instance = instances_.at(id);
    leaving.push_back(Leave(instance));
    if (instance.wanted) UMBEL_TRY(Unwant(instance));
  }
  return leaving;
}

Leaving Instances::Leave(Instance& instance) {
  return {instance.gone.emplace_back().get_future(), instance.folder};
}

/// From here on it is not wanted; what runs of it is ended. May forget the instance.
Status Instances::Unwant(Instance& instance) {
  UMBEL_TRY(RemoveWanted(instance.folder));
  instance.wanted = false;
  changed_ = true;
  if (!instance.has_process())
    Forget(instance.id);
  else if (instance.stage != Stage::kEnding)
    EndKindly(instance, "");
  return {};
}

void Instances::Forget(uint64_t id) {
  auto node = instances_.extract(id);
  Instance& instance = node.mapped();
  if (instance.gone.empty()) RemoveFolder(instance.folder);
  for (auto& waiting : instance.gone) waiting.set_value();
  changed_ = true;
}

void Instances::EndKindly(Instance& instance, const std::string& why) {
  ::syscall(SYS_pidfd_send_signal, instance.pidfd.get(), SIGTERM, nullptr, 0);
  instance.stage = Stage::kEnding;
  instance.act_at = Steady::now() + options_.grace + kKeeperMore;
  if (instance.wanted) Set(instance, InstanceState::kWaiting, why + "; it is being ended");
  changed_ = true;
}

bool Instances::NodeIsUp(const std::string& name) const {
  return std::any_of(nodes_.begin(), nodes_.end(),
                     [&](const Node& node) { return node.name == name && node.up; });
}

std::vector<NodeLoad> Instances::Loads() const {
  std::vector<NodeLoad> loads;
  for (const Node& node : nodes_) loads.push_back({node, 0});
  for (NodeLoad& load : loads)
    for (const auto& [_, instance] : instances_)
      if (instance.seat == load.node.name) Reserve(load, instance.spec.resources);
  return loads;
}

/// Closes the gap between what is wanted and what is.
void Instances::Reconcile() {
  const auto now = Steady::now();
  for (auto& [_, instance] : instances_) {
    if (instance.stage == Stage::kEnding && instance.act_at && *instance.act_at <= now) {
      LogWarn("an instance's keeper did not end it and is killed",
              {{"instance", instance.spec.name}, {"pid", instance.pid}});
      ::syscall(SYS_pidfd_send_signal, instance.pidfd.get(), SIGKILL, nullptr, 0);
      instance.act_at = now + kKeeperMore;
    }
    if (!instance.wanted || NodeIsUp(instance.seat)) continue;
    if (instance.stage == Stage::kUp)
      EndKindly(instance, fmt::format("{} went down", instance.seat));
    else if (instance.stage == Stage::kDue)
      Unseat(instance, fmt::format("{} went down", instance.seat));
  }
  if (shut_down_) return;
  PlaceWaiting();
  for (auto& [_, instance] : instances_)
    if (instance.stage == Stage::kDue && *instance.act_at <= Steady::now()) Start(instance);
}

void Instances::Unseat(Instance& instance, const std::string& why) {
  instance.stage = Stage::kWaiting;
  instance.seat.clear();
  instance.act_at.reset();
  instance.status.node.clear();
  instance.status.address.clear();
  Set(instance, InstanceState::kWaiting, why);
  Persist(instance);
}

void Instances::PlaceWaiting() {
  std::vector<Instance*> waiting;
  std::vector<const InstanceSpec*> specs;
  std::set<std::string_view> ending;  // names of instances that are to be replaced
  for (auto& [_, instance] : instances_) {
    if (!instance.wanted) {
      ending.insert(instance.spec.name);
    } else if (instance.stage == Stage::kWaiting) {
      if (ending.count(instance.spec.name) != 0) {
        SetDetail(instance, "the one it replaces is being ended");
        continue;
      }
      waiting.push_back(&instance);
      specs.push_back(&instance.spec);
    }
  }
  if (waiting.empty()) return;
  std::vector<NodeLoad> loads = Loads();
  const std::vector<Seat> seats = Place(loads, specs);
  for (size_t i = 0; i < waiting.size(); ++i) {
    Instance& instance = *waiting[i];
    if (seats[i].node.empty()) {
      SetDetail(instance, "no place: " + seats[i].why);
      continue;
    }
    instance.seat = seats[i].node;
    instance.status.node = instance.seat;
    for (const Node& node : nodes_)
      if (node.name == instance.seat) instance.status.address = node.address;
    instance.stage = Stage::kDue;
    instance.act_at = Steady::now();
  }
}

}  // namespace umbel::orchestrator
