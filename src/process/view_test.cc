// Confined processes with a view of their own. The launcher is this very binary: see
// confine_testing.h.
#include "process/view.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

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
using testing::RunToEnd;
using testing::Shell;
using testing::Spawn;
using umbel::testing::TempDir;

constexpr uid_t kNobodys = 61'235;  // a user without a name, and without a process but ours

void Put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
std::string Get(const std::string& path) { return ReadFile(path).value_or("nothing"); }

/// Files that are shown, written to, and hidden.
class ViewTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const Status allowed = TryIsolation(); !allowed.ok())
      GTEST_SKIP() << allowed.error().message;
    for (const char* folder : {"shown", "mine", "temporary", "hidden"})
      ASSERT_TRUE(MakeDirectories(at(folder)).ok());
    Put(at("shown/file"), "seen\n");
    Put(at("hidden/secret"), "secret\n");
    confinement_.network = false;
    confinement_.view.emplace();
    confinement_.view->shown = {at("shown")};
    confinement_.view->writable = {at("mine")};
    confinement_.view->temporary = at("temporary");
  }

  std::string at(const std::string& path) const { return folder_.path() + "/" + path; }
  std::string Run(const std::string& script) {
    return RunToEnd(Shell("exec 2>&1; cd " + folder_.path() + "\n" + script), confinement_);
  }
  Child Start(const std::string& script) {
    Child child = Spawn(Shell(script), confinement_);
    EXPECT_TRUE(child.Open().ok());
    return child;
  }
  std::string Refused() {
    Child child = Start("exit 0");
    const Status started = child.AwaitStart(kPatience);
    EXPECT_NE(End(child), 0);
    return started.ok() ? "" : started.error().ToString();
  }

  const TempDir folder_;
  Confinement confinement_;
};

TEST_F(ViewTest, SeesWhatIsShownAndTheSystem) {
  EXPECT_EQ(Run("ls; cat shown/file; cat hidden/secret"),
            "mine\nshown\nseen\ncat: hidden/secret: No such file or directory\n");
  EXPECT_EQ(Run("ls -d /root /home /var/log /etc/shadow /run /sys/fs 2>/dev/null"), "");
  EXPECT_EQ(Run("head -c 3 /dev/zero | wc -c; echo x >/dev/null; ls -d /usr/lib /proc/self/fd"),
            "3\n/proc/self/fd\n/usr/lib\n");
}

TEST_F(ViewTest, WritesOnlyWhatIsItsOwn) {
  EXPECT_EQ(Run("echo a >mine/a; echo b >/tmp/b; echo c >/var/tmp/c; echo d >/dev/shm/d && cat "
                "mine/a /tmp/b /tmp/c /dev/shm/d"),
            "a\nb\nc\nd\n");
  EXPECT_EQ(Get(at("mine/a")), "a\n");
  EXPECT_EQ(Get(at("temporary/b")), "b\n");
  for (const char* path : {"shown/file", "shown/new", "/usr/new", "/new", "/etc/passwd",
                           "/proc/sys/kernel/hostname", "/dev/new"})
    EXPECT_NE(Run(fmt::format("echo x >{} || true", path)).find("Read-only file system"),
              std::string::npos)
        << path;
  EXPECT_EQ(Get(at("shown/file")), "seen\n");
  // The folder is below /tmp, which is another there.
  Run("echo x >new");
  EXPECT_EQ(Get(at("new")), "nothing");
}

TEST_F(ViewTest, TheTemporaryFolderMayBeInMemory) {
  confinement_.view->temporary = "";
  EXPECT_EQ(Run("ls -A /tmp | grep -v " + folder_.path().substr(5, 6) +
                "; echo b >/tmp/b; cat "
                "/tmp/b; ls"),
            "b\nmine\nshown\n");
  EXPECT_NE(::access("/tmp/b", F_OK), 0);
}

TEST_F(ViewTest, LinksLeadWhereTheyDid) {
  std::filesystem::create_directory_symlink(at("shown"), at("link"));
  confinement_.view->shown = {at("link")};
  EXPECT_EQ(Run("cat link/file shown/file"), "seen\nseen\n");
  // A file alone, a socket's folder, and what is within another.
  Put(at("mine/inner"), "inner\n");
  ASSERT_TRUE(MakeDirectories(at("shown/open")).ok());
  confinement_.view->shown = {at("shown"), at("hidden/secret"), at("mine/inner")};
  confinement_.view->writable = {at("mine"), at("shown/open")};
  EXPECT_EQ(Run("cat hidden/secret; ls hidden; echo x >shown/open/x; cat shown/open/x; echo x "
                ">mine/inner; cat mine/inner"),
            "secret\nsecret\nx\n/bin/sh: 2: cannot create mine/inner: Read-only file "
            "system\ninner\n");
}

