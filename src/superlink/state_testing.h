// What the tests of State share: a State with its clock, the rows it has written, and messages.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "superlink/state.h"
#include "tensor/tree.h"

namespace umbel::superlink::testing {

inline ObjectId Object(uint64_t n) {
  ObjectId id;
  SeededRng(n).Fill(id.bytes);
  return id;
}

/// The rows as a store keeps them.
struct Rows {
  using Key = std::pair<RunId, ObjectId>;
  std::map<NodeId, store::NodeRow> nodes;
  std::map<RunId, store::RunRow> runs;
  std::map<RunId, store::TaskRow> tasks;
  std::map<Key, store::MessageRow> messages;
  std::map<Key, store::ObjectRow> objects;
  std::map<std::pair<RunId, std::string>, store::SessionRow> sessions;

  void Apply(const Changes& changes) {
    for (const store::Write& write : changes.writes)
      std::visit([&](const auto& w) { One(w); }, write);
  }

  store::Snapshot Load() const {
    store::Snapshot snapshot;
    const auto live = [&](RunId run_id) {
      return tasks.at(run_id).status != TaskStatus::kFinished;
    };
    for (const auto& [id, row] : nodes) snapshot.nodes.push_back(row);
    for (const auto& [id, row] : runs)
      if (live(id)) snapshot.runs.push_back(row);
    for (const auto& [id, row] : tasks)
      if (live(id)) snapshot.tasks.push_back(row);
    for (const auto& [key, row] : messages)
      if (live(key.first)) snapshot.messages.push_back(row);
    std::sort(snapshot.messages.begin(), snapshot.messages.end(),
              [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
    for (const auto& [key, row] : objects)
      if (live(key.first)) snapshot.objects.push_back(row);
    for (const auto& [key, row] : sessions)
      if (live(key.first)) snapshot.sessions.push_back(row);
    return snapshot;
  }

 private:
  void One(const store::PutNode& w) { nodes[w.row.node_id] = w.row; }
  void One(const store::PutRun& w) { runs[w.row.run_id] = w.row; }
  void One(const store::PutTask& w) { tasks[w.row.run_id] = w.row; }
  void One(const store::PutMessage& w) { messages[{w.row.run_id, w.row.message_id}] = w.row; }
  void One(const store::PutObject& w) { objects[{w.row.run_id, w.row.object_id}] = w.row; }
  void One(const store::TouchMessage& w) {
    if (const auto it = messages.find({w.run_id, w.message_id}); it != messages.end())
      it->second.touched = w.touched;
  }
  void One(const store::DropMessage& w) { messages.erase({w.run_id, w.message_id}); }
  void One(const store::DropObject& w) { objects.erase({w.run_id, w.object_id}); }
  void One(const store::PutSession& w) { sessions[{w.row.run_id, w.row.name}] = w.row; }
  void One(const store::DropRunData& w) {
    std::erase_if(sessions, [&](const auto& s) { return s.first.first == w.run_id; });
    EXPECT_EQ(tasks.at(w.run_id).status, TaskStatus::kFinished);
    std::erase_if(messages, [&](const auto& m) { return m.first.first == w.run_id; });
    std::erase_if(objects, [&](const auto& o) { return o.first.first == w.run_id; });
  }
  void One(const store::AddTraffic& w) {
    runs.at(w.run_id).bytes_sent += w.bytes_sent;
    runs.at(w.run_id).bytes_recv += w.bytes_recv;
    runs.at(w.run_id).clientapp_runtime += w.clientapp_runtime;
  }
  template <typename Other>
  void One(const Other&) {}
};

/// Counts how often it was woken.
class Waiter final : public Wakeable {
 public:
  void Wake() override { ++woken_; }
  /// Whether it has been woken since the last call.
  bool Take() { return std::exchange(woken_, 0) > 0; }

 private:
  int woken_ = 0;
};

/// A State in its world. Every call's rows are durable at once.
class World {
 public:
  explicit World(uint64_t seed = 1) : rng_(seed), state_(std::make_unique<State>(rng_)) {}

  State& state() { return *state_; }
  Rows& rows() { return rows_; }
  WallTime now() const { return clock_.Now(); }

  /// Calls f(State&, WallTime, Changes&) and keeps what it wrote.
  template <typename F>
  auto Do(F&& f) {
    Changes changes;
    if constexpr (std::is_void_v<decltype(f(*state_, now(), changes))>) {
      f(*state_, now(), changes);
      rows_.Apply(changes);
    } else {
      auto result = f(*state_, now(), changes);
      rows_.Apply(changes);
      return result;
    }
  }
  /// Time passes, and is noticed.
  void Pass(std::chrono::milliseconds time) {
    clock_.Advance(time);
    Do([](State& s, WallTime at, Changes& c) { s.Tick(at, c); });
  }
  /// The process dies and another takes up where it stopped, `away` later.
  void Restart(std::chrono::milliseconds away = std::chrono::milliseconds(0)) {
    clock_.Advance(away);
    state_ = Restored();
  }
  std::unique_ptr<State> Restored() {
    auto fresh = std::make_unique<State>(rng_);
    fresh->Restore(rows_.Load(), now(),
                   [](const store::Extent& e) { return std::make_shared<store::Extent>(e); });
    return fresh;
  }

  // Nodes.
  NodeId Register(const std::string& key) {
    return *Do([&](State& s, WallTime at, Changes& c) {
      return s.RegisterNode({key, "<id:none>", "none", "", "", 0}, at, c);
    });
  }
  Result<NodeId> Activate(const std::string& key, double interval = 30) {
    return Do(
        [&](State& s, WallTime at, Changes& c) { return s.ActivateNode(key, interval, at, c); });
  }
  NodeId Node(const std::string& key) {
    Register(key);
    return *Activate(key);
  }
  bool Heartbeat(NodeId node) {
    return *Do([&](State& s, WallTime at, Changes& c) { return s.NodeHeartbeat(node, 30, at, c); });
  }
  Status Deactivate(NodeId node) {
    return Do([&](State& s, WallTime at, Changes& c) { return s.DeactivateNode(node, at, c); });
  }
  Status Unregister(NodeId node) {
    return Do([&](State& s, WallTime at, Changes& c) { return s.UnregisterNode(node, at, c); });
  }

  // Runs.
  RunId Pending() {
    return Do([&](State& s, WallTime at, Changes& c) {
      State::NewRun spec;
      spec.fab_id = "umbel/toy";
      spec.federation = "@none/default";
      return s.StartRun(std::move(spec), at, c).row.run_id;
    });
  }
  RunId Acquire() {
    return Do([&](State& s, WallTime at, Changes& c) {
      Run* run = s.AcquireTask({"flwr-serverapp"}, at, c);
      return run ? run->row.run_id : RunId{};
    });
  }
  Status Begin(RunId run_id) {
    return Do(
        [&](State& s, WallTime at, Changes& c) { return s.BeginTask(*s.FindRun(run_id), at, c); });
  }
  RunId Running() {
    const RunId run_id = Pending();
    EXPECT_EQ(Acquire(), run_id);
    EXPECT_TRUE(Begin(run_id).ok());
    return run_id;
  }
  bool Finish(RunId run_id, TaskEvent event, std::string details = "") {
    return Do([&](State& s, WallTime at, Changes& c) {
      return s.FinishTask(run_id, event, std::move(details), at, c);
    });
  }
  Run& run(RunId run_id) { return *state_->FindRun(run_id); }

  // Messages. Their trees are a root with the given objects below it.
  NewMessage Message(RunId run_id, const ObjectId& id, const std::vector<ObjectId>& below) {
    tensor::TreeNode tree{id, {}};
    for (const ObjectId& object : below) tree.children.push_back({object, {}});
    NewMessage fresh;
    auto bytes = std::make_shared<MessageBytes>();
    bytes->body = fmt::format("run {} message {}", run_id, id.Hex());
    bytes->tree = tensor::EncodeTree(tree);
    fresh.ids = tensor::ParseTree(bytes->tree)->ids;
    fresh.message.id = id;
    fresh.message.group_id = "7";
    fresh.message.type = "train";
    fresh.message.created_at = UnixSeconds(now());
    fresh.message.ttl = 3600;
    fresh.message.bytes = std::move(bytes);
    return fresh;
  }
  NewMessage Instruction(RunId run_id, NodeId dst, const ObjectId& id,
                         const std::vector<ObjectId>& below = {}, double ttl = 3600) {
    NewMessage fresh = Message(run_id, id, below);
    fresh.message.src = kSuperLinkNode;
    fresh.message.dst = dst;
    fresh.message.ttl = ttl;
    return fresh;
  }
  NewMessage Reply(RunId run_id, NodeId src, const ObjectId& asked, const ObjectId& id,
                   const std::vector<ObjectId>& below = {}) {
    NewMessage fresh = Message(run_id, id, below);
    fresh.message.src = src;
    fresh.message.dst = kSuperLinkNode;
    fresh.message.reply_to = asked.Hex();
    const auto found = run(run_id).messages.find(asked);
    if (found != run(run_id).messages.end())
      fresh.message.ttl = found->second.created_at + found->second.ttl - fresh.message.created_at;
    return fresh;
  }
  PushOutcome Push(RunId run_id, std::vector<NewMessage> instructions) {
    PushOutcome outcome = Do([&](State& s, WallTime at, Changes& c) {
      return s.PushInstructions(run(run_id), std::move(instructions), at, c);
    });
    state_->Publish(run_id, outcome.publish, now());
    return outcome;
  }
  PushOutcome Push(RunId run_id, NewMessage instruction) {
    std::vector<NewMessage> one;
    one.push_back(std::move(instruction));
    return Push(run_id, std::move(one));
  }
  PushOutcome PushReply(RunId run_id, NewMessage reply) {
    const NodeId src = reply.message.src;
    return Do([&](State& s, WallTime at, Changes& c) {
      return s.PushReply(run(run_id), src, std::move(reply), at, c);
    });
  }
  /// push-object, as object_transfer.cc goes about it. False: stored=false.
  bool Store(RunId run_id, NodeId owner, const ObjectId& id, const std::string& session) {
    return Do([&](State& s, WallTime at, Changes& c) {
      Run& r = run(run_id);
      const State::Upload upload = s.CheckUpload(r, owner, id, session, at);
      if (upload == State::Upload::kRefused) return false;
      uint64_t number = 0;
      if (upload == State::Upload::kWanted) {
        store::ObjectRow row;
        row.run_id = run_id;
        row.object_id = id;
        row.size = 10;
        number = s.KeepObject(r, std::move(row), nullptr, c);
        EXPECT_NE(number, 0u);
      }
      EXPECT_TRUE(s.ObjectStored(r, owner, id, session, number, at));
      return true;
    });
  }
  void StoreAll(RunId run_id, NodeId owner, const PushOutcome& outcome) {
    for (const ObjectId& id : outcome.objects_to_push)
      EXPECT_TRUE(Store(run_id, owner, id, outcome.session_id)) << id.Hex();
  }
  /// An instruction with all its objects.
  ObjectId Ask(RunId run_id, NodeId dst, uint64_t number, double ttl = 3600) {
    const ObjectId id = Object(number);
    StoreAll(run_id, kSuperLinkNode, Push(run_id, Instruction(run_id, dst, id, {}, ttl)));
    return id;
  }
  /// A reply with all its objects.
  ObjectId Answer(RunId run_id, NodeId src, const ObjectId& asked, uint64_t number) {
    const ObjectId id = Object(number);
    StoreAll(run_id, src, PushReply(run_id, Reply(run_id, src, asked, id)));
    return id;
  }
  std::optional<ObjectId> Pull(NodeId node, const std::shared_ptr<Wakeable>& waiter = nullptr) {
    const auto delivery = state_->PullInstruction(node, waiter, now());
    return delivery ? std::optional(delivery->id) : std::nullopt;
  }
  void Touch(RunId run_id, NodeId node, const ObjectId& id) {
    Do([&](State& s, WallTime, Changes& c) { s.TouchInstruction(run(run_id), node, id, c); });
  }
  Collected Collect(RunId run_id, const std::vector<ObjectId>& asked,
                    const std::shared_ptr<Wakeable>& waiter = nullptr) {
    std::vector<std::string> texts;
    for (const ObjectId& id : asked) texts.push_back(id.Hex());
    return state_->CollectReplies(run(run_id), texts, waiter, now());
  }
  void Confirm(RunId run_id, const ObjectId& reply) {
    Do([&](State& s, WallTime, Changes& c) { s.ConfirmReply(run(run_id), reply, c); });
  }

 private:
  FakeClock clock_;
  SeededRng rng_;
  Rows rows_;
  std::unique_ptr<State> state_;
};

}  // namespace umbel::superlink::testing
