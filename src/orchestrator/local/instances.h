// All instances of a local ground: what is wanted, what is, and what closes the gap. One thread;
// nothing here waits for a process.
#pragma once

#include <cstdint>
#include <future>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "orchestrator/local/instance.h"
#include "orchestrator/local/local_ground.h"
#include "orchestrator/local/machine.h"
#include "orchestrator/placement.h"

namespace umbel::orchestrator {

/// What callers see.
struct Shown {
  InstanceStatus status;
  std::string folder;
  bool over = false;
};

struct View {
  std::map<std::string, Shown, std::less<>> instances;
  std::vector<Node> nodes;
};

/// An instance that is not wanted any more: `done` comes when nothing of it runs, then its folder
/// is the caller's to remove.
struct Leaving {
  std::future<void> done;
  std::string folder;
};

void RemoveFolder(const std::string& folder);
/// Of the file that whoever owns the folder has locked; keepers look at it.
std::string LockPath(const std::string& folder);
/// What a keeper needs, behind its grace, to end all and write it down.
inline constexpr std::chrono::milliseconds kKeeperMore{25'000};

class Instances {
 public:
  Instances(const LocalGroundOptions& options, const Clock& clock, const Machine& machine);

  /// Finds what an earlier ground of this folder has left.
  Status Adopt();

  Result<std::vector<Leaving>> Apply(const InstanceSpec& spec);
  Result<std::vector<Leaving>> Remove(std::string_view name);
  Status SetUp(std::string_view node, bool up);
  /// From now on nothing is started.
  std::vector<Leaving> Shutdown();

  /// To be waited for; its events, of which `data` says which, go to Take(). Ids begin with 1, so
  /// that data 0 and 1 are free for others.
  int epoll() const { return epoll_.get(); }
  /// Until something is to be done even without an event, as epoll_wait takes it.
  int Patience() const;
  void Take(uint64_t data);
  /// Closes the gap between what is wanted and what is, as far as it can be now.
  void Reconcile();

  /// Whether anything to be seen has changed since it was asked last.
  bool TakeChanged() { return std::exchange(changed_, false); }
  View Look() const;

 private:
  Instance* Wanted(std::string_view name);
  std::vector<NodeLoad> Loads() const;
  bool NodeIsUp(const std::string& name) const;
  void ReadDownNodes();
  Status WriteDownNodes() const;

  Status AdoptOne(uint64_t id);
  Status Follow(int fd, uint64_t what);

  static Leaving Leave(Instance& instance);
  Status Unwant(Instance& instance);
  void Forget(uint64_t id);
  void EndKindly(Instance& instance, const std::string& why);
  void Unseat(Instance& instance, const std::string& why);

  void PlaceWaiting();
  void Start(Instance& instance);
  Status StartKeeper(Instance& instance);
  void TakeReport(Instance& instance);
  void TakeEnd(uint64_t id, bool rebooted = false);
  void Sweep(const Instance& instance, const Record& record);
  void Judge(Instance& instance, const Record& record, bool rebooted);
  void Over(Instance& instance, InstanceState state, const std::string& detail);
  void StartLater(Instance& instance, const std::string& why);
  std::chrono::milliseconds Backoff(uint32_t failures) const;

  void Set(Instance& instance, InstanceState state, std::string detail);
  void SetDetail(Instance& instance, std::string detail);
  void Persist(const Instance& instance);

  const LocalGroundOptions& options_;
  const Clock& clock_;
  const Machine& machine_;
  const std::string folder_;
  const Fd epoll_;
  std::vector<Node> nodes_;
  std::map<uint64_t, Instance> instances_;  // by id: in the order in which they were wanted
  uint64_t next_id_ = 1;
  bool shut_down_ = false;
  bool changed_ = true;
};

}  // namespace umbel::orchestrator
