// The local ground with real processes. Keepers and launchers are this very binary: see
// keeper_testing.h. A ground that is killed is one in a child process.
#include "orchestrator/local/local_ground.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/testing.h"
#include "orchestrator/ground_conformance.h"
#include "orchestrator/local/keeper_testing.h"
#include "orchestrator/spec.h"
#include "process/cgroup.h"
#include "process/process.h"
#include "process/watch.h"

namespace umbel::orchestrator {
namespace {

using process::FindProcess;
using process::OpenPidFd;
using process::ProcessId;
using process::StartTicks;
using process::WaitForEnd;
using std::chrono::milliseconds;
using namespace std::string_literals;
using testing::Changes;
using testing::kNodeMemory;
using testing::kPatience;
using umbel::testing::TempDir;

InstanceSpec Shell(const std::string& name, const std::string& script) {
  InstanceSpec spec;
  spec.name = name;
  spec.arguments = {"/bin/bash", "-c", script};
  spec.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  return spec;
}

InstanceSpec OneShot(const std::string& name, const std::string& script) {
  InstanceSpec spec = Shell(name, script);
  spec.one_shot = true;
  return spec;
}

LocalGroundOptions OptionsFor(const std::string& folder) {
  LocalGroundOptions options;
  options.folder = folder;
  options.nodes = DefaultNodes();
  for (Node& node : options.nodes) node.capacity.memory_bytes = kNodeMemory;
  options.backoff_min = milliseconds(20);
  options.backoff_max = milliseconds(100);
  options.orphan_grace = std::chrono::seconds(120);
  return options;
}

std::unique_ptr<LocalGround> MustOpen(const LocalGroundOptions& options) {
  static const SystemClock clock;
  auto ground = LocalGround::Open(options, clock);
  EXPECT_TRUE(ground.ok()) << ground.error().ToString();
  UMBEL_CHECK(ground.ok());
  return std::move(*ground);
}

/// The process of that number; its end can be waited for.
struct Watched {
  ProcessId id;
  Fd pidfd;

  static Watched Of(pid_t pid) {
    Watched watched;
    watched.id = {pid, StartTicks(pid)};
    watched.pidfd = OpenPidFd(pid, watched.id.start_ticks);
    return watched;
  }
  bool alive() const {
    if (!pidfd.valid()) return false;
    const auto entry = FindProcess(id.pid);
    return entry && entry->id == id && !entry->ended;
  }
};

/// Keepers of instances in this folder that are alive, whoever started them.
std::vector<pid_t> KeepersOf(const std::string& folder) {
  std::vector<pid_t> keepers;
  for (const auto& entry : process::AllProcesses()) {
    if (entry.ended) continue;
    const auto line = ReadFile(fmt::format("/proc/{}/cmdline", entry.id.pid), 1 << 20);
    if (line.ok() && line->find(std::string("keeper\0", 7)) != std::string::npos &&
        line->find(folder) != std::string::npos)
      keepers.push_back(entry.id.pid);
  }
  return keepers;
}

class LocalHarness {
 public:
  LocalHarness() { ground_ = MustOpen(OptionsFor(folder_.path() + "/ground")); }
  ~LocalHarness() {
    EXPECT_TRUE(ground_->Shutdown().ok());
    ground_.reset();
    EXPECT_TRUE(KeepersOf(folder_.path()).empty());
  }

  Ground& ground() { return *ground_; }
  InstanceSpec Ends(const std::string& name, const std::string& text, int status) {
    return OneShot(name, fmt::format("echo '{}'; exit {}", text, status));
  }
  InstanceSpec Stays(const std::string& name, const std::string& text) {
    return Shell(name, fmt::format("echo '{}'; exec sleep 1000", text));
  }
  InstanceSpec FailsOnce(const std::string& name) {
    return Shell(name, "[ -e been ] && exec sleep 1000; touch been; exit 3");
  }
  void SetUp(const std::string& node, bool up) { EXPECT_TRUE(ground_->SetUp(node, up).ok()); }

 private:
  TempDir folder_;
  std::unique_ptr<LocalGround> ground_;
};

class LocalGroundTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void TearDown() override {
    if (!ground_) Open();
    EXPECT_TRUE(ground_->Shutdown().ok());
    ground_.reset();
    EXPECT_TRUE(KeepersOf(folder_.path()).empty());
  }

