// Trees of real processes that do not want to end.
#include "process/watch.h"

#include <signal.h>

#include <algorithm>
#include <optional>

#include "process/confine_testing.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::End;
using testing::kPatience;
using testing::ReadLine;
using testing::ReadOutput;
using testing::Shell;
using testing::Spawn;

constexpr seconds kLongGrace{60};

Child Start(const std::string& script, bool subreaper = true) {
  CommandSpec command = Shell(script);
  command.arguments[0] = "/bin/bash";
  Confinement confinement;
  confinement.subreaper = subreaper;
  Child child = Spawn(command, confinement);
  EXPECT_TRUE(child.Open().ok());
  return child;
}

/// The process whose number the child writes next.
struct Named {
  pid_t pid = 0;
  Fd pidfd;
};
Named ReadPid(const Child& child) {
  Named named;
  named.pid = std::atoi(ReadLine(child).c_str());
  named.pidfd = OpenPidFd(named.pid, StartTicks(named.pid));
  EXPECT_TRUE(named.pidfd.valid());
  return named;
}

bool Has(const std::vector<ProcessEntry>& entries, pid_t pid) {
  return std::any_of(entries.begin(), entries.end(),
                     [pid](const ProcessEntry& entry) { return entry.id.pid == pid; });
}

Status EndAll(const Child& child, milliseconds grace) {
  return EndTree({child.pid, child.start_ticks}, grace);
}

constexpr char kDaemon[] =
    "(setsid bash -c \"(trap '' TERM HUP; echo \\$BASHPID; while :; do sleep 1000; done) & exit\""
    " &); ";

TEST(Watch, SeesItselfAsTheKernelDoes) {
  bool seen = false;
  for (const ProcessEntry& entry : AllProcesses()) {
    if (entry.id.pid != ::getpid()) continue;
    seen = true;
    EXPECT_EQ(entry.id.start_ticks, StartTicks(::getpid()));
    EXPECT_EQ(entry.parent, ::getppid());
    EXPECT_EQ(entry.group, ::getpgrp());
    EXPECT_EQ(entry.session, ::getsid(0));
    EXPECT_FALSE(entry.ended);
  }
  EXPECT_TRUE(seen);
}

TEST(Watch, WhoDoubleForksStaysBelowTheSubreaper) {
  const Child child = Start(std::string(kDaemon) + "read nothing < <(exec sleep 1000)");
  const Named daemon = ReadPid(child);
  EXPECT_TRUE(Has(Descendants(child.pid), daemon.pid));
  EXPECT_FALSE(Has(Descendants(child.pid), child.pid));
  EXPECT_FALSE(Has(Descendants(daemon.pid), child.pid));
  EXPECT_NE(::getsid(daemon.pid), child.pid);
  const Status ended = EndAll(child, milliseconds(0));
  EXPECT_TRUE(ended.ok()) << ended.error().ToString();
  EXPECT_TRUE(WaitForEnd(daemon.pidfd.get(), milliseconds(0)));
  ReadOutput(child);  // comes to its end: none of them is left
  EXPECT_TRUE(WIFSIGNALED(End(child)));
}

TEST(Watch, WhoEndsWhenAskedIsNotKilled) {
  const Child child = Start(
      "trap 'echo asked; exit 5' TERM; exec 2>/dev/null; echo here; while :; do sleep 0.01; done");
  EXPECT_EQ(ReadLine(child), "here");
  EXPECT_TRUE(EndAll(child, kLongGrace).ok());
  EXPECT_EQ(ReadOutput(child), "asked\n");
  EXPECT_EQ(WEXITSTATUS(End(child)), 5);
}

TEST(Watch, LeftoversOfOneThatEndsWhenAskedAreKilled) {
  // The daemon is nobody's by then; it was seen before.
  const Child child =
      Start(std::string(kDaemon) + "trap 'exit 5' TERM; while :; do sleep 0.01; done");
  const Named daemon = ReadPid(child);
  EXPECT_TRUE(EndAll(child, milliseconds(500)).ok());
  EXPECT_TRUE(WaitForEnd(daemon.pidfd.get(), milliseconds(0)));
  EXPECT_EQ(WEXITSTATUS(End(child)), 5);
}

