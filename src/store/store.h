// The durable side of a SuperLink: one SQLite database with one writer thread and a pool of
// readers, beside the segment files of large objects. Every method may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/rows.h"

namespace umbel::store {

/// kProcess: written and in the WAL before the answer; survives the death of any process.
/// kPower: also on the disk (fdatasync of files and folders, synchronous=FULL).
enum class Durability { kProcess, kPower };

struct StoreOptions {
  std::string directory;  // "" keeps nothing: everything lives in memory and unlinked files
  std::string database;   // path; "" is <directory>/state.db, ":memory:" keeps it in memory
  Durability durability = Durability::kProcess;
  size_t reader_count = 2;
  size_t queue_bytes_max = size_t{64} << 20;
  uint64_t run_log_bytes_max = uint64_t{64} << 20;   // older text of the run is dropped
  uint64_t total_log_bytes_max = uint64_t{1} << 30;  // oldest finished runs' logs go first
  uint64_t audit_rows_max = 1'000'000;               // older ones are dropped
};

struct LogChunk {
  std::string text;
  WallTime latest;
  int64_t cursor = 0;  // pass to the next ReadLogs; 0 starts at the beginning
};

struct RunListing {
  RunRow run;
  TaskRow task;  // its primary task
};

class Store {
 public:
  /// Takes the directory's lock, migrates the schema, opens the pool.
  /// errors  kAlreadyExists: another live process owns it (the message names its pid);
  ///         kFailedPrecondition: written by a newer version, or by another program;
  ///         kDataLoss: damaged; kInvalidArgument: a database file without a directory;
  ///         kUnavailable: I/O.
  static Result<std::unique_ptr<Store>> Open(StoreOptions options);
  virtual ~Store() = default;

  /// Queues `writes` behind all earlier ones; they are committed together, or not at all. `done`
  /// runs on the writer thread once they are durable (never before, never twice), or when one of
  /// them is at fault (see rows.h), which hurts no other call. It must not block. Calls that are
  /// waiting share one transaction. A failing disk is retried, with a log line, until it works or
  /// the store closes (then done gets kCancelled): what was accepted is never dropped.
  virtual void Submit(std::vector<Write> writes, std::function<void(Status)> done = {}) = 0;
  /// True while the queue holds more than queue_bytes_max, or commits are failing: answer 503.
  virtual bool Overloaded() const = 0;
  /// Blocks until everything submitted before is durable.
  virtual Status Drain() = 0;

  /// Blocking reads of committed state, for threads that may block.
  virtual Result<Snapshot> Load() = 0;
  virtual Result<std::string> ReadInline(RunId run_id, const ObjectId& object_id) = 0;  // kNotFound
  virtual Result<std::string> ReadFab(const Digest& hash) = 0;                          // kNotFound
  virtual Result<SeriesRow> ReadSeries(SeriesId series_id) = 0;                         // kNotFound
  virtual Result<RunListing> ReadRun(RunId run_id) = 0;                                 // kNotFound
  /// Newest pending_at first.
  virtual Result<std::vector<RunListing>> ListRuns(uint64_t limit, uint64_t skip) = 0;
  /// Text after `cursor` and newer than `after`, at most about `bytes_max`; when there is none it
  /// is empty, `latest` the epoch and the cursor what it was.
  virtual Result<LogChunk> ReadLogs(RunId run_id, int64_t cursor, WallTime after,
                                    size_t bytes_max = size_t{1} << 20) = 0;
  /// What is told of a run's rounds after `after`, in order, `limit` at most.
  virtual Result<std::vector<RoundRow>> ReadRounds(RunId run_id, uint64_t after,
                                                   uint64_t limit) = 0;
  virtual Result<std::vector<AuditRow>> ReadAudit(uint64_t limit) = 0;  // newest first

  virtual const std::string& directory() const = 0;
};

}  // namespace umbel::store
