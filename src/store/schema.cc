#include "store/schema.h"

namespace umbel::store {
namespace {

// "Umbl": tells our databases from others, upstream's state file above all.
constexpr int64_t kApplicationId = 0x556d626c;

// Enumerations are stored by their number, in the order of rows.h. Tables whose rows may be large
// keep their rowid, so that rows are appended and only small index entries land in random places.
constexpr const char* kFirst = R"sql(
CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
  node_id INTEGER PRIMARY KEY,
  public_key TEXT NOT NULL UNIQUE,
  owner_aid TEXT NOT NULL,
  owner_name TEXT NOT NULL,
  name TEXT NOT NULL,
  location TEXT NOT NULL,
  status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 3),
  registered_at INTEGER NOT NULL,
  last_activated_at INTEGER NOT NULL,
  last_deactivated_at INTEGER NOT NULL,
  unregistered_at INTEGER NOT NULL,
  online_until INTEGER NOT NULL,
  heartbeat_interval REAL NOT NULL
) STRICT;

CREATE TABLE runs (
  run_id INTEGER PRIMARY KEY,
  series_id INTEGER NOT NULL,
  primary_task_id INTEGER NOT NULL,
  primary_task_type TEXT NOT NULL,
  fab_id TEXT NOT NULL,
  fab_version TEXT NOT NULL,
  fab_hash BLOB NOT NULL CHECK (length(fab_hash) = 32),
  override_config BLOB NOT NULL,
  federation TEXT NOT NULL,
  flwr_aid TEXT NOT NULL,
  account_name TEXT NOT NULL,
  bytes_sent INTEGER NOT NULL,
  bytes_recv INTEGER NOT NULL,
  clientapp_runtime REAL NOT NULL
) STRICT;

CREATE TABLE tasks (
  task_id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL,
  type TEXT NOT NULL,
  status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 3),
  sub_status TEXT NOT NULL,
  details TEXT NOT NULL,
  pending_at INTEGER NOT NULL,
  starting_at INTEGER NOT NULL,
  running_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  token TEXT NOT NULL,
  token_until INTEGER NOT NULL,
  pid INTEGER NOT NULL,
  pid_start_ticks INTEGER NOT NULL,
  launches INTEGER NOT NULL,
  output_offset INTEGER NOT NULL
) STRICT;
CREATE INDEX tasks_by_run ON tasks (run_id);
CREATE INDEX tasks_by_pending ON tasks (pending_at, task_id);
CREATE INDEX tasks_unfinished ON tasks (run_id) WHERE status <> 3;

-- Runs whose primary task has not finished: all that a restart has to pick up.
CREATE VIEW unfinished AS
  SELECT r.run_id AS run_id, r.fab_hash AS fab_hash
  FROM tasks AS t CROSS JOIN runs AS r ON r.run_id = t.run_id AND r.primary_task_id = t.task_id
  WHERE t.status <> 3;

CREATE TABLE series (
  series_id INTEGER PRIMARY KEY,
  context BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE fabs (
  hash BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  content BLOB NOT NULL
) STRICT;

-- created_at and ttl are the bits of a double: they are part of the message's hash.
CREATE TABLE messages (
  run_id INTEGER NOT NULL,
  message_id BLOB NOT NULL CHECK (length(message_id) = 32),
  sequence INTEGER NOT NULL,
  src_node_id INTEGER NOT NULL,
  dst_node_id INTEGER NOT NULL,
  reply_to BLOB CHECK (length(reply_to) = 32),
  group_id TEXT NOT NULL,
  message_type TEXT NOT NULL,
  created_at_bits INTEGER NOT NULL,
  ttl_bits INTEGER NOT NULL,
  touched INTEGER NOT NULL CHECK (touched IN (0, 1)),
  body BLOB NOT NULL,
  tree BLOB NOT NULL,
  PRIMARY KEY (run_id, message_id)
) STRICT;

CREATE TABLE objects (
  run_id INTEGER NOT NULL,
  object_id BLOB NOT NULL CHECK (length(object_id) = 32),
  size INTEGER NOT NULL,
  segment INTEGER NOT NULL CHECK (segment BETWEEN 0 AND 4294967295),
  offset INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (run_id, object_id)
) STRICT;

CREATE TABLE logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX logs_by_run ON logs (run_id);

-- Bytes of log kept for a run; run 0 is the sum of all.
CREATE TABLE log_totals (
  run_id INTEGER PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  timestamp INTEGER NOT NULL,
  peer TEXT NOT NULL,
  action TEXT NOT NULL,
  run_id INTEGER NOT NULL,
  fab_hash TEXT NOT NULL,
  outcome TEXT NOT NULL
) STRICT;
)sql";

