// The rows a SuperLink keeps, and the writes that change them. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"

namespace umbel::store {

// A time is kept as microseconds since 1970; 0 is "not yet".

enum class NodeStatus { kRegistered, kOnline, kOffline, kUnregistered };
enum class TaskStatus { kPending, kStarting, kRunning, kFinished };

struct NodeRow {
  NodeId node_id;
  std::string public_key;  // PEM SubjectPublicKeyInfo, as the peer sends it; unique
  std::string owner_aid;
  std::string owner_name;
  std::string name;
  std::string location;
  NodeStatus status = NodeStatus::kRegistered;
  WallTime registered_at;
  WallTime last_activated_at;
  WallTime last_deactivated_at;
  WallTime unregistered_at;
  WallTime online_until;
  double heartbeat_interval = 0;  // seconds

  bool operator==(const NodeRow&) const = default;
};

/// A run is listed and loaded once the row of its primary task is there too; it is unfinished until
/// that task is kFinished.
struct RunRow {
  RunId run_id;
  SeriesId series_id;
  TaskId primary_task_id;
  std::string primary_task_type;
  std::string fab_id;
  std::string fab_version;
  Digest fab_hash;
  std::string override_config;  // opaque to the store: a serialized flwr.proto.StartRunRequest
  std::string federation;
  std::string flwr_aid;
  std::string account_name;
  uint64_t bytes_sent = 0;
  uint64_t bytes_recv = 0;
  double clientapp_runtime = 0;  // seconds

  bool operator==(const RunRow&) const = default;
};

struct TaskRow {
  TaskId task_id;
  RunId run_id;
  std::string type;
  TaskStatus status = TaskStatus::kPending;
  std::string sub_status;
  std::string details;
  WallTime pending_at;
  WallTime starting_at;
  WallTime running_at;
  WallTime finished_at;
  std::string token;  // "" when none is live
  WallTime token_until;
  /// The process this SuperLink launched for the task; pid 0 when none.
  int64_t pid = 0;
  uint64_t pid_start_ticks = 0;
  uint32_t launches = 0;
  uint64_t output_offset = 0;  // bytes of its output file already in the log

  bool operator==(const TaskRow&) const = default;
};

/// State that outlives a run: what the next run of the same series begins with.
struct SeriesRow {
  SeriesId series_id;
  std::string context;  // serialized flwr.proto.Context
  WallTime created_at;

  bool operator==(const SeriesRow&) const = default;
};

struct FabRow {
  Digest hash;
  std::string content;

  bool operator==(const FabRow&) const = default;
};

/// An instruction (reply_to unset) or a reply.
struct MessageRow {
  ObjectId message_id;
  RunId run_id;
  uint64_t sequence = 0;  // order of arrival
  NodeId src_node_id;
  NodeId dst_node_id;
  std::optional<ObjectId> reply_to;
  std::string group_id;
  std::string message_type;
  double created_at = 0;  // seconds since 1970, as the sender wrote it: it is hashed
  double ttl = 0;         // seconds
  std::string body;       // serialized flwr.proto.Message without content
  std::string tree;       // serialized flwr.proto.ObjectTree
  bool touched = false;   // instruction: its node has begun to fetch it

  bool operator==(const MessageRow&) const = default;
};

/// An object that is complete and verified. Either `content` holds it, or the run's segment file.
struct ObjectRow {
  RunId run_id;
  ObjectId object_id;
  uint64_t size = 0;
  uint32_t segment = 0;  // 0: inline
  uint64_t offset = 0;
  std::string content;

  bool operator==(const ObjectRow&) const = default;
};

/// Native rounds of a run: what the SuperLink itself does in a ServerApp's place. One row per
/// session; its name is "" when it is the whole of the run, else the id of the message that asked
/// for it.
struct SessionRow {
  RunId run_id;
  std::string name;
  std::string plan;        // serialized umbel.rounds.Plan
  std::string progress;    // opaque to the store: how far it is
  std::string model_tree;  // serialized ObjectTree of the arrays it holds; "" before there are any

