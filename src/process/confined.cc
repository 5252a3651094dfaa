#include "process/confined.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "process/process.h"

namespace umbel::process {
namespace {

constexpr int kPassedFdMax = 255;
constexpr std::chrono::milliseconds kTryLimit{30'000};

/// A file in memory with `content`, to be read from its begin.
Result<Fd> MemoryFile(std::string_view content) {
  Fd fd(::memfd_create("environment", MFD_CLOEXEC));
  if (!fd.valid()) return Fail(SystemError("create", "environment"));
  for (size_t done = 0; done < content.size();) {
    const ssize_t n = ::write(fd.get(), content.data() + done, content.size() - done);
    if (n < 0) return Fail(SystemError("write", "environment"));
    done += static_cast<size_t>(n);
  }
  if (::lseek(fd.get(), 0, SEEK_SET) != 0) return Fail(SystemError("rewind", "environment"));
  return fd;
}

Result<std::string> JoinEnvironment(const std::vector<std::string>& environment) {
  std::string joined;
  for (size_t i = 0; i < environment.size(); ++i) {
    const std::string& variable = environment[i];
    if (const size_t name = variable.find('=');
        name == 0 || name == std::string::npos || variable.find('\0') != std::string::npos)
      return Fail(Code::kInvalidArgument, fmt::format("environment entry {} is not KEY=value", i));
    joined += variable;
    joined += '\0';
  }
  return joined;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

Status CheckCommand(const CommandSpec& command) {
  if (command.arguments.empty() || command.arguments[0].empty())
    return Fail(Code::kInvalidArgument, "no program to start");
  for (const std::string& argument : command.arguments)
    if (argument.find('\0') != std::string::npos)
      return Fail(Code::kInvalidArgument, "an argument holds a zero byte");
  std::set<int> targets;
  if (command.output_pipe) targets = {1, 2};
  for (const PassedFd& passed : command.descriptors) {
    if (passed.from < 0 || passed.to < 0 || passed.to > kPassedFdMax)
      return Fail(Code::kInvalidArgument, fmt::format("descriptor {} -> {} not in [0, {}]",
                                                      passed.from, passed.to, kPassedFdMax));
    if (!targets.insert(passed.to).second)
      return Fail(Code::kInvalidArgument,
                  fmt::format("descriptor {} is given two meanings", passed.to));
  }
  return {};
}

std::vector<std::string> Flags(const Confinement& confinement) {
  std::vector<std::string> flags;
  const auto add = [&](const char* name, uint64_t value) {
    if (value == 0) return;
    flags.emplace_back(name);
    flags.push_back(std::to_string(value));
  };
  add("--uid", confinement.uid);
  add("--gid", confinement.gid != 0 ? confinement.gid : confinement.uid);
  add("--open-files", confinement.open_files);
  add("--file-bytes", confinement.file_bytes);
  add("--processes", confinement.processes);
  add("--address-space", confinement.address_space_bytes);
  add("--no-network", confinement.network ? 0 : 1);
  add("--subreaper", confinement.subreaper ? 1 : 0);
  add("--parent", confinement.die_with_parent ? static_cast<uint64_t>(::getpid()) : 0);
  add("--oom-score-more", static_cast<uint64_t>(std::max(confinement.oom_score_more, 0)));
  add("--view", confinement.view ? 1 : 0);
  if (!confinement.view) return flags;
  for (const std::string& path : confinement.view->shown)
    flags.insert(flags.end(), {"--shown", path});
  for (const std::string& path : confinement.view->writable)
    flags.insert(flags.end(), {"--writable", path});
  for (const uint16_t port : confinement.reached)
    flags.insert(flags.end(), {"--reached", std::to_string(port)});
  if (!confinement.view->temporary.empty())
    flags.insert(flags.end(), {"--temporary", confinement.view->temporary});
  return flags;
}

/// The descriptors of a child to be: each is copied above all numbers that are given out, so that
/// none is overwritten before it is passed.
class Wiring {
 public:
  explicit Wiring(int above) : above_(above) { posix_spawn_file_actions_init(&actions_); }
  ~Wiring() { posix_spawn_file_actions_destroy(&actions_); }
  Wiring(const Wiring&) = delete;
  Wiring& operator=(const Wiring&) = delete;

  Status Pass(int from, int to) {
    Fd copy(::fcntl(from, F_DUPFD_CLOEXEC, above_));
    if (!copy.valid())
      return Fail(errno == EBADF ? Error{Code::kInvalidArgument,
                                         fmt::format("descriptor {} is not open", from)}
                                 : SystemError("copy", "descriptor"));
    posix_spawn_file_actions_adddup2(&actions_, copy.get(), to);
    copies_.push_back(std::move(copy));
    return {};
  }
  void PassNull(int to) { posix_spawn_file_actions_addopen(&actions_, to, "/dev/null", O_RDWR, 0); }
  const posix_spawn_file_actions_t* Finish() {
    posix_spawn_file_actions_addclosefrom_np(&actions_, above_);
    return &actions_;
  }

 private:
  int above_;
  posix_spawn_file_actions_t actions_;
  std::vector<Fd> copies_;
};

}  // namespace

Status Child::Open() {
  // A socket, since a write to a pipe that nobody reads any more would raise SIGPIPE.
  if (::send(gate.get(), "g", 1, MSG_NOSIGNAL) != 1)
    return Fail(SystemError("open the gate of", fmt::format("process {}", pid)));
  gate.Close();
  return {};
}

Status Child::AwaitStart(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  std::string text;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (!WaitForEnd(report.get(), left))
      return Fail(Code::kDeadlineExceeded,
                  fmt::format("process {} did not start within {} ms", pid, limit.count()));
    char buffer[512];
    const ssize_t n = ::read(report.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("read", "start report"));
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  report.Close();
  return StartReport(text);
}

Status StartReport(std::string_view report) {
  const bool confined = report.starts_with('\0');
  if (confined) report.remove_prefix(1);
  if (report.empty())
    return confined ? Status()
                    : Fail(Code::kAborted, "the process ended before the command could start");
  return Fail(static_cast<Code>(report[0]), std::string(report.substr(1)));
}

Status TryIsolation() {
  CommandSpec command;
  command.arguments = {"true"};
  command.environment = {"PATH=/usr/bin:/bin"};
  Confinement confinement;
  confinement.network = false;
  confinement.view.emplace();
  UMBEL_ASSIGN(Child child, SpawnConfined(command, confinement));
  Status isolated = child.Open();
  if (isolated.ok()) isolated = child.AwaitStart(kTryLimit);
  // No such program: but it came to looking for it.
  if (!isolated.ok() && isolated.error().code == Code::kNotFound) isolated = {};
  child.gate.Close();
  WaitForEnd(child.pidfd.get(), kTryLimit);
  Reap(child.pidfd.get());
  return isolated;
}

Result<Child> SpawnConfined(const CommandSpec& command, const Confinement& confinement) {
  UMBEL_TRY(CheckCommand(command));
  if (!confinement.reached.empty() && (!confinement.view || confinement.network))
    return Fail(Code::kInvalidArgument, "ports are reached only from a view without network");
  UMBEL_ASSIGN(const std::string variables, JoinEnvironment(command.environment));
  UMBEL_ASSIGN(const Fd environment, MemoryFile(variables));

  Child child;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Fail(SystemError("create", "gate"));
  const Fd gate(ends[0]);
  child.gate = Fd(ends[1]);
  if (::pipe2(ends, O_CLOEXEC) != 0) return Fail(SystemError("create", "pipe"));
  child.report = Fd(ends[0]);
  const Fd report(ends[1]);
  Fd output;
  if (command.output_pipe) {
    if (::pipe2(ends, O_CLOEXEC) != 0) return Fail(SystemError("create", "pipe"));
    child.output = Fd(ends[0]);
    output = Fd(ends[1]);
  }

  std::set<int> kept{0, 1, 2};
  for (const PassedFd& passed : command.descriptors) kept.insert(passed.to);
  const int own = *kept.rbegin() + 1;  // report, gate, environment
  Wiring wiring(own + 3);
  for (const int standard : {0, 1, 2}) {
    const bool passed =
        std::any_of(command.descriptors.begin(), command.descriptors.end(),
                    [standard](const PassedFd& each) { return each.to == standard; });
    if (standard != 0 && output.valid())
      UMBEL_TRY(wiring.Pass(output.get(), standard));
    else if (!passed)
      wiring.PassNull(standard);
  }
  for (const PassedFd& passed : command.descriptors) UMBEL_TRY(wiring.Pass(passed.from, passed.to));
  UMBEL_TRY(wiring.Pass(report.get(), own));
  UMBEL_TRY(wiring.Pass(gate.get(), own + 1));
  UMBEL_TRY(wiring.Pass(environment.get(), own + 2));

  std::vector<std::string> arguments{"umbel", "confine"};
  for (std::string& flag : Flags(confinement)) arguments.push_back(std::move(flag));
  arguments.insert(arguments.end(), {"--report-fd", std::to_string(own), "--keep",
                                     fmt::format("{}", fmt::join(kept, ","))});
  if (!command.directory.empty())
    arguments.insert(arguments.end(), {"--directory", command.directory});
  arguments.emplace_back("--");
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(
      &attributes,
      static_cast<short>(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
  char* nothing[] = {nullptr};
  const int failed = ::posix_spawn(&child.pid, "/proc/self/exe", wiring.Finish(), &attributes,
                                   Pointers(arguments).data(), nothing);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    errno = failed;
    return Fail(SystemError("start", "umbel confine"));
  }
  child.start_ticks = StartTicks(child.pid);
  child.pidfd = OpenPidFd(child.pid, child.start_ticks);
  return child;
}

}  // namespace umbel::process
