// The launcher with scripts in the place of flwr-serverapp, over a store on disk. A restart of the
// SuperLink is a new engine and a new launcher in the same folder.
#include "superlink/launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "base/file.h"
#include "process/guard_testing.h"
#include "process/process.h"
#include "store/testing.h"
#include "superlink/run_output.h"

namespace umbel::superlink {
using process::OpenPidFd;
using process::Reap;
using process::SignalGroup;
using process::StartTicks;
using process::WaitForEnd;
namespace {

using std::chrono::seconds;
using store::testing::TempDir;

constexpr seconds kPatience{60};

class LauncherTest : public ::testing::Test {
  using LiveRun = superlink::Run;  // gtest has a Run of its own

 protected:
  void SetUp() override { options_.insecure = true; }
  void TearDown() override {
    if (launcher_) launcher_->Stop(true);
    launcher_.reset();
    engine_.reset();
  }

  /// What flwr-serverapp is to be: $dir is the test's folder, $run the run's.
  void Script(const std::string& lines) {
    options_.serverapp_command = Path("app");
    ASSERT_TRUE(WriteFileAtomic(Path("app"), "#!/bin/sh\ndir=" + directory_.path() +
                                                 "\nrun=$(dirname $4)\n" + lines + "\n")
                    .ok());
    ASSERT_EQ(::chmod(Path("app").c_str(), 0700), 0);
  }
  /// A script that says `said`, waits for Release() and then does `then`.
  void WaitingScript(const std::string& said, const std::string& then = "exit 0") {
    ASSERT_EQ(::mkfifo(Path("gate").c_str(), 0600), 0);
    Script("echo " + said + "\nread line < $dir/gate\n" + then);
  }
  void Release() {
    const Fd gate(::open(Path("gate").c_str(), O_WRONLY));  // waits for the script to read
    ASSERT_EQ(::write(gate.get(), "\n", 1), 1);
  }

  void Start() {
    store::StoreOptions store;
    store.directory = Path("state");
    auto engine = Engine::Open(store, clock_, rng_);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    engine_ = std::move(*engine);
    auto launcher =
        Launcher::Start(options_, *engine_, "127.0.0.1:8000", Path("runs"), Path("state/lock"));
    ASSERT_TRUE(launcher.ok()) << launcher.error().message;
    launcher_ = std::move(*launcher);
    engine_->OnTasksChanged([this] { launcher_->Notify(); });
  }
  /// Ends the SuperLink; what it launched goes on.
  void Leave() {
    engine_->OnTasksChanged({});
    launcher_->Stop(false);
    launcher_.reset();
    engine_.reset();
  }

  RunId StartRun() {
    auto [run_id, commit] = engine_->Apply([](State& state, WallTime now, Changes& changes) {
      State::NewRun spec;
      spec.fab_id = "umbel/toy";
      return state.StartRun(std::move(spec), now, changes).row.run_id;
    });
    return run_id;
  }
  void Begin(RunId run_id) {
    auto [begun, commit] = engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      return state.BeginTask(*state.FindRun(run_id), now, changes);
    });
    EXPECT_TRUE(begun.ok());
  }
  void Finish(RunId run_id, TaskEvent event) {
    engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      return state.FinishTask(run_id, event, "", now, changes);
    });
  }
  /// The run's task: alive, or as the store remembers it.
  store::TaskRow Task(RunId run_id) {
    const auto live = engine_->Read([&](State& state, WallTime) {
      const LiveRun* run = state.FindRun(run_id);
      return run ? std::optional(run->task) : std::nullopt;
    });
    if (live) return *live;
    EXPECT_TRUE(engine_->store().Drain().ok());
    return engine_->store().ReadRun(run_id)->task;
  }
  std::string Log(RunId run_id) {
    launcher_->Flush(run_id);
    EXPECT_TRUE(engine_->store().Drain().ok());
    return engine_->store().ReadLogs(run_id, 0, WallTime{})->text;
  }
  /// Waits until the condition holds.
  void Until(const std::string& what, const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << what;
      std::this_thread::yield();
    }
  }
  void UntilSaid(RunId run_id, const std::string& text) {
    Until("the log has " + text, [&] { return Log(run_id).find(text) != std::string::npos; });
  }
  store::TaskRow UntilFinished(RunId run_id) {
    Until("the run ends", [&] { return Task(run_id).status == TaskStatus::kFinished; });
    return Task(run_id);
  }
  void UntilGone(RunId run_id) {
    Until("its folder goes",
          [&] { return !std::filesystem::exists(Path(fmt::format("runs/{}", run_id))); });
  }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }

  TempDir directory_;
  SystemClock clock_;
  SystemRng rng_;
  Options options_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Launcher> launcher_;
};

