// A ground for tests of those who use one: everything in memory, and what instances do is what the
// test says. Any thread may call; callbacks run on the thread that caused them, under no lock.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "orchestrator/ground.h"
#include "orchestrator/placement.h"
#include "orchestrator/spec.h"

namespace umbel::orchestrator {

class FakeGround final : public Ground {
 public:
  /// What an instance does once it runs. It may call End(), Print() and all of Ground.
  using Program = std::function<void(FakeGround& ground, const InstanceSpec& spec)>;

  /// Nobody is ever short of room.
  static std::vector<Node> DefaultNodes() { return orchestrator::DefaultNodes(); }

  explicit FakeGround(const Clock& clock, std::vector<Node> nodes = DefaultNodes())
      : clock_(clock), nodes_(std::move(nodes)) {}

  // What a test does with it.

  /// Runs for every instance each time it is started; set it before the first Apply.
  void set_program(Program program) { program_ = std::move(program); }
  /// From now on Apply and Remove fail with this, until it is given an OK one.
  void Break(Status status) {
    std::lock_guard lock(mutex_);
    broken_ = std::move(status);
  }
  /// From now on what is placed stays kStarting, until Start(name).
  void HoldStarts(bool hold) {
    std::lock_guard lock(mutex_);
    hold_starts_ = hold;
  }
  /// kStarting -> kRunning.
  void Start(std::string_view name) {
    Change([&](Work& work) {
      const auto it = instances_.find(name);
      if (it != instances_.end() && it->second.status.state == InstanceState::kStarting)
        Run(it->second, work);
    });
  }
  /// Its process ends with this status. What is not one_shot and should have gone on is kFailed
  /// until Restart(name). An unknown name, or one that does not run, is no error.
  void End(std::string_view name, int status, std::string detail = "") {
    Change([&](Work&) {
      const auto it = instances_.find(name);
      if (it == instances_.end() || !HasProcess(it->second.status)) return;
      if (detail.empty()) detail = fmt::format("exited with status {}", status);
      Set(it->second,
          it->second.spec.one_shot && status == 0 ? InstanceState::kCompleted
                                                  : InstanceState::kFailed,
          std::move(detail));
    });
  }
  /// What a real ground does by itself after a while.
  void Restart(std::string_view name) {
    Change([&](Work& work) {
      const auto it = instances_.find(name);
      if (it != instances_.end() && it->second.status.state == InstanceState::kFailed)
        Run(it->second, work);
    });
  }
  void Print(std::string_view name, std::string_view text) {
    std::lock_guard lock(mutex_);
    const auto it = instances_.find(name);
    if (it == instances_.end()) return;
    it->second.log += text;
    it->second.readers.WakeAll();
  }
  /// A node goes, and its instances look for another place; or it comes back.
  void SetUp(std::string_view name, bool up) {
    Change([&](Work&) {
      for (Node& node : nodes_)
        if (node.name == name) node.up = up;
      if (up) return;
      for (auto& [_, instance] : instances_) {
        if (instance.status.node != name || IsOver(instance)) continue;
        instance.status.node.clear();
        instance.status.address.clear();
        Set(instance, InstanceState::kWaiting, fmt::format("{} went down", name));
      }
    });
  }
  /// As it was applied; nullopt when it is not wanted.
  std::optional<InstanceSpec> Spec(std::string_view name) {
    std::lock_guard lock(mutex_);
    const auto it = instances_.find(name);
    if (it == instances_.end()) return std::nullopt;
    return it->second.spec;
  }
  /// Every instance that was ever wanted, each time it was started, in order.
  std::vector<std::string> Started() {
    std::lock_guard lock(mutex_);
    return started_;
  }

  // What it is.

  std::vector<Node> Nodes() override {
    std::lock_guard lock(mutex_);
    std::vector<Node> nodes;
    for (NodeLoad& load : Loads()) nodes.push_back(std::move(load.node));
    return nodes;
  }

  Status Apply(const InstanceSpec& spec) override {
    UMBEL_TRY(CheckSpec(spec));
    Status done;
    Change([&](Work&) {
      done = broken_;
      if (done.ok()) done = CheckNode(spec, nodes_);
      if (!done.ok()) return;
      if (const auto it = instances_.find(spec.name); it != instances_.end()) {
        if (it->second.spec == spec) return;
        instances_.erase(it);
      }
      Instance& instance = instances_[spec.name];
      instance.spec = spec;
      instance.order = ++order_;
      instance.status.name = spec.name;
      Set(instance, InstanceState::kWaiting, "");
    });
    return done;
  }

  Status Remove(std::string_view name) override {
    Status done;
    Change([&](Work&) {
      done = broken_;
      if (const auto it = instances_.find(name); done.ok() && it != instances_.end())
        instances_.erase(it);
    });
    return done;
  }

