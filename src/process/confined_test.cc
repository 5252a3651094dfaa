// Confined processes. The launcher is this very binary: see confine_testing.h.
#include "process/confined.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <rapidcheck.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "base/testing.h"
#include "process/confine_testing.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using testing::End;
using testing::kPatience;
using testing::ReadLine;
using testing::ReadOutput;
using testing::RunToEnd;
using testing::Shell;
using testing::Spawn;
using umbel::testing::TempDir;

constexpr uid_t kNobodys = 61'234;  // a user without a name, and without a process but ours

constexpr int kMappings = 12;

#define UMBEL_NEEDS_ROOT() \
  if (::geteuid() != 0) GTEST_SKIP() << "needs root"

/// Descriptors 0 to 49 of the shell that runs it, as "number target" lines.
constexpr char kListDescriptors[] =
    "i=0; while [ $i -lt 50 ]; do f=/proc/$$/fd/$i; [ -L $f ] && printf '%s ' $i && readlink $f; "
    "i=$((i+1)); done";

TEST(Confined, NothingRunsBehindAGateThatIsClosed) {
  const TempDir directory;
  Child child = Spawn(Shell("touch " + directory.path() + "/ran"));
  EXPECT_FALSE(WaitForEnd(child.pidfd.get(), milliseconds(0)));
  child.gate.Close();
  const Status started = child.AwaitStart(kPatience);
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().message, "the process ended before the command could start");
  EXPECT_EQ(End(child), 1 << 8);
  EXPECT_NE(::access((directory.path() + "/ran").c_str(), F_OK), 0);
}

TEST(Confined, AProcessKilledAtItsGateIsAnErrorAndNoSignalToUs) {
  Child child = Spawn(Shell("exit 0"));
  ::kill(child.pid, SIGKILL);
  End(child);
  EXPECT_FALSE(child.Open().ok());
  EXPECT_FALSE(child.AwaitStart(kPatience).ok());
}

TEST(Confined, ThatWhichDoesNotStartInTimeIsSaid) {
  Child child = Spawn(Shell("exit 0"));
  const Status started = child.AwaitStart(milliseconds(1));
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().code, Code::kDeadlineExceeded);
  ASSERT_TRUE(child.Open().ok());
  EXPECT_TRUE(child.AwaitStart(kPatience).ok());  // and may be asked again
  EXPECT_EQ(End(child), 0);
}

TEST(Confined, LeadsASessionAndAGroup) {
  Child child = Spawn(Shell("exit 0"));
  EXPECT_EQ(::getsid(child.pid), child.pid);
  EXPECT_EQ(::getpgid(child.pid), child.pid);
  EXPECT_EQ(StartTicks(child.pid), child.start_ticks);
  child.gate.Close();
  End(child);
}

