#include "manager/store.h"

#include "store/schema.h"

namespace umbel::manager {
namespace {

constexpr store::Migration kMigrations[] = {
    {"first tables", R"sql(
CREATE TABLE projects (
  id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 24),
  sequence INTEGER NOT NULL UNIQUE,
  customer TEXT NOT NULL,
  sla TEXT NOT NULL CHECK (json_valid(sla)),
  app_id TEXT NOT NULL,
  app_name TEXT NOT NULL,
  stage INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 8),
  wanted INTEGER NOT NULL CHECK (wanted BETWEEN 0 AND 3),
  created_at INTEGER NOT NULL,
  stage_since INTEGER NOT NULL,
  ended_at INTEGER NOT NULL,
  waiting TEXT NOT NULL,
  failure TEXT NOT NULL,
  commit_hash TEXT NOT NULL,
  source TEXT NOT NULL,
  environment TEXT NOT NULL,
  initial TEXT NOT NULL,
  run_id INTEGER NOT NULL,
  run_token TEXT NOT NULL,
  run_asked_at REAL NOT NULL,
  run_begun INTEGER NOT NULL CHECK (run_begun IN (0, 1)),
  run_finished INTEGER NOT NULL CHECK (run_finished IN (0, 1)),
  watched INTEGER NOT NULL,
  best_round INTEGER NOT NULL,
  best_accuracy REAL NOT NULL,
  best_loss REAL,
  best_model TEXT NOT NULL,
  model TEXT NOT NULL,
  runs INTEGER NOT NULL
) STRICT;

CREATE TABLE apps (
  id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 24),
  name TEXT NOT NULL,
  space TEXT NOT NULL,
  customer TEXT NOT NULL,
  project TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX apps_by_name ON apps (name, customer);

CREATE TABLE services (
  id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 24),
  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 99),
  name TEXT NOT NULL,
  app_id TEXT NOT NULL,
  project TEXT NOT NULL,
  customer TEXT NOT NULL,
  port INTEGER NOT NULL CHECK (port BETWEEN 0 AND 65535),
  created_at INTEGER NOT NULL,
  gone INTEGER NOT NULL CHECK (gone IN (0, 1))
) STRICT;
CREATE UNIQUE INDEX services_by_name ON services (name) WHERE gone = 0;
CREATE UNIQUE INDEX services_by_port ON services (port) WHERE gone = 0 AND port > 0;

CREATE TABLE instances (
  service_id TEXT NOT NULL REFERENCES services (id),
  number INTEGER NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  wanted INTEGER NOT NULL CHECK (wanted IN (0, 1)),
  state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
  node TEXT NOT NULL,
  address TEXT NOT NULL,
  detail TEXT NOT NULL,
  starts INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (service_id, number)
) STRICT;

CREATE TABLE timeline (
  project TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  at INTEGER NOT NULL,
  stage INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 8),
  level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2),
  text TEXT NOT NULL,
  PRIMARY KEY (project, sequence)
) STRICT;

-- What an observer has said: pieces of one text, by where they begin.
CREATE TABLE words (
  project TEXT NOT NULL,
  offset INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (project, offset)
) STRICT;

CREATE TABLE rounds (
  project TEXT NOT NULL,
  run INTEGER NOT NULL,
  round INTEGER NOT NULL,
  began_at REAL NOT NULL,
  ended_at REAL NOT NULL,
  accuracy REAL,
  loss REAL,
  trained INTEGER NOT NULL,
  evaluated INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (project, run, round)
) STRICT;
)sql"},
    {"on which node a learner has its part of the data", R"sql(
ALTER TABLE instances ADD COLUMN share_node TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN share_of INTEGER NOT NULL DEFAULT 0;
)sql"},
};