constexpr const char* kRounds = R"sql(
CREATE TABLE sessions (
  run_id INTEGER NOT NULL,
  name TEXT NOT NULL,
  plan BLOB NOT NULL,
  progress BLOB NOT NULL,
  model_tree BLOB NOT NULL,
  PRIMARY KEY (run_id, name)
) STRICT;

CREATE TABLE rounds (
  run_id INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY (run_id, sequence)
) STRICT;
)sql";

constexpr Migration kMigrations[] = {
    {"first tables", kFirst},
    {"native rounds", kRounds},
};

Status Step(Connection& connection, const Migration& migration, size_t version) {
  UMBEL_TRY(connection.Execute("BEGIN IMMEDIATE"));
  UMBEL_TRY(connection.Execute(migration.sql));
  UMBEL_TRY(connection.Execute(fmt::format("PRAGMA application_id = {}", kApplicationId)));
  UMBEL_TRY(connection.Execute(fmt::format("PRAGMA user_version = {}", version)));
  return connection.Execute("COMMIT");
}

}  // namespace

std::span<const Migration> Migrations() { return kMigrations; }

Status PrepareDatabase(Connection& connection, const std::string& path,
                       std::span<const Migration> migrations) {
  UMBEL_ASSIGN(const int64_t application, connection.Integer("PRAGMA application_id"));
  UMBEL_ASSIGN(const int64_t version, connection.Integer("PRAGMA user_version"));
  UMBEL_ASSIGN(const int64_t tables, connection.Integer("SELECT count(*) FROM sqlite_schema"));
  if (tables != 0 && application != kApplicationId)
    return Fail(Code::kFailedPrecondition,
                fmt::format("'{}' is not a database of umbel's; name another file", path));
  if (version < 0 || static_cast<uint64_t>(version) > migrations.size())
    return Fail(Code::kFailedPrecondition,
                fmt::format("'{}' has schema version {}, written by a newer umbel; this one knows "
                            "versions up to {}: update umbel or name another directory",
                            path, version, migrations.size()));
  if (tables != 0) return {};
  // A commit writes whole pages: a message with two dozen objects costs a third less in pages of
  // 8 KiB than in SQLite's usual 4.
  return connection.Execute("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL");
}

Status Migrate(Connection& connection, const std::string& path,
               std::span<const Migration> migrations) {
  UMBEL_ASSIGN(const int64_t version, connection.Integer("PRAGMA user_version"));
  for (size_t i = static_cast<size_t>(version); i < migrations.size(); ++i) {
    if (Status step = Step(connection, migrations[i], i + 1); !step.ok()) {
      connection.Rollback();
      return Fail(step.error().code, fmt::format("cannot migrate '{}' to version {} ({}): {}", path,
                                                 i + 1, migrations[i].what, step.error().message));
    }
  }
  return {};
}

Result<int64_t> ReadMeta(Connection& connection, std::string_view key) {
  return connection.Integer("SELECT value FROM meta WHERE key = ?", key);
}

Result<std::string> ReadMetaText(Connection& connection, std::string_view key) {
  Query query(connection, "SELECT value FROM meta WHERE key = ?", key);
  UMBEL_ASSIGN(const bool row, query.Next());
  return row ? query.Bytes(0) : std::string();
}

Status WriteMeta(Connection& connection, std::string_view key, int64_t value) {
  return connection.Run("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                        key, value);
}

Status WriteMetaText(Connection& connection, std::string_view key, const std::string& value) {
  return connection.Run("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
                        key, value);
}

}  // namespace umbel::store
