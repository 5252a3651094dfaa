// State: SuperNodes.
#include "flower/errors.h"
#include "superlink/state.h"

namespace umbel::superlink {
namespace wire = flower::wire;
using flower::WireError;
namespace {

constexpr double kHeartbeatIntervalMin = 10;
constexpr double kHeartbeatIntervalMax = 1800;
constexpr double kHeartbeatPatience = 2;

bool IntervalAllowed(double seconds) {
  return seconds >= kHeartbeatIntervalMin && seconds <= kHeartbeatIntervalMax;
}

tl::unexpected<Error> BadInterval(double seconds) {
  return WireError(wire::kHeartbeatInterval,
                   fmt::format("heartbeat interval {} not in [{}, {}] seconds", seconds,
                               kHeartbeatIntervalMin, kHeartbeatIntervalMax));
}

WallTime OnlineUntil(WallTime now, double interval) {
  return now + Micros(static_cast<int64_t>(interval * kHeartbeatPatience * 1e6));
}

}  // namespace

Node* State::LiveNode(NodeId node_id) {
  const auto found = nodes_.find(node_id);
  if (found == nodes_.end() || found->second.row.status == NodeStatus::kUnregistered)
    return nullptr;
  return &found->second;
}

bool State::SetNodeStatus(Node& node, NodeEvent event) {
  const auto next = Next(node.row.status, event);
  if (!next) return false;
  node.row.status = *next;
  return true;
}

Result<NodeId> State::RegisterNode(Registration registration, WallTime now, Changes& changes) {
  if (node_by_key_.contains(registration.public_key)) return WireError(wire::kPublicKeyInUse);
  Node node;
  node.row.node_id = NodeId{NewId()};
  node.row.public_key = std::move(registration.public_key);
  node.row.owner_aid = std::move(registration.owner_aid);
  node.row.owner_name = std::move(registration.owner_name);
  node.row.name = std::move(registration.name);
  node.row.location = std::move(registration.location);
  node.row.heartbeat_interval = registration.heartbeat_interval;
  node.row.registered_at = now;
  const NodeId node_id = node.row.node_id;
  node_by_key_.emplace(node.row.public_key, node_id);
  changes.writes.push_back(store::PutNode{node.row});
  nodes_.emplace(node_id, std::move(node));
  return node_id;
}

Result<NodeId> State::ActivateNode(const std::string& public_key, double interval, WallTime now,
                                   Changes& changes) {
  const auto found = node_by_key_.find(public_key);
  if (found == node_by_key_.end())
    return WireError(wire::kActivateFailed, "no SuperNode is registered with this public key");
  if (!IntervalAllowed(interval)) return BadInterval(interval);
  Node& node = nodes_.at(found->second);
  if (!SetNodeStatus(node, NodeEvent::kActivate))
    return WireError(wire::kActivateFailed,
                     fmt::format("SuperNode {} is {}", node.row.node_id, Name(node.row.status)));
  node.row.heartbeat_interval = interval;
  node.row.last_activated_at = now;
  node.row.online_until = OnlineUntil(now, interval);
  changes.writes.push_back(store::PutNode{node.row});
  node_waiters_.WakeAll();
  for (auto& [run_id, run] : runs_) {
    for (auto& [id, message] : run.messages) {
      if (message.dst != node.row.node_id || !message.touched || message.answer) continue;
      message.touched = false;
      changes.writes.push_back(store::TouchMessage{run_id, id, false});
      if (message.complete) Enqueue(run_id, message);
    }
  }
  return node.row.node_id;
}

Status State::DeactivateNode(NodeId node_id, WallTime now, Changes& changes) {
  Node* node = LiveNode(node_id);
  if (!node || !SetNodeStatus(*node, NodeEvent::kDeactivate))
    return WireError(wire::kDeactivateFailed, fmt::format("SuperNode {} is not online", node_id));
  node->row.last_deactivated_at = now;
  node->row.online_until = now;
  changes.writes.push_back(store::PutNode{node->row});
  for (auto& [run_id, run] : runs_) run.reply_waiters.WakeAll();
  return {};
}

Status State::UnregisterNode(NodeId node_id, WallTime now, Changes& changes) {
  Node* node = LiveNode(node_id);
  if (!node || !SetNodeStatus(*node, NodeEvent::kUnregister))
    return WireError(wire::kUnregisterFailed,
                     fmt::format("SuperNode {} is not registered", node_id));
  node->row.unregistered_at = now;
  node->row.online_until = std::min(node->row.online_until, now);
  changes.writes.push_back(store::PutNode{node->row});
  node->pull_waiters.WakeAll();
  for (auto& [run_id, run] : runs_) run.reply_waiters.WakeAll();
  return {};
}

Result<bool> State::NodeHeartbeat(NodeId node_id, double interval, WallTime now, Changes& changes) {
  if (!IntervalAllowed(interval)) return BadInterval(interval);
  Node* node = LiveNode(node_id);
  if (!node) return false;
  const NodeStatus before = node->row.status;
  SetNodeStatus(*node, NodeEvent::kHeartbeat);
  node->row.heartbeat_interval = interval;
  node->row.online_until = OnlineUntil(now, interval);
  // A heartbeat of a node that is online already changes nothing a restart would need.
  if (before != node->row.status) {
    node_waiters_.WakeAll();
    node->row.last_activated_at = now;
    changes.writes.push_back(store::PutNode{node->row});
  }
  return true;
}

const store::NodeRow* State::FindNode(NodeId node_id) const {
  const auto found = nodes_.find(node_id);
  return found == nodes_.end() ? nullptr : &found->second.row;
}

const store::NodeRow* State::FindNodeByKey(const std::string& public_key) const {
  const auto found = node_by_key_.find(public_key);
  return found == node_by_key_.end() ? nullptr : FindNode(found->second);
}

std::vector<store::NodeRow> State::ListNodes(bool online_only) const {
  std::vector<store::NodeRow> rows;
  for (const auto& [id, node] : nodes_)
    if (!online_only || node.row.status == NodeStatus::kOnline) rows.push_back(node.row);
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return std::tie(a.registered_at, a.node_id) < std::tie(b.registered_at, b.node_id);
  });
  return rows;
}

size_t State::online_nodes() const {
  size_t count = 0;
  for (const auto& [id, node] : nodes_) count += node.row.status == NodeStatus::kOnline;
  return count;
}

bool State::Reachable(NodeId node_id) const {
  const store::NodeRow* row = FindNode(node_id);
  return row && row->status == NodeStatus::kOnline;
}

}  // namespace umbel::superlink
