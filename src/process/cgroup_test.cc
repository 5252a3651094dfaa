// Control groups of this machine, with hostile programs in them. Where there are none, or they are
// not ours to write, the tests say so and are skipped.
#include "process/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <sstream>

#include "base/testing.h"
#include "process/confine_testing.h"
#include "process/watch.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using testing::End;
using testing::kPatience;
using testing::ReadLine;
using testing::ReadOutput;
using testing::Shell;
using testing::Spawn;
using umbel::testing::TempDir;

constexpr uint64_t kMemory = uint64_t{48} << 20;

std::string Text(const char* path) {
  const auto text = ReadFile(path);
  return text.ok() ? *text : "";
}

/// The texts of this machine without the lines that hold `word`.
std::string Without(const std::string& text, std::string_view word) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);)
    if (line.find(word) == std::string::npos) kept += line + "\n";
  return kept;
}

enum class Kind { kFound, kEndedByUnified, kEndedBySignals };

/// As found; and, where the machine has v1 groups, with other ways to end them than the freezer.
class CgroupTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    std::string mounts = Text("/proc/self/mountinfo");
    if (GetParam() != Kind::kFound) mounts = Without(mounts, "freezer");
    if (GetParam() == Kind::kEndedBySignals) mounts = Without(mounts, "- cgroup2 ");
    parent_ = CgroupParent::Find(mounts, Text("/proc/self/cgroup"));
    if (!parent_->memory() || !parent_->processes())
      GTEST_SKIP() << "no groups to test: " << parent_->found();
    if (GetParam() == Kind::kEndedByUnified && !parent_->kill())
      GTEST_SKIP() << "v2 is not mounted: " << parent_->found();
  }

  Cgroup Make(const CgroupLimits& limits) {
    auto group = parent_->Create(fmt::format("test-{}", static_cast<int>(GetParam())), limits);
    EXPECT_TRUE(group.ok()) << group.error().ToString();
    UMBEL_CHECK(group.ok());
    return std::move(*group);
  }
  Child Start(Cgroup& group, const std::string& script) {
    CommandSpec command = Shell(script);
    command.arguments[0] = "/bin/bash";
    Child child = Spawn(command);
    const Status added = group.Add(child.pid);
    EXPECT_TRUE(added.ok()) << added.error().ToString();
    EXPECT_TRUE(child.Open().ok());
    return child;
  }

  std::unique_ptr<CgroupParent> parent_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, CgroupTest,
                         ::testing::Values(Kind::kFound, Kind::kEndedByUnified,
                                           Kind::kEndedBySignals));

TEST_P(CgroupTest, AMemoryHogIsKilledAndCounted) {
  Cgroup group = Make({kMemory, 0});
  EXPECT_EQ(group.OomKills(), 0u);
  const Child child = Start(group, "exec tail /dev/zero");
  EXPECT_EQ(End(child), SIGKILL);
  EXPECT_EQ(group.OomKills(), 1u);
  EXPECT_GT(group.PeakBytes(), kMemory / 2);
  EXPECT_LE(group.PeakBytes(), kMemory);
}

TEST_P(CgroupTest, MemoryIsThatOfAllItsProcesses) {
  Cgroup group = Make({kMemory, 0});
  const Child child = Start(
      group,
      "exec 2>/dev/null; fill() { x=$(head -c 10000000 /dev/zero | tr '\\0' x); "
      "[ ${#x} = 10000000 ] || exit; }; (fill; echo one fits); hold() { fill; read "
      "nothing < <(sleep 1000); }; for i in 1 2 3 4 5; do hold & done; wait -n; echo one died");
  EXPECT_EQ(ReadLine(child), "one fits");
  EXPECT_EQ(group.OomKills(), 0u);
  EXPECT_EQ(ReadLine(child), "one died");
  EXPECT_GE(group.OomKills(), 1u);
  EXPECT_TRUE(group.Kill().ok());
  End(child);
}

TEST_P(CgroupTest, AForkBombIsBoundedAndEnded) {
  Cgroup group = Make({0, 24});
  const Child child = Start(group, "bomb() { bomb & bomb & wait; }; bomb; bomb; bomb");
  EXPECT_NE(ReadLine(child).find("Resource temporarily unavailable"), std::string::npos);
  EXPECT_GE(group.RefusedForks(), 1u);
  EXPECT_LE(group.Pids().size(), 24u);
  const Status killed = group.Kill();
  EXPECT_TRUE(killed.ok()) << killed.error().ToString();
  EXPECT_TRUE(group.Pids().empty());
  ReadOutput(child);  // comes to its end: none of them is left
  End(child);
}

