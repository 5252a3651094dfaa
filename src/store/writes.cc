#include "store/writes.h"

#include <bit>

#include "store/log_rows.h"
#include "store/schema.h"

namespace umbel::store {
namespace {

// Rows are replaced in place (never INSERT OR REPLACE, which would silently delete another row that
// holds the same unique value).
struct Applier {
  Connection& db;
  const WriteLimits& limits;

  Status operator()(const PutNode& put) const {
    const NodeRow& row = put.row;
    return db.Run(
        "INSERT INTO nodes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) "
        "ON CONFLICT (node_id) DO UPDATE SET public_key = ?2, owner_aid = ?3, owner_name = ?4, "
        "name = ?5, location = ?6, status = ?7, registered_at = ?8, last_activated_at = ?9, "
        "last_deactivated_at = ?10, unregistered_at = ?11, online_until = ?12, "
        "heartbeat_interval = ?13",
        row.node_id, row.public_key, row.owner_aid, row.owner_name, row.name, row.location,
        static_cast<int>(row.status), row.registered_at, row.last_activated_at,
        row.last_deactivated_at, row.unregistered_at, row.online_until, row.heartbeat_interval);
  }

  Status operator()(const PutRun& put) const {
    const RunRow& row = put.row;
    return db.Run(
        "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) "
        "ON CONFLICT (run_id) DO UPDATE SET series_id = ?2, primary_task_id = ?3, "
        "primary_task_type = ?4, fab_id = ?5, fab_version = ?6, fab_hash = ?7, "
        "override_config = ?8, federation = ?9, flwr_aid = ?10, account_name = ?11, "
        "bytes_sent = ?12, bytes_recv = ?13, clientapp_runtime = ?14",
        row.run_id, row.series_id, row.primary_task_id, row.primary_task_type, row.fab_id,
        row.fab_version, row.fab_hash, Blob{row.override_config}, row.federation, row.flwr_aid,
        row.account_name, row.bytes_sent, row.bytes_recv, row.clientapp_runtime);
  }

  Status operator()(const PutTask& put) const {
    const TaskRow& row = put.row;
    return db.Run(
        "INSERT INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, "
        "?15, ?16) ON CONFLICT (task_id) DO UPDATE SET run_id = ?2, type = ?3, status = ?4, "
        "sub_status = ?5, details = ?6, pending_at = ?7, starting_at = ?8, running_at = ?9, "
        "finished_at = ?10, token = ?11, token_until = ?12, pid = ?13, pid_start_ticks = ?14, "
        "launches = ?15, output_offset = ?16",
        row.task_id, row.run_id, row.type, static_cast<int>(row.status), row.sub_status,
        row.details, row.pending_at, row.starting_at, row.running_at, row.finished_at, row.token,
        row.token_until, row.pid, row.pid_start_ticks, row.launches, row.output_offset);
  }

  Status operator()(const PutSeries& put) const {
    return db.Run(
        "INSERT INTO series VALUES (?1, ?2, ?3) "
        "ON CONFLICT (series_id) DO UPDATE SET context = ?2, created_at = ?3",
        put.row.series_id, Blob{put.row.context}, put.row.created_at);
  }

  Status operator()(const PutFab& put) const {
    return db.Run("INSERT INTO fabs VALUES (?1, ?2) ON CONFLICT (hash) DO UPDATE SET content = ?2",
                  put.row.hash, Blob{put.row.content});
  }

  Status operator()(const PutMessage& put) const {
    const MessageRow& row = put.row;
    return db.Run(
        "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) "
        "ON CONFLICT (run_id, message_id) DO UPDATE SET sequence = ?3, src_node_id = ?4, "
        "dst_node_id = ?5, reply_to = ?6, group_id = ?7, message_type = ?8, created_at_bits = ?9, "
        "ttl_bits = ?10, touched = ?11, body = ?12, tree = ?13",
        row.run_id, row.message_id, row.sequence, row.src_node_id, row.dst_node_id, row.reply_to,
        row.group_id, row.message_type, std::bit_cast<int64_t>(row.created_at),
        std::bit_cast<int64_t>(row.ttl), row.touched, Blob{row.body}, Blob{row.tree});
  }

  Status operator()(const PutObject& put) const {
    const ObjectRow& row = put.row;
    return db.Run(
        "INSERT INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (run_id, object_id) "
        "DO UPDATE SET size = ?3, segment = ?4, offset = ?5, content = ?6",
        row.run_id, row.object_id, row.size, row.segment, row.offset, Blob{row.content});
  }

  Status operator()(const TouchMessage& touch) const {
    return db.Run("UPDATE messages SET touched = ?3 WHERE run_id = ?1 AND message_id = ?2",
                  touch.run_id, touch.message_id, touch.touched);
  }

  Status operator()(const DropMessage& drop) const {
    return db.Run("DELETE FROM messages WHERE run_id = ? AND message_id = ?", drop.run_id,
                  drop.message_id);
  }

  Status operator()(const DropObject& drop) const {
    return db.Run("DELETE FROM objects WHERE run_id = ? AND object_id = ?", drop.run_id,
                  drop.object_id);
  }

  Status operator()(const DropRunData& drop) const {
    UMBEL_TRY(CheckFinished(drop.run_id));
    UMBEL_TRY(db.Run("DELETE FROM messages WHERE run_id = ?", drop.run_id));
    UMBEL_TRY(db.Run("DELETE FROM objects WHERE run_id = ?", drop.run_id));
    UMBEL_TRY(db.Run("DELETE FROM sessions WHERE run_id = ?", drop.run_id));
    return db.Run("DELETE FROM fabs WHERE hash NOT IN (SELECT fab_hash FROM unfinished)");
  }

