#include "store/log_rows.h"

#include <algorithm>

namespace umbel::store {
namespace {

constexpr RunId kAll{0};  // log_totals' row of the sum
// Charged for each row beside its text, so that empty lines are bounded too.
constexpr int64_t kRowBytes = 40;

/// A limit that leaves room to add.
int64_t Clamp(uint64_t limit) {
  return static_cast<int64_t>(std::min<uint64_t>(limit, uint64_t{1} << 60));
}

/// returns the new sum
Result<int64_t> AddToTotal(Connection& db, RunId run_id, int64_t bytes) {
  return db.Integer(
      "INSERT INTO log_totals VALUES (?1, ?2) "
      "ON CONFLICT (run_id) DO UPDATE SET bytes = bytes + ?2 RETURNING bytes",
      run_id, bytes);
}

/// Drops a run's rows from its oldest on, until `bytes` of text are gone or only row `keep` is
/// left. returns the bytes dropped
Result<int64_t> DropOldest(Connection& db, RunId run_id, int64_t bytes, int64_t keep) {
  int64_t dropped = 0;
  int64_t last = 0;
  {
    Query rows(db, "SELECT id, bytes FROM logs WHERE run_id = ?1 AND id < ?2 ORDER BY id", run_id,
               keep);
    while (dropped < bytes) {
      UMBEL_ASSIGN(const bool row, rows.Next());
      if (!row) break;
      last = rows.Integer(0);
      dropped += rows.Integer(1);
    }
  }
  if (last == 0) return 0;
  UMBEL_TRY(db.Run("DELETE FROM logs WHERE run_id = ?1 AND id <= ?2", run_id, last));
  UMBEL_ASSIGN([[maybe_unused]] const int64_t run_left, AddToTotal(db, run_id, -dropped));
  UMBEL_ASSIGN([[maybe_unused]] const int64_t all_left, AddToTotal(db, kAll, -dropped));
  return dropped;
}

/// The run whose log goes next when all logs together are too large; 0 when none can.
Result<RunId> NextVictim(Connection& db, int64_t keep) {
  {
    Query finished(db,
                   "SELECT l.run_id FROM log_totals AS l JOIN runs AS r ON r.run_id = l.run_id "
                   "JOIN tasks AS t ON t.task_id = r.primary_task_id "
                   "WHERE t.status = 3 AND EXISTS "
                   "(SELECT 1 FROM logs WHERE run_id = l.run_id AND id < ?) "
                   "ORDER BY t.finished_at, l.run_id LIMIT 1",
                   keep);
    UMBEL_ASSIGN(const bool row, finished.Next());
    if (row) return finished.ReadId<RunId>(0);
  }
  UMBEL_ASSIGN(const int64_t oldest,
               db.Integer("SELECT run_id FROM logs WHERE id < ? ORDER BY id LIMIT 1", keep));
  return RunId{static_cast<uint64_t>(oldest)};
}

}  // namespace

Status AddLog(Connection& db, const LogRow& row, uint64_t run_bytes_max, uint64_t total_bytes_max) {
  const int64_t bytes = static_cast<int64_t>(row.text.size()) + kRowBytes;
  UMBEL_TRY(
      db.Run("INSERT INTO logs (run_id, task_id, timestamp, bytes, text) VALUES (?, ?, ?, ?, ?)",
             row.run_id, row.task_id, row.timestamp, bytes, row.text));
  const int64_t newest = db.last_insert_id();
  UMBEL_ASSIGN(const int64_t run_bytes, AddToTotal(db, row.run_id, bytes));
  UMBEL_ASSIGN(int64_t all_bytes, AddToTotal(db, kAll, bytes));

  // An eighth more than needed goes each time, so that a full log does not pay on every line.
  const int64_t run_max = Clamp(run_bytes_max);
  if (run_bytes > run_max) {
    UMBEL_ASSIGN(const int64_t dropped,
                 DropOldest(db, row.run_id, run_bytes - run_max + run_max / 8, newest));
    all_bytes -= dropped;
  }
  const int64_t all_max = Clamp(total_bytes_max);
  while (all_bytes > all_max) {
    UMBEL_ASSIGN(const RunId victim, NextVictim(db, newest));
    if (!victim) break;
    UMBEL_ASSIGN(const int64_t dropped,
                 DropOldest(db, victim, all_bytes - all_max + all_max / 8, newest));
    if (dropped == 0) break;
    all_bytes -= dropped;
  }
  return {};
}

Status DropLogs(Connection& db, RunId run_id) {
  UMBEL_ASSIGN(const int64_t bytes,
               db.Integer("SELECT bytes FROM log_totals WHERE run_id = ?", run_id));
  UMBEL_TRY(db.Run("DELETE FROM logs WHERE run_id = ?", run_id));
  UMBEL_TRY(db.Run("DELETE FROM log_totals WHERE run_id = ?", run_id));
  UMBEL_ASSIGN([[maybe_unused]] const int64_t left, AddToTotal(db, kAll, -bytes));
  return {};
}

}  // namespace umbel::store
