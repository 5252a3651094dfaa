// Everything a SuperLink knows about nodes, runs, messages and objects, as pure logic: no I/O, no
// clock, no threads. Each change to it is also written down in `Changes`, for the store. The Engine
// owns the one State of a process and calls it under its lock.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/random.h"
#include "base/result.h"
#include "base/wake.h"
#include "store/rows.h"
#include "store/segments.h"
#include "superlink/machines.h"

namespace umbel::superlink {

/// Space of a large object; given back when the last holder lets go.
using ExtentPtr = std::shared_ptr<const store::Extent>;

/// What a call changed: rows for the store, and space to give back once they are durable.
struct Changes {
  std::vector<store::Write> writes;
  std::vector<ExtentPtr> released;
  std::vector<RunId> finished_runs;
  bool tasks_changed = false;  // a task became pending, or its process is to be ended
};

/// A message's bytes as they go out again; shared, never copied.
struct MessageBytes {
  std::string body;  // serialized flwr.proto.Message without records
  std::string tree;  // serialized flwr.proto.ObjectTree
};

struct Message {
  ObjectId id;
  uint64_t sequence = 0;
  NodeId src;
  NodeId dst;
  std::string reply_to;  // id of the instruction, as text; "" for an instruction
  std::string group_id;
  std::string type;
  double created_at = 0;
  double ttl = 0;
  std::shared_ptr<const MessageBytes> bytes;
  bool complete = false;            // all objects of its tree are here: it may be shown
  WallTime ready_at;                // when that became so
  bool touched = false;             // instruction: its node has begun to fetch it
  bool made_here = false;           // an error reply; one to the asked id "" has an empty reply_to
  std::optional<ObjectId> answer;   // instruction: the reply it was given
  std::optional<ObjectId> unshown;  // instruction: one that came, and was an error to its asker

  bool is_instruction() const { return src == kSuperLinkNode && reply_to.empty() && !made_here; }
  /// To the SuperLink itself, in words only an Umbel knows. Whatever else is sent to node 1 is
  /// answered as Flower's SuperLink does.
  bool is_own() const { return dst == kSuperLinkNode && type.starts_with("query.umbel_"); }
  bool Expired(WallTime now) const { return created_at + ttl <= UnixSeconds(now); }
};

/// A message as a door has decoded it. `ids` are its tree's distinct ids, root last.
struct NewMessage {
  Message message;
  std::vector<ObjectId> ids;
};

struct ObjectSlot {
  uint32_t holders = 0;    // messages whose tree names it
  uint64_t row = 0;        // number of the row that was queued for it; 0: none
  bool available = false;  // that row is durable
  uint64_t size = 0;
  ExtentPtr extent;  // null: small, in the database
};

/// Objects that one push-messages call has announced and not yet delivered.
struct PushSession {
  std::string id;
  NodeId owner;
  std::unordered_set<ObjectId> pending;
  std::vector<ObjectId> roots;
  WallTime expires_at;
  bool restored = false;  // from before a restart: its name is lost, so any name will do
};

/// Native rounds of a run: the row, and the objects of the model it holds.
struct Session {
  store::SessionRow row;
  std::vector<ObjectId> model;
};

struct Run {
  store::RunRow row;
  store::TaskRow task;
  /// Its primary task is the SuperLink's own: never acquired, and it does not lapse once it runs.
  bool native = false;
  std::map<std::string, Session> native_sessions;
  uint64_t next_round_sequence = 1;
  std::unordered_map<ObjectId, ObjectSlot> objects;
  std::unordered_map<ObjectId, Message> messages;
  std::unordered_map<std::string, PushSession> sessions;
  std::unordered_map<std::string, ObjectId> errors;        // asked id -> error reply made here
  std::unordered_map<ObjectId, std::string> made_objects;  // of replies made here
  WaitList reply_waiters;                                  // held Runtime pull-messages
  WaitList log_waiters;                                    // held stream-logs
  WaitList object_waiters;  // native rounds, for each object of a reply
  /// Native training: whose replies may take disk, and who waits until another has let go of it.
  struct Room {
    size_t replies = 0;  // at once; 0: any number
    std::unordered_set<NodeId> let_in;
    bool wanted = false;
    WaitList waiters;
  };
  Room room;
  uint64_t log_version = 0;
  store::AddTraffic traffic;  // not yet written
  /// The earliest moment a message expires, in seconds since 1970; then held polls look again.
  double next_expiry = std::numeric_limits<double>::infinity();
  /// Restored as running: whether its ServerApp ever got its input is not known.
  bool input_maybe_lost = false;

