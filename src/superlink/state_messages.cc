// State: instructions and replies.
#include <algorithm>
#include <cmath>

#include "flower/errors.h"
#include "superlink/state.h"
#include "tensor/tree.h"

namespace umbel::superlink {
namespace {

constexpr double kCreatedAtMin = 1740700800;  // Flower's own lower bound, 2025-02-28
constexpr double kTtlTolerance = 0.1;         // seconds
constexpr double kTtlUnknown = 0;

// Flower's error codes of messages.
constexpr int kMessageUnavailable = 3;
constexpr int kReplyUnavailable = 4;
constexpr int kNodeUnavailable = 5;

bool IsIdentifier(std::string_view text) {
  const auto letter = [](char c) { return c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'); };
  if (text.empty() || !letter(text[0])) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

/// train, evaluate, query or system, each with an optional ".action"; and three of old.
bool KnownType(std::string_view type) {
  for (const std::string_view old : {"get_properties", "get_parameters", "reconnect"})
    if (type == old) return true;
  const size_t dot = type.find('.');
  const std::string_view category = type.substr(0, dot);
  if (dot != std::string_view::npos && !IsIdentifier(type.substr(dot + 1))) return false;
  return category == "train" || category == "evaluate" || category == "query" ||
         category == "system";
}

void Append(std::vector<ObjectId>& list, std::unordered_set<ObjectId>& seen, const ObjectId& id) {
  if (seen.insert(id).second) list.push_back(id);
}

}  // namespace

std::string State::InstructionFault(const Message& message, RunId run_id, RunId token_run,
                                    WallTime now) {
  if (run_id != token_run)
    return fmt::format("metadata.run_id {} is not the token's run {}", run_id, token_run);
  if (message.src != kSuperLinkNode)
    return fmt::format("metadata.src_node_id {} is not 1", message.src);
  if (!message.dst) return "metadata.dst_node_id is missing";
  if (!KnownType(message.type))
    return fmt::format("metadata.message_type '{}' is not one of Flower's",
                       message.type.substr(0, 80));
  if (!message.reply_to.empty()) return "metadata.reply_to_message_id is set on an instruction";
  if (!(message.created_at >= kCreatedAtMin) || !std::isfinite(message.created_at))
    return fmt::format("metadata.created_at {} is not a time since {}", message.created_at,
                       kCreatedAtMin);
  if (!(message.ttl > 0) || !std::isfinite(message.ttl))
    return fmt::format("metadata.ttl {} is not a number of seconds above 0", message.ttl);
  if (message.Expired(now))
    return fmt::format("the message has expired: created_at {} + ttl {} is in the past",
                       message.created_at, message.ttl);
  return {};
}

void State::AddMessage(Run& run, NewMessage fresh) {
  for (const ObjectId& id : fresh.ids) ++run.objects[id].holders;
  const ObjectId id = fresh.message.id;
  run.next_expiry = std::min(run.next_expiry, fresh.message.created_at + fresh.message.ttl);
  run.messages.emplace(id, std::move(fresh.message));
}

void State::PutMessage(const Run& run, const Message& message, Changes& changes) const {
  store::MessageRow row;
  row.message_id = message.id;
  row.run_id = run.row.run_id;
  row.sequence = message.sequence;
  row.src_node_id = message.src;
  row.dst_node_id = message.dst;
  if (!message.reply_to.empty())
    if (const auto id = Digest::FromHex(message.reply_to); id.ok()) row.reply_to = *id;
  row.group_id = message.group_id;
  row.message_type = message.type;
  row.created_at = message.created_at;
  row.ttl = message.ttl;
  row.body = message.bytes->body;
  row.tree = message.bytes->tree;
  row.touched = message.touched;
  changes.writes.push_back(store::PutMessage{std::move(row)});
}

void State::ReleaseObjects(Run& run, const std::vector<ObjectId>& ids, Changes& changes) {
  for (const ObjectId& id : ids) {
    const auto slot = run.objects.find(id);
    if (slot == run.objects.end() || --slot->second.holders > 0) continue;
    if (slot->second.row != 0) changes.writes.push_back(store::DropObject{run.row.run_id, id});
    if (slot->second.extent) changes.released.push_back(std::move(slot->second.extent));
    run.objects.erase(slot);
    run.made_objects.erase(id);
  }
}

void State::DropMessage(Run& run, const ObjectId& id, Changes& changes) {
  const auto found = run.messages.find(id);
  if (found == run.messages.end()) return;
  const Message& message = found->second;
  if (message.is_instruction()) {
    if (const auto node = nodes_.find(message.dst); node != nodes_.end())
      node->second.inbox.erase(message.sequence);
    if (message.dst == kSuperLinkNode) own_inbox_.erase(message.sequence);
  } else if (const auto asked = Digest::FromHex(message.reply_to); asked.ok()) {
    const auto instruction = run.messages.find(*asked);
    if (instruction != run.messages.end() && instruction->second.answer == id)
      instruction->second.answer.reset();
    if (run.room.let_in.erase(message.src) > 0) {
      run.room.wanted = false;
      run.room.waiters.WakeAll();
    }
  }
  changes.writes.push_back(store::DropMessage{run.row.run_id, id});
  if (const auto tree = tensor::ParseTree(message.bytes->tree); tree.ok())
    ReleaseObjects(run, tree->ids, changes);
  run.messages.erase(found);
  CloseSessionsOf(run, id);
}

void State::CloseSessionsOf(Run& run, const ObjectId& root) {
  for (auto entry = run.sessions.begin(); entry != run.sessions.end();) {
    auto& roots = entry->second.roots;
    const bool had = std::erase(roots, root) > 0;
    // What only that message had named is not waited for any more.
    if (had)
      std::erase_if(entry->second.pending,
                    [&](const auto& id) { return !run.objects.contains(id); });
    if (!had || (!roots.empty() && !entry->second.pending.empty())) {
      ++entry;
      continue;
    }
    const std::vector<ObjectId> complete = std::move(roots);
    entry = run.sessions.erase(entry);
    Publish(run.row.run_id, complete, WallTime{});
  }
}

PushOutcome State::PushInstructions(Run& run, std::vector<NewMessage> messages, WallTime now,
                                    Changes& changes) {
  PushOutcome outcome;
  std::unordered_set<ObjectId> pending;
  std::vector<ObjectId> roots;
  for (NewMessage& fresh : messages) {
    const ObjectId id = fresh.message.id;
    const store::NodeRow* node = FindNode(fresh.message.dst);
    const bool to_node =
        node && (node->status == NodeStatus::kOnline || node->status == NodeStatus::kOffline);
    if (!to_node && fresh.message.dst != kSuperLinkNode) {
      outcome.message_ids.emplace_back();
      continue;
    }
    outcome.message_ids.push_back(id.Hex());
    const std::vector<ObjectId> ids = fresh.ids;
    const auto known = run.messages.find(id);
    if (known != run.messages.end() && known->second.complete) continue;  // a repeated push
    if (known == run.messages.end()) {
      fresh.message.sequence = next_sequence_++;
      PutMessage(run, fresh.message, changes);
      AddMessage(run, std::move(fresh));
    } else {
      CloseSessionsOf(run, id);
    }
    roots.push_back(id);
    for (const ObjectId& object : ids)
      if (!run.objects.at(object).available) Append(outcome.objects_to_push, pending, object);
  }
  outcome.accepted = true;
  if (pending.empty()) {
    outcome.session_id = rng_.Uuid();
    outcome.publish = std::move(roots);
    return outcome;
  }
  PushSession& session = OpenSession(run, kSuperLinkNode, now);
  session.pending = std::move(pending);
  session.roots = std::move(roots);
  outcome.session_id = session.id;
  return outcome;
}

PushOutcome State::PushReply(Run& run, NodeId node_id, NewMessage fresh, WallTime now,
                             Changes& changes) {
  PushOutcome outcome;
  outcome.session_id = rng_.Uuid();
  const Message& reply = fresh.message;
  const ObjectId id = reply.id;
  const auto asked = Digest::FromHex(reply.reply_to);
  const auto found = asked.ok() ? run.messages.find(*asked) : run.messages.end();
  if (found == run.messages.end() || !found->second.is_instruction()) return outcome;
  Message& instruction = found->second;
  const double ttl_left = instruction.created_at + instruction.ttl - reply.created_at;
  const bool fits = reply.src == node_id && reply.src != kSuperLinkNode &&
                    reply.dst == kSuperLinkNode && instruction.dst == reply.src &&
                    reply.created_at >= kCreatedAtMin && reply.ttl > 0 &&
                    reply.ttl <= ttl_left + kTtlTolerance && KnownType(reply.type) &&
                    !instruction.Expired(now) && !reply.Expired(now);
  if (!fits || (instruction.answer && *instruction.answer != id)) return outcome;
  outcome.accepted = true;
  const auto known = run.messages.find(id);
  outcome.repeated = known != run.messages.end();
  if (outcome.repeated && known->second.complete) return outcome;
  // Nobody's word about bytes it has not sent is believed: each object is asked for, even one that
  // another node has sent already. Only what this very reply has delivered need not come again.
  std::unordered_set<ObjectId> pending(fresh.ids.begin(), fresh.ids.end());
  const std::vector<ObjectId> ids = fresh.ids;
  if (!outcome.repeated) {
    instruction.answer = id;
    if (const auto node = nodes_.find(instruction.dst); node != nodes_.end())
      node->second.inbox.erase(instruction.sequence);
    fresh.message.sequence = next_sequence_++;
    PutMessage(run, fresh.message, changes);
    AddMessage(run, std::move(fresh));
  } else {
    for (auto& [name, session] : run.sessions)
      if (std::find(session.roots.begin(), session.roots.end(), id) != session.roots.end())
        pending = session.pending;
    CloseSessionsOf(run, id);
  }
  for (const ObjectId& object : ids)
    if (pending.contains(object)) outcome.objects_to_push.push_back(object);
  PushSession& session = OpenSession(run, node_id, now);
  session.pending = std::move(pending);
  session.roots.push_back(id);
  outcome.session_id = session.id;
  return outcome;
}

void State::Publish(RunId run_id, const std::vector<ObjectId>& roots, WallTime now) {
  Run* run = FindRun(run_id);
  if (!run) return;
  for (const ObjectId& id : roots) {
    const auto found = run->messages.find(id);
    if (found == run->messages.end() || found->second.complete) continue;
    found->second.complete = true;
    found->second.ready_at = now;
    if (found->second.is_instruction()) {
      Enqueue(run_id, found->second);
    } else {
      run->reply_waiters.WakeAll();
    }
  }
}

void State::Enqueue(RunId run_id, const Message& message) {
  if (message.dst == kSuperLinkNode) {
    if (!message.is_own() || message.answer) return;
    own_inbox_.emplace(message.sequence, std::pair(run_id, message.id));
    own_waiters_.WakeAll();
    return;
  }
  const auto node = nodes_.find(message.dst);
  if (node == nodes_.end() || message.touched || message.answer) return;
  node->second.inbox.emplace(message.sequence, std::pair(run_id, message.id));
  node->second.pull_waiters.WakeAll();
}

std::optional<Delivery> State::PullInstruction(NodeId node_id,
                                               const std::shared_ptr<Wakeable>& waiter,
                                               WallTime now) {
  const auto found = nodes_.find(node_id);
  if (found == nodes_.end()) return std::nullopt;
  auto& inbox = found->second.inbox;
  while (!inbox.empty()) {
    const auto [run_id, id] = inbox.begin()->second;
    Run* run = FindRun(run_id);
    const auto message = run ? run->messages.find(id) : decltype(run->messages.end()){};
    if (run && message != run->messages.end() && !message->second.Expired(now))
      return Delivery{id, run_id, message->second.bytes, message->second.ready_at};
    inbox.erase(inbox.begin());
  }
  if (waiter) found->second.pull_waiters.Add(waiter);
  return std::nullopt;
}

void State::TouchInstruction(Run& run, NodeId node_id, const ObjectId& id, Changes& changes) {
  const auto found = run.messages.find(id);
  if (found == run.messages.end()) return;
  Message& message = found->second;
  if (!message.is_instruction() || message.dst != node_id || message.touched) return;
  message.touched = true;
  changes.writes.push_back(store::TouchMessage{run.row.run_id, id, true});
  if (const auto node = nodes_.find(node_id); node != nodes_.end())
    node->second.inbox.erase(message.sequence);
}

std::shared_ptr<const MessageBytes> State::AnswerWithError(Run& run, const std::string& asked,
                                                           Message* instruction, int code,
                                                           std::string reason, WallTime now) {
  ErrorReplySpec spec;
  spec.run_id = run.row.run_id;
  spec.reply_to = asked;
  spec.code = code;
  spec.reason = std::move(reason);
  spec.created_at = UnixSeconds(now);
  spec.type = "system";
  spec.ttl = kTtlUnknown;
  if (instruction) {
    spec.group_id = instruction->group_id;
    spec.type = instruction->type;
    spec.ttl = instruction->created_at + instruction->ttl - spec.created_at;
  }
  ErrorReply made = MakeErrorReply(spec);
  NewMessage reply;
  reply.message.id = made.id;
  reply.message.sequence = next_sequence_++;
  reply.message.src = reply.message.dst = kSuperLinkNode;
  reply.message.reply_to = asked;
  reply.message.type = spec.type;
  reply.message.created_at = spec.created_at;
  reply.message.ttl = spec.ttl;
  reply.message.bytes = made.bytes;
  reply.message.complete = true;
  reply.message.made_here = true;
  reply.ids = {made.id};
  run.errors[asked] = made.id;
  if (instruction) {  // shown: whatever comes later is too late
    instruction->unshown = instruction->answer;
    instruction->answer = made.id;
  }
  AddMessage(run, std::move(reply));
  ObjectSlot& slot = run.objects.at(made.id);
  slot.available = true;
  slot.size = made.object.size();
  run.made_objects[made.id] = std::move(made.object);
  return made.bytes;
}

Collected State::CollectReplies(Run& run, const std::vector<std::string>& asked,
                                const std::shared_ptr<Wakeable>& waiter, WallTime now) {
  Collected collected;
  for (const std::string& text : asked) {
    if (const auto error = run.errors.find(text); error != run.errors.end()) {
      collected.messages.push_back(run.messages.at(error->second).bytes);
      continue;
    }
    const auto id = Digest::FromHex(text);
    const auto found = id.ok() ? run.messages.find(*id) : run.messages.end();
    if (found == run.messages.end() || !found->second.is_instruction() ||
        found->second.Expired(now)) {
      collected.messages.push_back(AnswerWithError(
          run, text, nullptr, kMessageUnavailable,
          "Message Unavailable - The requested message could not be found or has expired.", now));
      continue;
    }
    Message& instruction = found->second;
    const auto reply =
        instruction.answer ? run.messages.find(*instruction.answer) : run.messages.end();
    if (reply != run.messages.end() && reply->second.complete) {
      if (!reply->second.Expired(now)) {
        collected.messages.push_back(reply->second.bytes);
        collected.ready_at = std::max(collected.ready_at, reply->second.ready_at);
      } else {
        collected.messages.push_back(AnswerWithError(run, text, &instruction, kReplyUnavailable,
                                                     "The reply has expired.", now));
      }
      continue;
    }
    if (!instruction.is_own() && !Reachable(instruction.dst)) {
      const NodeId dst = instruction.dst;
      const auto bytes = instruction.bytes;
      collected.messages.push_back(AnswerWithError(run, text, &instruction, kNodeUnavailable,
                                                   fmt::format("SuperNode {} is not online.", dst),
                                                   now));
      if (dst == kSuperLinkNode) collected.messages.push_back(bytes);  // as Flower echoes it
      continue;
    }
    collected.all = false;
  }
  if (!collected.all && waiter) run.reply_waiters.Add(waiter);
  return collected;
}

void State::ConfirmReply(Run& run, const ObjectId& id, Changes& changes) {
  const auto found = run.messages.find(id);
  if (found == run.messages.end() || found->second.is_instruction()) return;
  const std::string asked = found->second.reply_to;
  run.errors.erase(asked);
  DropMessage(run, id, changes);
  const auto instruction_id = Digest::FromHex(asked);
  if (!instruction_id.ok()) return;
  const auto instruction = run.messages.find(*instruction_id);
  if (instruction == run.messages.end()) return;
  for (const auto& other : {instruction->second.answer, instruction->second.unshown})
    if (other) DropMessage(run, *other, changes);
  DropMessage(run, *instruction_id, changes);
}

void State::Withdraw(Run& run, const ObjectId& instruction, Changes& changes) {
  const auto found = run.messages.find(instruction);
  if (found == run.messages.end() || !found->second.is_instruction()) return;
  run.errors.erase(instruction.Hex());
  for (const auto& answer : {found->second.answer, found->second.unshown})
    if (answer) DropMessage(run, *answer, changes);
  DropMessage(run, instruction, changes);
}

void State::BoundReplies(Run& run, size_t replies) {
  Run::Room& room = run.room;
  room.replies = replies;
  room.let_in.clear();
  for (const auto& [id, message] : run.messages)
    if (replies > 0 && !message.is_instruction() && !message.made_here &&
        message.src != kSuperLinkNode)
      room.let_in.insert(message.src);
  room.wanted = false;
  room.waiters.WakeAll();
}

bool State::LetIn(Run& run, NodeId node_id, const std::shared_ptr<Wakeable>& waiter, WallTime now) {
  Run::Room& room = run.room;
  if (room.replies == 0 || node_id == kSuperLinkNode || room.let_in.contains(node_id)) return true;
  if (room.let_in.size() < room.replies) {
    room.let_in.insert(node_id);
    return true;
  }
  // Who waits here is not idle.
  for (auto& [name, session] : run.sessions)
    if (session.owner == node_id) session.expires_at = now + kSessionTime;
  if (waiter) room.waiters.Add(waiter);
  if (!std::exchange(room.wanted, true)) run.object_waiters.WakeAll();
  return false;
}

std::vector<Delivery> State::TakeOwn(const std::shared_ptr<Wakeable>& waiter) {
  std::vector<Delivery> found;
  for (const auto& [sequence, place] : std::exchange(own_inbox_, {})) {
    Run* run = FindRun(place.first);
    const auto message = run ? run->messages.find(place.second) : decltype(run->messages.end()){};
    if (!run || message == run->messages.end()) continue;
    found.push_back({place.second, place.first, message->second.bytes, message->second.ready_at});
  }
  own_waiters_.Add(waiter);
  return found;
}

bool State::AnswerOwn(Run& run, const ObjectId& instruction, NewMessage reply,
                      std::unordered_map<ObjectId, std::string> objects, WallTime now) {
  const auto found = run.messages.find(instruction);
  if (found == run.messages.end() || found->second.answer) return false;
  const ObjectId id = reply.message.id;
  reply.message.sequence = next_sequence_++;
  reply.message.complete = true;
  reply.message.ready_at = now;
  reply.message.made_here = true;
  found->second.answer = id;
  AddMessage(run, std::move(reply));
  for (auto& [object, bytes] : objects) {
    ObjectSlot& slot = run.objects.at(object);
    if (slot.available) continue;
    slot.available = true;
    slot.size = bytes.size();
    run.made_objects[object] = std::move(bytes);
  }
  run.reply_waiters.WakeAll();
  return true;
}

void State::PutSession(Run& run, store::SessionRow row, std::vector<ModelObject> objects,
                       Changes& changes) {
  Session& session = run.native_sessions[row.name];
  if (row.model_tree != session.row.model_tree) {
    std::vector<ObjectId> model;
    if (auto tree = tensor::ParseTree(row.model_tree); tree.ok()) model = std::move(tree->ids);
    for (const ObjectId& id : model) ++run.objects[id].holders;
    for (ModelObject& object : objects)
      KeepObject(run, std::move(object.row), std::move(object.extent), changes);
    ReleaseObjects(run, std::exchange(session.model, std::move(model)), changes);
  }
  changes.writes.push_back(store::PutSession{row});
  session.row = std::move(row);
}

void State::ModelStored(Run& run, const std::string& session) {
  const auto found = run.native_sessions.find(session);
  if (found == run.native_sessions.end()) return;
  for (const ObjectId& id : found->second.model)
    if (ObjectSlot& slot = run.objects.at(id); slot.row != 0) slot.available = true;
}

}  // namespace umbel::superlink
