#include "tracking/spool.h"

#include <bit>

#include "base/file.h"
#include "store/schema.h"
#include "store/sqlite.h"

namespace umbel::tracking {
namespace {

using store::Blob;
using store::Connection;
using store::Query;

constexpr store::Migration kMigrations[] = {
    {"first tables", R"sql(
CREATE TABLE run (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  experiment TEXT NOT NULL,
  name TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  experiment_id TEXT NOT NULL DEFAULT '',
  run_id TEXT NOT NULL DEFAULT '',
  asked INTEGER NOT NULL DEFAULT 0,
  waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
  refused TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX run_waiting ON run (number) WHERE waiting > 0;

-- number: the bits of a double, for SQLite takes a NaN for NULL.
CREATE TABLE entry (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL REFERENCES run (number),
  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 4),
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  number INTEGER NOT NULL,
  at INTEGER NOT NULL,
  step INTEGER NOT NULL
) STRICT;
CREATE INDEX entry_by_run ON entry (run, id);

CREATE TABLE refusals (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  count INTEGER NOT NULL,
  last TEXT NOT NULL
) STRICT;
INSERT INTO refusals VALUES (1, 0, '');
)sql"},
    {"runs that are of no more use", R"sql(
ALTER TABLE run ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0 CHECK (forgotten IN (0, 1));
)sql"},
};

constexpr uint64_t kEntryBytes = 64;  // of a row and its place in the index, besides its texts
constexpr int64_t kFreePagesKept = 256;
constexpr size_t kWhyMax = 2000;

constexpr const char* kColumns =
    "SELECT number, id, experiment, name, started_at, experiment_id, run_id, asked FROM run ";

RunRow ReadRow(const Query& query) {
  RunRow row;
  row.number = query.Integer(0);
  row.id = query.Bytes(1);
  row.experiment = query.Bytes(2);
  row.name = query.Bytes(3);
  row.started_at = query.Time(4);
  row.experiment_id = query.Bytes(5);
  row.run_id = query.Bytes(6);
  row.asked = query.Integer(7);
  return row;
}

}  // namespace

Spool::Spool(std::unique_ptr<Connection> connection, std::string path, uint64_t bytes_max)
    : connection_(std::move(connection)), path_(std::move(path)), bytes_max_(bytes_max) {}
Spool::~Spool() = default;

Result<std::unique_ptr<Spool>> Spool::Open(const std::string& path, uint64_t bytes_max) {
  UMBEL_ASSIGN(auto connection, Connection::Open(path, Connection::Mode::kReadWrite));
  // Two that send from one spool would send everything twice.
  const auto prepare = [&]() -> Status {
    UMBEL_TRY(connection->Execute("PRAGMA locking_mode = EXCLUSIVE"));
    UMBEL_TRY(store::PrepareDatabase(*connection, path, kMigrations));
    UMBEL_TRY(connection->Execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
        "BEGIN IMMEDIATE; COMMIT"));
    return store::Migrate(*connection, path, kMigrations);
  };
  if (Status prepared = prepare(); !prepared.ok()) {
    Error error = std::move(prepared).error();
    if (error.code == Code::kUnavailable)
      error.message = fmt::format("the spool '{}' cannot be used, or another process has it: {}",
                                  path, error.message);
    return Fail(std::move(error));
  }
  return std::unique_ptr<Spool>(new Spool(std::move(connection), path, bytes_max));
}

Status Spool::Change(auto&& f) {
  std::lock_guard lock(mutex_);
  const auto all = [&]() -> Status {
    UMBEL_TRY(connection_->Execute("BEGIN IMMEDIATE"));
    UMBEL_TRY(f(*connection_));
    return connection_->Execute("COMMIT");
  };
  Status done = all();
  if (!done.ok()) connection_->Rollback();
  return done;
}

// -- what is to be said --------------------------------------------------------------------------

Status Spool::Begin(const RunStart& run) {
  std::vector<Entry> entries(1);
  for (const auto& [key, value] : run.params)
    entries.push_back({.kind = Kind::kParam, .key = key, .value = value});
  for (const auto& [key, value] : run.tags)
    entries.push_back({.kind = Kind::kTag, .key = key, .value = value});
  return Change([&](Connection& db) -> Status {
    UMBEL_ASSIGN(const int64_t known, db.Integer("SELECT number FROM run WHERE id = ?", run.id));
    if (known != 0) return {};
    UMBEL_TRY(db.Run("INSERT INTO run (id, experiment, name, started_at) VALUES (?, ?, ?, ?)",
                     run.id, run.experiment, run.name, run.started_at));
    return Insert(db.last_insert_id(), entries);
  });
}