TEST_F(LauncherTest, FollowsAServerAppFromItsStartToItsEnd) {
  WaitingScript("$1 $2 $3 $(cat $4) $5 $#", "echo goodbye");
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, " 5\n");
  const store::TaskRow task = Task(run_id);
  EXPECT_EQ(task.status, TaskStatus::kStarting);
  EXPECT_EQ(task.launches, 1u);
  EXPECT_EQ(StartTicks(static_cast<pid_t>(task.pid)), task.pid_start_ticks);
  EXPECT_EQ(Log(run_id), fmt::format("--runtime-api-address 127.0.0.1:8000 --token-file {} "
                                     "--insecure 5\n",
                                     task.token));
  Begin(run_id);
  Finish(run_id, TaskEvent::kComplete);
  Release();
  UntilGone(run_id);
  EXPECT_EQ(Task(run_id).sub_status, "completed");
  EXPECT_EQ(StartTicks(static_cast<pid_t>(task.pid)), 0u);
}

TEST_F(LauncherTest, OneThatKeepsFailingToBeginIsTriedThreeTimes) {
  Script("echo no module named flwr; exit 4");
  Start();
  const RunId run_id = StartRun();
  const store::TaskRow task = UntilFinished(run_id);
  EXPECT_EQ(task.sub_status, "failed");
  EXPECT_EQ(task.launches, 3u);
  EXPECT_EQ(task.details,
            "flwr-serverapp exited with status 4 before it began: no module named flwr");
  UntilGone(run_id);
  EXPECT_EQ(Log(run_id), "no module named flwr\nno module named flwr\nno module named flwr\n");
}

TEST_F(LauncherTest, OneThatCannotBeStartedFailsAtOnce) {
  options_.serverapp_command = Path("flwr-serverapp");
  Start();
  const store::TaskRow task = UntilFinished(StartRun());
  EXPECT_EQ(task.launches, 1u);
  EXPECT_EQ(task.details, fmt::format("flwr-serverapp cannot start '{}': No such file or directory "
                                      "before it began",
                                      Path("flwr-serverapp")));
}

TEST_F(LauncherTest, OneThatDiesAfterItBeganIsNotStartedAgain) {
  WaitingScript("hello", "kill -9 $$");
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, "hello");
  Begin(run_id);
  Release();
  const store::TaskRow task = UntilFinished(run_id);
  EXPECT_EQ(task.sub_status, "failed");
  EXPECT_EQ(task.details, "No heartbeat received from the task");
  EXPECT_EQ(task.launches, 1u);
  UntilGone(run_id);
  EXPECT_EQ(Log(run_id), "hello\n[umbel] the ServerApp's process ended by signal 9\n");
}

TEST_F(LauncherTest, OneThatEndedWellButUnheardHasCompleted) {
  struct Case {
    std::string_view farewell, sub_status;
  };
  for (const Case& c : {
           Case{"echo ERROR: Failed to push task output: refused; exit 0", "completed"},
           Case{"echo ERROR: Failed to push task output: refused; exit 1", "failed"},
           Case{"echo Task stopped by user.; echo Failed to push task output; exit 0", "failed"},
           Case{"exit 0", "failed"},
       }) {
    std::filesystem::remove(Path("gate"));
    WaitingScript("hello", std::string(c.farewell));
    Start();
    const RunId run_id = StartRun();
    UntilSaid(run_id, "hello");
    Begin(run_id);
    Release();
    EXPECT_EQ(UntilFinished(run_id).sub_status, c.sub_status) << c.farewell;
    Leave();
  }
}

TEST_F(LauncherTest, AnotherSuperLinkTakesItOverAndItsOutputComesOnce) {
  WaitingScript("one", "echo three");
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, "one");
  Begin(run_id);
  const store::TaskRow before = Task(run_id);
  Leave();
  // What it says while nobody listens is not lost.
  const Fd output(::open(Path(fmt::format("runs/{}/output", run_id)).c_str(), O_WRONLY | O_APPEND));
  ASSERT_EQ(::write(output.get(), "two\n", 4), 4);
  Start();
  EXPECT_EQ(Task(run_id).pid, before.pid);
  EXPECT_EQ(Log(run_id), "one\ntwo\n");
  Release();
  EXPECT_EQ(UntilFinished(run_id).launches, 1u);
  EXPECT_EQ(Log(run_id), "one\ntwo\nthree\n[umbel] the ServerApp's process exited with status 0\n");
}