  void Open() {
    ground_ = MustOpen(options_);
    changes_ = std::make_shared<Changes>();
    ground_->Watch(changes_);
  }
  void Reopen() {
    ground_.reset();
    Open();
  }
  InstanceStatus Find(const std::string& name) {
    return ground_->Find(name).value_or(InstanceStatus{});
  }
  void Apply(const InstanceSpec& spec) {
    const Status applied = ground_->Apply(spec);
    ASSERT_TRUE(applied.ok()) << applied.error().ToString();
  }
  void Until(const std::string& what, const std::function<bool()>& condition) {
    EXPECT_TRUE(changes_->Until(condition)) << "waited in vain for: " << what;
  }
  void UntilState(const std::string& name, InstanceState state, uint32_t starts = 0) {
    EXPECT_TRUE(changes_->Until([&] {
      const auto status = ground_->Find(name);
      return status && status->state == state && status->starts >= starts;
    })) << name
        << " " << static_cast<int>(Find(name).state) << " " << Find(name).detail;
  }
  std::string Log(const std::string& name) {
    const auto part = ground_->Logs(name, 0, 1 << 20);
    return part.ok() ? part->bytes : part.error().message;
  }
  /// Waits for the output's line number `line`, from 0, to be whole. Output wakes nobody.
  std::string Line(const std::string& name, size_t line) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      const std::string log = Log(name);
      size_t begin = 0;
      for (size_t i = 0; i < line && begin != std::string::npos; ++i)
        if (begin = log.find('\n', begin); begin != std::string::npos) ++begin;
      if (begin != std::string::npos)
        if (const size_t end = log.find('\n', begin); end != std::string::npos)
          return log.substr(begin, end - begin);
      WaitForEnd(-1, milliseconds(5));
    }
    ADD_FAILURE() << "no line " << line << " in: " << Log(name);
    return "";
  }
  Watched ProcessIn(const std::string& name, size_t line = 0) {
    return Watched::Of(std::atoi(Line(name, line).c_str()));
  }
  std::string OnlyFolder() {
    std::string found;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folder + "/instances"))
      found = entry.path().native();
    return found;
  }
  size_t FolderCount() {
    const std::filesystem::directory_iterator all(options_.folder + "/instances");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  TempDir folder_;
  LocalGroundOptions options_ = OptionsFor(folder_.path() + "/ground");
  std::unique_ptr<LocalGround> ground_;
  std::shared_ptr<Changes> changes_;
};

TEST_F(LocalGroundTest, AnInstanceSeesWhatItsSpecSaysAndNothingElse) {
  InstanceSpec spec = OneShot("env", "");
  const Fd ours(::open("/dev/null", O_RDONLY));  // not to be inherited, close-on-exec or not
  spec.arguments = {"/usr/bin/env", "-0"};
  spec.environment = {"A=1", "B=two words", "C=", "D=\xff\xfe"};
  Apply(spec);
  UntilState("env", InstanceState::kCompleted);
  EXPECT_EQ(Log("env"), "A=1\0B=two words\0C=\0D=\xff\xfe\0"s);
  Apply(OneShot("fds",
                "pwd; ls /proc/$$/fd; id -g; ps -o sid= -p $$; echo $$; cat "
                "/proc/self/oom_score_adj"));
  UntilState("fds", InstanceState::kCompleted);
  EXPECT_TRUE(Line("fds", 0).ends_with("/home")) << Log("fds");
  EXPECT_EQ(Line("fds", 1) + Line("fds", 2) + Line("fds", 3), "012") << Log("fds");
  EXPECT_NE(Line("fds", 4).find_first_of("0123456789"), std::string::npos);
  EXPECT_EQ(std::atoi(Line("fds", 5).c_str()), std::atoi(Line("fds", 6).c_str())) << Log("fds");
  EXPECT_GE(std::atoi(Line("fds", 7).c_str()), 500);
  spec = OneShot("there", "pwd; touch mark");
  spec.directory = folder_.path() + "/some/where";
  Apply(spec);
  UntilState("there", InstanceState::kCompleted);
  EXPECT_EQ(Log("there"), spec.directory + "\n");
  ASSERT_TRUE(ground_->Remove("there").ok());
  EXPECT_EQ(::access((spec.directory + "/mark").c_str(), F_OK), 0);  // a named one is the caller's
}