Status Spool::Log(const std::string& run, const std::vector<Metric>& metrics) {
  std::vector<Entry> entries;
  entries.reserve(metrics.size());
  for (const Metric& metric : metrics)
    entries.push_back({.kind = Kind::kMetric,
                       .key = metric.key,
                       .value = {},
                       .number = metric.value,
                       .at = metric.at,
                       .step = metric.step});
  return Say(run, entries);
}

Status Spool::Tag(const std::string& run, const std::string& key, const std::string& value) {
  return Say(run, {Entry{.kind = Kind::kTag, .key = key, .value = value}});
}

Status Spool::End(const std::string& run, const std::string& status, WallTime at) {
  return Say(run, {Entry{.kind = Kind::kEnd, .key = {}, .value = status, .number = 0, .at = at}});
}

Status Spool::Forget(const std::string& prefix) {
  return Change([&](Connection& db) -> Status {
    UMBEL_TRY(db.Run("UPDATE run SET forgotten = 1 WHERE substr(id, 1, ?) = ?",
                     static_cast<int64_t>(prefix.size()), prefix));
    return db.Run("DELETE FROM run WHERE forgotten = 1 AND waiting = 0");
  });
}

Status Spool::Say(const std::string& run, const std::vector<Entry>& entries) {
  return Change([&](Connection& db) -> Status {
    int64_t number = 0;
    std::string refused;
    {
      Query query(db, "SELECT number, refused FROM run WHERE id = ?", run);
      UMBEL_ASSIGN(const bool found, query.Next());
      if (!found) return Fail(Code::kNotFound, fmt::format("run '{}' has not begun", run));
      number = query.Integer(0);
      refused = query.Bytes(1);
    }
    if (!refused.empty()) return CountRefused(static_cast<int64_t>(entries.size()), refused);
    return Insert(number, entries);
  });
}

Status Spool::CheckRoom(uint64_t bytes, bool metrics) {
  Connection& db = *connection_;
  UMBEL_ASSIGN(const int64_t pages, db.Integer("PRAGMA page_count"));
  UMBEL_ASSIGN(const int64_t unused, db.Integer("PRAGMA freelist_count"));
  UMBEL_ASSIGN(const int64_t size, db.Integer("PRAGMA page_size"));
  const auto used = static_cast<uint64_t>((pages - unused) * size);
  const uint64_t limit = metrics ? bytes_max_ : bytes_max_ + bytes_max_ / 8;
  if (used + bytes <= limit) return {};
  return Fail(Code::kResourceExhausted,
              fmt::format("the spool '{}' is full: {} KiB wait for MLflow already, {} KiB are "
                          "allowed",
                          path_, used / 1024, bytes_max_ / 1024));
}

Status Spool::Insert(int64_t run, const std::vector<Entry>& entries) {
  uint64_t bytes = 0;
  bool metrics = false;
  for (const Entry& entry : entries) {
    bytes += kEntryBytes + entry.key.size() + entry.value.size();
    metrics = metrics || entry.kind == Kind::kMetric;
  }
  UMBEL_TRY(CheckRoom(bytes, metrics));
  for (const Entry& entry : entries)
    UMBEL_TRY(connection_->Run(
        "INSERT INTO entry (run, kind, key, value, number, at, step) VALUES (?, ?, ?, ?, ?, ?, ?)",
        run, static_cast<int>(entry.kind), entry.key, entry.value,
        std::bit_cast<int64_t>(entry.number), entry.at, entry.step));
  return connection_->Run("UPDATE run SET waiting = waiting + ? WHERE number = ?",
                          static_cast<int64_t>(entries.size()), run);
}

// -- what is said --------------------------------------------------------------------------------

Result<std::optional<RunRow>> Spool::Next(const std::set<int64_t>& without) {
  std::lock_guard lock(mutex_);
  const std::string sql = std::string(kColumns) + "WHERE waiting > 0 ORDER BY number";
  Query query(*connection_, sql);
  for (;;) {
    UMBEL_ASSIGN(const bool more, query.Next());
    if (!more) return std::optional<RunRow>();
    if (without.count(query.Integer(0)) == 0) return std::optional<RunRow>(ReadRow(query));
  }
}

Result<std::vector<Entry>> Spool::Load(int64_t run, size_t count, size_t bytes) {
  std::lock_guard lock(mutex_);
  Query query(*connection_,
              "SELECT id, kind, key, value, number, at, step FROM entry WHERE run = ? "
              "ORDER BY id LIMIT ?",
              run, static_cast<int64_t>(count));
  std::vector<Entry> entries;
  for (size_t loaded = 0; loaded < bytes;) {
    UMBEL_ASSIGN(const bool more, query.Next());
    if (!more) return entries;
    entries.push_back({.id = query.Integer(0),
                       .kind = static_cast<Kind>(query.Integer(1)),
                       .key = query.Bytes(2),
                       .value = query.Bytes(3),
                       .number = std::bit_cast<double>(query.Integer(4)),
                       .at = query.Time(5),
                       .step = query.Integer(6)});
    loaded += entries.back().key.size() + entries.back().value.size();
  }
  return entries;
}