  /// The row with the traffic that is not yet written.
  store::RunRow Shown() const {
    store::RunRow shown = row;
    shown.bytes_sent += traffic.bytes_sent;
    shown.bytes_recv += traffic.bytes_recv;
    shown.clientapp_runtime += traffic.clientapp_runtime;
    return shown;
  }
};

struct Node {
  store::NodeRow row;
  std::map<uint64_t, std::pair<RunId, ObjectId>> inbox;  // by sequence: complete, untouched
  WaitList pull_waiters;
};

struct PushOutcome {
  std::vector<std::string> message_ids;  // "" where refused
  std::vector<ObjectId> objects_to_push;
  std::string session_id;
  std::vector<ObjectId> publish;  // call Publish with these once the change is durable
  bool accepted = false;          // replies: whether it was taken
  bool repeated = false;          // replies: it had been taken before
};

struct Delivery {
  ObjectId id;
  RunId run_id;
  std::shared_ptr<const MessageBytes> bytes;
  WallTime ready_at;
};

struct Collected {
  std::vector<std::shared_ptr<const MessageBytes>> messages;
  bool all = true;    // nothing asked is still open
  WallTime ready_at;  // when the last of them became ready
};

/// How an error reply is made into an object (protobuf stays out of here).
struct ErrorReply {
  ObjectId id;
  std::shared_ptr<const MessageBytes> bytes;
  std::string object;  // the Message object itself
};
struct ErrorReplySpec {
  RunId run_id;
  std::string reply_to;
  std::string group_id;
  std::string type;
  double created_at = 0;
  double ttl = 0;
  int code = 0;
  std::string reason;
};
ErrorReply MakeErrorReply(const ErrorReplySpec& spec);

/// What a peer has announced is waited for so long after each object of it.
inline constexpr std::chrono::seconds kSessionTime{180};

class State {
 public:
  explicit State(Rng& rng) : rng_(rng) {}

  /// Takes up where another process stopped. Downtime counts against nobody: who was online, and
  /// every live task, gets its full time anew.
  /// extent  makes an ExtentPtr that gives the space back at its end.
  void Restore(store::Snapshot snapshot, WallTime now,
               const std::function<ExtentPtr(const store::Extent&)>& extent);

  // --- nodes -----------------------------------------------------------------------------------
  struct Registration {
    std::string public_key;
    std::string owner_aid;
    std::string owner_name;
    std::string name;
    std::string location;
    double heartbeat_interval = 0;  // until the node says its own
  };
  Result<NodeId> RegisterNode(Registration registration, WallTime now, Changes& changes);
  /// Instructions that the node had begun and not answered are lost with its process: they are
  /// handed out again.
  Result<NodeId> ActivateNode(const std::string& public_key, double interval, WallTime now,
                              Changes& changes);
  Status DeactivateNode(NodeId node_id, WallTime now, Changes& changes);
  Status UnregisterNode(NodeId node_id, WallTime now, Changes& changes);
  Result<bool> NodeHeartbeat(NodeId node_id, double interval, WallTime now, Changes& changes);
  const store::NodeRow* FindNode(NodeId node_id) const;
  const store::NodeRow* FindNodeByKey(const std::string& public_key) const;
  std::vector<store::NodeRow> ListNodes(bool online_only) const;

