// State: runs, their primary task, and what time does to everything.
#include <algorithm>
#include <limits>

#include "flower/errors.h"
#include "superlink/state.h"
#include "tensor/tree.h"

namespace umbel::superlink {
namespace wire = flower::wire;
using flower::WireError;
namespace {

constexpr std::chrono::seconds kClaimTime{30};      // acquired, its input not yet pulled
constexpr std::chrono::seconds kLaunchTime{300};    // the same, its process being ours and alive
constexpr std::chrono::seconds kHeartbeatTime{60};  // without a task heartbeat
constexpr size_t kTokenBytes = 128;

}  // namespace

uint64_t State::NewId() const {
  for (;;) {
    const uint64_t id = rng_.U64();
    if (id > 1 && !nodes_.contains(NodeId{id}) && !runs_.contains(RunId{id})) return id;
  }
}

void State::Restore(store::Snapshot snapshot, WallTime now,
                    const std::function<ExtentPtr(const store::Extent&)>& extent) {
  for (store::NodeRow& row : snapshot.nodes) {
    if (row.status == NodeStatus::kOnline)
      row.online_until = now + Micros(static_cast<int64_t>(row.heartbeat_interval * 2e6));
    node_by_key_.emplace(row.public_key, row.node_id);
    Node node;
    node.row = std::move(row);
    nodes_.emplace(node.row.node_id, std::move(node));
  }
  for (store::RunRow& row : snapshot.runs) {
    Run run;
    run.row = std::move(row);
    const RunId run_id = run.row.run_id;
    run.traffic.run_id = run_id;
    runs_.emplace(run_id, std::move(run));
  }
  std::unordered_set<RunId> native;
  for (const store::SessionRow& row : snapshot.sessions)
    if (row.name.empty()) native.insert(row.run_id);
  for (store::TaskRow& row : snapshot.tasks) {
    Run* run = FindRun(row.run_id);
    if (!run || row.task_id != run->row.primary_task_id) continue;
    if (row.status == TaskStatus::kStarting)
      row.token_until =
          now + (row.pid != 0 || native.contains(row.run_id) ? kLaunchTime : kClaimTime);
    if (row.status == TaskStatus::kRunning) row.token_until = now + kHeartbeatTime;
    run->input_maybe_lost = row.status == TaskStatus::kRunning;
    if (!row.token.empty()) run_by_token_.emplace(row.token, row.run_id);
    run->task = std::move(row);
  }
  for (store::SessionRow& row : snapshot.sessions) {
    Run* run = FindRun(row.run_id);
    if (!run) continue;
    run->native |= row.name.empty();
    if (run->native) run->input_maybe_lost = false;
    Session session;
    if (auto tree = tensor::ParseTree(row.model_tree); tree.ok())
      session.model = std::move(tree->ids);
    for (const ObjectId& id : session.model) ++run->objects[id].holders;
    session.row = std::move(row);
    run->native_sessions.emplace(session.row.name, std::move(session));
  }
  std::unordered_map<RunId, std::unordered_map<ObjectId, const store::ObjectRow*>> stored;
  for (const store::ObjectRow& row : snapshot.objects) stored[row.run_id][row.object_id] = &row;
  for (store::MessageRow& row : snapshot.messages) {
    Run* run = FindRun(row.run_id);
    auto tree = tensor::ParseTree(row.tree);
    if (!run || !tree.ok()) continue;
    next_sequence_ = std::max(next_sequence_, row.sequence + 1);
    NewMessage fresh;
    fresh.ids = std::move(tree->ids);
    Message& message = fresh.message;
    message.id = row.message_id;
    message.sequence = row.sequence;
    message.src = row.src_node_id;
    message.dst = row.dst_node_id;
    if (row.reply_to) message.reply_to = row.reply_to->Hex();
    message.group_id = std::move(row.group_id);
    message.type = std::move(row.message_type);
    message.created_at = row.created_at;
    message.ttl = row.ttl;
    message.touched = row.touched;
    message.bytes =
        std::make_shared<MessageBytes>(MessageBytes{std::move(row.body), std::move(row.tree)});
    const NodeId owner = message.is_instruction() ? kSuperLinkNode : message.src;
    const ObjectId id = message.id;
    if (row.reply_to) {
      const auto asked = run->messages.find(*row.reply_to);
      if (asked != run->messages.end()) asked->second.answer = id;
    }
    std::unordered_set<ObjectId> missing;
    const auto& here = stored[row.run_id];
    for (const ObjectId& object : fresh.ids)
      if (!here.contains(object)) missing.insert(object);
    AddMessage(*run, std::move(fresh));
    if (missing.empty()) {
      run->messages.at(id).complete = true;
    } else {
      PushSession& session = OpenSession(*run, owner, now);
      session.pending = std::move(missing);
      session.roots.push_back(id);
      session.restored = true;
    }
  }
  for (auto& [run_id, run] : runs_) {
    for (auto& [id, slot] : run.objects) {
      const auto found = stored[run_id].find(id);
      if (found == stored[run_id].end()) continue;
      const store::ObjectRow& row = *found->second;
      slot.row = next_row_++;
      slot.available = true;
      slot.size = row.size;
      if (row.segment != 0) slot.extent = extent({run_id, row.segment, row.offset, row.size});
    }
    for (const auto& [id, message] : run.messages)
      if (message.complete && message.is_instruction()) Enqueue(run_id, message);
  }
}

const Run& State::StartRun(NewRun spec, WallTime now, Changes& changes) {
  Run run;
  run.row.run_id = RunId{NewId()};
  run.row.series_id = spec.series_id ? spec.series_id : SeriesId{NewId()};
  run.row.primary_task_id = TaskId{NewId()};
  run.row.primary_task_type = "flwr-serverapp";
  run.row.fab_id = std::move(spec.fab_id);
  run.row.fab_version = std::move(spec.fab_version);
  run.row.fab_hash = spec.fab_hash;
  run.row.override_config = std::move(spec.override_config);
  run.row.federation = std::move(spec.federation);
  run.row.flwr_aid = "<id:none>";
  run.row.account_name = "none";
  run.traffic.run_id = run.row.run_id;
  run.task.task_id = run.row.primary_task_id;
  run.task.run_id = run.row.run_id;
  run.task.type = run.row.primary_task_type;
  run.task.pending_at = now;
  const RunId run_id = run.row.run_id;
  if (spec.native_plan) {  // claimed from the start: nobody else is to get it
    run.native = true;
    run.task.status = *Next(TaskStatus::kPending, TaskEvent::kAcquire);
    run.task.starting_at = now;
    run.task.token = rng_.Hex(kTokenBytes);
    run.task.token_until = now + kLaunchTime;
    run_by_token_.emplace(run.task.token, run_id);
  }
  changes.writes.push_back(store::PutRun{run.row});
  PutTask(run, changes);
  if (spec.native_plan) {
    PutSession(run, {run_id, "", *std::move(spec.native_plan), "", ""}, {}, changes);
  } else {
    changes.tasks_changed = true;
    task_waiters_.WakeAll();
  }
  return runs_.emplace(run_id, std::move(run)).first->second;
}

Run* State::AcquireTask(const std::vector<std::string>& types, WallTime now, Changes& changes) {
  Run* oldest = nullptr;
  for (auto& [run_id, run] : runs_) {
    if (run.task.status != TaskStatus::kPending) continue;
    if (std::find(types.begin(), types.end(), run.task.type) == types.end()) continue;
    if (!oldest || run.task.pending_at < oldest->task.pending_at) oldest = &run;
  }
  if (!oldest) return nullptr;
  oldest->task.status = *Next(TaskStatus::kPending, TaskEvent::kAcquire);
  oldest->task.starting_at = now;
  oldest->task.token = rng_.Hex(kTokenBytes);
  oldest->task.token_until = now + kClaimTime;
  run_by_token_.emplace(oldest->task.token, oldest->row.run_id);
  PutTask(*oldest, changes);
  return oldest;
}

Run* State::FindRun(RunId run_id) {
  const auto found = runs_.find(run_id);
  return found == runs_.end() ? nullptr : &found->second;
}

Result<Run*> State::FindByToken(std::string_view token, WallTime now) {
  const auto found = run_by_token_.find(std::string(token));
  Run* run = found == run_by_token_.end() ? nullptr : FindRun(found->second);
  if (!run || run->task.token_until < now) return WireError(wire::kRuntimeAuth);
  return run;
}

void State::TaskLaunched(Run& run, int64_t pid, uint64_t start_ticks, WallTime now,
                         Changes& changes) {
  run.task.pid = pid;
  run.task.pid_start_ticks = start_ticks;
  ++run.task.launches;
  run.task.token_until = now + kLaunchTime;
  PutTask(run, changes);
}

Status State::BeginTask(Run& run, WallTime now, Changes& changes) {
  // We were killed between writing down that it runs and saying so: it asks again, once.
  if (std::exchange(run.input_maybe_lost, false)) return {};
  const auto next = Next(run.task.status, TaskEvent::kInputPulled);
  if (!next)
    return WireError(wire::kTaskStart,
                     fmt::format("task {} is {}", run.task.task_id, Name(run.task.status)));
  run.task.status = *next;
  run.task.running_at = now;
  run.task.token_until = now + kHeartbeatTime;
  PutTask(run, changes);
  return {};
}

void State::TaskHeartbeat(Run& run, WallTime now) {
  run.task.token_until = std::max(run.task.token_until, now + kHeartbeatTime);
}

bool State::FinishTask(RunId run_id, TaskEvent event, std::string details, WallTime now,
                       Changes& changes) {
  Run* run = FindRun(run_id);
  const auto next = run ? Next(run->task.status, event) : std::nullopt;
  if (!next) return false;
  store::TaskRow& task = run->task;
  task.status = *next;
  task.sub_status = event == TaskEvent::kComplete ? "completed"
                    : event == TaskEvent::kStop   ? "stopped"
                                                  : "failed";
  task.details = std::move(details);
  task.finished_at = event == TaskEvent::kHeartbeatLapsed ? std::min(now, task.token_until) : now;
  run_by_token_.erase(task.token);
  task.token.clear();
  PutTask(*run, changes);
  RemoveRun(run_id, changes);
  return true;
}

bool State::RequeueTask(Run& run, Changes& changes) {
  const auto next = Next(run.task.status, TaskEvent::kClaimLapsed);
  if (!next) return false;
  run.task.status = *next;
  run_by_token_.erase(run.task.token);
  run.task.token.clear();
  run.task.token_until = WallTime{};
  run.task.starting_at = WallTime{};
  run.task.pid = 0;  // should it still live, it is nobody's now
  run.task.pid_start_ticks = 0;
  PutTask(run, changes);
  changes.tasks_changed = true;
  task_waiters_.WakeAll();
  return true;
}

void State::PutTask(const Run& run, Changes& changes) const {
  changes.writes.push_back(store::PutTask{run.task});
}

void State::RemoveRun(RunId run_id, Changes& changes) {
  Run& run = runs_.at(run_id);
  if (run.traffic.bytes_sent || run.traffic.bytes_recv || run.traffic.clientapp_runtime > 0)
    changes.writes.push_back(run.traffic);
  changes.writes.push_back(store::DropRunData{run_id});
  changes.finished_runs.push_back(run_id);
  changes.tasks_changed = true;
  for (auto& [id, slot] : run.objects)
    if (slot.extent) changes.released.push_back(std::move(slot.extent));
  for (auto& [node_id, node] : nodes_)
    std::erase_if(node.inbox, [&](const auto& entry) { return entry.second.first == run_id; });
  run.reply_waiters.WakeAll();
  run.log_waiters.WakeAll();
  runs_.erase(run_id);
}

void State::Tick(WallTime now, Changes& changes) {
  bool lapsed = false;
  for (auto& [node_id, node] : nodes_) {
    if (node.row.status != NodeStatus::kOnline || node.row.online_until >= now) continue;
    SetNodeStatus(node, NodeEvent::kLapse);
    node.row.last_deactivated_at = node.row.online_until;
    changes.writes.push_back(store::PutNode{node.row});
    lapsed = true;
  }
  std::vector<RunId> dead;
  std::vector<RunId> unfed;
  for (auto& [run_id, run] : runs_) {
    if (lapsed) run.reply_waiters.WakeAll();
    if (run.next_expiry <= UnixSeconds(now)) {
      run.reply_waiters.WakeAll();
      run.next_expiry = std::numeric_limits<double>::infinity();
      for (const auto& [id, message] : run.messages)
        if (!message.Expired(now))
          run.next_expiry = std::min(run.next_expiry, message.created_at + message.ttl);
    }
    const bool lapsed_task = run.task.token_until < now;
    if (run.task.status == TaskStatus::kStarting && lapsed_task && !run.native) {
      RequeueTask(run, changes);
    } else if (run.native && run.task.status == TaskStatus::kStarting && lapsed_task) {
      unfed.push_back(run_id);
    } else if (run.task.status == TaskStatus::kRunning && lapsed_task && !run.native) {
      dead.push_back(run_id);
    }
    std::vector<std::string> expired;
    for (const auto& [name, session] : run.sessions)
      if (session.expires_at < now) expired.push_back(name);
    for (const std::string& name : expired) {
      const auto session = run.sessions.extract(name);
      for (const ObjectId& root : session.mapped().roots) DropMessage(run, root, changes);
    }
    if (!expired.empty()) run.reply_waiters.WakeAll();
  }
  for (const RunId run_id : dead)
    FinishTask(run_id, TaskEvent::kHeartbeatLapsed, "No heartbeat received from the task", now,
               changes);
  for (const RunId run_id : unfed)
    FinishTask(run_id, TaskEvent::kFail,
               fmt::format("its initial model did not come within {} s", kLaunchTime.count()), now,
               changes);
}

void State::FlushTraffic(Changes& changes) {
  for (auto& [run_id, run] : runs_) {
    store::AddTraffic& traffic = run.traffic;
    if (!traffic.bytes_sent && !traffic.bytes_recv && traffic.clientapp_runtime == 0) continue;
    changes.writes.push_back(traffic);
    run.row.bytes_sent += traffic.bytes_sent;
    run.row.bytes_recv += traffic.bytes_recv;
    run.row.clientapp_runtime += traffic.clientapp_runtime;
    traffic = store::AddTraffic{run_id};
  }
}

PushSession& State::OpenSession(Run& run, NodeId owner, WallTime now) {
  PushSession session;
  session.id = rng_.Uuid();
  session.owner = owner;
  session.expires_at = now + kSessionTime;
  const std::string name = session.id;
  return run.sessions.emplace(name, std::move(session)).first->second;
}

PushSession* State::FindSession(Run& run, NodeId owner, const ObjectId& id,
                                const std::string& name) {
  const auto named = run.sessions.find(name);
  if (named != run.sessions.end())
    return named->second.owner == owner && named->second.pending.contains(id) ? &named->second
                                                                              : nullptr;
  // Without a name (older peers), or with one from before a restart: whoever lists the object.
  for (auto& [key, session] : run.sessions)
    if (session.owner == owner && (name.empty() || session.restored) &&
        session.pending.contains(id))
      return &session;
  return nullptr;
}

bool State::HasDelivered(const Run& run, NodeId owner, const ObjectId& id) {
  std::unordered_set<ObjectId> waiting;
  for (const auto& [name, session] : run.sessions)
    if (session.pending.contains(id)) waiting.insert(session.roots.begin(), session.roots.end());
  for (const auto& [root, message] : run.messages) {
    if (message.src != owner || message.is_instruction() || waiting.contains(root)) continue;
    const auto tree = tensor::ParseTree(message.bytes->tree);
    if (tree.ok() && std::find(tree->ids.begin(), tree->ids.end(), id) != tree->ids.end())
      return true;
  }
  return false;
}

State::Upload State::CheckUpload(const Run& run, NodeId owner, const ObjectId& id,
                                 const std::string& session_id, WallTime now) const {
  // Finding does not change anything; the const_cast spares a second copy of the rule.
  const PushSession* session =
      const_cast<State*>(this)->FindSession(const_cast<Run&>(run), owner, id, session_id);
  const auto slot = run.objects.find(id);
  if (slot == run.objects.end()) return Upload::kRefused;
  if (!session || session->expires_at < now) {
    // A repeated push of what this very peer has delivered is a lost answer, not a fault: refused,
    // a SuperNode would drop its reply.
    const bool repeated = owner == kSuperLinkNode || HasDelivered(run, owner, id);
    return slot->second.available && repeated ? Upload::kAlreadyHere : Upload::kRefused;
  }
  return slot->second.available ? Upload::kAlreadyHere : Upload::kWanted;
}

uint64_t State::KeepObject(Run& run, store::ObjectRow row, ExtentPtr extent, Changes& changes) {
  const auto found = run.objects.find(row.object_id);
  ObjectSlot* slot = found == run.objects.end() ? nullptr : &found->second;
  if (!slot || slot->row != 0) {
    if (extent) changes.released.push_back(std::move(extent));
    if (!slot) return 0;
  }
  if (slot->row == 0) {
    slot->row = next_row_++;
    slot->size = row.size;
    slot->extent = std::move(extent);
  }
  if (slot->available) return slot->row;
  // A second copy writes the first one's row once more: its commit says when that is durable.
  if (slot->extent) {
    row.segment = slot->extent->segment;
    row.offset = slot->extent->offset;
  }
  changes.writes.push_back(store::PutObject{std::move(row)});
  return slot->row;
}

bool State::ObjectStored(Run& run, NodeId owner, const ObjectId& id, const std::string& session_id,
                         uint64_t row, WallTime now) {
  const auto slot = run.objects.find(id);
  if (slot == run.objects.end() || slot->second.row == 0) return false;
  if (slot->second.row == row) slot->second.available = true;
  if (!slot->second.available) return false;
  if (const auto named = run.sessions.find(session_id); named != run.sessions.end()) {
    if (named->second.owner == owner) Received(run, named, id, now);
    return true;
  }
  // A name from before a restart, which has made a session for each message: this one object may
  // be what several of them wait for.
  for (auto entry = run.sessions.begin(); entry != run.sessions.end();)
    entry = entry->second.owner == owner ? Received(run, entry, id, now) : std::next(entry);
  return true;
}

State::SessionEntry State::Received(Run& run, SessionEntry entry, const ObjectId& id,
                                    WallTime now) {
  PushSession& session = entry->second;
  if (session.pending.erase(id) == 0) return std::next(entry);
  run.object_waiters.WakeAll();
  session.expires_at = now + kSessionTime;
  if (!session.pending.empty()) return std::next(entry);
  const std::vector<ObjectId> roots = std::move(session.roots);
  entry = run.sessions.erase(entry);
  Publish(run.row.run_id, roots, now);
  return entry;
}

}  // namespace umbel::superlink
