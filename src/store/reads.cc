#include "store/reads.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "store/schema.h"

namespace umbel::store {
namespace {

NodeRow ReadNode(const Query& q) {
  NodeRow row;
  row.node_id = q.ReadId<NodeId>(0);
  row.public_key = q.Bytes(1);
  row.owner_aid = q.Bytes(2);
  row.owner_name = q.Bytes(3);
  row.name = q.Bytes(4);
  row.location = q.Bytes(5);
  row.status = static_cast<NodeStatus>(q.Integer(6));
  row.registered_at = q.Time(7);
  row.last_activated_at = q.Time(8);
  row.last_deactivated_at = q.Time(9);
  row.unregistered_at = q.Time(10);
  row.online_until = q.Time(11);
  row.heartbeat_interval = q.Real(12);
  return row;
}

constexpr int kRunColumns = 14;
RunRow ReadRunRow(const Query& q) {
  RunRow row;
  row.run_id = q.ReadId<RunId>(0);
  row.series_id = q.ReadId<SeriesId>(1);
  row.primary_task_id = q.ReadId<TaskId>(2);
  row.primary_task_type = q.Bytes(3);
  row.fab_id = q.Bytes(4);
  row.fab_version = q.Bytes(5);
  row.fab_hash = q.ReadDigest(6);
  row.override_config = q.Bytes(7);
  row.federation = q.Bytes(8);
  row.flwr_aid = q.Bytes(9);
  row.account_name = q.Bytes(10);
  row.bytes_sent = q.Unsigned(11);
  row.bytes_recv = q.Unsigned(12);
  row.clientapp_runtime = q.Real(13);
  return row;
}

TaskRow ReadTask(const Query& q, int first) {
  TaskRow row;
  row.task_id = q.ReadId<TaskId>(first);
  row.run_id = q.ReadId<RunId>(first + 1);
  row.type = q.Bytes(first + 2);
  row.status = static_cast<TaskStatus>(q.Integer(first + 3));
  row.sub_status = q.Bytes(first + 4);
  row.details = q.Bytes(first + 5);
  row.pending_at = q.Time(first + 6);
  row.starting_at = q.Time(first + 7);
  row.running_at = q.Time(first + 8);
  row.finished_at = q.Time(first + 9);
  row.token = q.Bytes(first + 10);
  row.token_until = q.Time(first + 11);
  row.pid = q.Integer(first + 12);
  row.pid_start_ticks = q.Unsigned(first + 13);
  row.launches = static_cast<uint32_t>(q.Integer(first + 14));
  row.output_offset = q.Unsigned(first + 15);
  return row;
}

MessageRow ReadMessage(const Query& q) {
  MessageRow row;
  row.run_id = q.ReadId<RunId>(0);
  row.message_id = q.ReadDigest(1);
  row.sequence = q.Unsigned(2);
  row.src_node_id = q.ReadId<NodeId>(3);
  row.dst_node_id = q.ReadId<NodeId>(4);
  if (!q.IsNull(5)) row.reply_to = q.ReadDigest(5);
  row.group_id = q.Bytes(6);
  row.message_type = q.Bytes(7);
  row.created_at = std::bit_cast<double>(q.Integer(8));
  row.ttl = std::bit_cast<double>(q.Integer(9));
  row.touched = q.Bool(10);
  row.body = q.Bytes(11);
  row.tree = q.Bytes(12);
  return row;
}

ObjectRow ReadObject(const Query& q) {
  ObjectRow row;
  row.run_id = q.ReadId<RunId>(0);
  row.object_id = q.ReadDigest(1);
  row.size = q.Unsigned(2);
  row.segment = static_cast<uint32_t>(q.Unsigned(3));
  row.offset = q.Unsigned(4);
  return row;
}

RunListing ReadListing(const Query& q) {
  return RunListing{ReadRunRow(q), ReadTask(q, kRunColumns)};
}

SessionRow ReadSession(const Query& q) {
  return {q.ReadId<RunId>(0), q.Bytes(1), q.Bytes(2), q.Bytes(3), q.Bytes(4)};
}

RoundRow ReadRound(const Query& q) { return {q.ReadId<RunId>(0), q.Unsigned(1), q.Bytes(2)}; }

AuditRow ReadAuditRow(const Query& q) {
  AuditRow row;
  row.timestamp = q.Time(0);
  row.peer = q.Bytes(1);
  row.action = q.Bytes(2);
  row.run_id = q.ReadId<RunId>(3);
  row.fab_hash = q.Bytes(4);
  row.outcome = q.Bytes(5);
  return row;
}

template <typename Row>
Status Collect(Query&& query, Row (*read)(const Query&), std::vector<Row>& rows) {
  for (;;) {
    UMBEL_ASSIGN(const bool more, query.Next());
    if (!more) return {};
    rows.push_back(read(query));
  }
}

Status Fill(Connection& db, Snapshot& snapshot) {
  UMBEL_ASSIGN(const int64_t alive_at, ReadMeta(db, "alive_at"));
  snapshot.alive_at = WallTime(Micros(alive_at));
  UMBEL_TRY(Collect(Query(db, "SELECT * FROM nodes"), ReadNode, snapshot.nodes));
  UMBEL_TRY(Collect(Query(db, "SELECT * FROM runs WHERE run_id IN (SELECT run_id FROM unfinished)"),
                    ReadRunRow, snapshot.runs));
  UMBEL_TRY(Collect<TaskRow>(
      Query(db, "SELECT * FROM tasks WHERE run_id IN (SELECT run_id FROM unfinished)"),
      [](const Query& q) { return ReadTask(q, 0); }, snapshot.tasks));
  UMBEL_TRY(Collect(Query(db,
                          "SELECT * FROM messages WHERE run_id IN (SELECT run_id FROM unfinished) "
                          "ORDER BY sequence"),
                    ReadMessage, snapshot.messages));
  UMBEL_TRY(
      Collect(Query(db, "SELECT * FROM sessions WHERE run_id IN (SELECT run_id FROM unfinished)"),
              ReadSession, snapshot.sessions));
  return Collect(Query(db,
                       "SELECT run_id, object_id, size, segment, offset FROM objects "
                       "WHERE run_id IN (SELECT run_id FROM unfinished)"),
                 ReadObject, snapshot.objects);
}

/// A count of rows as SQLite takes it: negative would mean "no limit".
int64_t Rows(uint64_t count) {
  return static_cast<int64_t>(std::min<uint64_t>(count, std::numeric_limits<int64_t>::max()));
}

}  // namespace

Result<Snapshot> LoadSnapshot(Connection& db) {
  Snapshot snapshot;
  UMBEL_TRY(db.Execute("BEGIN"));
  Status filled = Fill(db, snapshot);
  db.Rollback();
  if (!filled.ok()) return Fail(std::move(filled).error());
  return snapshot;
}

Result<std::string> SelectInline(Connection& db, RunId run_id, const ObjectId& object_id) {
  Query query(db, "SELECT content FROM objects WHERE run_id = ? AND object_id = ? AND segment = 0",
              run_id, object_id);
  UMBEL_ASSIGN(const bool found, query.Next());
  if (!found)
    return Fail(Code::kNotFound,
                fmt::format("run {} has no inline object {}", run_id, object_id.Hex()));
  return query.Bytes(0);
}

Result<std::string> SelectFab(Connection& db, const Digest& hash) {
  Query query(db, "SELECT content FROM fabs WHERE hash = ?", hash);
  UMBEL_ASSIGN(const bool found, query.Next());
  if (!found) return Fail(Code::kNotFound, fmt::format("no FAB {}", hash.Hex()));
  return query.Bytes(0);
}

Result<SeriesRow> SelectSeries(Connection& db, SeriesId series_id) {
  Query query(db, "SELECT context, created_at FROM series WHERE series_id = ?", series_id);
  UMBEL_ASSIGN(const bool found, query.Next());
  if (!found) return Fail(Code::kNotFound, fmt::format("no run series {}", series_id));
  return SeriesRow{series_id, query.Bytes(0), query.Time(1)};
}

Result<RunListing> SelectRun(Connection& db, RunId run_id) {
  Query query(db,
              "SELECT r.*, t.* FROM runs AS r JOIN tasks AS t ON t.task_id = r.primary_task_id "
              "WHERE r.run_id = ?",
              run_id);
  UMBEL_ASSIGN(const bool found, query.Next());
  if (!found) return Fail(Code::kNotFound, fmt::format("no run {}", run_id));
  return ReadListing(query);
}

Result<std::vector<RunListing>> SelectRuns(Connection& db, uint64_t limit, uint64_t skip) {
  std::vector<RunListing> listings;
  UMBEL_TRY(Collect(Query(db,
                          "SELECT r.*, t.* FROM tasks AS t CROSS JOIN runs AS r "
                          "ON r.run_id = t.run_id AND r.primary_task_id = t.task_id "
                          "ORDER BY t.pending_at DESC, t.task_id DESC LIMIT ? OFFSET ?",
                          Rows(limit), Rows(skip)),
                    ReadListing, listings));
  return listings;
}

Result<LogChunk> SelectLogs(Connection& db, RunId run_id, int64_t cursor, WallTime after,
                            size_t bytes_max) {
  LogChunk chunk;
  chunk.cursor = cursor;
  Query query(db,
              "SELECT id, timestamp, text FROM logs "
              "WHERE run_id = ? AND id > ? AND timestamp > ? ORDER BY id",
              run_id, cursor, after);
  while (chunk.text.size() < bytes_max) {
    UMBEL_ASSIGN(const bool more, query.Next());
    if (!more) break;
    chunk.cursor = query.Integer(0);
    chunk.latest = std::max(chunk.latest, query.Time(1));
    chunk.text += query.Bytes(2);
  }
  return chunk;
}

Result<std::vector<RoundRow>> SelectRounds(Connection& db, RunId run_id, uint64_t after,
                                           uint64_t limit) {
  std::vector<RoundRow> rows;
  UMBEL_TRY(Collect(
      Query(db, "SELECT * FROM rounds WHERE run_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            run_id, Rows(after), Rows(limit)),
      ReadRound, rows));
  return rows;
}

Result<std::vector<AuditRow>> SelectAudit(Connection& db, uint64_t limit) {
  std::vector<AuditRow> rows;
  UMBEL_TRY(Collect(Query(db,
                          "SELECT timestamp, peer, action, run_id, fab_hash, outcome FROM audit "
                          "ORDER BY id DESC LIMIT ?",
                          Rows(limit)),
                    ReadAuditRow, rows));
  return rows;
}

}  // namespace umbel::store
