// The state machines of nodes and tasks as tables. The doors ask; only these tables answer.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "store/rows.h"

namespace umbel::superlink {

using store::NodeStatus;
using store::TaskStatus;

template <typename State, typename Event>
struct Transition {
  State from;
  Event event;
  State to;
};

enum class NodeEvent { kActivate, kHeartbeat, kLapse, kDeactivate, kUnregister };

/// Flower 1.41, with one addition: an online node may activate again, which is how a SuperNode that
/// was killed comes back at once instead of after its heartbeats have lapsed.
inline constexpr Transition<NodeStatus, NodeEvent> kNodeTransitions[] = {
    {NodeStatus::kRegistered, NodeEvent::kActivate, NodeStatus::kOnline},
    {NodeStatus::kOffline, NodeEvent::kActivate, NodeStatus::kOnline},
    {NodeStatus::kOnline, NodeEvent::kActivate, NodeStatus::kOnline},
    {NodeStatus::kRegistered, NodeEvent::kHeartbeat, NodeStatus::kOnline},
    {NodeStatus::kOffline, NodeEvent::kHeartbeat, NodeStatus::kOnline},
    {NodeStatus::kOnline, NodeEvent::kHeartbeat, NodeStatus::kOnline},
    {NodeStatus::kOnline, NodeEvent::kLapse, NodeStatus::kOffline},
    {NodeStatus::kOnline, NodeEvent::kDeactivate, NodeStatus::kOffline},
    {NodeStatus::kRegistered, NodeEvent::kUnregister, NodeStatus::kUnregistered},
    {NodeStatus::kOnline, NodeEvent::kUnregister, NodeStatus::kUnregistered},
    {NodeStatus::kOffline, NodeEvent::kUnregister, NodeStatus::kUnregistered},
};

enum class TaskEvent {
  kAcquire,
  kInputPulled,
  kClaimLapsed,
  kHeartbeatLapsed,
  kComplete,
  kFail,
  kStop
};

inline constexpr Transition<TaskStatus, TaskEvent> kTaskTransitions[] = {
    {TaskStatus::kPending, TaskEvent::kAcquire, TaskStatus::kStarting},
    {TaskStatus::kStarting, TaskEvent::kInputPulled, TaskStatus::kRunning},
    {TaskStatus::kStarting, TaskEvent::kClaimLapsed, TaskStatus::kPending},
    {TaskStatus::kRunning, TaskEvent::kHeartbeatLapsed, TaskStatus::kFinished},
    {TaskStatus::kRunning, TaskEvent::kComplete, TaskStatus::kFinished},
    {TaskStatus::kPending, TaskEvent::kFail, TaskStatus::kFinished},
    {TaskStatus::kStarting, TaskEvent::kFail, TaskStatus::kFinished},
    {TaskStatus::kRunning, TaskEvent::kFail, TaskStatus::kFinished},
    {TaskStatus::kPending, TaskEvent::kStop, TaskStatus::kFinished},
    {TaskStatus::kStarting, TaskEvent::kStop, TaskStatus::kFinished},
    {TaskStatus::kRunning, TaskEvent::kStop, TaskStatus::kFinished},
};

template <typename State, typename Event>
constexpr std::optional<State> Next(std::span<const Transition<State, Event>> table, State from,
                                    Event event) {
  for (const auto& row : table)
    if (row.from == from && row.event == event) return row.to;
  return std::nullopt;
}
constexpr std::optional<NodeStatus> Next(NodeStatus from, NodeEvent event) {
  return Next<NodeStatus, NodeEvent>(kNodeTransitions, from, event);
}
constexpr std::optional<TaskStatus> Next(TaskStatus from, TaskEvent event) {
  return Next<TaskStatus, TaskEvent>(kTaskTransitions, from, event);
}

constexpr std::string_view Name(NodeStatus status) {
  switch (status) {
    case NodeStatus::kRegistered:
      return "registered";
    case NodeStatus::kOnline:
      return "online";
    case NodeStatus::kOffline:
      return "offline";
    case NodeStatus::kUnregistered:
      return "unregistered";
  }
  return "";
}
constexpr std::string_view Name(TaskStatus status) {
  switch (status) {
    case TaskStatus::kPending:
      return "pending";
    case TaskStatus::kStarting:
      return "starting";
    case TaskStatus::kRunning:
      return "running";
    case TaskStatus::kFinished:
      return "finished";
  }
  return "";
}

}  // namespace umbel::superlink
