#include "supernode/runtime/task_table.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>

#include "base/log.h"
#include "flower/errors.h"
#include "http/tasks.h"
#include "supernode/runtime/reply.h"
#include "supernode/runtime/waiter.h"

namespace umbel::supernode {
namespace {

constexpr size_t kTokenBytes = 128;
constexpr size_t kLastLineMax = 300;

/// Why a task whose process said that it is done has no complete reply.
std::string WithoutReply(const AppTask& task, const std::string& details) {
  if (!task.refused.empty()) return fmt::format("Its reply was refused: {}.", task.refused);
  if (task.reply) return "It ended before all of its reply was here.";
  if (details.empty()) return "It ended without a reply.";
  return fmt::format("It ended without a reply: {}", details);
}

}  // namespace

TaskTable::TaskTable(boost::asio::io_context& context, boost::asio::thread_pool& pool,
                     const Clock& clock, Rng& rng, TaskTimes times)
    : context_(context), pool_(pool), clock_(clock), rng_(rng), times_(times) {}

AppTaskPtr TaskTable::Make(TaskState state) {
  auto task = std::make_shared<AppTask>();
  task->id = TaskId{rng_.U64()};
  task->state = state;
  task->sequence = ++sequence_;
  task->pending_at = clock_.Now();
  return task;
}

void TaskTable::Issue(const AppTaskPtr& task) {
  task->token = rng_.Hex(kTokenBytes);
  by_token_.emplace(task->token, task);
}

AppTaskPtr TaskTable::Warm() {
  AppTaskPtr task = Make(TaskState::kWarm);
  Issue(task);
  return task;
}

void TaskTable::Assign(AppTask& task, const Job& job, std::chrono::seconds wall_time) {
  if (!Move(task, TaskEvent::kAssign)) return;  // it has ended; Finish will say so
  task.job = &job;
  task.wall_time = wall_time;
  task.alive_until = Steady::now() + times_.heartbeat;
  task.changed.WakeAll();
}

AppTaskPtr TaskTable::Offer(const Job& job) {
  AppTaskPtr task = Make(TaskState::kPending);
  task->job = &job;
  pending_.emplace(task->sequence, task);
  claimers_.WakeAll();
  return task;
}

Task<Result<Outcome>> TaskTable::Finish(AppTaskPtr task, const Job& job) {
  const auto waiter = std::make_shared<Waiter>(context_.get_executor());
  for (;;) {
    Lapse(*task);
    // Its spool is where an error's would be: not both at once.
    if (task->end && !task->reply_opening) break;
    task->changed.Add(waiter);
    co_await waiter->Wait(task->end ? Steady::time_point::max()
                                    : std::min(task->alive_until, task->wall_until));
  }
  if (!task->end->ok()) co_return Fail(task->end->error());
  Outcome outcome;
  outcome.state = std::move(task->context_state);
  if (task->begun) {
    const auto took = task->replied.value_or(Steady::now()) - *task->begun;
    outcome.runtime_seconds = std::chrono::duration<double>(took).count();
  }
  if (task->reply && task->reply->complete()) {
    outcome.reply = task->reply->parcel();
    co_return outcome;
  }
  flower::MessageError error;
  error.code = static_cast<int64_t>(ReplyError::kCrashed);
  error.reason = "ClientApp stopped responding. " + **task->end;
  flower::MessageHead head = flower::ReplyHead(job.instruction.head, UnixSeconds(clock_.Now()));
  auto make = [head = std::move(head), error = std::move(error),
               path = job.spool_path]() -> Result<flower::Parcel> {
    UMBEL_ASSIGN(auto spool, FreshSpool(path));
    return flower::MakeErrorParcel(head, error, std::move(spool));
  };
  Result<flower::Parcel> parcel = co_await http::RunOn(pool_, std::move(make));
  if (!parcel.ok()) co_return Fail(parcel.error());
  outcome.reply = std::move(*parcel);
  co_return outcome;
}

void TaskTable::ProcessEnded(AppTask& task, const std::string& how, const std::string& last_line,
                             bool from_outside) {
  if (task.state == TaskState::kRunning) {
    if (from_outside && !(task.reply && task.reply->complete())) {
      Finished(task, TaskEvent::kEnd,
               Fail(Code::kUnavailable, fmt::format("The process of the ClientApp {}.", how)));
      return;
    }
    Finished(task, TaskEvent::kEnd,
             fmt::format("Its process {}.{}{}", how, last_line.empty() ? "" : " Its last words: ",
                         last_line.substr(0, kLastLineMax)));
    return;
  }
  Finished(
      task, TaskEvent::kEnd,
      Fail(Code::kUnavailable, fmt::format("flwr-clientapp {} before it asked for its task{}{}",
                                           how, last_line.empty() ? "" : ": ", last_line)));
}

void TaskTable::Cancel(AppTask& task) {
  Finished(task, TaskEvent::kEnd, Fail(Code::kCancelled, "the run is over"));
}

Result<AppTaskPtr> TaskTable::FindByToken(std::string_view token) {
  const auto found = by_token_.find(std::string(token));
  if (found == by_token_.end()) return flower::WireError(flower::wire::kRuntimeAuth);
  AppTaskPtr task = found->second;
  Lapse(*task);
  if (task->token != token) return flower::WireError(flower::wire::kRuntimeAuth);
  return task;
}

AppTaskPtr TaskTable::Claim(const std::shared_ptr<Wakeable>& waiter) {
  if (pending_.empty()) {
    claimers_.Add(waiter);
    return nullptr;
  }
  AppTaskPtr task = pending_.begin()->second;
  UMBEL_CHECK(Move(*task, TaskEvent::kClaim));
  pending_.erase(pending_.begin());
  Issue(task);
  task->claimed = true;
  task->alive_until = Steady::now() + times_.claim;
  task->changed.WakeAll();
  return task;
}

void TaskTable::Unclaim(AppTask& task) {
  if (task.claimed) Requeue(task);
}

void TaskTable::Requeue(AppTask& task) {
  if (!Next(task.state, TaskEvent::kClaimLapsed)) return;
  const auto found = by_token_.find(task.token);
  UMBEL_CHECK(found != by_token_.end());
  pending_.emplace(task.sequence, found->second);
  Move(task, TaskEvent::kClaimLapsed);
  by_token_.erase(found);
  task.token.clear();
  task.claimed = false;
  task.begun.reset();
  task.alive_until = Steady::time_point::max();
  task.changed.WakeAll();
  claimers_.WakeAll();
}

void TaskTable::Heartbeat(AppTask& task) {
  // Finish() looks again when the old time has come: no need to wake it.
  if (task.job) task.alive_until = Steady::now() + times_.heartbeat;
}

bool TaskTable::Begin(AppTask& task) {
  const bool again = task.state == TaskState::kRunning;
  if (!Move(task, TaskEvent::kInputPulled)) return false;
  const auto now = Steady::now();
  task.alive_until = now + times_.heartbeat;
  if (!again && task.wall_time.count() > 0) task.wall_until = now + task.wall_time;
  task.changed.WakeAll();
  return true;
}

void TaskTable::End(AppTask& task, std::string details, std::optional<std::string> context_state) {
  if (task.state == TaskState::kFinished) return;
  if (context_state) task.context_state = std::move(context_state);
  Finished(task, TaskEvent::kEnd, WithoutReply(task, details));
}

bool TaskTable::Move(AppTask& task, TaskEvent event) {
  const auto next = Next(task.state, event);
  if (next) task.state = *next;
  return next.has_value();
}

void TaskTable::Finished(AppTask& task, TaskEvent event, Result<std::string> end) {
  if (!Move(task, event)) return;
  UMBEL_CHECK(task.state == TaskState::kFinished);
  task.job = nullptr;
  task.end = std::move(end);
  task.changed.WakeAll();
  // Last, and by values of our own: the table may hold the only reference.
  const uint64_t sequence = task.sequence;
  const std::string token = std::exchange(task.token, "");
  pending_.erase(sequence);
  by_token_.erase(token);
}

void TaskTable::Lapse(AppTask& task) {
  if (task.state == TaskState::kFinished) return;
  const auto now = Steady::now();
  if (now >= task.wall_until) {
    Finished(
        task, TaskEvent::kHeartbeatLapsed,
        fmt::format("It had not answered after {} s, this site's limit.", task.wall_time.count()));
  } else if (now < task.alive_until) {
    return;
  } else if (task.state == TaskState::kRunning) {
    Finished(task, TaskEvent::kHeartbeatLapsed,
             fmt::format("Nothing was heard of it for {} s.",
                         std::chrono::duration<double>(times_.heartbeat).count()));
  } else if (task.claimed) {
    LogWarn("a SuperExec's process did not ask for its task; the task is pending again",
            {{"task_id", task.id}});
    Requeue(task);
  } else {
    Finished(task, TaskEvent::kHeartbeatLapsed,
             Fail(Code::kDeadlineExceeded, "flwr-clientapp did not ask for its task in time"));
  }
}

}  // namespace umbel::supernode