TEST_F(LocalGroundTest, RemoveLeavesNoProcessAndNoFile) {
  // Grandchildren that leave group and session, ignore what can be ignored, and outlive their
  // parent.
  const char* const script =
      "echo $$; (setsid bash -c \"trap '' TERM HUP INT; (trap '' TERM; echo \\$BASHPID; while :; "
      "do "
      "sleep 1000; done) & exit\" &) ; trap '' TERM; while :; do sleep 1000; done";
  options_.grace = milliseconds(200);
  Reopen();
  for (const bool groups : {true, false}) {
    options_.use_groups = groups;
    Reopen();
    Apply(Shell("tree", script));
    const Watched root = ProcessIn("tree", 0);
    const Watched daemon = ProcessIn("tree", 1);
    ASSERT_TRUE(root.alive() && daemon.alive());
    EXPECT_NE(::getsid(daemon.id.pid), root.id.pid);
    const Status removed = ground_->Remove("tree");
    EXPECT_TRUE(removed.ok()) << removed.error().ToString();
    EXPECT_FALSE(root.alive());
    EXPECT_FALSE(daemon.alive());
    EXPECT_EQ(FolderCount(), 0u);
  }
}

TEST_F(LocalGroundTest, WhatACommandLeavesBehindEndsWithIt) {
  for (const bool groups : {true, false}) {
    options_.use_groups = groups;
    Reopen();
    Apply(OneShot("leaver", "(setsid sleep 1000 & echo $!) ; exit 0"));
    UntilState("leaver", InstanceState::kCompleted);
    EXPECT_FALSE(ProcessIn("leaver").alive());
    ASSERT_TRUE(ground_->Remove("leaver").ok());
  }
}

TEST_F(LocalGroundTest, ItIsEndedKindlyFirst) {
  Apply(Shell("kind", fmt::format("trap 'echo bye > {}/bye; exit 0' TERM; echo $$; while :; do "
                                  "sleep 1000 & wait; done",
                                  folder_.path())));
  const Watched process = ProcessIn("kind");
  ASSERT_TRUE(ground_->Remove("kind").ok());
  EXPECT_FALSE(process.alive());
  EXPECT_EQ(*ReadFile(folder_.path() + "/bye"), "bye\n");
}

TEST_F(LocalGroundTest, AGroundThatLeavesIsFollowedByAnother) {
  Apply(Shell("stays", "echo $$; echo started >> starts; exec sleep 1000"));
  Apply(OneShot("ended", "echo done; exit 4"));
  UntilState("stays", InstanceState::kRunning);
  UntilState("ended", InstanceState::kFailed);
  const Watched process = ProcessIn("stays");
  const InstanceStatus before = Find("stays");
  const InstanceStatus ended = Find("ended");
  Reopen();
  EXPECT_TRUE(process.alive());
  EXPECT_EQ(Find("stays").state, InstanceState::kRunning);
  EXPECT_EQ(Find("stays").node, before.node);
  EXPECT_EQ(Find("stays").address, "127.0.0.1");
  EXPECT_EQ(Find("stays").since, before.since);
  EXPECT_EQ(Find("stays").starts, 1u);
  EXPECT_EQ(Find("ended").detail, ended.detail);
  EXPECT_EQ(Find("ended").state, InstanceState::kFailed);
  EXPECT_EQ(Log("ended"), "done\n");
  ASSERT_TRUE(ground_->Remove("stays").ok());
  EXPECT_FALSE(process.alive());
}

TEST_F(LocalGroundTest, OneGroundAtATimeInAFolder) {
  static const SystemClock clock;
  const auto second = LocalGround::Open(options_, clock);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
}

