// The life of a task, which is one run of a stock ClientApp process, as a table.
#pragma once

#include <optional>
#include <string_view>

namespace umbel::supernode {

enum class TaskState {
  kWarm,      // a process has its token and no job yet
  kPending,   // a job waits for a SuperExec
  kStarting,  // token and job; the process has not asked for its input
  kRunning,
  kFinished,  // the token is worth nothing
};

enum class TaskEvent {
  kAssign,           // a warm process gets a job
  kClaim,            // a SuperExec takes a pending job
  kInputPulled,      // the process has its input; again when the answer was lost
  kClaimLapsed,      // a SuperExec's process never asked
  kHeartbeatLapsed,  // or never got so far, or ran too long
  kEnd,              // it said so, its process is gone, or nobody wants it any more
};

struct TaskTransition {
  TaskState from;
  TaskEvent event;
  TaskState to;
};

inline constexpr TaskTransition kTaskTransitions[] = {
    {TaskState::kWarm, TaskEvent::kAssign, TaskState::kStarting},
    {TaskState::kPending, TaskEvent::kClaim, TaskState::kStarting},
    {TaskState::kStarting, TaskEvent::kInputPulled, TaskState::kRunning},
    {TaskState::kRunning, TaskEvent::kInputPulled, TaskState::kRunning},
    {TaskState::kStarting, TaskEvent::kClaimLapsed, TaskState::kPending},
    {TaskState::kStarting, TaskEvent::kHeartbeatLapsed, TaskState::kFinished},
    {TaskState::kRunning, TaskEvent::kHeartbeatLapsed, TaskState::kFinished},
    {TaskState::kWarm, TaskEvent::kEnd, TaskState::kFinished},
    {TaskState::kPending, TaskEvent::kEnd, TaskState::kFinished},
    {TaskState::kStarting, TaskEvent::kEnd, TaskState::kFinished},
    {TaskState::kRunning, TaskEvent::kEnd, TaskState::kFinished},
};

constexpr std::optional<TaskState> Next(TaskState from, TaskEvent event) {
  for (const TaskTransition& row : kTaskTransitions)
    if (row.from == from && row.event == event) return row.to;
  return std::nullopt;
}

}  // namespace umbel::supernode
