// What the sites of one process must not forget: keys, instructions taken, replies not yet sent,
// contexts of run series. One SQLite file; each call is one transaction, durable against the death
// of the process when it returns. Blocking; any thread, one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

namespace umbel::store {
class Connection;
}

namespace umbel::supernode {

/// A site's key and the id the SuperLink knows it by.
struct SiteRow {
  std::string key_pem;  // private, PKCS#8; "" when the key is a file of the user's
  NodeId node_id;
};

/// What is known of an instruction.
enum class Progress { kTaken, kAnswered, kSent };

/// A message and where its objects are, as flower::Parcel with flower::Spool::Index().
struct ParcelRow {
  std::string message;
  std::string tree;
  std::string index;
};

struct InstructionRow {
  int64_t site = 0;
  ObjectId message_id;
  RunId run_id;
  SeriesId series_id;
  Progress progress = Progress::kTaken;
  WallTime expires_at;  // of its ttl
  ParcelRow instruction;
  ParcelRow reply;  // from kAnswered on
  double runtime_seconds = 0;
};

class Journal {
 public:
  /// path  ":memory:" keeps nothing.
  /// errors  kFailedPrecondition: another program's file, or a newer umbel's; kDataLoss;
  /// kUnavailable.
  static Result<std::unique_ptr<Journal>> Open(const std::string& path);
  ~Journal();

  Result<std::optional<SiteRow>> ReadSite(int64_t site);
  Status PutSite(int64_t site, const SiteRow& row);

  /// The instruction with all its objects is here. kAlreadyExists: it was before.
  Status Take(const InstructionRow& row);
  Result<std::optional<Progress>> Find(int64_t site, const ObjectId& message_id);
  Result<std::optional<InstructionRow>> Read(int64_t site, const ObjectId& message_id);
  /// The reply, and what the app left in its series' context: both or neither.
  /// errors  kNotFound: it is not there, or answered already.
  Status Answer(int64_t site, const ObjectId& message_id, const ParcelRow& reply,
                double runtime_seconds, SeriesId series, const std::optional<std::string>& state);
  /// The SuperLink has the reply, or wants none. The id stays known until it expires, so that a
  /// repeated instruction is not worked on again.
  Status Sent(int64_t site, const ObjectId& message_id);
  /// Its run is over, or it could not be fetched.
  Status Forget(int64_t site, const ObjectId& message_id);
  /// Instructions and replies a former process left, oldest first.
  Result<std::vector<InstructionRow>> Unfinished(int64_t site);
  /// Forgets what has expired.
  Status Sweep(WallTime now);

  /// A serialized flwr.proto.RecordDict; "" for a new series.
  Result<std::string> ReadContext(int64_t site, SeriesId series);

 private:
  explicit Journal(std::unique_ptr<store::Connection> connection);
  template <typename F>
  auto Locked(F&& f);

  std::mutex mutex_;
  std::unique_ptr<store::Connection> connection_;
};

}  // namespace umbel::supernode