  bool operator==(const SessionRow&) const = default;
};

/// What is told of one round, in the order of `sequence`, from 1 in each run. Stays until the run
/// is collected.
struct RoundRow {
  RunId run_id;
  uint64_t sequence = 0;
  std::string record;  // serialized umbel.rounds.RoundRecord

  bool operator==(const RoundRow&) const = default;
};

struct LogRow {
  RunId run_id;
  TaskId task_id;
  WallTime timestamp;
  std::string text;

  bool operator==(const LogRow&) const = default;
};

struct AuditRow {
  WallTime timestamp;
  std::string peer;
  std::string action;
  RunId run_id;
  std::string fab_hash;
  std::string outcome;

  bool operator==(const AuditRow&) const = default;
};

// Writes. Put* inserts or replaces by primary key; the rest say what they do. What names a row that
// is not there changes nothing. A write at fault fails its whole Submit, and only that:
// kAlreadyExists for a public key that another node has, kInvalidArgument for a NaN or a number out
// of range, kFailedPrecondition as said below.
struct PutNode {
  NodeRow row;
};
struct PutRun {
  RunRow row;
};
struct PutTask {
  TaskRow row;
};
struct PutSeries {
  SeriesRow row;
};
struct PutFab {
  FabRow row;
};
struct PutMessage {
  MessageRow row;
};
struct PutObject {
  ObjectRow row;
};
struct TouchMessage {
  RunId run_id;
  ObjectId message_id;
  bool touched = true;
};
struct DropMessage {
  RunId run_id;
  ObjectId message_id;
};
struct DropObject {
  RunId run_id;
  ObjectId object_id;
};
/// A finished run's messages, objects and sessions, and FABs that no unfinished run names (so a FAB
/// belongs in one Submit with its run). kFailedPrecondition: the run has not finished.
struct DropRunData {
  RunId run_id;
};
/// Everything about a finished run: its row, tasks and log too (gc). kFailedPrecondition as above.
struct DropRun {
  RunId run_id;
};
struct PutSession {
  SessionRow row;
};
struct DropSession {
  RunId run_id;
  std::string name;
};
struct PutRound {
  RoundRow row;
};
struct AppendLog {
  LogRow row;
};
struct AppendAudit {
  AuditRow row;
};
/// Heartbeats are remembered in groups: (node, online_until) pairs and the time of the flush.
struct FlushHeartbeats {
  std::vector<std::pair<NodeId, WallTime>> online_until;
  std::vector<std::pair<TaskId, WallTime>> token_until;
  WallTime alive_at;
};
/// Adds to a run's counters.
struct AddTraffic {
  RunId run_id;
  uint64_t bytes_sent = 0;
  uint64_t bytes_recv = 0;
  double clientapp_runtime = 0;
};

/// The objects the last Snapshot called unverified have been checked; until this is written, every
/// restart reports unclean_machine_stop again.
struct ObjectsVerified {};

using Write =
    std::variant<PutNode, PutRun, PutTask, PutSeries, PutFab, PutMessage, PutObject, TouchMessage,
                 DropMessage, DropObject, DropRunData, DropRun, PutSession, DropSession, PutRound,
                 AppendLog, AppendAudit, FlushHeartbeats, AddTraffic, ObjectsVerified>;

/// What a restarted SuperLink reads: every node, and all that belongs to unfinished runs.
struct Snapshot {
  WallTime alive_at;  // last moment the previous owner is known to have lived; epoch when new
  /// The machine went down since: objects need verifying. Stays true until ObjectsVerified.
  bool unclean_machine_stop = false;
  std::vector<NodeRow> nodes;
  std::vector<RunRow> runs;          // unfinished
  std::vector<TaskRow> tasks;        // of unfinished runs
  std::vector<MessageRow> messages;  // of unfinished runs, by sequence
  std::vector<ObjectRow> objects;    // of unfinished runs, without content
  std::vector<SessionRow> sessions;  // of unfinished runs
};

}  // namespace umbel::store
