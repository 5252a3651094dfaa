#include "superlink/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/guarded.h"
#include "base/log.h"
#include "process/process.h"
#include "superlink/run_output.h"
#include "superlink/serverapp_sources.h"

namespace umbel::superlink {
using process::GatedProcess;
using process::GuardSpec;
using process::OpenPidFd;
using process::Reap;
using process::SignalGroup;
using process::SpawnGuard;
using process::WaitForEnd;
namespace {

using Steady = std::chrono::steady_clock;

constexpr uint32_t kLaunchesMax = 3;
constexpr std::chrono::seconds kExitGrace{10};  // after the run's end; then SIGTERM
constexpr std::chrono::seconds kTermGrace{5};   // then SIGKILL
constexpr std::chrono::milliseconds kQuiet{60'000};
constexpr std::chrono::milliseconds kUnfollowed{300};

/// What became of a run whose process is gone.
enum class Next { kOver, kAnother, kRequeue, kCompleted, kLost };

std::string_view Name(Next next) {
  switch (next) {
    case Next::kOver:
    case Next::kAnother:
      break;
    case Next::kRequeue:
      return "started again";
    case Next::kCompleted:
      return "run completed";
    case Next::kLost:
      return "run failed";
  }
  return "";
}

enum class Ending { kRuns, kLeaving, kTermed, kKilled };

struct Process {
  RunId run_id;
  pid_t pid = 0;
  Fd pidfd;
  std::string directory;
  std::shared_ptr<RunOutput> output;  // null: of a run that was over before we began
  Ending ending = Ending::kRuns;
  Steady::time_point act_at;
};

/// The process of a note "pid start-time", if it is still that one.
Fd OpenNoted(const std::string& note, pid_t* pid) {
  long long number = 0;
  unsigned long long ticks = 0;
  if (std::sscanf(note.c_str(), "%lld %llu", &number, &ticks) != 2) return Fd();
  *pid = static_cast<pid_t>(number);
  return OpenPidFd(*pid, ticks);
}

class LauncherImpl final : public Launcher {
 public:
  LauncherImpl(const Options& options, Engine& engine, std::string address, std::string directory,
               std::string lock_file)
      : options_(options),
        engine_(engine),
        address_(std::move(address)),
        directory_(std::move(directory)),
        lock_file_(std::move(lock_file)),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}
  ~LauncherImpl() override { Stop(false); }

  Status Begin() {
    UMBEL_TRY(MakeDirectories(directory_));
    const std::string state = std::filesystem::path(directory_).parent_path().string();
    UMBEL_ASSIGN(python_path_,
                 flower::WritePackage(ServerAppSources(), state + "/python", "umbel/serverapp"));
    Adopt();
    thread_ = std::jthread([this](std::stop_token stop) { Loop(stop); });
    Notify();
    return {};
  }

  void Notify() override {
    const uint64_t one = 1;
    static_cast<void>(!::write(event_.get(), &one, sizeof one));
  }

  void Flush(RunId run_id) override {
    const auto output = outputs_.With([&](auto& outputs) {
      const auto found = outputs.find(run_id);
      return found == outputs.end() ? nullptr : found->second;
    });
    if (output) output->Drain(false);
  }

  void Stop(bool end_them) override {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    Notify();
    thread_.join();
    if (end_them) {
      for (Process& process : processes_) SignalGroup(process.pid, SIGTERM);
      const auto until = Steady::now() + kTermGrace;
      for (Process& process : processes_) {
        WaitForEnd(process.pidfd.get(), Left(until));
        SignalGroup(process.pid, SIGKILL);
        Reap(process.pidfd.get());
      }
    } else if (!processes_.empty()) {
      LogInfo("ServerApps go on and wait for the next SuperLink of this state",
              {{"count", processes_.size()}, {"seconds", options_.orphan_grace.count()}});
    }
  }

 private:
  std::string FolderOf(RunId run_id) const { return fmt::format("{}/{}", directory_, run_id); }

  void Loop(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (options_.isolation == Isolation::kSubprocess) LaunchPending();
      EndFinished();
      Wait();
      for (size_t i = 0; i < processes_.size();) {
        if (WaitForEnd(processes_[i].pidfd.get(), std::chrono::milliseconds(0))) {
          Finished(processes_[i]);
          processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
          ++i;
        }
      }
    }
    for (Process& process : processes_) Flush(process.run_id);
  }

