// What is told to an MLflow server, kept until it has taken it: a server that is slow or down stops
// nobody and loses nothing. Calls only write to the spool and return; a thread of its own sends.
// Any thread may call.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/wake.h"
#include "tracking/mlflow.h"

namespace umbel::tracking {

/// One run of MLflow's, as it is to be. `id` is the caller's own and stays: the same id is the same
/// run, also after a crash between asking for it and hearing MLflow's id.
struct RunStart {
  std::string id;
  std::string experiment;  // "FLOps Project 679cbbae…"; made when it is not there
  std::string name;        // "FLOps FL round 1"
  WallTime started_at{};
  std::map<std::string, std::string> params;
  std::map<std::string, std::string> tags;
};

struct TrackerState {
  uint64_t waiting = 0;  // entries that are not with the server yet
  uint64_t refused = 0;  // entries that MLflow will never take; they are set aside
  std::string trouble;   // why, in words; "" when all is well
};

class Tracker {
 public:
  struct Options {
    std::string url;    // "http://127.0.0.1:7027"
    std::string spool;  // file; nobody else's
    std::string user = "umbel";
    uint64_t spool_bytes_max = uint64_t{256} << 20;
    std::chrono::milliseconds request_timeout{30000};
    /// Between tries while the server is down: doubled each time, with jitter.
    std::chrono::milliseconds pause_min{100};
    std::chrono::milliseconds pause_max{5000};
  };
  /// Takes up what an earlier process has left in the spool.
  /// errors  kInvalidArgument: the address; kFailedPrecondition: another program's spool;
  ///         kUnavailable, kDataLoss: the spool.
  static Result<std::unique_ptr<Tracker>> Open(const Options& options);
  /// Ends the thread, and the request it is at; what is not sent stays in the spool.
  virtual ~Tracker() = default;

  // Begin, Log, Tag and End keep what is said, on disk when they return.
  // errors  kResourceExhausted: the spool or its disk is full; kNotFound: no run of that id has
  //         begun; kInvalidArgument; kUnavailable, kDataLoss: the spool.
  /// A run that has begun before, whatever its process came to, is left as it is.
  virtual Status Begin(const RunStart& run) = 0;
  /// Any number; sent in batches of what MLflow takes at once.
  virtual Status Log(const std::string& run, const std::vector<Metric>& metrics) = 0;
  virtual Status Tag(const std::string& run, const std::string& key, const std::string& value) = 0;
  /// "FINISHED", "FAILED" or "KILLED".
  virtual Status End(const std::string& run, const std::string& status, WallTime at) = 0;
  /// All runs whose id begins so are of no more use here: each is forgotten as soon as what was
  /// said of it is with the server, which keeps it.
  virtual Status Forget(const std::string& prefix) = 0;

  /// MLflow's own ids, once it has told them.
  virtual std::optional<std::string> RunIdOf(const std::string& run) = 0;
  virtual std::optional<std::string> ExperimentIdOf(const std::string& run) = 0;
  virtual TrackerState state() = 0;
  /// Waits until everything that was said before is with the server, or set aside.
  /// errors  kDeadlineExceeded: it is not, with the trouble.
  virtual Status Flush(std::chrono::milliseconds limit) = 0;
  /// Woken each time something has got through, or trouble begins, for as long as the waker lives.
  virtual void Watch(std::shared_ptr<Wakeable> waker) = 0;
};

}  // namespace umbel::tracking
