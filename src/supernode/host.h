// Where a site's ClientApps run. One Host per kind; the node gives it one job after another and
// never asks how. Belongs to the node's io_context thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "flower/config.h"
#include "flower/records.h"
#include "http/exchange.h"

namespace umbel::supernode {

using flower::ConfigMap;
using flower::ConfigScalar;
using http::Task;

/// A FAB that was checked and unpacked, shared by all runs of it.
struct App {
  std::string fab_id;  // publisher/name
  std::string version;
  Digest hash;
  std::string content;    // the archive itself; what stock programs are given
  std::string directory;  // where it is unpacked; stays as long as the App
  std::string clientapp;  // "module:attribute"
};

struct RunInfo {
  RunId run_id;
  SeriesId series_id;
  std::string run;       // serialized flwr.proto.Run, as the SuperLink sent it
  ConfigMap run_config;  // the FAB's, overlaid with the run's
  std::shared_ptr<const App> app;
};

/// One instruction whose objects are all here.
struct Job {
  std::shared_ptr<const RunInfo> run;
  NodeId node_id;
  ConfigMap node_config;
  flower::Parcel instruction;
  std::string state;       // serialized flwr.proto.RecordDict: the series' context state
  std::string spool_path;  // where the reply's spool is to be created
};

/// What came of a job. An app's own failure is a reply too: an error parcel.
struct Outcome {
  flower::Parcel reply;
  std::optional<std::string> state;  // what the app left of the context's state; nullopt: unknown
  double runtime_seconds = 0;        // of the ClientApp
};

class Host {
 public:
  virtual ~Host() = default;

  /// For the log and for people: "worker", "resident", "stock", "native".
  virtual std::string_view name() const = 0;
  /// A run has begun: what can be done before its first message exists is done now. May be called
  /// again for the same run; does not wait.
  virtual void Prepare(std::shared_ptr<const RunInfo> run) = 0;
  /// Loads an app whose runs are still to come, and waits until it is: it may read its data then.
  /// Hosts that keep nothing loaded do nothing.
  /// errors  what the app says; its runs will be told the same.
  virtual Task<Status> Preload(std::shared_ptr<const App>) { co_return Status{}; }
  /// Runs one job to its end. Jobs of one series come one after another; others side by side.
  /// errors  kCancelled: Stop() was called, or `cancelled` woke (the run is over): nothing to send;
  ///         anything else: the host itself is at fault, and the node tries again, at most twice.
  virtual Task<Result<Outcome>> Run(const Job& job) = 0;
  /// The run is over: ends what works for it.
  virtual void Drop(RunId run_id) = 0;
  /// Ends all processes and waits for them, at most `grace`.
  virtual Task<void> Stop(std::chrono::milliseconds grace) = 0;
  /// One line for `umbel supernode status`: processes, what they do.
  virtual std::string Describe() const = 0;
};

/// Flower's error codes of replies.
enum class ReplyError : int64_t {
  kUnknown = 0,
  kLoadFailed = 1,  // "An exception was raised when attempting to load `ClientApp`"
  kRaised = 2,      // "<class 'X'>:<'text'>"
  kInvalidFab = 7,
  kCrashed = 8,  // "ClientApp stopped responding." and why
};

}  // namespace umbel::supernode
