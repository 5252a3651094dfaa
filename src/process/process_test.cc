// Guarded processes. The guard is this very binary, as `umbel guard` is the server's own.
#include "process/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/lock_file.h"
#include "base/testing.h"
#include "process/guard_testing.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using umbel::testing::TempDir;

constexpr seconds kPatience{60};

class GuardTest : public ::testing::Test {
 protected:
  GatedProcess Spawn(const std::string& script) { return SpawnCommand({"/bin/sh", "-c", script}); }
  GatedProcess SpawnCommand(std::vector<std::string> command) {
    GuardSpec spec;
    spec.lock_file = Path("lock");
    spec.status_file = Path("status");
    spec.output_file = Path("output");
    spec.orphan_seconds = orphan_seconds_;
    spec.command = std::move(command);
    auto spawned = SpawnGuard(spec);
    UMBEL_CHECK(spawned.ok());
    pidfd_ = OpenPidFd(spawned->pid, spawned->start_ticks);
    UMBEL_CHECK(pidfd_.valid());
    return std::move(*spawned);
  }
  /// Opens the gate and returns what the guard wrote down in the end.
  std::string RunToEnd(GatedProcess child) {
    EXPECT_TRUE(child.Open().ok());
    return End();
  }
  std::string End() {
    EXPECT_TRUE(WaitForEnd(pidfd_.get(), kPatience));
    Reap(pidfd_.get());
    return Text("status");
  }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  std::string Text(const std::string& name) const {
    const auto text = ReadFile(Path(name));
    return text.ok() ? *text : "";
  }

  TempDir directory_;
  Fd pidfd_;
  int64_t orphan_seconds_ = 600;
};

TEST_F(GuardTest, NothingRunsBehindAGateThatIsClosed) {
  GatedProcess child = Spawn("touch " + Path("ran"));
  EXPECT_FALSE(WaitForEnd(pidfd_.get(), milliseconds(0)));
  child.gate.Close();
  EXPECT_EQ(End(), "");
  EXPECT_FALSE(ReadFile(Path("ran")).ok());
  EXPECT_EQ(StartTicks(child.pid), 0u);
}

TEST_F(GuardTest, WritesDownHowTheCommandEnded) {
  EXPECT_EQ(RunToEnd(Spawn("echo out; echo err >&2; exit 7")), "exited with status 7");
  EXPECT_EQ(Text("output"), "out\nerr\n");
  EXPECT_EQ(RunToEnd(Spawn("kill -9 $$")), "ended by signal 9");
  EXPECT_EQ(RunToEnd(Spawn("echo $PYTHONUNBUFFERED")), "exited with status 0");
  EXPECT_EQ(Text("output"), "out\nerr\n1\n");  // output is added to what there was
}

TEST_F(GuardTest, ACommandThatCannotBeStarted) {
  EXPECT_EQ(RunToEnd(SpawnCommand({Path("nothing here")})),
            "cannot start '" + Path("nothing here") + "': No such file or directory");
}

TEST_F(GuardTest, HasASessionAndNoneOfOurDescriptors) {
  const GatedProcess child = Spawn("exit 0");
  EXPECT_EQ(::getsid(child.pid), child.pid);
  EXPECT_EQ(::getpgid(child.pid), child.pid);
  const Fd mine(::open(Path("mine").c_str(), O_CREAT | O_RDWR, 0600));  // not close-on-exec
  GatedProcess lister = Spawn("ls -l /proc/self/fd");
  EXPECT_EQ(RunToEnd(std::move(lister)), "exited with status 0");
  EXPECT_EQ(Text("output").find("mine"), std::string::npos) << Text("output");
}

TEST_F(GuardTest, ASignalToTheGroupEndsTheCommandAndIsWrittenDown) {
  GatedProcess child = Spawn("mkfifo " + Path("gate") + "; read line < " + Path("gate"));
  const pid_t group = child.pid;
  ASSERT_TRUE(child.Open().ok());
  while (::access(Path("gate").c_str(), F_OK) != 0)
    ASSERT_FALSE(WaitForEnd(pidfd_.get(), milliseconds(1)));
  SignalGroup(group, SIGTERM);
  EXPECT_EQ(End(), "ended by signal 15");
}