TEST_F(LocalGroundTest, WhatEndsWhileNobodyLooksIsKnownLater) {
  const std::string gate = folder_.path() + "/gate";
  ASSERT_EQ(::mkfifo(gate.c_str(), 0600), 0);
  Apply(OneShot("fine", "echo $$; read line < " + gate + "; echo more; exit 0"));
  Apply(OneShot("bad", "echo $$; kill -STOP $$; exit 7"));
  Apply(Shell("service",
              "echo $$; [ -e been ] && exec sleep 1000; touch been; kill -STOP $$; "
              "exit 5"));
  const Watched fine = ProcessIn("fine");
  const Watched bad = ProcessIn("bad");
  const Watched service = ProcessIn("service");
  ground_.reset();
  Fd(::open(gate.c_str(), O_WRONLY));
  for (const Watched* each : {&bad, &service}) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (each->alive() && std::chrono::steady_clock::now() < deadline) {
      ::kill(each->id.pid, SIGCONT);
      WaitForEnd(each->pidfd.get(), milliseconds(10));
    }
  }
  ASSERT_TRUE(WaitForEnd(fine.pidfd.get(), kPatience));
  Open();
  UntilState("fine", InstanceState::kCompleted);
  UntilState("bad", InstanceState::kFailed);
  EXPECT_EQ(Find("bad").detail, "exited with status 7");
  UntilState("service", InstanceState::kRunning, 2);
  EXPECT_EQ(Find("service").detail, "before: exited with status 5");
  EXPECT_TRUE(Log("fine").ends_with("more\n"));
}

TEST_F(LocalGroundTest, TheFailureStaysReadableAndTheLogGoesOn) {
  Apply(Shell("service", "echo run; [ -e been ] && exec sleep 1000; touch been; exit 9"));
  UntilState("service", InstanceState::kRunning, 2);
  EXPECT_EQ(Find("service").detail, "before: exited with status 9");
  Until("both outputs", [&] {
    return Log("service") == "run\n[umbel] start 2; before: exited with status 9\nrun\n";
  });
}

TEST_F(LocalGroundTest, AMissingProgramFailsWithASentenceAndNoStorm) {
  options_.backoff_min = milliseconds(200);
  options_.backoff_max = std::chrono::hours(1);
  Reopen();
  InstanceSpec spec = OneShot("missing", "");
  spec.arguments = {"/nowhere/at all"};
  Apply(spec);
  UntilState("missing", InstanceState::kFailed);
  EXPECT_EQ(Find("missing").detail, "cannot start '/nowhere/at all': No such file or directory");
  EXPECT_TRUE(ground_->Logs("missing", 0, 1)->bytes.size() == 1);
  EXPECT_TRUE(ground_->Logs("missing", 0, 1000)->ended);
  spec.name = "service";
  spec.one_shot = false;
  Apply(spec);
  // 200 + 400 + 800 ms until the fourth.
  UntilState("service", InstanceState::kFailed, 4);
  EXPECT_EQ(Find("service").detail,
            "cannot start '/nowhere/at all': No such file or directory; it is started again in "
            "1.6 s");
  EXPECT_EQ(Find("missing").starts, 1u);
}

TEST_F(LocalGroundTest, WhoRanLongEnoughBeginsAnew) {
  options_.healthy_after = milliseconds(0);
  Reopen();
  Apply(Shell("flaps", "exit 1"));
  UntilState("flaps", InstanceState::kFailed, 5);
  EXPECT_NE(Find("flaps").detail.find("in 0.02 s"), std::string::npos) << Find("flaps").detail;
}

TEST_F(LocalGroundTest, MoreMemoryThanItHasIsNamed) {
  if (!process::CgroupParent::Open()->memory()) GTEST_SKIP() << ground_->Limits();
  InstanceSpec spec = OneShot("hog", "exec tail /dev/zero");
  spec.resources.memory_bytes = 50'000'000;
  Apply(spec);
  UntilState("hog", InstanceState::kFailed);
  EXPECT_EQ(Find("hog").detail, "killed: used more than its 50 MB of memory");
  spec = OneShot("parent", "tail /dev/zero; exit 3");
  spec.resources.memory_bytes = 50'000'000;
  Apply(spec);
  UntilState("parent", InstanceState::kFailed);
  EXPECT_NE(Find("parent").detail.find("used more than its 50 MB of memory"), std::string::npos)
      << Find("parent").detail;
}

