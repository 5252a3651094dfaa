// The thread that brings what is in the spool to MLflow: oldest run first, within a run in order,
// in batches, again and again until it is taken.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "tracking/mlflow.h"
#include "tracking/spool.h"

namespace umbel::tracking {

/// The tag by which a run is found again: the caller's own id.
inline constexpr const char* kRunTag = "umbel.run";

class Sender {
 public:
  struct Options {
    std::chrono::milliseconds pause_min;
    std::chrono::milliseconds pause_max;
  };
  /// changed  called by the thread when something has got through, or trouble has begun.
  Sender(Spool& spool, MlflowClient& client, Options options, std::function<void()> changed);
  /// Cancels the client's call and joins.
  ~Sender();

  /// Something was put into the spool. Any thread.
  void Look();
  /// Why nothing gets through, in words; "" while it does. Any thread.
  std::string trouble() const;

 private:
  using Steady = std::chrono::steady_clock;
  /// A run whose requests the server fails at, while it may take others'.
  struct Delay {
    int failures = 0;
    Steady::time_point until;
  };

  void Loop(const std::stop_token& stop);
  /// Brings something of one run to the server.
  Status Step(const RunRow& run);
  Status Make(const RunRow& run);
  Status SendBatch(const RunRow& run, std::span<const Entry> entries);
  Status Finish(const RunRow& run, const Entry& entry);
  /// Ends the runs that an unheard request has made besides ours.
  Status DeleteTwins(const RunRow& run, const std::string& experiment_id, const std::string& keep);
  /// Nothing is taken of a run that is not there any more: then all of it is set aside, and true.
  Result<bool> RunIsGone(const RunRow& run, const Error& refusal);

  void Succeeded(int64_t run);
  void Failed(int64_t run, const Error& error);
  std::chrono::milliseconds Pause(int failures);
  void Wait(const std::stop_token& stop, Steady::time_point until, bool news);

  Spool& spool_;
  MlflowClient& client_;
  const Options options_;
  const std::function<void()> changed_;
  SystemRng rng_;

  // The thread's own.
  std::map<int64_t, Delay> delayed_;
  int failures_ = 0;         // one after another, of whatever run
  Steady::time_point calm_;  // nothing is sent before
  size_t batch_max_ = MlflowClient::kMetricsMax;

  mutable std::mutex mutex_;
  std::condition_variable_any news_;
  bool look_ = true;
  std::string trouble_;

  std::jthread thread_;  // last: it uses the rest
};

}  // namespace umbel::tracking