TEST_F(GuardTest, WhatTheCommandLeavesBehindEndsWithIt) {
  // The helper holds the fifo open for writing as long as it lives.
  ASSERT_EQ(::mkfifo(Path("alive").c_str(), 0600), 0);
  const Fd reader(::open(Path("alive").c_str(), O_RDONLY | O_NONBLOCK));
  EXPECT_EQ(RunToEnd(Spawn("exec 9> " + Path("alive") + "; sleep 1000 & exit 0")),
            "exited with status 0");
  pollfd entry{reader.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&entry, 1, static_cast<int>(milliseconds(kPatience).count())), 1);
  EXPECT_EQ(entry.revents, POLLHUP);  // nobody writes any more
}

TEST_F(GuardTest, ACommandWithoutASuperLinkIsEndedAfterItsGrace) {
  orphan_seconds_ = 1;
  EXPECT_EQ(RunToEnd(Spawn("exec sleep 1000")), "was ended after 1 s without a SuperLink");
}

TEST_F(GuardTest, TheGraceBeginsWhenTheLockIsLetGo) {
  orphan_seconds_ = 1;
  auto lock = LockFile::Take(Path("lock"), "it");
  ASSERT_TRUE(lock.ok());
  std::optional<LockFile> held(std::move(*lock));
  GatedProcess child = Spawn("exec sleep 1000");
  ASSERT_TRUE(child.Open().ok());
  EXPECT_FALSE(WaitForEnd(pidfd_.get(), milliseconds(1500)));  // longer than its grace
  held.reset();
  EXPECT_EQ(End(), "was ended after 1 s without a SuperLink");
}

TEST(LockIsHeld, AsksTheKernel) {
  const TempDir directory;
  const std::string path = directory.path() + "/lock";
  EXPECT_FALSE(LockIsHeld(path));
  ASSERT_TRUE(WriteFileAtomic(path, fmt::format("{}\n", ::getpid())).ok());
  EXPECT_FALSE(LockIsHeld(path));  // a living process, but it holds nothing
  {
    const auto lock = LockFile::Take(path, "it");
    ASSERT_TRUE(lock.ok());
    EXPECT_TRUE(LockIsHeld(path));
    EXPECT_FALSE(LockIsHeld(directory.path() + "/other"));
  }
  EXPECT_FALSE(LockIsHeld(path));

  // An owner that was killed: its number still stands in the file.
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    const auto lock = LockFile::Take(path, "it");
    static_cast<void>(!::write(ends[1], "x", 1));
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ends[0], &byte, 1), 1);
  EXPECT_TRUE(LockIsHeld(path));
  ::kill(owner, SIGKILL);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(owner), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(LockIsHeld(path));  // even before its parent has waited for it
  ::waitpid(owner, nullptr, 0);
  EXPECT_EQ(ReadFile(path).value(), fmt::format("{}\n", owner));
}

TEST(OpenPidFd, IsOnlyForTheProcessThatWasMeant) {
  const uint64_t ticks = StartTicks(::getpid());
  EXPECT_GT(ticks, 0u);
  EXPECT_TRUE(OpenPidFd(::getpid(), ticks).valid());
  EXPECT_FALSE(OpenPidFd(::getpid(), ticks + 1).valid());
  EXPECT_FALSE(OpenPidFd(0, 0).valid());
  EXPECT_FALSE(OpenPidFd(-1, 0).valid());
  EXPECT_EQ(StartTicks(-1), 0u);
  EXPECT_FALSE(WaitForEnd(OpenPidFd(::getpid(), ticks).get(), milliseconds(1)));
}

TEST(Reap, TellsHowTheProcessEnded) {
  const auto end = [](int code, int signal) -> std::optional<int> {
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (signal == 0) ::_exit(code);
      for (;;) ::pause();
    }
    const Fd pidfd = OpenPidFd(pid, StartTicks(pid));
    EXPECT_TRUE(pidfd.valid());
    if (signal != 0) {
      EXPECT_EQ(Reap(pidfd.get()), std::nullopt);  // it has not ended
      ::kill(pid, signal);
    }
    EXPECT_TRUE(WaitForEnd(pidfd.get(), kPatience));
    const auto status = Reap(pidfd.get());
    EXPECT_EQ(Reap(pidfd.get()), std::nullopt);  // once
    return status;
  };
  EXPECT_EQ(end(0, 0), 0);
  EXPECT_EQ(end(7, 0), 7 << 8);
  EXPECT_EQ(end(0, SIGTERM), SIGTERM);
}

}  // namespace
}  // namespace umbel::process