TEST_F(LocalGroundTest, WithoutGroupsAddressSpaceIsBounded) {
  options_.use_groups = false;
  Reopen();
  EXPECT_NE(ground_->Limits().find("held to none"), std::string::npos) << ground_->Limits();
  InstanceSpec spec = OneShot("bounded", "ulimit -v");
  spec.resources.memory_bytes = uint64_t{100} << 20;
  Apply(spec);
  UntilState("bounded", InstanceState::kCompleted);
  EXPECT_EQ(Log("bounded"), fmt::format("{}\n", (100 << 10) + (4 << 20)));
}

TEST_F(LocalGroundTest, WithoutNetworkThereIsOnlyItsOwnLoopback) {
  InstanceSpec spec = OneShot("alone", "grep -c : /proc/net/dev; cat /proc/net/route | wc -l");
  spec.network = false;
  const Status applied = ground_->Apply(spec);
  if (!ground_->Isolation().ok()) {
    EXPECT_EQ(applied.error().code, Code::kFailedPrecondition);
    GTEST_SKIP() << applied.error().message;
  }
  ASSERT_TRUE(applied.ok());
  UntilState("alone", InstanceState::kCompleted);
  EXPECT_EQ(Line("alone", 0), "1");
  EXPECT_LE(std::atoi(Line("alone", 1).c_str()), 1);  // the heading
}

TEST_F(LocalGroundTest, IsolatedItSeesWhatItIsShownAndItsOwnFolder) {
  const TempDir shown;
  ASSERT_TRUE(WriteFileAtomic(shown.path() + "/node-1", "for node-1").ok());
  ASSERT_TRUE(WriteFileAtomic(shown.path() + "/hidden", "for nobody").ok());
  InstanceSpec spec =
      OneShot("alone", "cat " + shown.path() + "/{node}; echo; cat " + shown.path() +
                           "/hidden || echo no; echo x >mine && ls; echo $NODE; "
                           "ls -d /proc/[0-9]* | wc -l");
  spec.environment.push_back("NODE={node}");
  spec.node = "node-1";
  spec.isolated = true;
  spec.network = false;
  spec.shown = {shown.path() + "/{node}"};
  const Status applied = ground_->Apply(spec);
  if (!ground_->Isolation().ok()) GTEST_SKIP() << applied.error().message;
  ASSERT_TRUE(applied.ok()) << applied.error().message;
  UntilState("alone", InstanceState::kCompleted);
  EXPECT_EQ(Line("alone", 0), "for node-1");
  EXPECT_NE(Line("alone", 1).find("No such file"), std::string::npos);
  EXPECT_EQ(Line("alone", 2), "no");
  EXPECT_EQ(Line("alone", 3), "mine");
  EXPECT_EQ(Line("alone", 4), "node-1");
  EXPECT_LE(std::atoi(Line("alone", 5).c_str()), 4);
  // What it leaves behind ends with it, and it is ended as any other.
  spec = Shell("tree", "setsid sleep 1000 & trap 'exit 0' TERM; echo up; wait");
  spec.isolated = true;
  Apply(spec);
  UntilState("tree", InstanceState::kRunning);
  EXPECT_TRUE(ground_->Remove("tree").ok());
  spec.isolated = false;
  spec.shown = {"/"};
  EXPECT_EQ(ground_->Apply(spec).error().code, Code::kInvalidArgument);
}

TEST_F(LocalGroundTest, TheLogIsBounded) {
  options_.log_bytes_max = 100'000;
  Reopen();
  Apply(OneShot("talks", "for i in {1..100000}; do echo line $i; done"));
  UntilState("talks", InstanceState::kCompleted);
  uint64_t on_disk = 0;
  for (const auto& entry : std::filesystem::directory_iterator(OnlyFolder()))
    if (entry.path().filename().native().starts_with("log.")) on_disk += entry.file_size();
  EXPECT_LE(on_disk, 100'000u);
  EXPECT_GE(on_disk, 50'000u);
  const auto part = ground_->Logs("talks", 0, 1 << 20);
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->next, 1'088'895u);  // of all that was ever written
  EXPECT_EQ(part->bytes.size(), on_disk);
  EXPECT_TRUE(part->bytes.ends_with("line 99999\nline 100000\n"));
}

TEST_F(LocalGroundTest, AHundredInstances) {
  constexpr int kCount = 120;
  for (int i = 0; i < kCount; ++i) Apply(Shell(fmt::format("i.{}", i), "echo $$; exec sleep 1000"));
  for (int i = 0; i < kCount; ++i) UntilState(fmt::format("i.{}", i), InstanceState::kRunning);
  std::map<std::string, int> nodes;
  for (const InstanceStatus& status : ground_->List()) ++nodes[status.node];
  EXPECT_EQ(nodes, (std::map<std::string, int>{{"node-0", 40}, {"node-1", 40}, {"node-2", 40}}));
  EXPECT_EQ(KeepersOf(folder_.path()).size(), static_cast<size_t>(kCount));
  Reopen();
  for (const InstanceStatus& status : ground_->List()) EXPECT_EQ(status.starts, 1u);
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(ground_->Shutdown().ok());  // all at once, not one after the other
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(60));
  EXPECT_TRUE(KeepersOf(folder_.path()).empty());
}