TEST(Watch, OfARootThatIsGoneTheSessionIsLeft) {
  const Child child =
      Start("(trap '' TERM; echo $BASHPID; while :; do sleep 1000; done) & exit 0", false);
  const Named left = ReadPid(child);
  End(child);  // reaped: its number stands only in the session of the other
  EXPECT_TRUE(EndAll(child, milliseconds(0)).ok());
  EXPECT_TRUE(WaitForEnd(left.pidfd.get(), kPatience));
  EXPECT_TRUE(EndAll(child, kLongGrace).ok());  // nothing to do, and at once
}

TEST(Watch, AnotherProcessOfTheSameNumberIsLeftAlone) {
  const Child child = Start("echo here; exec sleep 1000");
  EXPECT_EQ(ReadLine(child), "here");
  EXPECT_TRUE(EndTree({child.pid, child.start_ticks + 1}, milliseconds(0)).ok());
  EXPECT_FALSE(WaitForEnd(child.pidfd.get(), milliseconds(0)));
  EXPECT_TRUE(EndAll(child, milliseconds(0)).ok());
  EXPECT_TRUE(WIFSIGNALED(End(child)));
  EXPECT_FALSE(EndTree({::getpid(), StartTicks(::getpid())}, milliseconds(0)).ok());
  EXPECT_FALSE(EndTree({1, StartTicks(1)}, milliseconds(0)).ok());
  EXPECT_FALSE(EndTree({0, 0}, milliseconds(0)).ok());
  EXPECT_FALSE(EndTree({-1, 0}, milliseconds(0)).ok());
}

TEST(Watch, AStoppedTreeIsEnded) {
  const Child child = Start("sleep 1000 & echo here; kill -STOP $! $$");
  EXPECT_EQ(ReadLine(child), "here");
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid), &info, WSTOPPED | WNOWAIT), 0);
  EXPECT_TRUE(EndAll(child, milliseconds(0)).ok());
  EXPECT_EQ(End(child), SIGKILL);
}

TEST(Watch, AForkBombOfAnotherUserIsEndedWithoutAControlGroup) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  CommandSpec command = Shell(
      "trap '' TERM; bomb() { (setsid bash -c 'sleep 0.001' &); bomb & bomb & wait; }; "
      "while :; do bomb; done");
  command.arguments[0] = "/bin/bash";
  Confinement confinement;
  confinement.uid = 61'236;
  confinement.processes = 40;
  confinement.subreaper = true;
  Child child = Spawn(command, confinement);
  ASSERT_TRUE(child.Open().ok());
  EXPECT_NE(ReadLine(child).find("Resource temporarily unavailable"), std::string::npos);
  const Status ended = EndAll(child, milliseconds(0));
  EXPECT_TRUE(ended.ok()) << ended.error().ToString();
  ReadOutput(child);
  EXPECT_EQ(End(child), SIGKILL);
}

TEST(Watch, OneProcessIsFoundByItsNumber) {
  const auto self = FindProcess(::getpid());
  ASSERT_TRUE(self);
  EXPECT_EQ(self->id, (ProcessId{::getpid(), StartTicks(::getpid())}));
  EXPECT_EQ(self->parent, ::getppid());
  EXPECT_FALSE(FindProcess(0));
  EXPECT_FALSE(FindProcess(-1));
}

TEST(Watch, ASubreaperReapsWhatItAdopted) {
  // In a process of its own: the mark cannot be taken back.
  const pid_t tester = ::fork();
  if (tester == 0) {
    if (!BecomeSubreaper().ok()) ::_exit(1);
    const Child own = Start("exit 0", false);
    const Child child = Start("(sleep 1000 & echo $!) ; exit 0", false);
    const Named orphan = ReadPid(child);
    WaitForEnd(child.pidfd.get(), kPatience);
    WaitForEnd(own.pidfd.get(), kPatience);
    ::kill(orphan.pid, SIGKILL);
    WaitForEnd(orphan.pidfd.get(), kPatience);
    if (ReapAdopted({own.pid, child.pid}) != 1) ::_exit(2);
    if (StartTicks(orphan.pid) != 0) ::_exit(3);
    if (::waitpid(child.pid, nullptr, WNOHANG) != child.pid) ::_exit(4);
    if (ReapAdopted({}) != 1) ::_exit(5);  // `own`
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(tester, &status, 0), tester);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

}  // namespace
}  // namespace umbel::process