TEST(Confined, EnvironmentIsExactlyAsListed) {
  ::setenv("UMBEL_TEST_SECRET", "1", 1);
  CommandSpec command = Shell("");
  command.arguments = {"env"};  // looked for in the PATH that is given, not in ours
  command.environment = {"PATH=/usr/bin", "A=", "B=x=y z\n", "LD_PRELOAD="};
  EXPECT_EQ(RunToEnd(command), "PATH=/usr/bin\nA=\nB=x=y z\n\nLD_PRELOAD=\n");
  command.arguments = {"/usr/bin/env"};
  command.environment = {};
  EXPECT_EQ(RunToEnd(command), "");
  command.environment = {"BIG=" + std::string(100'000, 'x')};
  EXPECT_EQ(RunToEnd(command).size(), 100'005u);
  ::unsetenv("UMBEL_TEST_SECRET");
}

TEST(Confined, DescriptorsAreExactlyAsListed) {
  const TempDir directory;
  const Fd ours(::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY));  // not close-on-exec
  CommandSpec command = Shell(kListDescriptors);
  const std::string listed = RunToEnd(command);
  EXPECT_TRUE(listed.starts_with("0 /dev/null\n1 pipe:")) << listed;
  EXPECT_EQ(std::count(listed.begin(), listed.end(), '\n'), 3) << listed;

  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Fd here(ends[0]);
  {
    const Fd there(ends[1]);
    command = Shell("read line <&3; echo got $line; echo answer >&3");
    command.descriptors = {{there.get(), 3}};
    Child child = Spawn(command);
    ASSERT_TRUE(child.Open().ok());
    ASSERT_EQ(::write(here.get(), "hello\n", 6), 6);
    EXPECT_EQ(ReadOutput(child), "got hello\n");
    EXPECT_EQ(End(child), 0);
  }
  char buffer[16];
  EXPECT_EQ(::read(here.get(), buffer, sizeof buffer), 7);
  EXPECT_EQ(::read(here.get(), buffer, sizeof buffer), 0);  // nobody else has kept it open
}

TEST(Confined, AnyDescriptorsGoToAnyNumbers) {
  const TempDir directory;
  std::vector<Fd> files;
  for (int i = 0; i < 12; ++i)
    files.emplace_back(::open(fmt::format("{}/{}", directory.path(), i).c_str(),
                              O_CREAT | O_RDWR | (i % 2 == 0 ? O_CLOEXEC : 0), 0600));
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = kMappings;
  const auto mapping = [&] {
    // The numbers that are ours are among those that are given out: 1 -> 2, 2 -> 1 is a case.
    std::map<int, size_t> wanted;
    for (const int to : *rc::gen::container<std::set<int>>(rc::gen::inRange(3, 40)))
      if (wanted.size() < files.size())
        wanted.emplace(to, static_cast<size_t>(*rc::gen::inRange(0, 12)));
    CommandSpec command = Shell(kListDescriptors);
    std::string expected;
    for (const auto& [to, file] : wanted) {
      command.descriptors.push_back({files[file].get(), to});
      expected += fmt::format("{} {}/{}\n", to, directory.path(), file);
    }
    const std::string listed = RunToEnd(command);
    // dash keeps nothing of its own open for `-c`; the first three lines are 0, 1 and 2.
    size_t at = 0;
    for (int i = 0; i < 3; ++i) at = listed.find('\n', at) + 1;
    RC_ASSERT(listed.substr(at) == expected);
  };
  const auto result = rc::detail::checkTestable(mapping, rc::detail::TestMetadata(), params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << "seed " << params.seed << "\n"
                                                      << text.str();
}

TEST(Confined, WhatCannotBeIsRefusedBeforeAnythingStarts) {
  const auto code = [](const CommandSpec& command) {
    const auto child = SpawnConfined(command, {});
    EXPECT_FALSE(child.ok());
    return child.ok() ? Code::kUnknown : child.error().code;
  };
  EXPECT_EQ(code({}), Code::kInvalidArgument);
  CommandSpec command = Shell("exit 0");
  for (const char* bad : {"", "novalue", "=x"}) {
    command.environment = {bad};
    EXPECT_EQ(code(command), Code::kInvalidArgument) << bad;
  }
  command.environment = {std::string("A=\0B=", 5)};
  EXPECT_EQ(code(command), Code::kInvalidArgument);
  command = Shell(std::string("a\0b", 3));
  EXPECT_EQ(code(command), Code::kInvalidArgument);
  command = Shell("exit 0");
  for (const PassedFd bad : {PassedFd{0, -1}, PassedFd{-1, 3}, PassedFd{0, 256}, PassedFd{0, 1}}) {
    command.descriptors = {bad};  // the last: 1 is the output pipe already
    EXPECT_EQ(code(command), Code::kInvalidArgument) << bad.from << " " << bad.to;
  }
  command.descriptors = {{0, 5}, {1, 5}};
  EXPECT_EQ(code(command), Code::kInvalidArgument);
  command.descriptors = {{200, 5}};  // not open
  EXPECT_EQ(code(command), Code::kInvalidArgument);
}

TEST(Confined, ACommandThatCannotBeStartedSaysWhy) {
  CommandSpec command = Shell("");
  const auto refused = [&](const Confinement& confinement) {
    Child child = Spawn(command, confinement);
    EXPECT_TRUE(child.Open().ok());
    const Status started = child.AwaitStart(kPatience);
    EXPECT_NE(End(child), 0);
    return started.ok() ? "" : started.error().ToString();
  };
  command.arguments = {"/nothing here"};
  EXPECT_EQ(refused({}), "not found: cannot start '/nothing here': No such file or directory");
  command.arguments = {"/etc/passwd"};
  EXPECT_EQ(refused({}), "failed precondition: cannot start '/etc/passwd': Permission denied");
  command = Shell("exit 0");
  command.directory = "/nowhere";
  EXPECT_EQ(refused({}), "not found: cannot enter '/nowhere': No such file or directory");
  if (::geteuid() == 0) return;
  command.directory = "";
  Confinement confinement;
  confinement.uid = kNobodys;
  EXPECT_NE(refused(confinement).find("cannot become user 61234"), std::string::npos);
}

TEST(Confined, StartsInItsFolder) {
  const TempDir directory;
  CommandSpec command = Shell("pwd");
  command.directory = directory.path();
  EXPECT_EQ(RunToEnd(command), directory.path() + "\n");
}

TEST(Confined, OpenFilesAreLimited) {
  Confinement confinement;
  confinement.open_files = 9;
  const std::string output =
      RunToEnd(Shell("ulimit -Sn; ulimit -Hn; (exec 8</dev/null) && echo eight; cat 3</dev/null "
                     "4</dev/null 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null"),
               confinement);
  EXPECT_TRUE(output.starts_with("9\n9\neight\n")) << output;
  EXPECT_NE(output.find("Too many open files"), std::string::npos) << output;
}

TEST(Confined, FilesAreLimited) {
  const TempDir directory;
  Confinement confinement;
  confinement.file_bytes = 4096;
  CommandSpec command = Shell("ulimit -c; head -c 100000 /dev/zero > big; wc -c < big");
  command.directory = directory.path();
  EXPECT_EQ(RunToEnd(command, confinement), "0\nFile size limit exceeded\n4096\n");
}

TEST(Confined, AddressSpaceIsLimited) {
  Confinement confinement;
  confinement.address_space_bytes = uint64_t{64} << 20;
  const std::string output = RunToEnd(Shell("ulimit -v; tail /dev/zero"), confinement);
  EXPECT_TRUE(output.starts_with("65536\n")) << output;
  EXPECT_NE(output.find("memory exhausted"), std::string::npos) << output;
}

TEST(Confined, IsTheFirstToGoWhenMemoryIsShort) {
  const auto ours = ReadFile("/proc/self/oom_score_adj");
  ASSERT_TRUE(ours.ok());
  const int expected = std::min(std::atoi(ours->c_str()) + 500, 1000);
  EXPECT_EQ(RunToEnd(Shell("cat /proc/self/oom_score_adj")), fmt::format("{}\n", expected));
}

TEST(Confined, AnotherUserHasNoGroupsAndNoWayBack) {
  UMBEL_NEEDS_ROOT();
  Confinement confinement;
  confinement.uid = kNobodys;
  const std::string output = RunToEnd(
      Shell("id -u; id -g; id -G; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status; "
            "cat /etc/shadow 2>/dev/null || echo no"),
      confinement);
  EXPECT_EQ(output,
            "61234\n61234\n61234\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
            "NoNewPrivs:\t1\nno\n");
}

TEST(Confined, AForkBombOfAnotherUserIsBounded) {
  UMBEL_NEEDS_ROOT();
  Confinement confinement;
  confinement.uid = kNobodys + 1;
  confinement.processes = 20;
  // Each process that cannot fork says so; all end when the pipe that they wait on is closed.
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd writer(ends[1]);
  const Fd reader(ends[0]);
  CommandSpec command = Shell("bomb() { bomb & bomb & read nothing; }; bomb <&3");
  command.arguments = {"/bin/bash", "-c", command.arguments[2]};
  command.descriptors = {{reader.get(), 3}};
  Child child = Spawn(command, confinement);
  ASSERT_TRUE(child.Open().ok());
  std::string line = ReadLine(child);
  EXPECT_NE(line.find("Resource temporarily unavailable"), std::string::npos) << line;
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    struct stat owner;
    if (::stat(entry.path().c_str(), &owner) == 0 && owner.st_uid == confinement.uid) ++count;
  }
  EXPECT_GT(count, 1u);
  EXPECT_LE(count, 20u);
  ::kill(-child.pid, SIGKILL);
  ReadOutput(child);
  End(child);
}

TEST(Confined, WithoutNetworkNobodyIsReached) {
  UMBEL_NEEDS_ROOT();
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), generic, size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ASSERT_EQ(::getsockname(listener.get(), generic, &size), 0);
  CommandSpec command = Shell("");
  command.arguments = {"/bin/bash", "-c",
                       fmt::format("exec 2>&1; (exec 3<>/dev/tcp/127.0.0.1/{}) && echo reached; "
                                   "grep -c : /proc/net/dev",
                                   ntohs(address.sin_port))};
  EXPECT_EQ(RunToEnd(command).find("reached"), 0u);
  Confinement confinement;
  confinement.network = false;
  confinement.uid = kNobodys;
  const std::string output = RunToEnd(command, confinement);
  // Refused, and not unreachable: its own loopback is up.
  EXPECT_NE(output.find("Connection refused"), std::string::npos) << output;
  EXPECT_TRUE(output.ends_with("\n1\n")) << output;
}

TEST(Confined, TheNetworkIsTakenWithoutRootToo) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t user = ::fork();
  if (user == 0) {
    if (::geteuid() == 0) {
      UMBEL_CHECK(::setgroups(0, nullptr) == 0);
      UMBEL_CHECK(::setresgid(kNobodys, kNobodys, kNobodys) == 0);
      UMBEL_CHECK(::setresuid(kNobodys, kNobodys, kNobodys) == 0);
      ::prctl(PR_SET_DUMPABLE, 1);  // else /proc/self is root's
    }
    Confinement confinement;
    confinement.network = false;
    std::string said;
    if (auto child = SpawnConfined(Shell("id -u; grep -c : /proc/net/dev"), confinement);
        !child.ok() || !child->Open().ok()) {
      said = "nothing to start";
    } else if (const Status started = child->AwaitStart(kPatience); !started.ok()) {
      said = started.error().message;
    } else {
      said = ReadOutput(*child);
    }
    static_cast<void>(!::write(writer.get(), said.data(), said.size()));
    ::_exit(0);
  }
  writer.Close();
  std::string said;
  char buffer[512];
  for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<size_t>(n));
  ::waitpid(user, nullptr, 0);
  if (said.find("cannot make") != std::string::npos || said == "nothing to start")
    GTEST_SKIP() << said;
  EXPECT_EQ(said, fmt::format("{}\n1\n", ::geteuid() == 0 ? kNobodys : ::geteuid()));
}