  std::vector<InstanceStatus> List() override {
    std::lock_guard lock(mutex_);
    std::vector<InstanceStatus> all;
    for (const auto& [_, instance] : instances_) all.push_back(instance.status);
    return all;
  }

  std::optional<InstanceStatus> Find(std::string_view name) override {
    std::lock_guard lock(mutex_);
    const auto it = instances_.find(name);
    if (it == instances_.end()) return std::nullopt;
    return it->second.status;
  }

  Result<LogPart> Logs(std::string_view name, uint64_t offset, size_t limit) override {
    std::lock_guard lock(mutex_);
    const auto it = instances_.find(name);
    if (it == instances_.end()) return Fail(Code::kNotFound, fmt::format("no instance '{}'", name));
    const std::string& log = it->second.log;
    LogPart part;
    const size_t begin = std::min<size_t>(offset, log.size());
    part.bytes = log.substr(begin, limit);
    part.next = begin + part.bytes.size();
    part.ended = part.next == log.size() && IsOver(it->second);
    return part;
  }

  bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) override {
    std::lock_guard lock(mutex_);
    const auto it = instances_.find(name);
    if (it == instances_.end()) return false;
    it->second.readers.Add(waker);
    return true;
  }

  void Watch(std::shared_ptr<Wakeable> waker) override {
    std::lock_guard lock(mutex_);
    std::erase_if(watchers_, [](const auto& weak) { return weak.expired(); });
    watchers_.push_back(waker);
  }

 private:
  struct Instance {
    InstanceSpec spec;
    InstanceStatus status;
    std::string log;
    WaitList readers;
    uint64_t order = 0;
  };
  /// What is to be done once the lock is given back.
  struct Work {
    std::vector<InstanceSpec> programs;
  };

  static bool HasProcess(const InstanceStatus& status) {
    return status.state == InstanceState::kStarting || status.state == InstanceState::kRunning;
  }
  static bool IsOver(const Instance& instance) {
    return instance.status.state == InstanceState::kCompleted ||
           (instance.spec.one_shot && instance.status.state == InstanceState::kFailed);
  }

  void Set(Instance& instance, InstanceState state, std::string detail) {
    instance.status.state = state;
    instance.status.detail = std::move(detail);
    instance.status.since = clock_.Now();
  }

  void Run(Instance& instance, Work& work) {
    ++instance.status.starts;
    Set(instance, InstanceState::kRunning, "");
    started_.push_back(instance.spec.name);
    if (program_) work.programs.push_back(instance.spec);
  }

  std::vector<NodeLoad> Loads() const {
    std::vector<NodeLoad> loads;
    for (const Node& node : nodes_) loads.push_back({node, 0});
    for (NodeLoad& load : loads)
      for (const auto& [_, instance] : instances_)
        if (instance.status.node == load.node.name && !IsOver(instance))
          Reserve(load, instance.spec.resources);
    return loads;
  }

  void PlaceWaiting(Work& work) {
    std::map<uint64_t, Instance*> by_order;
    for (auto& [_, instance] : instances_)
      if (instance.status.state == InstanceState::kWaiting) by_order[instance.order] = &instance;
    std::vector<const InstanceSpec*> specs;
    for (const auto& [_, instance] : by_order) specs.push_back(&instance->spec);
    std::vector<NodeLoad> loads = Loads();
    const std::vector<Seat> seats = Place(loads, specs);
    auto seat = seats.begin();
    for (const auto& [_, instance] : by_order) {
      if (seat->node.empty()) {
        instance->status.detail = seat->why;
      } else {
        instance->status.node = seat->node;
        for (const Node& node : nodes_)
          if (node.name == seat->node) instance->status.address = node.address;
        if (hold_starts_)
          Set(*instance, InstanceState::kStarting, "");
        else
          Run(*instance, work);
      }
      ++seat;
    }
  }

  /// Makes a change, and what follows of it.
  template <typename F>
  void Change(F&& change) {
    Work work;
    std::vector<std::shared_ptr<Wakeable>> wake;
    {
      std::lock_guard lock(mutex_);
      change(work);
      PlaceWaiting(work);
      for (const auto& weak : watchers_)
        if (auto waker = weak.lock()) wake.push_back(std::move(waker));
    }
    for (const auto& waker : wake) waker->Wake();
    for (const InstanceSpec& spec : work.programs) program_(*this, spec);
  }

  const Clock& clock_;
  Program program_;
  std::mutex mutex_;
  std::vector<Node> nodes_;
  std::map<std::string, Instance, std::less<>> instances_;
  std::vector<std::string> started_;
  std::vector<std::weak_ptr<Wakeable>> watchers_;
  Status broken_;
  bool hold_starts_ = false;
  uint64_t order_ = 0;
};

}  // namespace umbel::orchestrator