TEST_F(LocalGroundTest, AShutGroundIsOpenedWithAllThatWasWanted) {
  Apply(Shell("service", "echo $$; exec sleep 1000"));
  Apply(OneShot("build", "echo $$; [ -e been ] && exit 0; touch been; exec sleep 1000"));
  UntilState("service", InstanceState::kRunning);
  UntilState("build", InstanceState::kRunning);
  ASSERT_TRUE(ProcessIn("build").alive());
  while (::access((OnlyFolder() + "/home/been").c_str(), F_OK) != 0 &&
         std::filesystem::path(OnlyFolder()).filename().native().ends_with("build"))
    WaitForEnd(-1, milliseconds(5));
  const std::string node = Find("service").node;
  ASSERT_TRUE(ground_->Shutdown().ok());
  EXPECT_TRUE(KeepersOf(folder_.path()).empty());
  EXPECT_EQ(Find("service").state, InstanceState::kWaiting);
  EXPECT_EQ(Find("service").detail, "the ground is shut down");
  EXPECT_EQ(ground_->Apply(Shell("late", "exit 0")).error().code, Code::kUnavailable);
  Reopen();
  UntilState("service", InstanceState::kRunning, 2);
  EXPECT_EQ(Find("service").node, node);
  UntilState("build", InstanceState::kCompleted, 2);
}

TEST_F(LocalGroundTest, WhatIsKeptByAKilledKeeperDiesWithItAndIsNamed) {
  for (const bool groups : {true, false}) {
    options_.use_groups = groups;
    Reopen();
    Apply(Shell("service", "(sleep 1000 & echo $!); echo $$; exec sleep 1000"));
    const Watched child = ProcessIn("service", 0);
    const Watched root = ProcessIn("service", 1);
    UntilState("service", InstanceState::kRunning);
    const std::vector<pid_t> keepers = KeepersOf(folder_.path());
    ASSERT_EQ(keepers.size(), 1u);
    ::kill(keepers[0], SIGKILL);
    UntilState("service", InstanceState::kRunning, 2);
    EXPECT_FALSE(root.alive());
    EXPECT_FALSE(child.alive());
    EXPECT_NE(Find("service").detail.find("its keeper was killed"), std::string::npos);
    ASSERT_TRUE(ground_->Remove("service").ok());
  }
}

TEST_F(LocalGroundTest, WithoutAGroundItDoesNotStayForGood) {
  // The ground must be another process: a keeper's owner is whoever has the lock.
  options_.orphan_grace = std::chrono::seconds(1);
  ground_.reset();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    const SystemClock clock;
    auto ground = LocalGround::Open(options_, clock);
    UMBEL_CHECK(ground.ok());
    UMBEL_CHECK((*ground)->Apply(Shell("orphan", "echo $$; exec sleep 1000")).ok());
    while ((*ground)->Find("orphan")->state != InstanceState::kRunning)
      WaitForEnd(-1, milliseconds(5));
    static_cast<void>(!::write(ends[1], "r", 1));
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ends[0], &byte, 1), 1);
  Fd(ends[0]).Close();
  Fd(ends[1]).Close();
  const std::vector<pid_t> keepers = KeepersOf(folder_.path());
  ASSERT_EQ(keepers.size(), 1u);
  const Watched keeper = Watched::Of(keepers[0]);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  ASSERT_TRUE(keeper.pidfd.valid());
  EXPECT_TRUE(WaitForEnd(keeper.pidfd.get(), kPatience));
  options_.orphan_grace = std::chrono::seconds(120);
  Open();
  UntilState("orphan", InstanceState::kRunning, 2);
  EXPECT_EQ(Find("orphan").detail,
            "before: was ended after 1 s without the ground that started it");
}

