#include "supernode/journal.h"

#include "store/schema.h"
#include "store/sqlite.h"

namespace umbel::supernode {
namespace {

using store::Blob;
using store::Query;

constexpr store::Migration kMigrations[] = {
    {"first tables", R"sql(
CREATE TABLE site (
  site INTEGER PRIMARY KEY,
  key_pem TEXT NOT NULL,
  node_id INTEGER NOT NULL
) STRICT;
CREATE TABLE instruction (
  site INTEGER NOT NULL,
  message_id BLOB NOT NULL CHECK (length(message_id) = 32),
  run_id INTEGER NOT NULL,
  series_id INTEGER NOT NULL,
  progress INTEGER NOT NULL CHECK (progress BETWEEN 0 AND 2),
  expires_at INTEGER NOT NULL,
  message BLOB NOT NULL,
  tree BLOB NOT NULL,
  objects BLOB NOT NULL,
  reply_message BLOB NOT NULL DEFAULT x'',
  reply_tree BLOB NOT NULL DEFAULT x'',
  reply_objects BLOB NOT NULL DEFAULT x'',
  runtime REAL NOT NULL DEFAULT 0,
  UNIQUE (site, message_id)
) STRICT;
CREATE TABLE context (
  site INTEGER NOT NULL,
  series_id INTEGER NOT NULL,
  state BLOB NOT NULL,
  PRIMARY KEY (site, series_id)
) STRICT, WITHOUT ROWID;
)sql"},
};

constexpr const char* kColumns =
    "SELECT site, message_id, run_id, series_id, progress, expires_at, message, tree, objects, "
    "reply_message, reply_tree, reply_objects, runtime FROM instruction ";

InstructionRow ReadRow(const Query& query) {
  InstructionRow row;
  row.site = query.Integer(0);
  row.message_id = query.ReadDigest(1);
  row.run_id = query.ReadId<RunId>(2);
  row.series_id = query.ReadId<SeriesId>(3);
  row.progress = static_cast<Progress>(query.Integer(4));
  row.expires_at = query.Time(5);
  row.instruction = {query.Bytes(6), query.Bytes(7), query.Bytes(8)};
  row.reply = {query.Bytes(9), query.Bytes(10), query.Bytes(11)};
  row.runtime_seconds = query.Real(12);
  return row;
}

}  // namespace

Journal::Journal(std::unique_ptr<store::Connection> connection)
    : connection_(std::move(connection)) {}
Journal::~Journal() = default;

Result<std::unique_ptr<Journal>> Journal::Open(const std::string& path) {
  UMBEL_ASSIGN(auto connection, store::Connection::Open(path, store::Connection::Mode::kReadWrite));
  UMBEL_TRY(store::PrepareDatabase(*connection, path, kMigrations));
  UMBEL_TRY(connection->Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON"));
  UMBEL_TRY(store::Migrate(*connection, path, kMigrations));
  return std::unique_ptr<Journal>(new Journal(std::move(connection)));
}

template <typename F>
auto Journal::Locked(F&& f) {
  std::lock_guard lock(mutex_);
  return f(*connection_);
}

Result<std::optional<SiteRow>> Journal::ReadSite(int64_t site) {
  return Locked([&](store::Connection& db) -> Result<std::optional<SiteRow>> {
    Query query(db, "SELECT key_pem, node_id FROM site WHERE site = ?", site);
    UMBEL_ASSIGN(const bool found, query.Next());
    if (!found) return std::optional<SiteRow>();
    return std::optional<SiteRow>(SiteRow{query.Bytes(0), query.ReadId<NodeId>(1)});
  });
}

Status Journal::PutSite(int64_t site, const SiteRow& row) {
  return Locked([&](store::Connection& db) {
    return db.Run(
        "INSERT INTO site VALUES (?1, ?2, ?3) "
        "ON CONFLICT DO UPDATE SET key_pem = ?2, node_id = ?3",
        site, row.key_pem, row.node_id);
  });
}

Status Journal::Take(const InstructionRow& row) {
  return Locked([&](store::Connection& db) {
    return db.Run(
        "INSERT INTO instruction (site, message_id, run_id, series_id, progress, expires_at, "
        "message, tree, objects) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?)",
        row.site, row.message_id, row.run_id, row.series_id, row.expires_at,
        Blob{row.instruction.message}, Blob{row.instruction.tree}, Blob{row.instruction.index});
  });
}

Result<std::optional<Progress>> Journal::Find(int64_t site, const ObjectId& message_id) {
  return Locked([&](store::Connection& db) -> Result<std::optional<Progress>> {
    Query query(db, "SELECT progress FROM instruction WHERE site = ? AND message_id = ?", site,
                message_id);
    UMBEL_ASSIGN(const bool found, query.Next());
    if (!found) return std::optional<Progress>();
    return std::optional<Progress>(static_cast<Progress>(query.Integer(0)));
  });
}

Result<std::optional<InstructionRow>> Journal::Read(int64_t site, const ObjectId& message_id) {
  return Locked([&](store::Connection& db) -> Result<std::optional<InstructionRow>> {
    const std::string sql = std::string(kColumns) + "WHERE site = ? AND message_id = ?";
    Query query(db, sql, site, message_id);
    UMBEL_ASSIGN(const bool found, query.Next());
    if (!found) return std::optional<InstructionRow>();
    return std::optional<InstructionRow>(ReadRow(query));
  });
}

Status Journal::Answer(int64_t site, const ObjectId& message_id, const ParcelRow& reply,
                       double runtime_seconds, SeriesId series,
                       const std::optional<std::string>& state) {
  return Locked([&](store::Connection& db) -> Status {
    const auto both = [&]() -> Status {
      UMBEL_TRY(db.Execute("BEGIN IMMEDIATE"));
      UMBEL_TRY(db.Run(
          "UPDATE instruction SET progress = 1, reply_message = ?, reply_tree = ?, "
          "reply_objects = ?, runtime = ? WHERE site = ? AND message_id = ? AND progress = 0",
          Blob{reply.message}, Blob{reply.tree}, Blob{reply.index}, runtime_seconds, site,
          message_id));
      if (sqlite3_changes(db.handle()) == 0)
        return Fail(Code::kNotFound,
                    fmt::format("no instruction {} waits for its answer", message_id.Hex()));
      if (state)
        UMBEL_TRY(
            db.Run("INSERT INTO context VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = ?3",
                   site, series, Blob{*state}));
      return db.Execute("COMMIT");
    };
    const Status done = both();
    if (!done.ok()) db.Rollback();
    return done;
  });
}

Status Journal::Sent(int64_t site, const ObjectId& message_id) {
  return Locked([&](store::Connection& db) {
    return db.Run(
        "UPDATE instruction SET progress = 2, message = x'', tree = x'', objects = x'', "
        "reply_message = x'', reply_tree = x'', reply_objects = x'' "
        "WHERE site = ? AND message_id = ?",
        site, message_id);
  });
}

Status Journal::Forget(int64_t site, const ObjectId& message_id) {
  return Locked([&](store::Connection& db) {
    return db.Run("DELETE FROM instruction WHERE site = ? AND message_id = ?", site, message_id);
  });
}

Result<std::vector<InstructionRow>> Journal::Unfinished(int64_t site) {
  return Locked([&](store::Connection& db) -> Result<std::vector<InstructionRow>> {
    const std::string sql =
        std::string(kColumns) + "WHERE site = ? AND progress < 2 ORDER BY rowid";
    std::vector<InstructionRow> rows;
    Query query(db, sql, site);
    for (;;) {
      UMBEL_ASSIGN(const bool more, query.Next());
      if (!more) return rows;
      rows.push_back(ReadRow(query));
    }
  });
}

Status Journal::Sweep(WallTime now) {
  return Locked([&](store::Connection& db) {
    return db.Run("DELETE FROM instruction WHERE progress = 2 AND expires_at < ?", now);
  });
}

Result<std::string> Journal::ReadContext(int64_t site, SeriesId series) {
  return Locked([&](store::Connection& db) -> Result<std::string> {
    Query query(db, "SELECT state FROM context WHERE site = ? AND series_id = ?", site, series);
    UMBEL_ASSIGN(const bool found, query.Next());
    return found ? query.Bytes(0) : std::string();
  });
}

}  // namespace umbel::supernode