  Status operator()(const DropRun& drop) const {
    UMBEL_TRY((*this)(DropRunData{drop.run_id}));
    UMBEL_TRY(DropLogs(db, drop.run_id));
    UMBEL_TRY(db.Run("DELETE FROM rounds WHERE run_id = ?", drop.run_id));
    UMBEL_TRY(db.Run("DELETE FROM tasks WHERE run_id = ?", drop.run_id));
    return db.Run("DELETE FROM runs WHERE run_id = ?", drop.run_id);
  }

  Status operator()(const PutSession& put) const {
    const SessionRow& row = put.row;
    return db.Run(
        "INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (run_id, name) "
        "DO UPDATE SET plan = ?3, progress = ?4, model_tree = ?5",
        row.run_id, row.name, Blob{row.plan}, Blob{row.progress}, Blob{row.model_tree});
  }

  Status operator()(const DropSession& drop) const {
    return db.Run("DELETE FROM sessions WHERE run_id = ? AND name = ?", drop.run_id, drop.name);
  }

  Status operator()(const PutRound& put) const {
    return db.Run(
        "INSERT INTO rounds VALUES (?1, ?2, ?3) ON CONFLICT (run_id, sequence) "
        "DO UPDATE SET record = ?3",
        put.row.run_id, put.row.sequence, Blob{put.row.record});
  }

  Status operator()(const AppendLog& append) const {
    return AddLog(db, append.row, limits.run_log_bytes_max, limits.total_log_bytes_max);
  }

  Status operator()(const AppendAudit& append) const {
    const AuditRow& row = append.row;
    UMBEL_TRY(
        db.Run("INSERT INTO audit (timestamp, peer, action, run_id, fab_hash, outcome) "
               "VALUES (?, ?, ?, ?, ?, ?)",
               row.timestamp, row.peer, row.action, row.run_id, row.fab_hash, row.outcome));
    return db.Run("DELETE FROM audit WHERE id <= ?", db.last_insert_id() - limits.audit_rows_max);
  }

  Status operator()(const FlushHeartbeats& flush) const {
    for (const auto& [node, until] : flush.online_until)
      UMBEL_TRY(db.Run("UPDATE nodes SET online_until = ?2 WHERE node_id = ?1", node, until));
    for (const auto& [task, until] : flush.token_until)
      UMBEL_TRY(db.Run("UPDATE tasks SET token_until = ?2 WHERE task_id = ?1", task, until));
    return WriteMeta(db, "alive_at", flush.alive_at.time_since_epoch().count());
  }

  Status operator()(const AddTraffic& add) const {
    return db.Run(
        "UPDATE runs SET bytes_sent = bytes_sent + ?2, bytes_recv = bytes_recv + ?3, "
        "clientapp_runtime = clientapp_runtime + ?4 WHERE run_id = ?1",
        add.run_id, add.bytes_sent, add.bytes_recv, add.clientapp_runtime);
  }

  Status operator()(const ObjectsVerified&) const { return WriteMeta(db, "unverified", 0); }

  /// A run without a row is gone already, so that dropping is safe to do twice.
  Status CheckFinished(RunId run_id) const {
    UMBEL_ASSIGN(const int64_t live, db.Integer("SELECT EXISTS (SELECT 1 FROM runs AS r JOIN tasks "
                                                "AS t ON t.task_id = r.primary_task_id "
                                                "WHERE r.run_id = ? AND t.status <> 3)",
                                                run_id));
    if (live != 0)
      return Fail(Code::kFailedPrecondition,
                  fmt::format("run {} has not finished: its data stays", run_id));
    return {};
  }
};

size_t Size(const PutNode& w) {
  const NodeRow& row = w.row;
  return row.public_key.size() + row.owner_aid.size() + row.owner_name.size() + row.name.size() +
         row.location.size();
}
size_t Size(const PutRun& w) { return w.row.override_config.size(); }
size_t Size(const PutTask& w) { return w.row.details.size() + w.row.token.size(); }
size_t Size(const PutSeries& w) { return w.row.context.size(); }
size_t Size(const PutFab& w) { return w.row.content.size(); }
size_t Size(const PutMessage& w) {
  return w.row.body.size() + w.row.tree.size() + w.row.group_id.size();
}
size_t Size(const PutObject& w) { return w.row.content.size(); }
size_t Size(const PutSession& w) {
  return w.row.plan.size() + w.row.progress.size() + w.row.model_tree.size();
}
size_t Size(const PutRound& w) { return w.row.record.size(); }
size_t Size(const AppendLog& w) { return w.row.text.size(); }
size_t Size(const AppendAudit& w) {
  return w.row.peer.size() + w.row.action.size() + w.row.outcome.size();
}
size_t Size(const FlushHeartbeats& w) {
  return (w.online_until.size() + w.token_until.size()) * sizeof(w.online_until[0]);
}
template <typename T>
size_t Size(const T&) {
  return 0;
}

}  // namespace

Status Apply(Connection& connection, const WriteLimits& limits, const Write& write) {
  return std::visit(Applier{connection, limits}, write);
}

size_t WriteBytes(const Write& write) {
  return sizeof(Write) + std::visit([](const auto& w) { return Size(w); }, write);
}

bool FreesSpace(const Write& write) {
  return std::holds_alternative<DropRunData>(write) || std::holds_alternative<DropRun>(write);
}

Status SweepFinished(Connection& connection) {
  UMBEL_TRY(
      connection.Run("DELETE FROM messages WHERE run_id NOT IN (SELECT run_id FROM unfinished)"));
  UMBEL_TRY(
      connection.Run("DELETE FROM objects WHERE run_id NOT IN (SELECT run_id FROM unfinished)"));
  return connection.Run("DELETE FROM sessions WHERE run_id NOT IN (SELECT run_id FROM unfinished)");
}

}  // namespace umbel::store
