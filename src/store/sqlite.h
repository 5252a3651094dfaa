// A small RAII skin over SQLite's C interface. A Connection belongs to one thread at a time; its
// statements are prepared once and kept. Times are microseconds, ids their 64 bits as a signed
// integer, digests 32-byte blobs.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

namespace umbel::store {

/// Marks text that is bound as a BLOB: serialized messages and contents.
struct Blob {
  std::string_view bytes;
};

/// What a failed call meant. `what` says what was being done.
///   kAlreadyExists      a unique value is taken
///   kInvalidArgument    a value breaks a CHECK, a type or a size limit
///   kResourceExhausted  the disk is full
///   kDataLoss           the file is damaged or not a database
///   kInternal           our SQL is wrong
///   kUnavailable        busy, locked, or the disk fails: may work later
Error SqliteError(sqlite3* db, int result, std::string_view what);

class Connection {
 public:
  enum class Mode { kReadWrite, kReadOnly };

  /// path  ":memory:" for a private database in memory.
  static Result<std::unique_ptr<Connection>> Open(const std::string& path, Mode mode);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Runs one or more statements that return nothing of interest.
  Status Execute(const std::string& sql);
  /// Binds and runs one cached statement to its end.
  template <typename... Args>
  Status Run(std::string_view sql, const Args&... args);
  /// The first column of the first row; 0 when there is none or it is NULL.
  template <typename... Args>
  Result<int64_t> Integer(std::string_view sql, const Args&... args);
  /// Ends a transaction that may or may not be open, undoing it. Never fails visibly.
  void Rollback();

  bool in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }
  int64_t last_insert_id() const { return sqlite3_last_insert_rowid(db_); }
  sqlite3* handle() const { return db_; }

 private:
  friend class Query;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  explicit Connection(sqlite3* db) : db_(db) {}
  Result<sqlite3_stmt*> Prepare(std::string_view sql);

  sqlite3* db_;
  std::unordered_map<std::string, sqlite3_stmt*, Hash, std::equal_to<>> statements_;
};

/// One use of a cached statement; resets it when it goes, which also ends its read of the database.
/// Bound text and digests must outlive the Query.
class Query {
 public:
  template <typename... Args>
  Query(Connection& connection, std::string_view sql, const Args&... args)
      : db_(connection.handle()), sql_(sql) {
    Result<sqlite3_stmt*> prepared = connection.Prepare(sql);
    if (!prepared.ok()) {
      error_ = std::move(prepared).error();
      return;
    }
    statement_ = *prepared;
    int index = 0;
    (Bind(++index, args), ...);
  }
  ~Query() {
    if (statement_ != nullptr) sqlite3_reset(statement_);
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  /// True when there is a row to read, false after the last.
  Result<bool> Next();
  /// Runs to the end.
  Status Finish();

  int64_t Integer(int column) const { return sqlite3_column_int64(statement_, column); }
  uint64_t Unsigned(int column) const { return static_cast<uint64_t>(Integer(column)); }
  double Real(int column) const { return sqlite3_column_double(statement_, column); }
  bool Bool(int column) const { return Integer(column) != 0; }
  WallTime Time(int column) const { return WallTime(Micros(Integer(column))); }
  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  /// TEXT or BLOB.
  std::string Bytes(int column) const;
  /// All zero when the column does not hold 32 bytes; the schema's CHECKs see to it that it does.
  Digest ReadDigest(int column) const;
  template <typename IdType>
  IdType ReadId(int column) const {
    return IdType{Unsigned(column)};
  }

 private:
  void Bind(int index, int64_t value) { Note(sqlite3_bind_int64(statement_, index, value)); }
  void Bind(int index, uint64_t value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, uint32_t value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, int value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, bool value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, double value) { Note(sqlite3_bind_double(statement_, index, value)); }
  void Bind(int index, WallTime value) {
    Bind(index, static_cast<int64_t>(value.time_since_epoch().count()));
  }
  template <typename Tag>
  void Bind(int index, const Id<Tag>& value) {
    Bind(index, value.value);
  }
  void Bind(int index, std::string_view value);
  void Bind(int index, const std::string& value) { Bind(index, std::string_view(value)); }
  void Bind(int index, const Blob& value);
  void Bind(int index, const Digest& value);
  void Bind(int index, const std::optional<Digest>& value) {
    if (value.has_value())
      Bind(index, *value);
    else
      Note(sqlite3_bind_null(statement_, index));
  }
  void Note(int result);

  sqlite3* db_;
  sqlite3_stmt* statement_ = nullptr;
  std::string_view sql_;
  Error error_{Code{0}, ""};
};

template <typename... Args>
Status Connection::Run(std::string_view sql, const Args&... args) {
  return Query(*this, sql, args...).Finish();
}

template <typename... Args>
Result<int64_t> Connection::Integer(std::string_view sql, const Args&... args) {
  Query query(*this, sql, args...);
  UMBEL_ASSIGN(const bool row, query.Next());
  return row ? query.Integer(0) : 0;
}

}  // namespace umbel::store
