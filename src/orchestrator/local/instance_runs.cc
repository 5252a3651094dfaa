// How an instance is started, and what is made of its end.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

#include "base/log.h"
#include "orchestrator/local/instances.h"
#include "orchestrator/local/keeper.h"
#include "process/process.h"
#include "process/watch.h"

namespace umbel::orchestrator {
namespace {

using std::chrono::milliseconds;
using Steady = Instance::Steady;

/// Whether trying again would give the same answer.
bool IsFinal(Code code) {
  return code == Code::kNotFound || code == Code::kFailedPrecondition ||
         code == Code::kPermissionDenied || code == Code::kInvalidArgument;
}

}  // namespace

void Instances::Set(Instance& instance, InstanceState state, std::string detail) {
  if (instance.status.state != state || instance.status.since == WallTime{})
    instance.status.since = clock_.Now();
  instance.status.state = state;
  instance.status.detail = std::move(detail);
  changed_ = true;
}

void Instances::SetDetail(Instance& instance, std::string detail) {
  if (instance.status.detail != detail) Set(instance, instance.status.state, std::move(detail));
}

void Instances::Persist(const Instance& instance) {
  // Should it fail, the next ground finds out again what this one knows.
  if (const Status written = WriteState(instance.folder, instance.Kept()); !written.ok())
    LogWarn("cannot write down the state of an instance",
            {{"instance", instance.spec.name}, {"error", written.error().message}});
}

void Instances::Start(Instance& instance) {
  instance.act_at.reset();
  Set(instance, InstanceState::kStarting,
      instance.last_end.empty() ? "" : "before: " + instance.last_end);
  instance.stage = Stage::kUp;
  if (const Status started = StartKeeper(instance); !started.ok())
    StartLater(instance, started.error().message);
}

Status Instances::StartKeeper(Instance& instance) {
  RemoveRecord(instance.folder);
  UMBEL_TRY(MakeDirectories(instance.spec.directory.empty() ? instance.folder + "/home"
                                                            : instance.spec.directory));
  KeeperOptions options;
  options.folder = instance.folder;
  options.node = instance.status.node;
  options.lock_file = LockPath(options_.folder);
  options.start = instance.status.starts + 1;
  options.previous = instance.last_end;
  options.log_bytes_max = options_.log_bytes_max;
  options.grace = options_.grace;
  options.orphan_grace = options_.orphan_grace;
  options.use_groups = machine_.uses_groups();
  options.bound_cpu = machine_.bounds_cpu();
  options.processes_max = options_.processes_max;
  UMBEL_ASSIGN(Keeper keeper, SpawnKeeper(options));
  instance.pid = keeper.pid;
  instance.start_ticks = keeper.start_ticks;
  ++instance.status.starts;
  // Written down before it does anything: whoever comes after our death finds it.
  Status ready = WriteState(instance.folder, instance.Kept());
  if (ready.ok()) ready = Follow(keeper.pidfd.get(), 2 * instance.id);
  if (ready.ok()) ready = Follow(keeper.report.get(), 2 * instance.id + 1);
  if (ready.ok()) ready = keeper.Open();
  if (!ready.ok()) {
    --instance.status.starts;
    instance.pid = 0;
    ::kill(keeper.pid, SIGKILL);  // it is ours, and not reaped
    ::waitpid(keeper.pid, nullptr, 0);
    return ready;
  }
  instance.pidfd = std::move(keeper.pidfd);
  instance.report = std::move(keeper.report);
  instance.started = Steady::now();
  instance.adopted = false;
  return {};
}

void Instances::TakeReport(Instance& instance) {
  char byte;
  const bool runs = ::read(instance.report.get(), &byte, 1) == 1;
  instance.report.Close();
  if (!runs || instance.stage != Stage::kUp) return;
  Set(instance, InstanceState::kRunning, instance.status.detail);
  Persist(instance);
}

/// Its keeper is gone: what next?
void Instances::TakeEnd(uint64_t id, bool rebooted) {
  Instance& instance = instances_.at(id);
  if (instance.pidfd.valid()) process::Reap(instance.pidfd.get());
  instance.pidfd.Close();
  instance.report.Close();
  const Record record = ReadRecord(instance.folder);
  if (record.phase == Phase::kRunning && !rebooted) Sweep(instance, record);
  instance.pid = 0;
  instance.start_ticks = 0;
  instance.act_at.reset();
  if (!instance.wanted) return Forget(id);
  Judge(instance, record, rebooted);
  for (auto& waiting : std::exchange(instance.gone, {})) waiting.set_value();
}

/// The keeper was killed: nobody has ended what it kept.
void Instances::Sweep(const Instance& instance, const Record& record) {
  if (const Status ended = process::EndTree({record.pid, record.start_ticks}, milliseconds(0));
      !ended.ok())
    LogWarn("an instance whose keeper was killed does not end",
            {{"instance", instance.spec.name}, {"error", ended.error().message}});
  machine_.ClearStaleGroups();
}

void Instances::Judge(Instance& instance, const Record& record, bool rebooted) {
  const bool asked = instance.stage == Stage::kEnding || record.told_to || rebooted;
  const bool one_shot = instance.spec.one_shot;
  if (record.phase == Phase::kEnded && !record.told_to) {
    if (one_shot)
      Over(instance, record.status == 0 ? InstanceState::kCompleted : InstanceState::kFailed,
           record.detail);
    else
      StartLater(instance, record.detail);
  } else if (record.phase == Phase::kNotStarted) {
    if (one_shot && IsFinal(record.code))
      Over(instance, InstanceState::kFailed, record.detail);
    else
      StartLater(instance, record.detail);
  } else if (asked || (record.phase == Phase::kNotBegun && instance.adopted)) {
    // None of its own doing: again at once, there or elsewhere.
    instance.last_end = rebooted         ? "the machine was restarted"
                        : record.told_to ? record.detail
                                         : instance.last_end;
    instance.stage = Stage::kDue;
    instance.act_at = Steady::now();
    Set(instance, InstanceState::kWaiting,
        shut_down_ ? "the ground is shut down" : instance.last_end);
    Persist(instance);
  } else if (record.phase == Phase::kNotBegun) {
    StartLater(instance, "its keeper ended before it could begin; is the disk full?");
  } else if (one_shot) {
    Over(instance, InstanceState::kFailed, "its keeper was killed, and it with it");
  } else {
    StartLater(instance, "its keeper was killed, and it with it");
  }
}

void Instances::Over(Instance& instance, InstanceState state, const std::string& detail) {
  instance.stage = Stage::kOver;
  instance.seat.clear();
  Set(instance, state, detail);
  Persist(instance);
}

std::chrono::milliseconds Instances::Backoff(uint32_t failures) const {
  milliseconds delay = options_.backoff_min;
  for (uint32_t i = 0; i < failures && delay < options_.backoff_max; ++i) delay *= 2;
  return std::min(delay, options_.backoff_max);
}

void Instances::StartLater(Instance& instance, const std::string& why) {
  if (Steady::now() - instance.started >= options_.healthy_after) instance.failures = 0;
  const milliseconds delay = Backoff(instance.failures++);
  instance.last_end = why;
  instance.stage = Stage::kDue;
  instance.act_at = Steady::now() + delay;
  Set(instance, InstanceState::kFailed,
      fmt::format("{}; it is started again in {:.3g} s", why,
                  std::chrono::duration<double>(delay).count()));
  Persist(instance);
}

}  // namespace umbel::orchestrator