constexpr size_t kWordsMax = size_t{1} << 20;

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  std::unique_ptr<Store> store(new Store());
  UMBEL_ASSIGN(store->writer_, Connection::Open(path, Connection::Mode::kReadWrite));
  UMBEL_TRY(store::PrepareDatabase(*store->writer_, path, kMigrations));
  UMBEL_TRY(store->writer_->Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON"));
  UMBEL_TRY(store::Migrate(*store->writer_, path, kMigrations));
  UMBEL_ASSIGN(store->reader_, Connection::Open(path, Connection::Mode::kReadOnly));
  return store;
}

Status Store::Write(const std::function<Status(Connection&)>& change) {
  {
    const std::lock_guard lock(write_mutex_);
    UMBEL_TRY(writer_->Execute("BEGIN IMMEDIATE"));
    Status done = change(*writer_);
    if (done.ok() && !alive()) done = Fail(Code::kCancelled, "the process is dead");
    if (done.ok()) done = writer_->Execute("COMMIT");
    if (!done.ok()) {
      writer_->Rollback();
      return done;
    }
  }
  WakeAll();
  return {};
}

uint64_t Store::version() const {
  const std::lock_guard lock(watch_mutex_);
  return version_;
}

void Store::Watch(uint64_t seen, const std::shared_ptr<Wakeable>& waker) {
  {
    const std::lock_guard lock(watch_mutex_);
    waiting_.Add(waker);
    if (version_ == seen) return;
  }
  waker->Wake();
}

void Store::WakeAll() {
  const std::lock_guard lock(watch_mutex_);
  ++version_;
  waiting_.WakeAll();
}

Status AddEntry(Connection& db, const std::string& project, const Entry& entry) {
  return db.Run(
      "INSERT INTO timeline SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3, ?4, ?5 "
      "FROM timeline WHERE project = ?1",
      project, entry.at, static_cast<int>(entry.stage), static_cast<int>(entry.level), entry.text);
}

Result<std::vector<Entry>> ListEntries(Connection& db, std::string_view project, uint64_t after,
                                       uint64_t limit) {
  store::Query query(db,
                     "SELECT sequence, at, stage, level, text FROM timeline "
                     "WHERE project = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                     project, after, limit);
  std::vector<Entry> entries;
  for (;;) {
    UMBEL_ASSIGN(const bool row, query.Next());
    if (!row) return entries;
    entries.push_back({query.Unsigned(0), query.Time(1), static_cast<Stage>(query.Integer(2)),
                       static_cast<Level>(query.Integer(3)), query.Bytes(4)});
  }
}

Result<std::optional<std::string>> LastEntry(Connection& db, std::string_view project, Stage stage,
                                             Level level) {
  store::Query query(db,
                     "SELECT text FROM timeline WHERE project = ? AND stage = ? AND level = ? "
                     "ORDER BY sequence DESC LIMIT 1",
                     project, static_cast<int>(stage), static_cast<int>(level));
  UMBEL_ASSIGN(const bool row, query.Next());
  return row ? std::optional(query.Bytes(0)) : std::nullopt;
}

Status AddWords(Connection& db, const std::string& project, const std::string& text) {
  if (text.empty()) return {};
  // Lengths in bytes: as blobs.
  return db.Run(
      "INSERT INTO words SELECT ?1, coalesce(max(offset + length(CAST(text AS BLOB))), 0), ?2 "
      "FROM words WHERE project = ?1",
      project, text.substr(0, kWordsMax));
}

Result<std::string> ReadWords(Connection& db, std::string_view project, uint64_t offset,
                              uint64_t limit) {
  store::Query query(db,
                     "SELECT offset, text FROM words WHERE project = ?1 AND "
                     "offset + length(CAST(text AS BLOB)) > ?2 ORDER BY offset",
                     project, offset);
  std::string text;
  while (text.size() < limit) {
    UMBEL_ASSIGN(const bool row, query.Next());
    if (!row) break;
    const uint64_t begin = query.Unsigned(0);
    const std::string piece = query.Bytes(1);
    text += piece.substr(begin < offset ? offset - begin : 0);
  }
  text.resize(std::min<size_t>(text.size(), limit));
  return text;
}

}  // namespace umbel::manager