TEST_F(LauncherTest, WhatDiedWhileNobodyWatchedFailsOrIsStartedAgain) {
  WaitingScript("hello");
  Start();
  const RunId begun = StartRun();
  UntilSaid(begun, "hello");
  Begin(begun);
  const RunId young = StartRun();
  UntilSaid(young, "hello");
  const pid_t first = static_cast<pid_t>(Task(begun).pid);
  const pid_t second = static_cast<pid_t>(Task(young).pid);
  Leave();
  for (const pid_t pid : {first, second}) {
    const Fd pidfd = OpenPidFd(pid, StartTicks(pid));
    SignalGroup(pid, SIGKILL);
    ASSERT_TRUE(WaitForEnd(pidfd.get(), kPatience));
    Reap(pidfd.get());
  }
  Start();
  EXPECT_EQ(UntilFinished(begun).details, "No heartbeat received from the task");
  Until("it is launched again", [&] { return Task(young).launches == 2; });
  UntilSaid(young, "hello\nhello\n");
  EXPECT_NE(Task(young).pid, second);
  EXPECT_EQ(Task(young).status, TaskStatus::kStarting);
}

TEST_F(LauncherTest, WhatWasClaimedButNeverLaunchedIsLaunched) {
  WaitingScript("hello");
  options_.isolation = Isolation::kProcess;  // this one launches nothing
  Start();
  const RunId run_id = StartRun();
  engine_->Apply([](State& state, WallTime now, Changes& changes) {
    return state.AcquireTask({"flwr-serverapp"}, now, changes)->row.run_id;
  });
  const std::string token = Task(run_id).token;
  Leave();
  options_.isolation = Isolation::kSubprocess;
  Start();
  UntilSaid(run_id, "hello");
  EXPECT_EQ(Task(run_id).launches, 1u);
  EXPECT_NE(Task(run_id).token, token);
}

TEST_F(LauncherTest, OneThatDoesNotBeginInTimeGivesWayToAnother) {
  WaitingScript("hello");
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, "hello");
  const store::TaskRow before = Task(run_id);
  const Fd first = OpenPidFd(static_cast<pid_t>(before.pid), before.pid_start_ticks);
  ASSERT_TRUE(first.valid());
  engine_->Apply([&](State& state, WallTime, Changes& changes) {
    return state.RequeueTask(*state.FindRun(run_id), changes);  // as its claim lapses
  });
  EXPECT_TRUE(WaitForEnd(first.get(), kPatience));
  UntilSaid(run_id, "hello\nhello\n");
  EXPECT_EQ(Task(run_id).launches, 2u);
  EXPECT_NE(Task(run_id).pid, before.pid);
  EXPECT_EQ(Task(run_id).status, TaskStatus::kStarting);
}

TEST_F(LauncherTest, AfterARestartOneWhoseRunIsOverIsStillSeenOut) {
  WaitingScript("hello");
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, "hello");
  Begin(run_id);
  Finish(run_id, TaskEvent::kStop);
  Leave();
  Start();
  EXPECT_TRUE(std::filesystem::exists(Path(fmt::format("runs/{}", run_id))));
  Release();
  UntilGone(run_id);
}

TEST_F(LauncherTest, FoldersThatNobodyNeedsGo) {
  options_.serverapp_command = "true";
  std::filesystem::create_directories(Path("runs/12345"));
  Start();
  EXPECT_FALSE(std::filesystem::exists(Path("runs/12345")));
}

TEST_F(LauncherTest, StopEndsThemWhenItIsToldTo) {
  Script("trap '' TERM; echo hello; read line < $dir/gate");
  ASSERT_EQ(::mkfifo(Path("gate").c_str(), 0600), 0);
  Start();
  const RunId run_id = StartRun();
  UntilSaid(run_id, "hello");
  const store::TaskRow task = Task(run_id);
  const Fd pidfd = OpenPidFd(static_cast<pid_t>(task.pid), task.pid_start_ticks);
  launcher_->Stop(true);  // SIGTERM does not impress it
  EXPECT_TRUE(WaitForEnd(pidfd.get(), kPatience));
}

TEST_F(LauncherTest, OutputIsCutBetweenCharactersOnly) {
  options_.serverapp_command = "true";
  options_.isolation = Isolation::kProcess;
  Start();
  const RunId run_id = StartRun();
  const TaskId task_id = Task(run_id).task_id;
  const std::string path = Path("text");
  RunOutput output(*engine_, run_id, task_id, path, 0);
  const Fd file(::open(path.c_str(), O_WRONLY | O_APPEND));
  const std::string text = "Grüße\n";
  for (const char c : text) {
    ASSERT_EQ(::write(file.get(), &c, 1), 1);
    output.Drain(false);
  }
  EXPECT_EQ(Log(run_id), text);
  EXPECT_EQ(output.last_line(), "Grüße");
  ASSERT_EQ(::write(file.get(), text.data(), 3), 3);  // ends in the middle of a character
  output.Drain(true);
  EXPECT_EQ(Log(run_id), text + "Gr?");
  EXPECT_EQ(Task(run_id).output_offset, text.size() + 3);
  // Another reader goes on from there.
  RunOutput again(*engine_, run_id, task_id, path, Task(run_id).output_offset);
  again.Drain(true);
  EXPECT_EQ(Log(run_id), text + "Gr?");
}

}  // namespace
}  // namespace umbel::superlink