  // --- runs and their primary task ---------------------------------------------------------------
  struct NewRun {
    std::string fab_id;
    std::string fab_version;
    Digest fab_hash;
    std::string override_config;
    std::string federation;
    SeriesId series_id;  // none: a new series
    /// A serialized Plan: the SuperLink itself does what a ServerApp would. Whoever asked sends the
    /// initial model with the token of its task.
    std::optional<std::string> native_plan;
  };
  const Run& StartRun(NewRun run, WallTime now, Changes& changes);
  /// Claims the oldest pending task of one of `types`; nullptr when there is none. The token in
  /// its row is new.
  Run* AcquireTask(const std::vector<std::string>& types, WallTime now, Changes& changes);
  Run* FindRun(RunId run_id);
  /// errors  kRuntimeAuth: not the token of a live task.
  Result<Run*> FindByToken(std::string_view token, WallTime now);
  /// A process of ours was launched for the starting task. Whoever launched it watches it, so its
  /// claim lasts longer than that of a SuperExec nobody sees.
  void TaskLaunched(Run& run, int64_t pid, uint64_t start_ticks, WallTime now, Changes& changes);
  Status BeginTask(Run& run, WallTime now, Changes& changes);
  void TaskHeartbeat(Run& run, WallTime now);
  /// The run ends here: `run` is gone afterwards. False when the task cannot end that way.
  bool FinishTask(RunId run_id, TaskEvent event, std::string details, WallTime now,
                  Changes& changes);
  /// A task whose process died before it began: pending again. False when it had begun.
  bool RequeueTask(Run& run, Changes& changes);
  void PutTask(const Run& run, Changes& changes) const;
  const std::unordered_map<RunId, Run>& runs() const { return runs_; }
  WaitList& task_waiters() { return task_waiters_; }

  // --- messages ----------------------------------------------------------------------------------
  /// Why an instruction may not be stored; "" when it may.
  static std::string InstructionFault(const Message& message, RunId run_id, RunId token_run,
                                      WallTime now);
  PushOutcome PushInstructions(Run& run, std::vector<NewMessage> messages, WallTime now,
                               Changes& changes);
  PushOutcome PushReply(Run& run, NodeId node_id, NewMessage message, WallTime now,
                        Changes& changes);
  /// Shows messages whose rows are durable, if all their objects are here.
  void Publish(RunId run_id, const std::vector<ObjectId>& roots, WallTime now);
  /// The oldest instruction for the node that it has not begun to fetch. Registers `waiter` when
  /// there is none.
  std::optional<Delivery> PullInstruction(NodeId node_id, const std::shared_ptr<Wakeable>& waiter,
                                          WallTime now);
  /// Replies, real or made here, to the asked ids. Registers `waiter` when some are still open.
  Collected CollectReplies(Run& run, const std::vector<std::string>& asked,
                           const std::shared_ptr<Wakeable>& waiter, WallTime now);
  void ConfirmReply(Run& run, const ObjectId& id, Changes& changes);
  /// Takes an instruction back, with whatever answers it: a reply that comes later is refused.
  void Withdraw(Run& run, const ObjectId& instruction, Changes& changes);
  void TouchInstruction(Run& run, NodeId node_id, const ObjectId& id, Changes& changes);

  // --- the SuperLink as node 1, and native rounds ------------------------------------------------
  /// Complete messages to node 1 that are of our own kind, each once (a restart shows unanswered
  /// ones again). Registers `waiter`.
  std::vector<Delivery> TakeOwn(const std::shared_ptr<Wakeable>& waiter);
  /// Node 1 answers. `objects` are those of the reply's tree that the run does not have yet; they,
  /// and the reply, live in memory only: after a restart the instruction is there to be answered
  /// again. False: it is gone, or has an answer.
  bool AnswerOwn(Run& run, const ObjectId& instruction, NewMessage reply,
                 std::unordered_map<ObjectId, std::string> objects, WallTime now);
  /// An object of a session's next model; `extent` null: its row has the content.
  struct ModelObject {
    store::ObjectRow row;
    ExtentPtr extent;
  };
  /// Writes the session's row. The objects its model_tree names stay from here on, whether a
  /// message names them or not, and those of the tree before may go. New ones are visible as soon
  /// as the change is durable and ModelStored was called.
  void PutSession(Run& run, store::SessionRow row, std::vector<ModelObject> objects,
                  Changes& changes);
  void ModelStored(Run& run, const std::string& session);
  /// What the run tells of its rounds gets its number.
  uint64_t NextRoundSequence(Run& run) { return run.next_round_sequence++; }
  WaitList& node_waiters() { return node_waiters_; }
  /// From now on the large objects of so many replies lie on disk at once; 0: of any number. Those
  /// that lie there already count.
  void BoundReplies(Run& run, size_t replies);
  /// Whether a large object of the node's reply may come now: once let in, it is until its reply is
  /// gone. If not, `waiter` is told when another is, and the run's session that somebody waits.
  bool LetIn(Run& run, NodeId node_id, const std::shared_ptr<Wakeable>& waiter, WallTime now);