TEST_F(ViewTest, WhatCannotBeShownIsSaid) {
  confinement_.view->shown = {"/nothing/here"};
  EXPECT_EQ(Refused(),
            "failed precondition: cannot show '/nothing/here': No such file or directory");
  confinement_.view->shown = {"shown"};
  EXPECT_EQ(Refused(), "invalid argument: 'shown' cannot be shown: not absolute");
  confinement_.view->shown = {"/usr/.."};
  EXPECT_EQ(Refused(), "invalid argument: '/usr/..' cannot be shown: it is all there is");
}

TEST_F(ViewTest, LinksInTheTemporaryFolderLeadNowhere) {
  // What is shown lies below /tmp, and user code of an earlier process has prepared that place.
  ASSERT_TRUE(folder_.path().starts_with("/tmp/"));
  std::filesystem::create_directory_symlink(
      at("hidden"), at("temporary/") + std::filesystem::path(folder_.path()).filename().native());
  EXPECT_NE(Refused().find("cannot make room for"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(at("hidden/shown")));
}

TEST_F(ViewTest, SeesAndReachesItsOwnProcessesOnly) {
  Child other = Spawn(Shell("echo up; exec sleep 1000"));
  ASSERT_TRUE(other.Open().ok());
  ASSERT_EQ(ReadLine(other), "up");
  const std::string told =
      Run(fmt::format("kill -9 {0} {1}; ls -d /proc/[0-9]* | wc -l; trap 'echo hup' HUP; "
                      "kill -HUP -1; echo end",
                      other.pid, ::getpid()));
  EXPECT_NE(told.find("No such process"), std::string::npos) << told;
  EXPECT_TRUE(told.ends_with("end\n")) << told;
  EXPECT_FALSE(WaitForEnd(other.pidfd.get(), milliseconds(0)));
  ::kill(other.pid, SIGKILL);
  End(other);
}

TEST_F(ViewTest, HasNoRightsAndGetsNone) {
  EXPECT_EQ(Run("grep -E '^(Cap|NoNew)' /proc/self/status"),
            "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
            "CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
  EXPECT_NE(Run("unshare --user true").find("unshare failed"), std::string::npos);
  EXPECT_NE(Run("unshare --mount true").find("unshare failed"), std::string::npos);
  EXPECT_NE(Run("mount -o remount,rw /usr").find("mount:"), std::string::npos);
  EXPECT_NE(Run("umount /proc").find("umount:"), std::string::npos);
  EXPECT_EQ(Run("id -u"), fmt::format("{}\n", ::geteuid()));
}

TEST_F(ViewTest, EndsAsTheCommandEnds) {
  Child child = Start("exit 7");
  EXPECT_EQ(WEXITSTATUS(End(child)), 7);
  child = Start("kill -SEGV $$");
  EXPECT_EQ(WTERMSIG(End(child)), SIGSEGV);
  child = Start("kill -KILL $$");
  EXPECT_EQ(WTERMSIG(End(child)), SIGKILL);
}

TEST_F(ViewTest, SignalsReachTheCommandsGroup) {
  Child child =
      Start("trap 'echo told; exit 5' TERM; echo up; while :; do sleep 1000 & wait; done");
  ASSERT_EQ(ReadLine(child), "up");
  SignalGroup(child.pid, SIGTERM);
  EXPECT_EQ(ReadLine(child), "told");
  EXPECT_EQ(WEXITSTATUS(End(child)), 5);
}

TEST_F(ViewTest, NothingOutlivesTheCommand) {
  // The last end of the pipe is that of a process which has left its session.
  Child child = Start(
      "mkfifo /tmp/gate; setsid sh -c 'trap \"\" TERM HUP; echo away >/tmp/gate; sleep 1000' & "
      "read word </tmp/gate; echo $word");
  EXPECT_EQ(ReadOutput(child), "away\n");
  EXPECT_EQ(End(child), 0);
}

TEST_F(ViewTest, EverythingEndsWhenTheOutermostProcessIsKilled) {
  Child child = Start("setsid sh -c 'echo away; sleep 1000' & sleep 1000");
  ASSERT_EQ(ReadLine(child), "away");
  ::kill(child.pid, SIGKILL);
  EXPECT_EQ(End(child), SIGKILL);
  EXPECT_EQ(ReadOutput(child), "");
}

TEST_F(ViewTest, ItsProcessesAreFoundByTheirNumbersInside) {
  Child child = Start("sleep 1000 & echo $$; echo $!; wait");
  const auto shell = static_cast<pid_t>(std::atol(ReadLine(child).c_str()));
  const auto sleeper = static_cast<pid_t>(std::atol(ReadLine(child).c_str()));
  const auto found = FindInside(child.pid, shell);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(Get(fmt::format("/proc/{}/comm", found->id.pid)), "sh\n");
  const auto below = FindInside(child.pid, sleeper);
  ASSERT_TRUE(below.has_value());
  EXPECT_EQ(below->parent, found->id.pid);
  EXPECT_FALSE(FindInside(child.pid, 4'000'000).has_value());
  EXPECT_FALSE(FindInside(child.pid, child.pid).has_value());  // it is of our namespace
  ::kill(child.pid, SIGKILL);
  End(child);
}

/// What `body` says as another user than root.
std::string AsUser(const std::function<std::string()>& body) {
  int ends[2];
  UMBEL_CHECK(::pipe2(ends, O_CLOEXEC) == 0);
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
    const std::string said = body();
    static_cast<void>(!::write(writer.get(), said.data(), said.size()));
    ::_exit(0);
  }
  writer.Close();
  std::string said;
  char buffer[512];
  for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<size_t>(n));
  ::waitpid(user, nullptr, 0);
  return said;
}