Status Spool::NoteAsked(int64_t run) {
  return Change([&](Connection& db) {
    return db.Run("UPDATE run SET asked = asked + 1 WHERE number = ?", run);
  });
}

Status Spool::NoteMade(int64_t run, const std::string& experiment_id, const std::string& run_id) {
  return Change([&](Connection& db) -> Status {
    UMBEL_TRY(db.Run("UPDATE run SET experiment_id = ?, run_id = ? WHERE number = ?", experiment_id,
                     run_id, run));
    UMBEL_TRY(Remove(run, "DELETE FROM entry WHERE run = ? AND kind = 0"));
    return {};
  });
}

Status Spool::NoteSaid(int64_t run, int64_t last) {
  return Change([&](Connection&) -> Status {
    UMBEL_TRY(Remove(run, "DELETE FROM entry WHERE run = ? AND id <= ?", last));
    return {};
  });
}

Status Spool::NoteRefused(int64_t run, int64_t entry, const std::string& why) {
  return Change([&](Connection&) -> Status {
    UMBEL_ASSIGN(const int64_t count,
                 Remove(run, "DELETE FROM entry WHERE run = ? AND id = ?", entry));
    return CountRefused(count, why);
  });
}

Status Spool::NoteRunRefused(int64_t run, const std::string& why) {
  return Change([&](Connection& db) -> Status {
    UMBEL_TRY(db.Run("UPDATE run SET refused = ? WHERE number = ?", why.substr(0, kWhyMax), run));
    UMBEL_ASSIGN(const int64_t count, Remove(run, "DELETE FROM entry WHERE run = ?"));
    return CountRefused(count, why);
  });
}

Result<int64_t> Spool::Remove(int64_t run, std::string_view sql, const auto&... more) {
  UMBEL_TRY(connection_->Run(sql, run, more...));
  const int64_t count = sqlite3_changes(connection_->handle());
  UMBEL_TRY(connection_->Run("UPDATE run SET waiting = waiting - ? WHERE number = ?", count, run));
  UMBEL_TRY(
      connection_->Run("DELETE FROM run WHERE number = ? AND forgotten = 1 AND waiting = 0", run));
  return count;
}

Status Spool::CountRefused(int64_t count, const std::string& why) {
  return connection_->Run("UPDATE refusals SET count = count + ?, last = ?", count,
                          why.substr(0, kWhyMax));
}

// -- what is known -------------------------------------------------------------------------------

Result<std::optional<RunRow>> Spool::Find(const std::string& run) {
  std::lock_guard lock(mutex_);
  const std::string sql = std::string(kColumns) + "WHERE id = ?";
  Query query(*connection_, sql, run);
  UMBEL_ASSIGN(const bool found, query.Next());
  if (!found) return std::optional<RunRow>();
  return std::optional<RunRow>(ReadRow(query));
}

Result<uint64_t> Spool::Waiting() {
  std::lock_guard lock(mutex_);
  UMBEL_ASSIGN(const int64_t sum,
               connection_->Integer("SELECT sum(waiting) FROM run WHERE waiting > 0"));
  return static_cast<uint64_t>(sum);
}

Result<Refusals> Spool::Refused() {
  std::lock_guard lock(mutex_);
  Query query(*connection_, "SELECT count, last FROM refusals");
  UMBEL_TRY(query.Next());
  return Refusals{query.Unsigned(0), query.Bytes(1)};
}

Result<int64_t> Spool::Newest() {
  std::lock_guard lock(mutex_);
  return connection_->Integer("SELECT max(id) FROM entry");
}

Result<std::optional<int64_t>> Spool::Oldest() {
  std::lock_guard lock(mutex_);
  UMBEL_ASSIGN(const int64_t oldest, connection_->Integer("SELECT min(id) FROM entry"));
  return oldest == 0 ? std::optional<int64_t>() : std::optional<int64_t>(oldest);
}

Result<bool> Spool::Shrink() {
  std::lock_guard lock(mutex_);
  UMBEL_ASSIGN(const int64_t unused, connection_->Integer("PRAGMA freelist_count"));
  if (unused <= kFreePagesKept) return false;
  UMBEL_TRY(connection_->Execute("PRAGMA incremental_vacuum(256)"));
  return true;
}

}  // namespace umbel::tracking
