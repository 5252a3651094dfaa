#include "store/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/file.h"
#include "base/lock_file.h"
#include "base/log.h"
#include "store/pool.h"
#include "store/reads.h"
#include "store/schema.h"
#include "store/segment_file.h"
#include "store/sqlite.h"
#include "store/writer.h"

namespace umbel::store {
namespace {

constexpr const char* kMemory = ":memory:";

class SqliteStore final : public Store {
 public:
  static Result<std::unique_ptr<Store>> Open(StoreOptions options);
  ~SqliteStore() override;

  void Submit(std::vector<Write> writes, std::function<void(Status)> done) override {
    writer_->Submit(std::move(writes), std::move(done));
  }
  bool Overloaded() const override { return writer_->Overloaded(); }
  Status Drain() override { return writer_->Drain(); }

  Result<Snapshot> Load() override {
    const Pool::Lease db = readers().Take();
    UMBEL_ASSIGN(Snapshot snapshot, LoadSnapshot(*db));
    UMBEL_ASSIGN(const int64_t unverified, ReadMeta(*db, "unverified"));
    snapshot.unclean_machine_stop = unverified != 0;
    return snapshot;
  }
  Result<std::string> ReadInline(RunId run_id, const ObjectId& object_id) override {
    return SelectInline(*readers().Take(), run_id, object_id);
  }
  Result<std::string> ReadFab(const Digest& hash) override {
    return SelectFab(*readers().Take(), hash);
  }
  Result<SeriesRow> ReadSeries(SeriesId series_id) override {
    return SelectSeries(*readers().Take(), series_id);
  }
  Result<RunListing> ReadRun(RunId run_id) override { return SelectRun(*readers().Take(), run_id); }
  Result<std::vector<RunListing>> ListRuns(uint64_t limit, uint64_t skip) override {
    return SelectRuns(*readers().Take(), limit, skip);
  }
  Result<LogChunk> ReadLogs(RunId run_id, int64_t cursor, WallTime after,
                            size_t bytes_max) override {
    return SelectLogs(*readers().Take(), run_id, cursor, after, bytes_max);
  }
  Result<std::vector<RoundRow>> ReadRounds(RunId run_id, uint64_t after, uint64_t limit) override {
    return SelectRounds(*readers().Take(), run_id, after, limit);
  }
  Result<std::vector<AuditRow>> ReadAudit(uint64_t limit) override {
    return SelectAudit(*readers().Take(), limit);
  }

  const std::string& directory() const override { return options_.directory; }

 private:
  explicit SqliteStore(StoreOptions options) : options_(std::move(options)) {}

  bool in_memory() const { return options_.database == kMemory; }
  /// In memory there is one connection for all.
  Pool& readers() { return read_pool_.has_value() ? *read_pool_ : *write_pool_; }

  Status TakeLocks();
  Result<std::unique_ptr<Connection>> OpenWriter() const;
  Status OpenReaders();
  /// Decides whether the machine went down under the previous owner, and marks ours as running.
  Status BeginOwnership(Connection& db);
  Status EndOwnership(Connection& db);