  static std::chrono::milliseconds Left(Steady::time_point until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Steady::now());
    return std::max(left, std::chrono::milliseconds(0));
  }

  /// Until something happens: a task, an end, output; or until a process that is to end is due.
  void Wait() {
    std::vector<pollfd> entries{{event_.get(), POLLIN, 0}, {inotify_.get(), POLLIN, 0}};
    auto patience = followed_ ? kQuiet : kUnfollowed;
    for (const Process& process : processes_) {
      entries.push_back({process.pidfd.get(), POLLIN, 0});
      if (process.ending != Ending::kRuns) patience = std::min(patience, Left(process.act_at));
    }
    ::poll(entries.data(), entries.size(), static_cast<int>(patience.count()));
    uint64_t count;
    static_cast<void>(!::read(event_.get(), &count, sizeof count));
    alignas(inotify_event) char events[16384];
    if (::read(inotify_.get(), events, sizeof events) > 0 || !followed_)
      for (const Process& process : processes_) Flush(process.run_id);
  }

  void Follow(Process& process, TaskId task_id, uint64_t offset) {
    const std::string path = process.directory + "/output";
    process.output = outputs_.With([&](auto& outputs) {
      std::shared_ptr<RunOutput>& output = outputs[process.run_id];
      if (!output)
        output = std::make_shared<RunOutput>(engine_, process.run_id, task_id, path, offset);
      return output;
    });
    // Without a watch (the machine's limits are low) the file is looked at now and then.
    if (::inotify_add_watch(inotify_.get(), path.c_str(), IN_MODIFY) < 0) followed_ = false;
  }

  /// Finds the ServerApps that an earlier SuperLink has started.
  void Adopt() {
    struct Known {
      RunId run_id;
      TaskId task_id;
      pid_t pid;
      uint64_t ticks;
      uint64_t offset;
    };
    const auto known = engine_.Read([](State& state, WallTime) {
      std::vector<Known> out;
      for (const auto& [run_id, run] : state.runs())
        if (run.task.pid != 0)
          out.push_back({run_id, run.task.task_id, static_cast<pid_t>(run.task.pid),
                         run.task.pid_start_ticks, run.task.output_offset});
      return out;
    });
    for (const Known& k : known) {
      Process process;
      process.run_id = k.run_id;
      process.pid = k.pid;
      process.directory = FolderOf(k.run_id);
      process.pidfd = OpenPidFd(k.pid, k.ticks);
      Follow(process, k.task_id, k.offset);
      Flush(k.run_id);
      if (process.pidfd.valid()) {
        LogInfo("took over a ServerApp", {{"run_id", k.run_id}, {"pid", k.pid}});
        processes_.push_back(std::move(process));
      } else {
        Finished(process);
      }
    }
    if (options_.isolation == Isolation::kSubprocess) RequeueUnlaunched();
    TidyFolders();
  }

  /// Claimed by a SuperLink that died before it launched anything.
  void RequeueUnlaunched() {
    engine_.Apply([](State& state, WallTime, Changes& changes) {
      std::vector<RunId> unlaunched;
      for (const auto& [run_id, run] : state.runs())
        if (run.task.status == TaskStatus::kStarting && run.task.pid == 0)
          unlaunched.push_back(run_id);
      for (const RunId run_id : unlaunched) state.RequeueTask(*state.FindRun(run_id), changes);
    });
  }

