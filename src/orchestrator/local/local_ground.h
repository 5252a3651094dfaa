// The ground that needs nothing else: nodes are declared, instances are child processes on this
// machine. Any thread may call; one thread of its own keeps them.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "orchestrator/ground.h"

namespace umbel::orchestrator {

struct LocalGroundOptions {
  std::string folder;  // made when it is missing; one ground at a time
  /// A capacity that is all 0 becomes a share of the machine: see machine.h.
  std::vector<Node> nodes;  // empty: DefaultNodes(), see spec.h

  std::chrono::milliseconds grace{10'000};  // between SIGTERM and SIGKILL
  /// What goes on without a ground ends after this, so that nothing stays for good when nobody
  /// comes back. 0: never.
  std::chrono::seconds orphan_grace{3600};
  uint64_t log_bytes_max = uint64_t{16} << 20;   // of one instance
  uint64_t processes_max = 4096;                 // and threads, of one instance
  std::chrono::milliseconds backoff_min{1'000};  // before what ended is started again; doubles
  std::chrono::milliseconds backoff_max{30'000};
  std::chrono::milliseconds healthy_after{60'000};  // whoever ran that long begins with backoff_min
  bool use_groups = true;                           // false: rlimits only
};

class LocalGround : public Ground {
 public:
  /// Finds what an earlier ground of this folder has started, and goes on.
  /// errors  kAlreadyExists: another live process owns the folder; kUnavailable, kInvalidArgument.
  static Result<std::unique_ptr<LocalGround>> Open(LocalGroundOptions options, const Clock& clock);
  /// Leaves everything running, for the next ground of this folder.
  ~LocalGround() override = default;

  /// Takes a node down or up, durably. What is on a node that goes down is ended and placed
  /// elsewhere, or waits.
  /// errors  kNotFound: no such node.
  virtual Status SetUp(std::string_view node, bool up) = 0;
  /// Ends all instances, which stay wanted: the next ground starts them again. Nothing can be asked
  /// of this one any more but what it has.
  virtual Status Shutdown() = 0;
  /// For people: what instances are held to and by what, and what they are not.
  virtual const std::string& Limits() const = 0;
  /// Whether network=false can be kept here, or why not.
  virtual const Status& Isolation() const = 0;
};

}  // namespace umbel::orchestrator