/// Runs `body` in a process of its own, which then stays until it is killed.
template <typename Body>
pid_t ForkedParent(int answers, const Body& body) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const pid_t child = body();
  static_cast<void>(!::write(answers, &child, sizeof child));
  for (;;) ::pause();
}

TEST(Confined, EndsWithItsParent) {
  for (const uid_t uid : {uid_t{0}, kNobodys}) {
    if (uid != 0 && ::geteuid() != 0) continue;
    for (const bool open : {true, false}) {
      int ends[2];
      ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
      const Fd answers(ends[0]);
      const Fd writer(ends[1]);
      const pid_t parent = ForkedParent(writer.get(), [&] {
        CommandSpec command = Shell("trap '' TERM HUP; exec sleep 1000");
        command.output_pipe = false;
        Confinement confinement;
        confinement.uid = uid;
        static std::optional<Child> child(Spawn(command, confinement));
        if (open) UMBEL_CHECK(child->Open().ok() && child->AwaitStart(kPatience).ok());
        return child->pid;
      });
      pid_t child = 0;
      ASSERT_EQ(::read(answers.get(), &child, sizeof child), ssize_t{sizeof child});
      const Fd pidfd = OpenPidFd(child, StartTicks(child));
      ASSERT_TRUE(pidfd.valid());
      EXPECT_FALSE(WaitForEnd(pidfd.get(), milliseconds(0)));
      ::kill(parent, SIGKILL);
      ::waitpid(parent, nullptr, 0);
      EXPECT_TRUE(WaitForEnd(pidfd.get(), kPatience)) << "uid " << uid << ", open " << open;
    }
  }
}