TEST_F(LocalGroundTest, ANodeThatWasTakenDownStaysDown) {
  EXPECT_EQ(ground_->SetUp("node-9", false).error().code, Code::kNotFound);
  ASSERT_TRUE(ground_->SetUp("node-1", false).ok());
  Reopen();
  EXPECT_FALSE(ground_->Nodes()[1].up);
  ASSERT_TRUE(ground_->SetUp("node-1", true).ok());
  Reopen();
  EXPECT_TRUE(ground_->Nodes()[1].up);
}

TEST_F(LocalGroundTest, ANodeThatIsNotDeclaredAnyMoreGivesItsInstancesUp) {
  InstanceSpec spec = Shell("learner", "echo $$; exec sleep 1000");
  spec.addons = {"FLOps-learner"};
  Apply(spec);
  UntilState("learner", InstanceState::kRunning);
  ASSERT_EQ(Find("learner").node, "node-1");
  const Watched process = ProcessIn("learner");
  options_.nodes.erase(options_.nodes.begin() + 1);
  Reopen();
  UntilState("learner", InstanceState::kRunning, 2);
  EXPECT_EQ(Find("learner").node, "node-2");
  EXPECT_FALSE(process.alive());
}

TEST_F(LocalGroundTest, DamagedFilesHarmOnlyTheirInstance) {
  Apply(Shell("good", "echo $$; exec sleep 1000"));
  UntilState("good", InstanceState::kRunning);
  const Watched good = ProcessIn("good");
  ground_.reset();
  const std::string instances = options_.folder + "/instances";
  for (const char* name : {"00000007-damaged", "00000008-empty", "x", "9", "-1-x"})
    ASSERT_TRUE(MakeDirectories(instances + "/" + name).ok());
  ASSERT_TRUE(WriteFileAtomic(instances + "/00000007-damaged/wanted", "\xa1\xff junk").ok());
  ASSERT_TRUE(WriteFileAtomic(instances + "/00000007-damaged/state", "junk").ok());
  Open();
  EXPECT_TRUE(good.alive());
  EXPECT_EQ(ground_->List().size(), 1u);
  EXPECT_NE(::access((instances + "/00000007-damaged").c_str(), F_OK), 0);
  EXPECT_EQ(::access((instances + "/x").c_str(), F_OK), 0);  // not of our making
  EXPECT_EQ(Find("good").state, InstanceState::kRunning);
}

TEST_F(LocalGroundTest, AFullDiskIsSaidInWords) {
  const std::string small = folder_.path() + "/small";
  ASSERT_TRUE(MakeDirectories(small).ok());
  if (::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "cannot mount a small disk";
  ground_.reset();
  options_.folder = small + "/ground";
  options_.log_bytes_max = uint64_t{1} << 30;
  Open();
  Apply(Shell("talks",
              "echo $$; while [ ! -e enough ]; do echo filling the disk with words; done; "
              "echo $$; exec sleep 1000"));
  UntilState("talks", InstanceState::kRunning);
  const auto full = [&] {
    const auto applied = ground_->Apply(OneShot("more", "exit 0"));
    return !applied.ok() && applied.error().message.find("No space left") != std::string::npos;
  };
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!full() && std::chrono::steady_clock::now() < deadline) {
    ASSERT_TRUE(ground_->Remove("more").ok());
    WaitForEnd(-1, milliseconds(5));
  }
  EXPECT_TRUE(full());
  EXPECT_FALSE(ground_->Find("more"));
  EXPECT_EQ(Find("talks").state, InstanceState::kRunning);  // it only loses output
  ASSERT_TRUE(ground_->Remove("talks").ok());               // which makes room
  Apply(OneShot("more", "echo fine"));
  UntilState("more", InstanceState::kCompleted);
  ASSERT_TRUE(ground_->Shutdown().ok());
  ground_.reset();
  ASSERT_EQ(::umount2(small.c_str(), MNT_DETACH), 0);
  options_.folder = folder_.path() + "/ground";
}

