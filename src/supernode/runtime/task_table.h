// The tasks of stock ClientApp processes: which token may work on which job, and what came of it.
// Hosts give jobs, the Runtime door serves them. Belongs to the node's io_context thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "base/wake.h"
#include "supernode/host.h"
#include "supernode/runtime/machine.h"

namespace boost::asio {
class io_context;
class thread_pool;
}  // namespace boost::asio

namespace umbel::supernode {

class ReplyIntake;

/// What a ClientApp has printed, a line at a time.
using OutputSink =
    std::function<void(RunId run_id, const std::string& message_id, std::string_view line)>;

/// How long a token is good for without a sign of life; Flower's own numbers.
struct TaskTimes {
  std::chrono::milliseconds claim{30'000};
  std::chrono::milliseconds heartbeat{60'000};
};

struct AppTask {
  using Steady = std::chrono::steady_clock;

  TaskId id;
  std::string token;  // "" while pending
  TaskState state = TaskState::kPending;
  bool claimed = false;               // by a SuperExec: if it lapses the job is pending again
  const Job* job = nullptr;           // lives until the task is finished, then null
  std::chrono::seconds wall_time{0};  // from the input on; 0: no limit
  uint64_t sequence = 0;              // pending tasks go out in this order
  WallTime pending_at;
  Steady::time_point alive_until = Steady::time_point::max();
  Steady::time_point wall_until = Steady::time_point::max();
  bool asked = false;                         // the process waits for its input
  std::optional<Steady::time_point> begun;    // it has its message
  std::optional<Steady::time_point> replied;  // it has announced its reply
  std::shared_ptr<ReplyIntake> reply;
  bool reply_opening = false;  // its spool is being made
  std::string refused;         // why its reply was not taken
  std::optional<std::string> context_state;
  /// How it ended: in words, for the case that its reply is not complete, or as what the host is
  /// to answer.
  std::optional<Result<std::string>> end;
  WaitList changed;  // of a held pull-task-input, and of Finish()
};
using AppTaskPtr = std::shared_ptr<AppTask>;

class TaskTable {
 public:
  /// All must outlive the table, and the pool's threads be joined before the context goes.
  TaskTable(boost::asio::io_context& context, boost::asio::thread_pool& pool, const Clock& clock,
            Rng& rng, TaskTimes times = {});

  // For hosts.
  /// A token for a process that is to wait for its job.
  AppTaskPtr Warm();
  /// wall_time  0: no limit.
  void Assign(AppTask& task, const Job& job, std::chrono::seconds wall_time);
  /// A job for whichever SuperExec asks first.
  AppTaskPtr Offer(const Job& job);
  /// Waits for the task's end. `job` is what was assigned or offered; it must live until then.
  /// errors  kCancelled; kUnavailable, kDeadlineExceeded: the process never asked for its input, or
  ///         was killed from outside;
  ///         kResourceExhausted: no room for an error reply.
  Task<Result<Outcome>> Finish(AppTaskPtr task, const Job& job);
  /// The process is gone: `how` as in "exited with status 1", `last_line` what it said last.
  /// from_outside  somebody has killed it: no fault of the app's, and worth another try unless its
  ///               reply is whole.
  void ProcessEnded(AppTask& task, const std::string& how, const std::string& last_line,
                    bool from_outside = false);
  void Cancel(AppTask& task);

  // For the door.
  /// errors  kRuntimeAuth: no live task has this token.
  Result<AppTaskPtr> FindByToken(std::string_view token);
  /// The oldest pending task with a token of its own, or null: then `waiter` hears of the next.
  AppTaskPtr Claim(const std::shared_ptr<Wakeable>& waiter);
  /// Nobody heard of the claim.
  void Unclaim(AppTask& task);
  void Heartbeat(AppTask& task);
  /// False: the task has ended.
  bool Begin(AppTask& task);
  /// The process says that it is done.
  void End(AppTask& task, std::string details, std::optional<std::string> context_state);

  Rng& rng() { return rng_; }
  const Clock& clock() const { return clock_; }
  boost::asio::thread_pool& pool() { return pool_; }
  size_t pending() const { return pending_.size(); }
  size_t tokens() const { return by_token_.size(); }

 private:
  using Steady = AppTask::Steady;

  bool Move(AppTask& task, TaskEvent event);
  void Finished(AppTask& task, TaskEvent event, Result<std::string> end);
  void Lapse(AppTask& task);
  AppTaskPtr Make(TaskState state);
  void Issue(const AppTaskPtr& task);
  void Requeue(AppTask& task);

  boost::asio::io_context& context_;
  boost::asio::thread_pool& pool_;
  const Clock& clock_;
  Rng& rng_;
  const TaskTimes times_;
  uint64_t sequence_ = 0;
  std::unordered_map<std::string, AppTaskPtr> by_token_;
  std::map<uint64_t, AppTaskPtr> pending_;  // by sequence
  WaitList claimers_;
};

}  // namespace umbel::supernode