TEST_P(CgroupTest, WhoDoubleForksIntoASessionOfItsOwnIsFoundAndKilled) {
  Cgroup group = Make({});
  const Child child =
      Start(group,
            "(setsid bash -c \"trap '' TERM HUP INT; (trap '' TERM; echo \\$BASHPID; while :; do "
            "sleep 1000; done) & exit\" &) ; exit 0");
  const pid_t daemon = std::atoi(ReadLine(child).c_str());
  const Fd pidfd = OpenPidFd(daemon, StartTicks(daemon));
  ASSERT_TRUE(pidfd.valid());
  End(child);
  const std::vector<pid_t> pids = group.Pids();
  EXPECT_TRUE(std::find(pids.begin(), pids.end(), daemon) != pids.end());
  EXPECT_NE(::getsid(daemon), child.pid);
  ASSERT_TRUE(group.Kill().ok());
  EXPECT_TRUE(WaitForEnd(pidfd.get(), milliseconds(0)));
  EXPECT_TRUE(group.Pids().empty());
}

TEST(CgroupParent, CpuIsBounded) {
  const auto parent = CgroupParent::Open(true);
  if (!parent->cpu()) GTEST_SKIP() << parent->found();
  auto group = parent->Create("busy", {0, 0, 250});
  ASSERT_TRUE(group.ok()) << group.error().ToString();
  CommandSpec command = Shell("i=0; while :; do i=$((i+1)); done");
  Child child = Spawn(command);
  ASSERT_TRUE(group->Add(child.pid).ok());
  // Nothing but the CPU it is given can end it: 1 s of it takes 4 s.
  const auto began = std::chrono::steady_clock::now();
  const rlimit second{1, 1};
  ASSERT_EQ(::prlimit(child.pid, RLIMIT_CPU, &second, nullptr), 0);
  ASSERT_TRUE(child.Open().ok());
  End(child);
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
  const auto without = CgroupParent::Open();
  EXPECT_FALSE(without->cpu());
  EXPECT_EQ(without->Create("busy", {0, 0, 250}).error().code, Code::kFailedPrecondition);
}

TEST_P(CgroupTest, KillTakesWhatIsStoppedAndWhatIsBelow) {
  Cgroup group = Make({});
  const Child child = Start(group, "echo here; kill -STOP $$");
  EXPECT_EQ(ReadLine(child), "here");
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid), &info, WSTOPPED | WNOWAIT), 0);
  ASSERT_TRUE(group.Kill().ok());
  EXPECT_EQ(End(child), SIGKILL);
  EXPECT_TRUE(group.Kill().ok());  // nothing to do
  EXPECT_TRUE(group.Remove().ok());
  EXPECT_FALSE(group.valid());
  EXPECT_TRUE(group.Remove().ok());
}

TEST_P(CgroupTest, ItsEndIsThatOfAllInIt) {
  std::optional<Child> child;
  {
    Cgroup group = Make({kMemory, 24});
    child = Start(group, "sleep 1000 & echo here; wait");
    EXPECT_EQ(ReadLine(*child), "here");
    const auto twice = parent_->Create(fmt::format("test-{}", static_cast<int>(GetParam())), {});
    ASSERT_FALSE(twice.ok());
    EXPECT_EQ(twice.error().code, Code::kAlreadyExists);
    EXPECT_EQ(group.Pids().size(), 2u);  // a failed Create takes nothing away
  }
  EXPECT_EQ(End(*child), SIGKILL);
  Cgroup again = Make({});
  EXPECT_EQ(again.Add(child->pid).error().code, Code::kNotFound);
  EXPECT_EQ(again.Add(0).error().code, Code::kInvalidArgument);
  Cgroup moved = std::move(again);
  EXPECT_FALSE(again.valid());  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(moved.valid());
}

TEST_P(CgroupTest, NamesStayInTheirFolder) {
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("a\0b", 3), std::string("\n"), std::string(129, 'x')}) {
    const auto group = parent_->Create(bad, {});
    ASSERT_FALSE(group.ok()) << bad;
    EXPECT_EQ(group.error().code, Code::kInvalidArgument);
  }
}

/// A process that has a group with a sleeping child in it, and does not clear up.
struct Other {
  pid_t pid = 0;
  pid_t child = 0;
};