/// A ground in a process of its own, which is killed at random moments.
TEST_F(LocalGroundTest, KilledAtAnyMomentItStartsNothingTwiceAndLeavesNothing) {
  ground_.reset();
  const char* given = std::getenv("UMBEL_TEST_SEED");
  unsigned seed = given ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                        : static_cast<unsigned>(::getpid());
  const char* more = std::getenv("UMBEL_TEST_KILLS");
  const int kills = more ? std::atoi(more) : 12;
  std::printf("%d kills, seed %u (UMBEL_TEST_SEED replays it, UMBEL_TEST_KILLS for more)\n", kills,
              seed);
  const std::string marks = folder_.path() + "/marks";
  ASSERT_TRUE(MakeDirectories(marks).ok());
  // Two at once of one name would see each other's lock.
  const auto script = [&](const std::string& name) {
    return fmt::format(
        "exec 9>{0}/{1}.lock; flock -n 9 || {{ echo {1} >> {0}/twice; }}; echo x >> "
        "{0}/{1}.starts; "
        "exec sleep 1000",
        marks, name);
  };
  for (int kill = 0; kill < kills; ++kill) {
    const pid_t owner = ::fork();
    if (owner == 0) {
      const SystemClock clock;
      auto ground = LocalGround::Open(options_, clock);
      UMBEL_CHECK(ground.ok());
      for (int i = 0;; i = (i + 1) % 8) {
        const std::string name = fmt::format("i.{}", i);
        UMBEL_CHECK((*ground)->Apply(Shell(name, script(name))).ok());
        if (i % 3 == 2) UMBEL_CHECK((*ground)->Remove(fmt::format("i.{}", i - 1)).ok());
        if (i == 5)
          UMBEL_CHECK(
              (*ground)->Apply(Shell("i.0", script("i.0") + " # " + std::to_string(i))).ok());
      }
    }
    const timespec moment{0, ::rand_r(&seed) % 400'000'000};
    ::nanosleep(&moment, nullptr);  // the random moment itself, not a wait for anything
    ::kill(owner, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(owner, &status, 0), owner);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the ground failed by itself";
  }
  Open();
  std::set<std::string> names;
  for (const InstanceStatus& status : ground_->List()) names.insert(status.name);
  for (const std::string& name : names) UntilState(name, InstanceState::kRunning);
  Until("keepers of what was not wanted end",
        [&] { return KeepersOf(folder_.path()).size() == names.size(); });
  EXPECT_NE(::access((marks + "/twice").c_str(), F_OK), 0)
      << ReadFile(marks + "/twice").value_or("");
  for (const std::string& name : names) EXPECT_TRUE(ground_->Remove(name).ok());
  EXPECT_TRUE(KeepersOf(folder_.path()).empty());
  EXPECT_EQ(FolderCount(), 0u);
}

}  // namespace

TEST(LocalGround, WhoFollowsALogIsWokenByIt) {
  const TempDir folder;
  const auto ground = MustOpen(OptionsFor(folder.path() + "/ground"));
  ASSERT_TRUE(ground->Apply(Shell("a.0", "while sleep 0.02; do echo more; done")).ok());
  uint64_t offset = 0;
  for (int grown = 0; grown < 3;) {
    const auto reader = std::make_shared<Changes>();
    ASSERT_TRUE(ground->WatchLog("a.0", reader));
    // No status changes: it is the log that wakes, perhaps when it is only made.
    ASSERT_TRUE(reader->Until([&] { return reader->count() > 0; }));
    const auto part = ground->Logs("a.0", offset, 1 << 20);
    ASSERT_TRUE(part.ok());
    grown += part->next > std::exchange(offset, part->next) ? 1 : 0;
  }
  EXPECT_FALSE(ground->WatchLog("b.0", std::make_shared<Changes>()));
  EXPECT_TRUE(ground->Shutdown().ok());
}

namespace testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Local, GroundConformance, LocalHarness);
}  // namespace testing
}  // namespace umbel::orchestrator
