// What an MLflow server has not taken yet, in one SQLite file. Each call is one transaction, on
// disk when it returns. Blocking; any thread, one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "tracking/tracker.h"

namespace umbel::store {
class Connection;
}

namespace umbel::tracking {

/// In the order of the database's numbers.
enum class Kind { kBegin, kParam, kTag, kMetric, kEnd };

/// One thing to be said of a run. Within a run they are said in the order of their ids.
struct Entry {
  int64_t id = 0;
  Kind kind = Kind::kBegin;
  std::string key;    // of a param, tag or metric
  std::string value;  // of a param or tag; the status of an end
  double number = 0;  // of a metric
  WallTime at{};      // of a metric or an end
  int64_t step = 0;
};

struct RunRow {
  int64_t number = 0;  // in the order of their beginnings
  std::string id;      // the caller's
  std::string experiment;
  std::string name;
  WallTime started_at{};
  std::string experiment_id;  // MLflow's, once it is known
  std::string run_id;
  int64_t asked = 0;  // how often MLflow was, or may have been, asked to make it
};

struct Refusals {
  uint64_t count = 0;
  std::string last;  // in words; "" when there was none
};

class Spool {
 public:
  /// bytes_max  of all that waits; for beginnings, tags and ends an eighth more, so that a run that
  ///            has filled it still comes to its end.
  /// errors     kUnavailable: it cannot be opened, or another process has it; kFailedPrecondition:
  ///            another program's file, or a newer umbel's; kDataLoss.
  static Result<std::unique_ptr<Spool>> Open(const std::string& path, uint64_t bytes_max);
  ~Spool();

  // What is to be said. errors  kResourceExhausted: the spool or the disk is full; kNotFound: no
  // run of that id has begun. What is said of a run that MLflow has refused counts as refused.
  /// A run that has begun before is left as it is.
  Status Begin(const RunStart& run);
  Status Log(const std::string& run, const std::vector<Metric>& metrics);
  Status Tag(const std::string& run, const std::string& key, const std::string& value);
  Status End(const std::string& run, const std::string& status, WallTime at);
  /// Runs whose id begins so go when nothing of them waits, now or later.
  Status Forget(const std::string& prefix);

  // What is said.
  /// The first run, by number, of which something waits and that is not in `without`.
  Result<std::optional<RunRow>> Next(const std::set<int64_t>& without);
  /// The first entries of the run: at most `count`, and none after `bytes` of their texts.
  Result<std::vector<Entry>> Load(int64_t run, size_t count, size_t bytes);
  /// The server will be asked to make the run now.
  Status NoteAsked(int64_t run);
  /// It is made, and the entry of its beginning said.
  Status NoteMade(int64_t run, const std::string& experiment_id, const std::string& run_id);
  /// All of the run up to and with `last` is said.
  Status NoteSaid(int64_t run, int64_t last);
  /// One entry will never be taken. `why` is told from now on.
  Status NoteRefused(int64_t run, int64_t entry, const std::string& why);
  /// Nothing more of the run will be taken, neither what waits nor what is still to come.
  Status NoteRunRefused(int64_t run, const std::string& why);

  // What is known.
  Result<std::optional<RunRow>> Find(const std::string& run);
  Result<uint64_t> Waiting();
  Result<Refusals> Refused();
  /// The id of the newest entry; entries up to it are said when Oldest() is larger.
  Result<int64_t> Newest();
  /// nullopt: nothing waits.
  Result<std::optional<int64_t>> Oldest();
  /// Gives a part of the file's unused pages back. False when there are few.
  Result<bool> Shrink();

 private:
  Spool(std::unique_ptr<store::Connection> connection, std::string path, uint64_t bytes_max);

  /// `f` in a transaction.
  Status Change(auto&& f);
  /// Room for `bytes` more.
  Status CheckRoom(uint64_t bytes, bool metrics);
  /// What `entries` say of the run of that id, or their refusal.
  Status Say(const std::string& run, const std::vector<Entry>& entries);
  Status Insert(int64_t run, const std::vector<Entry>& entries);
  /// Deletes entries of the run and keeps its count of what waits. How many they were.
  Result<int64_t> Remove(int64_t run, std::string_view sql, const auto&... more);
  Status CountRefused(int64_t count, const std::string& why);

  std::mutex mutex_;
  std::unique_ptr<store::Connection> connection_;
  const std::string path_;
  const uint64_t bytes_max_;
};

}  // namespace umbel::tracking