Other StartOther() {
  int ends[2];
  UMBEL_CHECK(::pipe2(ends, O_CLOEXEC) == 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  Other other;
  other.pid = ::fork();
  if (other.pid == 0) {
    const auto parent = CgroupParent::Open();
    auto group = parent->Create("left", {kMemory, 24});
    UMBEL_CHECK(group.ok());
    CommandSpec command = Shell("exec sleep 1000");
    command.output_pipe = false;
    Confinement confinement;
    confinement.die_with_parent = false;
    Child child = Spawn(command, confinement);
    UMBEL_CHECK(group->Add(child.pid).ok() && child.Open().ok());
    UMBEL_CHECK(child.AwaitStart(kPatience).ok());
    static_cast<void>(!::write(writer.get(), &child.pid, sizeof child.pid));
    for (;;) ::pause();
  }
  UMBEL_CHECK(::read(reader.get(), &other.child, sizeof other.child) == sizeof other.child);
  return other;
}

TEST(CgroupParent, ClearsWhatTheDeadHaveLeftAndNothingElse) {
  const auto parent = CgroupParent::Open();
  if (!parent->memory() || !parent->processes()) GTEST_SKIP() << parent->found();
  const Other living = StartOther();
  const Other dead = StartOther();
  const Fd living_child = OpenPidFd(living.child, StartTicks(living.child));
  const Fd dead_child = OpenPidFd(dead.child, StartTicks(dead.child));
  ::kill(dead.pid, SIGKILL);
  ::waitpid(dead.pid, nullptr, 0);
  EXPECT_FALSE(WaitForEnd(dead_child.get(), milliseconds(0)));
  const auto cleared = parent->ClearStale();
  ASSERT_TRUE(cleared.ok()) << cleared.error().ToString();
  EXPECT_TRUE(WaitForEnd(dead_child.get(), kPatience));
  EXPECT_FALSE(WaitForEnd(living_child.get(), milliseconds(0)));
  ::kill(living.pid, SIGKILL);
  ::waitpid(living.pid, nullptr, 0);
  ASSERT_TRUE(parent->ClearStale().ok());
  EXPECT_TRUE(WaitForEnd(living_child.get(), kPatience));
}

TEST(CgroupParent, WhoHoldsTheLockIsAliveWhateverItsNumber) {
  const auto parent = CgroupParent::Open();
  if (!parent->memory() || !parent->processes()) GTEST_SKIP() << parent->found();
  auto group = parent->Create("where", {});
  ASSERT_TRUE(group.ok());
  const std::string message = parent->Create("where", {}).error().message;
  const size_t begin = message.find('/');
  const size_t home = message.rfind("/umbel-");
  ASSERT_TRUE(begin < home && home != std::string::npos) << message;
  const std::string stale = message.substr(begin, home - begin) + "/umbel-999999999-1";
  ASSERT_EQ(::mkdir(stale.c_str(), 0755), 0) << stale;
  Fd lock(::open(stale.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::flock(lock.get(), LOCK_SH), 0);
  ASSERT_TRUE(parent->ClearStale().ok());
  EXPECT_EQ(::access(stale.c_str(), F_OK), 0);
  lock.Close();
  ASSERT_TRUE(parent->ClearStale().ok());
  EXPECT_NE(::access(stale.c_str(), F_OK), 0);
}

TEST(CgroupParent, GroupsAreBelowTheOneWeAreIn) {
  const auto parent = CgroupParent::Open();
  if (!parent->memory() || !parent->processes()) GTEST_SKIP() << parent->found();
  auto group = parent->Create("where", {});
  ASSERT_TRUE(group.ok());
  Child child = Spawn(Shell("cat /proc/self/cgroup"));
  ASSERT_TRUE(group->Add(child.pid).ok());
  ASSERT_TRUE(child.Open().ok());
  const std::string groups = ReadOutput(child);
  End(child);
  // "4:memory:/ours" and "4:memory:/ours/umbel-.../where": our own bounds still hold.
  std::istringstream lines(Text("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);)
    EXPECT_NE(groups.find(line.substr(0, line.rfind("/umbel-node"))), std::string::npos)
        << line << " not in\n"
        << groups;
  EXPECT_NE(groups.find(fmt::format("umbel-{}-{}/where\n", ::getpid(), StartTicks(::getpid()))),
            std::string::npos)
      << groups;
}

TEST(CgroupParent, NoGroupsAreSaidInWords) {
  const auto none = CgroupParent::Find("", "");
  EXPECT_FALSE(none->memory() || none->processes() || none->kill());
  EXPECT_EQ(none->found(),
            "no cgroup: v1 memory is not mounted; v1 pids is not mounted; "
            "v1 freezer is not mounted");
  const auto group = none->Create("a", {});
  ASSERT_FALSE(group.ok());
  EXPECT_EQ(group.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(none->ClearStale().value(), 0u);
}

/// What the kernel shows of one machine, in plain files.
class FakeMachine : public ::testing::Test {
 protected:
  void Write(const std::string& path, std::string_view text) {
    const std::string whole = folder_.path() + "/" + path;
    std::filesystem::create_directories(std::filesystem::path(whole).parent_path());
    ASSERT_TRUE(WriteFileAtomic(whole, text).ok());
  }
  std::unique_ptr<CgroupParent> Find(const std::string& root, const std::string& groups) {
    return CgroupParent::Find(
        fmt::format("24 1 0:22 / /proc rw - proc proc rw\n"
                    "31 24 0:27 {} {} rw,relatime shared:9 - cgroup2 cgroup rw\n",
                    root, folder_.path()),
        groups);
  }
  /// The folder must be there with its control file, as a plain one would come without.
  void Prepare(const std::string& base) {
    Write(fmt::format("{}umbel-{}-{}/cgroup.subtree_control", base, ::getpid(),
                      StartTicks(::getpid())),
          "");
  }

  TempDir folder_;
};

TEST_F(FakeMachine, V2WithItsControllers) {
  for (const std::string& base : {std::string(), std::string("a/b/")}) {
    Write(base + "cgroup.controllers", "cpu memory pids\n");
    Write(base + "cgroup.subtree_control", "memory pids\n");
    Prepare(base);
  }
  EXPECT_EQ(Find("/", "0::/a/b\n")->found(), "cgroup v2: memory, pids");
  EXPECT_EQ(Find("/", "0::/a/b/umbel-node\n")->found(), "cgroup v2: memory, pids");
  // A container that sees its own group as the root, and its path from outside.
  EXPECT_EQ(Find("/docker/x", "0::/docker/x/a/b\n")->found(), "cgroup v2: memory, pids");
  EXPECT_EQ(Find("/docker/x", "0::/../../y\n")->found(), "cgroup v2: memory, pids");
  EXPECT_TRUE(Find("/", "0::/\n")->kill());
}

TEST_F(FakeMachine, V2WithCpuWhenItIsAskedFor) {
  Write("cgroup.controllers", "cpu memory pids\n");
  Write("cgroup.subtree_control", "cpu memory pids\n");
  Prepare("");
  const std::string mounts =
      fmt::format("31 24 0:27 / {} rw,relatime shared:9 - cgroup2 cgroup rw\n", folder_.path());
  EXPECT_EQ(CgroupParent::Find(mounts, "0::/\n", true)->found(), "cgroup v2: memory, pids, cpu");
  EXPECT_FALSE(CgroupParent::Find(mounts, "0::/\n")->cpu());
  Write("cgroup.subtree_control", "memory pids\n");
  Write("cgroup.controllers", "memory pids\n");
  EXPECT_EQ(CgroupParent::Find(mounts, "0::/\n", true)->found(), "cgroup v2: memory, pids");
}

TEST_F(FakeMachine, V2WithoutAController) {
  Write("cgroup.controllers", "cpu memory hugetlb\n");
  const auto parent = Find("/", "0::/\n");
  EXPECT_FALSE(parent->memory());
  EXPECT_TRUE(parent->found().starts_with(
      fmt::format("no cgroup: v2 has no controller pids in '{}'; ", folder_.path())))
      << parent->found();
}

TEST_F(FakeMachine, V2ThatCannotBeDividedNamesTheReason) {
  Write("cgroup.controllers", "memory pids\n");
  Write("cgroup.procs", "1\n2\n");
  std::filesystem::create_directory(folder_.path() + "/cgroup.subtree_control");
  const auto parent = Find("/", "0::/\n");
  EXPECT_FALSE(parent->memory());
  EXPECT_NE(parent->found().find("Delegate=yes"), std::string::npos) << parent->found();
  EXPECT_NE(::access((folder_.path() + "/umbel-node").c_str(), F_OK), 0);
}

TEST_F(FakeMachine, TextsOfNoKernelAreNoGroups) {
  for (const char* groups : {"", ":", "::", "0:", "0::", "x\n\n::::\n", "1:memory", "1:,,:/a\n"})
    for (const char* mounts :
         {"", "-", "1 2 3 4 5 -", "1 2 3 / /nowhere - cgroup", "1 2 3 / /nowhere - cgroup x memory",
          "1 2 3 / /nowhere x y - cgroup2 x rw\n\n -"})
      EXPECT_TRUE(CgroupParent::Find(mounts, groups)->found().starts_with("no cgroup"))
          << mounts << "|" << groups;
}

}  // namespace
}  // namespace umbel::process