/// A listener of ours, which answers each connection's first line with a megabyte.
class Server {
 public:
  Server() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    UMBEL_CHECK(::bind(listener_.get(), generic, size) == 0);
    UMBEL_CHECK(::listen(listener_.get(), 4) == 0);
    UMBEL_CHECK(::getsockname(listener_.get(), generic, &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (;;) {
        const Fd connection(::accept(listener_.get(), nullptr, nullptr));
        if (!connection.valid()) return;
        char byte = 0;
        while (::recv(connection.get(), &byte, 1, 0) == 1 && byte != '\n') {
        }
        const std::string answer(1'000'000, 'x');
        static_cast<void>(::send(connection.get(), answer.data(), answer.size(), MSG_NOSIGNAL));
      }
    });
  }
  ~Server() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return port_; }

 private:
  const Fd listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

std::string Ask(const Server& server) {
  return fmt::format(
      "bash -c '(exec 3<>/dev/tcp/127.0.0.1/{} && echo hello >&3 && wc -c <&3) 2>&1 | grep -o "
      "\"^[0-9]*$\\|connect: .*\"'\n",
      server.port());
}

TEST_F(ViewTest, OfTheNetworkItReachesWhatItMay) {
  const Server allowed, other;
  confinement_.reached = {allowed.port()};
  EXPECT_EQ(Run(Ask(allowed) + Ask(other) + Ask(allowed) + "grep -c : /proc/net/dev"),
            "1000000\nconnect: Connection refused\n1000000\n1\n");
  const std::string said = AsUser([&]() -> std::string {
    Confinement confinement = confinement_;
    confinement.view = View();
    Child child = Spawn(Shell(Ask(allowed) + Ask(other)), confinement);
    if (!child.Open().ok()) return "nothing to start";
    std::string told = ReadOutput(child);
    End(child);
    return told;
  });
  EXPECT_TRUE(said.empty() || said == "1000000\nconnect: Connection refused\n") << said;
  confinement_.network = true;
  EXPECT_FALSE(SpawnConfined(Shell("exit 0"), confinement_).ok());
}

TEST_F(ViewTest, AnotherUserHasAViewToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  confinement_.uid = kNobodys;
  for (const char* folder : {"mine", "temporary"})
    ASSERT_EQ(::chown(at(folder).c_str(), kNobodys, kNobodys), 0);
  ASSERT_EQ(::chmod(at("shown").c_str(), 0755), 0);
  EXPECT_EQ(
      Run("id -u; cat shown/file; echo a >mine/a; unshare --user true 2>/dev/null || echo no; "
          "grep CapEff /proc/self/status"),
      "61235\nseen\nno\nCapEff:\t0000000000000000\n");
  EXPECT_EQ(Get(at("mine/a")), "a\n");
  Child child = Start("setsid sh -c 'echo away; sleep 1000' & sleep 1000");
  ASSERT_EQ(ReadLine(child), "away");
  ::kill(child.pid, SIGKILL);
  End(child);
  EXPECT_EQ(ReadOutput(child), "");
}

TEST_F(ViewTest, NeedsNoRootWhereUserNamespacesAreAllowed) {
  for (const char* folder : {"", "shown", "mine", "temporary"})
    ASSERT_EQ(::chmod(at(folder).c_str(), 0777), 0);
  const std::string said = AsUser([&]() -> std::string {
    if (const Status allowed = TryIsolation(); !allowed.ok()) return allowed.error().message;
    Child child = Spawn(Shell("exec 2>&1; cd " + folder_.path() +
                              "; ls; cat shown/file; echo a >mine/a && cat mine/a; echo b >/tmp/b; "
                              "grep -c : /proc/net/dev; grep CapEff /proc/self/status; "
                              "unshare --user true 2>/dev/null || echo no; "
                              "setsid sleep 1000 & exit 3"),
                        confinement_);
    if (!child.Open().ok()) return "nothing to start";
    std::string told = ReadOutput(child);
    return told + fmt::format("{}\n", WEXITSTATUS(End(child)));
  });
  if (said.find("cannot make") != std::string::npos || said == "nothing to start")
    GTEST_SKIP() << said;
  EXPECT_EQ(said, "mine\nshown\nseen\na\n1\nCapEff:\t0000000000000000\nno\n3\n");
  EXPECT_EQ(Get(at("temporary/b")), "b\n");
}

}  // namespace
}  // namespace umbel::process
