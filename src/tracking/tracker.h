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

namespace umbel::tracking {

struct Metric {
  std::string key;
  double value = 0;  // NaN and infinities, too
  WallTime at{};
  int64_t step = 0;
};

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
  std::string trouble;   // why, in words; "" when all is well
};

class Tracker {
 public:
  struct Options {
    std::string url;    // "http://127.0.0.1:7027"
    std::string spool;  // file; nobody else's
    std::string user = "umbel";
  };
  /// Takes up what an earlier process has left in the spool.
  /// errors  kInvalidArgument: the address; kUnavailable, kDataLoss: the spool.
  static Result<std::unique_ptr<Tracker>> Open(const Options& options);
  /// Ends the thread; what is not sent stays in the spool.
  virtual ~Tracker() = default;

  virtual Status Begin(const RunStart& run) = 0;
  /// Any number; sent in batches of what MLflow takes at once.
  virtual Status Log(const std::string& run, const std::vector<Metric>& metrics) = 0;
  virtual Status Tag(const std::string& run, const std::string& key, const std::string& value) = 0;
  /// "FINISHED", "FAILED" or "KILLED".
  virtual Status End(const std::string& run, const std::string& status, WallTime at) = 0;

  /// MLflow's own ids, once it has told them.
  virtual std::optional<std::string> RunIdOf(const std::string& run) = 0;
  virtual std::optional<std::string> ExperimentIdOf(const std::string& run) = 0;
  virtual TrackerState state() = 0;
  /// Waits until everything that was said before is with the server.
  /// errors  kDeadlineExceeded: it is not, with the trouble.
  virtual Status Flush(std::chrono::milliseconds limit) = 0;
  /// Woken when something has got through, or trouble begins.
  virtual void Watch(std::shared_ptr<Wakeable> waker) = 0;
};

}  // namespace umbel::tracking
