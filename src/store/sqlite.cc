#include "store/sqlite.h"

#include <cstring>
#include <utility>

namespace umbel::store {

Error SqliteError(sqlite3* db, int result, std::string_view what) {
  Code code = Code::kUnavailable;
  switch (result & 0xff) {
    case SQLITE_CONSTRAINT: {
      const bool taken =
          result == SQLITE_CONSTRAINT_UNIQUE || result == SQLITE_CONSTRAINT_PRIMARYKEY;
      code = taken ? Code::kAlreadyExists : Code::kInvalidArgument;
      break;
    }
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
      code = Code::kInvalidArgument;
      break;
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
      code = Code::kInternal;
      break;
    case SQLITE_FULL:
      code = Code::kResourceExhausted;
      break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      code = Code::kDataLoss;
      break;
    default:
      break;
  }
  const char* detail = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(result);
  return Error{code, fmt::format("{}: {} (SQLite {})", what, detail, result)};
}

Result<std::unique_ptr<Connection>> Connection::Open(const std::string& path, Mode mode) {
  // One thread at a time by contract, so SQLite's own mutexes would be pure cost.
  const int flags =
      SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
      (mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  sqlite3* db = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &db, flags, nullptr);
  std::unique_ptr<Connection> connection(new Connection(db));
  if (result != SQLITE_OK) {
    Error error = SqliteError(db, result, fmt::format("cannot open the database '{}'", path));
    return Fail(std::move(error));
  }
  return connection;
}

Connection::~Connection() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

Status Connection::Execute(const std::string& sql) {
  const int result = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) return Fail(SqliteError(db_, result, sql.substr(0, 120)));
  return {};
}

void Connection::Rollback() {
  if (in_transaction()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<sqlite3_stmt*> Connection::Prepare(std::string_view sql) {
  if (const auto known = statements_.find(sql); known != statements_.end()) return known->second;
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (result != SQLITE_OK) return Fail(SqliteError(db_, result, sql));
  statements_.emplace(sql, statement);
  return statement;
}

Result<bool> Query::Next() {
  if (error_.code != Code{0}) return Fail(error_);
  const int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  error_ = SqliteError(db_, result, sql_);
  return Fail(error_);
}

Status Query::Finish() {
  for (;;) {
    UMBEL_ASSIGN(const bool row, Next());
    if (!row) return {};
  }
}

std::string Query::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? std::string()
                         : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

Digest Query::ReadDigest(int column) const {
  Digest digest;
  const void* data = sqlite3_column_blob(statement_, column);
  if (data != nullptr &&
      sqlite3_column_bytes(statement_, column) == static_cast<int>(digest.bytes.size()))
    std::memcpy(digest.bytes.data(), data, digest.bytes.size());
  return digest;
}

// SQLite takes a null pointer for NULL, so an empty value needs an address.
void Query::Bind(int index, std::string_view value) {
  const char* data = value.data() != nullptr ? value.data() : "";
  Note(sqlite3_bind_text64(statement_, index, data, value.size(), SQLITE_STATIC, SQLITE_UTF8));
}

void Query::Bind(int index, const Blob& value) {
  const char* data = value.bytes.data() != nullptr ? value.bytes.data() : "";
  Note(sqlite3_bind_blob64(statement_, index, data, value.bytes.size(), SQLITE_STATIC));
}

void Query::Bind(int index, const Digest& value) {
  Note(sqlite3_bind_blob64(statement_, index, value.bytes.data(), value.bytes.size(),
                           SQLITE_STATIC));
}

void Query::Note(int result) {
  if (result != SQLITE_OK && error_.code == Code{0}) error_ = SqliteError(db_, result, sql_);
}

}  // namespace umbel::store