  StoreOptions options_;
  std::optional<LockFile> directory_lock_;
  std::optional<LockFile> database_lock_;
  std::optional<Pool> write_pool_;
  std::optional<Pool> read_pool_;
  std::optional<Writer> writer_;
};

/// Names this start of the machine; "" where the kernel does not say.
std::string BootId() {
  Result<std::string> id = ReadFile("/proc/sys/kernel/random/boot_id");
  return id.ok() ? *id : std::string();
}

Status SyncFolder(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return Fail(SystemError("sync the folder", path));
  return {};
}

Result<std::unique_ptr<Store>> SqliteStore::Open(StoreOptions options) {
  if (options.directory.empty()) {
    if (!options.database.empty() && options.database != kMemory)
      return Fail(Code::kInvalidArgument,
                  fmt::format("database '{}' needs a directory beside it", options.database));
    options.database = kMemory;
  }
  if (options.database.empty()) options.database = options.directory + "/state.db";
  options.reader_count = std::max<size_t>(options.reader_count, 1);

  std::unique_ptr<SqliteStore> store(new SqliteStore(std::move(options)));
  UMBEL_TRY(store->TakeLocks());
  UMBEL_ASSIGN(std::unique_ptr<Connection> db, store->OpenWriter());
  UMBEL_TRY(store->BeginOwnership(*db));
  std::vector<std::unique_ptr<Connection>> one;
  one.push_back(std::move(db));
  store->write_pool_.emplace(std::move(one));
  if (!store->in_memory()) UMBEL_TRY(store->OpenReaders());
  std::unique_ptr<Checkpointer> checkpointer;
  if (!store->in_memory()) {
    UMBEL_ASSIGN(auto other,
                 Connection::Open(store->options_.database, Connection::Mode::kReadWrite));
    checkpointer = std::make_unique<Checkpointer>(std::move(other));
  }
  const StoreOptions& o = store->options_;
  store->writer_.emplace(
      *store->write_pool_, std::move(checkpointer),
      WriterOptions{.limits = {.run_log_bytes_max = o.run_log_bytes_max,
                               .total_log_bytes_max = o.total_log_bytes_max,
                               .audit_rows_max = static_cast<int64_t>(
                                   std::min<uint64_t>(o.audit_rows_max, uint64_t{1} << 60))},
                    .queue_bytes_max = o.queue_bytes_max});
  return store;
}

SqliteStore::~SqliteStore() {
  if (!writer_.has_value()) return;
  writer_.reset();
  read_pool_.reset();
  // Failing to say goodbye only costs the next owner some checking.
  if (Status ended = EndOwnership(*write_pool_->Take()); !ended.ok())
    LogWarn("the store could not be closed cleanly", {{"error", ended.error().ToString()}});
}

Status SqliteStore::TakeLocks() {
  const std::string& directory = options_.directory;
  if (!directory.empty()) {
    UMBEL_TRY(MakeDirectories(directory));
    UMBEL_ASSIGN(directory_lock_, LockFile::Take(directory + "/lock",
                                                 fmt::format("state directory '{}'", directory)));
  }
  if (!in_memory() && options_.database != directory + "/state.db") {
    // Two directories may name one database.
    UMBEL_ASSIGN(database_lock_, LockFile::Take(options_.database + ".lock",
                                                fmt::format("database '{}'", options_.database)));
  }
  return {};
}

Result<std::unique_ptr<Connection>> SqliteStore::OpenWriter() const {
  const std::string& path = options_.database;
  if (!in_memory()) {
    // SQLite would create it readable by all; its neighbours (-wal, -shm) take this file's mode.
    const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd.valid()) return Fail(SystemError("open the database", path));
  }
  UMBEL_ASSIGN(auto db, Connection::Open(path, Connection::Mode::kReadWrite));
  // Ours alone; a short wait is for somebody who looks at it with the sqlite3 tool.
  sqlite3_busy_timeout(db->handle(), 100);
  const bool power = options_.durability == Durability::kPower;
  UMBEL_TRY(PrepareDatabase(*db, path));
  UMBEL_TRY(db->Execute(
      fmt::format("PRAGMA journal_mode = {}; PRAGMA synchronous = {}; "
                  "PRAGMA cache_size = -8192; PRAGMA secure_delete = OFF; "
                  "PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = {}",
                  in_memory() ? "MEMORY" : "WAL", power ? "FULL" : "NORMAL", 32 << 20)));
  UMBEL_TRY(Migrate(*db, path));
  if (power && !in_memory()) {
    const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
    UMBEL_TRY(SyncFolder(folder.string()));
    UMBEL_TRY(SyncFolder(folder.parent_path().string()));
  }
  return db;
}

Status SqliteStore::OpenReaders() {
  std::vector<std::unique_ptr<Connection>> readers;
  for (size_t i = 0; i < options_.reader_count; ++i) {
    UMBEL_ASSIGN(auto reader, Connection::Open(options_.database, Connection::Mode::kReadOnly));
    sqlite3_busy_timeout(reader->handle(), 5000);
    UMBEL_TRY(reader->Execute("PRAGMA cache_size = -1024"));
    readers.push_back(std::move(reader));
  }
  read_pool_.emplace(std::move(readers));
  return {};
}

Status SqliteStore::BeginOwnership(Connection& db) {
  const std::string boot = BootId();
  const auto begin = [&]() -> Status {
    UMBEL_TRY(db.Execute("BEGIN IMMEDIATE"));
    UMBEL_ASSIGN(const std::string previous, ReadMetaText(db, "boot_id"));
    UMBEL_ASSIGN(const int64_t closed, ReadMeta(db, "closed"));
    if (!previous.empty() && previous != boot && closed == 0)
      UMBEL_TRY(WriteMeta(db, "unverified", 1));
    UMBEL_TRY(WriteMetaText(db, "boot_id", boot));
    UMBEL_TRY(WriteMeta(db, "closed", 0));
    UMBEL_TRY(SweepFinished(db));
    return db.Execute("COMMIT");
  };
  Status status = begin();
  if (!status.ok()) db.Rollback();
  return status;
}

Status SqliteStore::EndOwnership(Connection& db) {
  // The database is synced as it closes; what it says of the segment files must then be true too.
  if (!in_memory()) UMBEL_TRY(SyncTree(options_.directory + "/objects"));
  return WriteMeta(db, "closed", 1);
}

}  // namespace

Result<std::unique_ptr<Store>> Store::Open(StoreOptions options) {
  return SqliteStore::Open(std::move(options));
}

}  // namespace umbel::store