  /// Folders of runs that were over when the last SuperLink died. Their ServerApps were leaving.
  void TidyFolders() {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
      Process process;
      const std::string name = entry.path().filename().string();
      process.run_id = RunId{std::strtoull(name.c_str(), nullptr, 10)};
      process.directory = entry.path().string();
      if (IsLive(process.run_id)) continue;
      const auto note = ReadFile(process.directory + "/process", 4096);
      if (note.ok()) process.pidfd = OpenNoted(*note, &process.pid);
      if (process.pidfd.valid()) {
        process.ending = Ending::kLeaving;
        process.act_at = Steady::now() + kExitGrace;
        processes_.push_back(std::move(process));
      } else {
        std::filesystem::remove_all(entry.path(), error);
      }
    }
  }

  bool IsLive(RunId run_id) {
    return engine_.Read([&](State& state, WallTime) { return state.FindRun(run_id) != nullptr; });
  }

  void LaunchPending() {
    for (;;) {
      struct Claim {
        RunId run_id;
        TaskId task_id;
        std::string token;
      };
      auto [claim, commit] =
          engine_.Apply([](State& state, WallTime now, Changes& changes) -> std::optional<Claim> {
            Run* run = state.AcquireTask({"flwr-serverapp"}, now, changes);
            if (!run) return std::nullopt;
            return Claim{run->row.run_id, run->task.task_id, run->task.token};
          });
      static_cast<void>(commit);  // the row with the process, below, is waited for
      if (!claim) return;
      EndEarlier(claim->run_id);
      if (const Status started = Launch(claim->run_id, claim->task_id, claim->token);
          !started.ok()) {
        LogError("cannot start a ServerApp",
                 {{"run_id", claim->run_id}, {"error", started.error().message}});
        Fail(claim->run_id, started.error().message);
      }
    }
  }

  /// A process whose task was given up as never begun: one run, one ServerApp.
  void EndEarlier(RunId run_id) {
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (processes_[i].run_id != run_id) continue;
      Process process = std::move(processes_[i]);
      processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(i));
      LogWarn("a ServerApp did not begin in time; it is ended and started anew",
              {{"run_id", run_id}, {"pid", process.pid}});
      SignalGroup(process.pid, SIGKILL);
      WaitForEnd(process.pidfd.get(), kTermGrace);
      Finished(process);
      return;
    }
  }

  Status Launch(RunId run_id, TaskId task_id, const std::string& token) {
    Process process;
    process.run_id = run_id;
    process.directory = FolderOf(run_id);
    UMBEL_TRY(MakeDirectories(process.directory));
    UMBEL_TRY(WriteFileAtomic(process.directory + "/token", token));
    GuardSpec spec;
    spec.lock_file = lock_file_;
    spec.status_file = process.directory + "/status";
    spec.output_file = process.directory + "/output";
    spec.orphan_seconds = options_.orphan_grace.count();
    spec.command = {options_.serverapp_command, "--runtime-api-address", address_, "--token-file",
                    process.directory + "/token"};
    if (options_.insecure) {
      spec.command.emplace_back("--insecure");
    } else if (!options_.ssl_ca_certfile.empty()) {
      spec.command.emplace_back("--root-certificates");
      spec.command.push_back(options_.ssl_ca_certfile);
    }
    if (options_.install_dependencies)
      spec.command.emplace_back("--allow-runtime-dependency-installation");
    spec.python_path = python_path_;
    ::unlink(spec.status_file.c_str());
    UMBEL_ASSIGN(GatedProcess child, SpawnGuard(spec));
    process.pid = child.pid;
    process.pidfd = OpenPidFd(child.pid, child.start_ticks);
    if (!process.pidfd.valid()) {
      const Error error = SystemError("watch", "umbel guard");
      child.gate.Close();
      ::waitpid(child.pid, nullptr, 0);
      return umbel::Fail(error);
    }
    // Written down before it runs: a SuperLink that starts after our death finds it.
    auto [offset, commit] = engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      Run* run = state.FindRun(run_id);
      if (!run) return uint64_t{0};
      state.TaskLaunched(*run, child.pid, child.start_ticks, now, changes);
      return run->task.output_offset;
    });
    static_cast<void>(commit);  // Drain, below, waits for it too
    Follow(process, task_id, offset);
    const std::string note = process.directory + "/process";
    processes_.push_back(std::move(process));
    UMBEL_TRY(WriteFileAtomic(note, fmt::format("{} {}\n", child.pid, child.start_ticks)));
    UMBEL_TRY(engine_.store().Drain());
    UMBEL_TRY(child.Open());
    LogInfo("ServerApp started", {{"run_id", run_id}, {"pid", child.pid}});
    return {};
  }

  /// Ends the processes whose run has ended, the polite way first.
  void EndFinished() {
    const auto now = Steady::now();
    for (Process& process : processes_) {
      if (process.ending == Ending::kRuns) {
        if (IsLive(process.run_id)) continue;
        process.ending = Ending::kLeaving;
        process.act_at = now + kExitGrace;
      } else if (now < process.act_at) {
        continue;
      } else if (process.ending == Ending::kLeaving) {
        SignalGroup(process.pid, SIGTERM);
        process.ending = Ending::kTermed;
        process.act_at = now + kTermGrace;
      } else {
        SignalGroup(process.pid, SIGKILL);
        process.ending = Ending::kKilled;
        process.act_at = now + kTermGrace;
      }
    }
  }

  void Fail(RunId run_id, const std::string& details) {
    engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      state.FinishTask(run_id, TaskEvent::kFail, details, now, changes);
    });
  }

  /// The process is gone: its run goes on only if it had already ended, or had not begun.
  void Finished(Process& process) {
    // What it left in its group has no parent any more. Before it is reaped its number is its own.
    SignalGroup(process.pid, SIGKILL);
    if (process.pidfd.valid()) Reap(process.pidfd.get());
    if (process.output) process.output->Drain(true);
    const auto status = ReadFile(process.directory + "/status", 4096);
    const std::string end = status.ok() ? *status : "ended, nobody saw how";
    const bool unheard =
        end == "exited with status 0" && process.output && process.output->EndsUnheard();
    // Not within Apply: the output's lock comes before the engine's, as in Drain.
    const std::string said = process.output ? process.output->last_line() : "";
    auto [next, commit] = engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      Run* run = state.FindRun(process.run_id);
      if (!run) return Next::kOver;
      if (run->task.pid != process.pid) return Next::kAnother;
      run->task.pid = 0;
      if (run->task.status == TaskStatus::kRunning) {
        const std::string note = fmt::format("[umbel] the ServerApp's process {}{}\n", end,
                                             unheard ? "; no SuperLink was there to hear it" : "");
        changes.writes.push_back(store::AppendLog{{process.run_id, run->task.task_id, now, note}});
        if (unheard)
          state.FinishTask(process.run_id, TaskEvent::kComplete, "", now, changes);
        else
          state.FinishTask(process.run_id, TaskEvent::kHeartbeatLapsed,
                           "No heartbeat received from the task", now, changes);
        return unheard ? Next::kCompleted : Next::kLost;
      }
      const bool exec_failed = end.starts_with("cannot start");
      if (run->task.launches < kLaunchesMax && !exec_failed) {
        state.RequeueTask(*run, changes);
        return Next::kRequeue;
      }
      state.FinishTask(
          process.run_id, TaskEvent::kFail,
          fmt::format("flwr-serverapp {} before it began{}{}", end, said.empty() ? "" : ": ", said),
          now, changes);
      return Next::kLost;
    });
    static_cast<void>(commit);  // whoever waits for the run's end waits for its row
    if (next == Next::kRequeue || next == Next::kLost || next == Next::kCompleted)
      LogWarn("a ServerApp ended before its run",
              {{"run_id", process.run_id}, {"end", end}, {"next", Name(next)}});
    if (next == Next::kRequeue) Notify();
    if (next == Next::kRequeue || next == Next::kAnother) return;  // the folder is in use
    outputs_.With([&](auto& outputs) { outputs.erase(process.run_id); });
    std::error_code error;
    std::filesystem::remove_all(process.directory, error);
  }

  const Options& options_;
  Engine& engine_;
  const std::string address_;
  const std::string directory_;
  const std::string lock_file_;
  std::string python_path_;  // where umbel.serverapp is, for the ServerApps it starts
  const Fd event_;
  const Fd inotify_;
  std::vector<Process> processes_;  // the thread's own, and Stop's after it
  bool followed_ = true;            // every output file has its watch
  Guarded<std::map<RunId, std::shared_ptr<RunOutput>>> outputs_;
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<Launcher>> Launcher::Start(const Options& options, Engine& engine,
                                                  std::string address, std::string directory,
                                                  std::string lock_file) {
  auto launcher = std::make_unique<LauncherImpl>(options, engine, std::move(address),
                                                 std::move(directory), std::move(lock_file));
  UMBEL_TRY(launcher->Begin());
  return std::unique_ptr<Launcher>(std::move(launcher));
}

}  // namespace umbel::superlink
