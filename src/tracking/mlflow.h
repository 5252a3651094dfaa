// What Umbel needs of the REST API of an MLflow server (3.17), typed. Calls block; one thread at a
// time, but for Cancel(), which any thread may call.
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

namespace umbel::tracking {

/// One point of one metric, as MLflow keeps it: to the millisecond.
struct Metric {
  std::string key;
  double value = 0;  // NaN and infinities, too
  WallTime at{};
  int64_t step = 0;
};

struct Experiment {
  std::string id;
  std::string name;
  bool deleted = false;  // in MLflow's trash; takes no runs
};

struct NewRun {
  std::string experiment_id;
  std::string name;
  WallTime started_at{};
  std::map<std::string, std::string> tags;
};

struct Run {
  std::string id;
  std::string experiment_id;
  std::string name;
  std::string status;  // "RUNNING", "FINISHED", …
  WallTime started_at{};
  std::optional<WallTime> ended_at;
  bool deleted = false;
  std::map<std::string, std::string> params;
  std::map<std::string, std::string> tags;
  std::vector<Metric> metrics;  // the latest of each
};

/// What goes to one run in one request: at most kMetricsMax, kParamsMax, kTagsMax, and kMetricsMax
/// in all; no key twice among params or tags.
struct Batch {
  std::vector<Metric> metrics;
  std::vector<std::pair<std::string, std::string>> params;
  std::vector<std::pair<std::string, std::string>> tags;
};

struct RegisteredModel {
  std::string name;
  std::map<std::string, int64_t> aliases;  // "best" -> version
};

struct ModelVersion {
  std::string name;
  int64_t version = 0;
  std::string run_id;
  std::string source;  // "models:/m-…"
  std::string status;  // "READY"
  WallTime created_at{};
};

/// MLflow itself has looked at the request and will never take it: to send it again is of no use.
/// Whatever else went wrong (nobody there, a proxy's answer, no permission, too much at once, an
/// error of the server's own) may be different the next time.
bool IsRefusal(const Error& error);

/// Errors of all calls: the message names the URL, the status, MLflow's error_code and message;
/// wire_code is the status when the words are MLflow's own.
///   kUnavailable        nothing or nothing sensible was answered in time, or a 5xx
///   kDataLoss           the answer is not MLflow's: no JSON, a field missing or of a wrong type
///   kResourceExhausted  too many requests (429), or the answer is larger than any of its kind
///   kNotFound, kAlreadyExists, kInvalidArgument   a refusal
///   kUnauthenticated, kPermissionDenied           who we are, or the name we call the server by
///   kUnimplemented      a server without this call
///   kCancelled          Cancel() was called
class MlflowClient {
 public:
  struct Options {
    std::string user = "umbel";                // whose runs they are
    std::chrono::milliseconds timeout{30000};  // of one call in all
  };
  static constexpr size_t kMetricsMax = 1000;
  static constexpr size_t kParamsMax = 100;
  static constexpr size_t kTagsMax = 100;
  static constexpr size_t kBatchBytesMax = 1'000'000;  // of the request's JSON

  /// url     "http://HOST[:PORT][/PREFIX]" or https; nothing is asked of it yet.
  /// errors  kInvalidArgument.
  static Result<std::unique_ptr<MlflowClient>> Make(const std::string& url, Options options);
  virtual ~MlflowClient() = default;

  /// Deleted ones, too.
  virtual Result<Experiment> ExperimentByName(const std::string& name) = 0;
  virtual Result<std::string> CreateExperiment(const std::string& name) = 0;
  virtual Status RestoreExperiment(const std::string& id) = 0;
  /// The id of the experiment of that name: found, made, or taken out of MLflow's trash.
  virtual Result<std::string> EnsureExperiment(const std::string& name) = 0;

  /// On a connection of its own: one that the server closes while it is asked is not asked again,
  /// for that could make two runs.
  virtual Result<std::string> CreateRun(const NewRun& run) = 0;
  /// Runs that are not deleted and whose tag is that, in the order of their ids; at most 100.
  virtual Result<std::vector<Run>> RunsByTag(const std::string& experiment_id,
                                             const std::string& tag, const std::string& value) = 0;
  virtual Result<Run> GetRun(const std::string& run_id) = 0;
  virtual Status UpdateRun(const std::string& run_id, const std::string& status,
                           WallTime ended_at) = 0;
  virtual Status DeleteRun(const std::string& run_id) = 0;
  /// Safe to send again: MLflow's database has the points of a run as a set.
  virtual Status LogBatch(const std::string& run_id, const Batch& batch) = 0;
  virtual Status SetTag(const std::string& run_id, const std::string& key,
                        const std::string& value) = 0;
  /// All points of one metric, as the server orders them; at most a million.
  virtual Result<std::vector<Metric>> History(const std::string& run_id,
                                              const std::string& key) = 0;

  virtual Result<std::vector<RegisteredModel>> Models() = 0;
  virtual Result<ModelVersion> VersionByAlias(const std::string& model,
                                              const std::string& alias) = 0;
  virtual Result<std::vector<ModelVersion>> VersionsOf(const std::string& model) = 0;

  /// Ends the call under way, and any later one at once, with kCancelled.
  virtual void Cancel() = 0;
};

}  // namespace umbel::tracking