TEST(Confined, TheThreadThatStartsItIsItsParent) {
  std::optional<Child> child;
  std::thread([&] {
    child = Spawn(Shell("exec sleep 1000"));
    EXPECT_TRUE(child->Open().ok());
    EXPECT_TRUE(child->AwaitStart(kPatience).ok());
  }).join();
  EXPECT_EQ(End(*child), SIGKILL);

  Confinement confinement;
  confinement.die_with_parent = false;
  std::thread([&] {
    child = Spawn(Shell("echo lives; read nothing <&3; exit 3"), confinement);
    EXPECT_TRUE(child->Open().ok());
  }).join();
  EXPECT_EQ(ReadLine(*child), "lives");
  EXPECT_EQ(WEXITSTATUS(End(*child)), 3);
}

TEST(Confined, HostileArgumentsOfTheLauncherAreRefused) {
  const auto run = [](std::vector<std::string> arguments) {
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    return ConfineMain(static_cast<int>(arguments.size()), pointers.data());
  };
  EXPECT_EQ(run({"umbel", "confine"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--", "true"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--report-fd", "9"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--report-fd", "9", "--"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--report-fd", "1", "--", "true"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--report-fd", "9", "--keep", "a", "--", "true"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--what", "9", "--", "true"}), 2);
  EXPECT_EQ(run({"umbel", "confine", "--uid"}), 2);
}

TEST(StartReport, TellsStartedFromNot) {
  EXPECT_TRUE(StartReport(std::string_view("\0", 1)).ok());
  EXPECT_EQ(StartReport("").error().code, Code::kAborted);
  EXPECT_EQ(StartReport("\5gone").error().ToString(), "not found: gone");
  EXPECT_EQ(StartReport(std::string_view("\0\5gone", 6)).error().ToString(), "not found: gone");
}

}  // namespace
}  // namespace umbel::process
