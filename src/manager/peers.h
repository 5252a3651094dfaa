// What the manager asks of others, and has to wait for: git, a project's aggregator, servers'
// health. Blocking calls, each on a thread of its own; any thread. A seam: tests put others here.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "manager/sla.h"
#include "tracking/tracker.h"

namespace umbel::manager {

struct Checkout {
  std::string commit;  // 40 hexadecimal digits
  std::string folder;
};

/// How an aggregator is to train.
struct TrainingWish {
  std::string fab;  // file
  uint32_t rounds = 3;
  uint32_t min_available = 1;
  uint32_t min_fit = 1;
  uint32_t min_evaluate = 1;
  double round_timeout = 3600;  // seconds
};

struct TrainingRun {
  uint64_t id = 0;
  std::string token;
};

struct NodeTrouble {
  uint64_t node = 0;
  std::string outcome;
  std::string detail;
};

/// One record of an aggregator's rounds.
struct RoundSeen {
  uint64_t sequence = 0;
  uint32_t round = 0;
  std::string kind;  // "train", "evaluate", "end"
  double at = 0;     // seconds since 1970
  double seconds = 0;
  uint32_t asked = 0;
  uint32_t accepted = 0;
  uint64_t bytes = 0;
  std::map<std::string, double> metrics;
  std::vector<NodeTrouble> troubles;
  std::string outcome;  // of "end"
};

struct Seen {
  std::vector<RoundSeen> records;
  bool finished = false;  // and nothing follows
  bool well = false;
  std::string outcome;
};

/// A learner's part of its node's data.
struct ShareWish {
  std::string location;  // of the node's data server
  std::string project;
  std::string learner;
  std::vector<std::string> tags;
  uint32_t of = 1;  // learners of the project on this node
};

class Peers {
 public:
  virtual ~Peers() = default;

  /// The repository at its ref, or its newest commit, or at `commit` if that is not "".
  /// errors  kNotFound, kInvalidArgument: the repository or the ref, in words; kUnavailable,
  ///         kDeadlineExceeded: may work later.
  virtual Result<Checkout> Fetch(const Sla& sla, const std::string& commit,
                                 const std::string& token_file, std::stop_token stop) = 0;

  /// Begins a run that waits for its initial model. Whatever ran before in this aggregator is
  /// ended.
  virtual Result<TrainingRun> Begin(const std::string& address, const TrainingWish& wish,
                                    std::stop_token stop) = 0;
  /// Safe to call again with the same created_at.
  virtual Status SendModel(const std::string& address, const TrainingRun& run,
                           const std::string& npz, double created_at, std::stop_token stop) = 0;
  /// Held until there is something, or a while has passed.
  virtual Result<Seen> Watch(const std::string& address, uint64_t run, uint64_t after,
                             std::stop_token stop) = 0;
  /// Held until so many are online, or a while has passed. How many there are.
  virtual Result<uint32_t> WaitForNodes(const std::string& address, uint32_t count,
                                        std::stop_token stop) = 0;
  virtual Status SaveModel(const std::string& address, uint64_t run, uint32_t round,
                           const std::string& npz, std::stop_token stop) = 0;

  /// Safe to call again: the same learner has the same part. How many rows it has.
  /// errors  kFailedPrecondition: no data with these tags, in words; kUnavailable.
  virtual Result<uint64_t> Share(const ShareWish& wish, std::stop_token stop) = 0;
  /// Gives the part back; one that has none is no error.
  virtual Status Unshare(const ShareWish& wish, std::stop_token stop) = 0;

  /// Until GET url answers 200, at most `limit`.
  virtual Status WaitHealthy(const std::string& url, std::chrono::seconds limit,
                             std::stop_token stop) = 0;

  virtual Result<std::unique_ptr<tracking::Tracker>> OpenTracker(
      const tracking::Tracker::Options& options) = 0;

  /// An environment with MLflow in `folder`: its Python. Made once.
  virtual Result<std::string> MakeMlflow(const std::string& folder, std::stop_token stop) = 0;
};

struct RealPeersOptions {
  std::string repositories;  // folder
  std::string python;        // the site's, with uv
  std::string dataserver;    // umbel-dataserver, or ""
};
std::unique_ptr<Peers> MakeRealPeers(const RealPeersOptions& options);

}  // namespace umbel::manager
