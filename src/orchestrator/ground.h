// Where instances run: one interface for child processes on this machine, containers and clusters.
// Whoever asks states what an instance needs; the ground finds a place for it, keeps it there, and
// tells what became of it. Any thread may call; calls may block for as long as a process takes to
// start or a request to be answered, never for as long as an instance runs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/wake.h"

namespace umbel::orchestrator {

/// What an instance may use, and what is set aside for it on its node. 0: not held to anything.
struct Resources {
  uint64_t memory_bytes = 0;
  uint64_t cpu_millicores = 0;
  uint64_t storage_bytes = 0;

  bool operator==(const Resources&) const = default;
};

struct Node {
  std::string name;
  std::string cluster;
  std::string address;           // where ports of its instances are reached
  std::set<std::string> addons;  // "FLOps-learner"
  Resources capacity;
  Resources reserved;  // by instances that are placed on it
  bool up = true;
};

/// One instance as it is wanted. Two specs that are equal are one instance; a changed spec of a
/// known name is another instance, which replaces the first.
struct InstanceSpec {
  std::string name;  // "aggr11e3c5ca7c4c.0"; letters, digits, '.', '_', '-'; at most 120
  /// The program first. Here and in the environment "{node}" stands for the name of its node.
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "KEY=value"; all of it
  std::string directory;                 // "": a folder of its own, made for it and removed with it
  Resources resources;
  std::set<std::string> addons;  // that its node must have
  std::string node;              // only there; "": anywhere
  bool one_shot = false;         // an end with status 0 is what was wanted: it is not started again
  bool network = true;           // false: loopback of its own and nothing else
  /// User code, which is kept from other processes and from files: it sees the system's programs,
  /// its own folder, and these.
  bool isolated = false;
  std::vector<std::string> shown;     // files and folders, read-only
  std::vector<std::string> writable;  // folders
  std::vector<uint16_t> reached;  // isolated and without network: ports of its node all the same

  bool operator==(const InstanceSpec&) const = default;
};

enum class InstanceState {
  kWaiting,   // no node has room for it, or the add-on: `detail` says so, for each node
  kStarting,  // placed
  kRunning,
  kCompleted,  // one_shot, status 0
  kFailed,     // `detail` says how it ended
};

struct InstanceStatus {
  std::string name;
  std::string node;  // "" while it waits
  std::string address;
  InstanceState state = InstanceState::kWaiting;
  std::string detail;  // one sentence: "ended by signal 9 (memory limit of 100 MB)"
  uint32_t starts = 0;
  WallTime since{};  // in this state
};

struct LogPart {
  std::string bytes;
  uint64_t next = 0;   // offset of what follows
  bool ended = false;  // the instance has, and nothing follows
};

class Ground {
 public:
  virtual ~Ground() = default;

  virtual std::vector<Node> Nodes() = 0;

  /// Wants it from now on, durably: a ground that is killed and opened again finds it running, or
  /// starts it. Safe to call again.
  /// errors  kInvalidArgument: the spec; kUnavailable: what the ground is made of does not answer.
  virtual Status Apply(const InstanceSpec& spec) = 0;
  /// Ends it and all it has started, first kindly, and forgets it with its log. Returns when
  /// nothing is left of it. Safe to call again; an unknown name is no error.
  virtual Status Remove(std::string_view name) = 0;

  /// Of all instances that are wanted.
  virtual std::vector<InstanceStatus> List() = 0;
  virtual std::optional<InstanceStatus> Find(std::string_view name) = 0;

  /// Its output, from `offset` on, at most `limit` bytes. Of a long log the oldest part may be
  /// gone. errors  kNotFound: no such instance.
  virtual Result<LogPart> Logs(std::string_view name, uint64_t offset, size_t limit) = 0;

  /// Woken once, when something may have been added to its log since: ask before looking at it.
  /// That it ends is a change of its status. False: it cannot be told, look again now and then.
  virtual bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) = 0;

  /// Woken after every change of a status, until it is destroyed. Events may be missed by those
  /// that look elsewhere for too long: look at List() again now and then.
  virtual void Watch(std::shared_ptr<Wakeable> waker) = 0;
};

}  // namespace umbel::orchestrator