  // --- objects -----------------------------------------------------------------------------------
  enum class Upload { kWanted, kAlreadyHere, kRefused };
  Upload CheckUpload(const Run& run, NodeId owner, const ObjectId& id,
                     const std::string& session_id, WallTime now) const;
  /// Queues the object's row; `extent` null means that it is in the database. Of copies that come
  /// at the same time the first one's place stays, and the others' are let go. Returns the row's
  /// number; 0: no message names the object any more.
  uint64_t KeepObject(Run& run, store::ObjectRow row, ExtentPtr extent, Changes& changes);
  /// The row of that number is durable; 0: the object was here before. Publishes what it completes.
  /// False: it is not here after all, because its messages were dropped meanwhile.
  bool ObjectStored(Run& run, NodeId owner, const ObjectId& id, const std::string& session_id,
                    uint64_t row, WallTime now);

  /// Lapses of nodes, claims, heartbeats and sessions. Call about once a second.
  void Tick(WallTime now, Changes& changes);
  /// Writes traffic counters that have changed.
  void FlushTraffic(Changes& changes);

  size_t online_nodes() const;
  size_t node_count() const { return nodes_.size(); }

 private:
  Node* LiveNode(NodeId node_id);
  bool SetNodeStatus(Node& node, NodeEvent event);
  void AddMessage(Run& run, NewMessage message);
  void DropMessage(Run& run, const ObjectId& id, Changes& changes);
  void ReleaseObjects(Run& run, const std::vector<ObjectId>& ids, Changes& changes);
  void PutMessage(const Run& run, const Message& message, Changes& changes) const;
  PushSession& OpenSession(Run& run, NodeId owner, WallTime now);
  PushSession* FindSession(Run& run, NodeId owner, const ObjectId& id, const std::string& name);
  using SessionEntry = std::unordered_map<std::string, PushSession>::iterator;
  /// The object has come. Publishes what the session then has no more to wait for, and ends it;
  /// returns the entry after it.
  SessionEntry Received(Run& run, SessionEntry entry, const ObjectId& id, WallTime now);
  void CloseSessionsOf(Run& run, const ObjectId& root);
  static bool HasDelivered(const Run& run, NodeId owner, const ObjectId& id);
  std::shared_ptr<const MessageBytes> AnswerWithError(Run& run, const std::string& asked,
                                                      Message* instruction, int code,
                                                      std::string reason, WallTime now);
  void Enqueue(RunId run_id, const Message& message);
  void RemoveRun(RunId run_id, Changes& changes);
  bool Reachable(NodeId node_id) const;
  uint64_t NewId() const;

  Rng& rng_;
  uint64_t next_sequence_ = 1;
  uint64_t next_row_ = 1;
  std::unordered_map<NodeId, Node> nodes_;
  std::unordered_map<std::string, NodeId> node_by_key_;
  std::unordered_map<RunId, Run> runs_;
  std::unordered_map<std::string, RunId> run_by_token_;
  WaitList task_waiters_;
  std::map<uint64_t, std::pair<RunId, ObjectId>> own_inbox_;  // by sequence, as a node's
  WaitList own_waiters_;
  WaitList node_waiters_;  // until a node comes online
};

}  // namespace umbel::superlink
