// A run in progress with its nodes, played from here: set up before a measurement, ended after it.
// Clients taken from it may be used on one thread each, at the same time.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "flower.h"

namespace umbel::bench {

struct Member {
  std::unique_ptr<const Identity> identity;
  uint64_t node_id = 0;
};

/// Every object of a tree, children first, repeats kept.
std::vector<ObjectId> IdsOf(const flwr::proto::ObjectTree& tree);

/// Registers and activates `count` nodes over a few connections at once.
Result<std::vector<Member>> JoinNodes(const Endpoint& endpoint, size_t count);

class Federation {
 public:
  /// Starts a run of the bundle in `fab_path` on a server in process isolation, acquires its task
  /// and joins nodes. Keeps all of them alive by heartbeats until it is destroyed.
  static Result<std::unique_ptr<Federation>> Start(const Endpoint& endpoint,
                                                   const std::string& fab_path, size_t nodes);
  ~Federation();

  uint64_t run_id() const { return run_id_; }
  const std::vector<Member>& members() const { return members_; }
  FlowerClient App() const;
  FlowerClient Node(size_t index) const;
  Envelope ToNode(size_t index) const;
  /// The answer to `instruction`.
  Envelope ToApp(const flwr::proto::Message& instruction) const;

  /// Pushes one message and its objects as a ServerApp does.
  Status PushInstruction(FlowerClient& app, const Parcel& parcel) const;
  /// Pulls the next message as a node does, with its objects, and confirms it.
  Result<flwr::proto::Message> TakeInstruction(FlowerClient& node) const;
  /// Ends the run, as completed.
  Status Finish();

 private:
  explicit Federation(const Endpoint& endpoint) : endpoint_(endpoint) {}
  void KeepAlive(const std::stop_token& stop) const;

  Endpoint endpoint_;
  uint64_t run_id_ = 0;
  std::string token_;
  std::vector<Member> members_;
  std::jthread keeper_;
};

/// Runs body(i) for i in [0, count), each on its own thread, all starting at the same moment.
struct Parallel {
  double seconds = 0;  // from the common start to the last one's end
  Status status;       // the first failure
};
Parallel RunParallel(size_t count, const std::function<Status(size_t)>& body);

}  // namespace umbel::bench
