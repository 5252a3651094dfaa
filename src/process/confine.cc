// `umbel confine`: what happens to a process that is to run user code between its start and the
// user's program. One thread, and no thread of ours ever sees the user's environment.
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

#include "process/confined.h"
#include "process/relay.h"

extern char** environ;

namespace umbel::process {
namespace {

struct Arguments {
  std::map<std::string_view, uint64_t> numbers;
  std::vector<int> keep;  // rising
  const char* directory = nullptr;
  View view;
  std::vector<uint16_t> reached;
  char** command = nullptr;

  uint64_t number(std::string_view name) const {
    const auto it = numbers.find(name);
    return it == numbers.end() ? 0 : it->second;
  }
};

constexpr std::string_view kNumbers[] = {
    "--uid",           "--gid",        "--open-files", "--file-bytes", "--processes",
    "--address-space", "--no-network", "--subreaper",  "--parent",     "--oom-score-more",
    "--report-fd",     "--view"};

bool Parse(int argc, char** argv, Arguments* out) {
  for (int i = 2; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--") {
      out->command = argv + i + 1;
      return i + 1 < argc && out->number("--report-fd") > 2;
    }
    if (++i >= argc) return false;
    if (name == "--directory") {
      out->directory = argv[i];
    } else if (name == "--shown") {
      out->view.shown.emplace_back(argv[i]);
    } else if (name == "--writable") {
      out->view.writable.emplace_back(argv[i]);
    } else if (name == "--reached") {
      out->reached.push_back(static_cast<uint16_t>(std::strtoul(argv[i], nullptr, 10)));
    } else if (name == "--temporary") {
      out->view.temporary = argv[i];
    } else if (name == "--keep") {
      for (const char* text = argv[i]; *text != '\0'; text += *text == ',') {
        char* end = nullptr;
        out->keep.push_back(static_cast<int>(std::strtol(text, &end, 10)));
        if (end == text) return false;
        text = end;
      }
    } else if (std::find(std::begin(kNumbers), std::end(kNumbers), name) != std::end(kNumbers)) {
      out->numbers[name] = std::strtoull(argv[i], nullptr, 10);
    } else {
      return false;
    }
  }
  return false;
}

Status SystemFailure(const char* what) {
  return Fail(Code::kFailedPrecondition, fmt::format("{}: {}", what, std::strerror(errno)));
}

Result<std::string> ReadAll(int fd) {
  std::string content;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Fail(SystemError("read", "environment"));
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
  }
}

Status RaiseOomScore(uint64_t more) {
  if (more == 0) return {};
  const char* const path = "/proc/self/oom_score_adj";
  UMBEL_ASSIGN(const std::string now, ReadFile(path));
  const long score = std::min<long>(std::atol(now.c_str()) + static_cast<long>(more), 1000);
  const std::string text = std::to_string(score);
  const Fd fd(::open(path, O_WRONLY | O_CLOEXEC));
  if (!fd.valid() || ::write(fd.get(), text.data(), text.size()) < 0)
    return Fail(SystemError("write", path));
  return {};
}

/// Enters a user namespace, in which we stay who we are. proc: where it can be written.
Status EnterUserNamespace(int proc, int more) {
  const uid_t uid = ::getuid();
  const gid_t gid = ::getgid();
  if (::unshare(CLONE_NEWUSER | more) != 0) return SystemFailure("cannot make a user namespace");
  const std::pair<const char*, std::string> maps[] = {
      {"self/setgroups", "deny"},
      {"self/uid_map", fmt::format("{0} {0} 1\n", uid)},
      {"self/gid_map", fmt::format("{0} {0} 1\n", gid)}};
  for (const auto& [path, text] : maps) {
    const Fd fd(::openat(proc, path, O_WRONLY | O_CLOEXEC));
    if (!fd.valid() || ::write(fd.get(), text.data(), text.size()) < 0)
      return SystemFailure("cannot use a user namespace");
  }
  return {};
}

/// Enters new namespaces. Who is not root has them only together with a user namespace of its own.
/// own_user: whether that was so.
Status EnterNamespaces(int flags, bool* own_user) {
  *own_user = false;
  if (::unshare(flags) == 0) return {};
  if (errno != EPERM) return SystemFailure("cannot make namespaces");
  *own_user = true;
  const Fd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  return EnterUserNamespace(proc.get(), flags);
}

/// In a network of its own there is nothing but loopback, which is down at first.
Status BringLoopbackUp() {
  const Fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof request.ifr_name - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!any.valid() || ::ioctl(any.get(), SIOCSIFFLAGS, &request) != 0)
    return SystemFailure("cannot bring loopback up");
  return {};
}

Status Limit(__rlimit_resource resource, uint64_t value, const char* what) {
  if (value == 0) return {};
  const rlimit limit{value, value};
  if (::setrlimit(resource, &limit) != 0)
    return Fail(Code::kFailedPrecondition,
                fmt::format("cannot limit {} to {}: {}", what, value, std::strerror(errno)));
  return {};
}

Status BecomeUser(uid_t uid, gid_t gid) {
  if (uid == 0) return {};
  if (::setgroups(0, nullptr) != 0 || ::setresgid(gid, gid, gid) != 0 ||
      ::setresuid(uid, uid, uid) != 0)
    return Fail(Code::kFailedPrecondition,
                fmt::format("cannot become user {}: {}", uid, std::strerror(errno)));
  // Never true; and if it were, everything would be lost.
  if (::setuid(0) == 0) return Fail(Code::kInternal, "could become root again");
  return {};
}

Status DieWith(uint64_t parent) {
  if (parent == 0) return {};
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return SystemFailure("cannot follow the parent");
  // It may have died before; then nobody will ever be told of what happens here.
  if (static_cast<uint64_t>(::getppid()) != parent) ::_exit(1);
  return {};
}

/// Closes at exec what is not listed.
Status CloseOthers(const std::vector<int>& keep) {
  unsigned first = 0;
  for (const int fd : keep) {
    const auto kept = static_cast<unsigned>(fd);
    if (kept > first && ::close_range(first, kept - 1, CLOSE_RANGE_CLOEXEC) != 0)
      return SystemFailure("cannot close descriptors");
    first = kept + 1;
  }
  if (::close_range(first, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
    return SystemFailure("cannot close descriptors");
  return {};
}

/// Gives up every right that a namespace could still give, and the way to more namespaces.
Status GiveUpCapabilities() {
  for (int capability = 0; ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; ++capability) {
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2] = {};
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
      ::syscall(SYS_capset, &header, none) != 0)
    return SystemFailure("cannot give up capabilities");
  return {};
}

/// The first process of its namespace, which sees only the view, becomes as powerless as the user's
/// program. own_user: it is in a user namespace of its own already.
Status EnterIsolation(const Arguments& arguments, bool own_user) {
  UMBEL_ASSIGN(const Fd proc, EnterView(arguments.view));
  UMBEL_TRY(BecomeUser(static_cast<uid_t>(arguments.number("--uid")),
                       static_cast<gid_t>(arguments.number("--gid"))));
  if (!own_user) {
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // else what is ours in /proc is root's now
    UMBEL_TRY(EnterUserNamespace(proc.get(), 0));
  }
  // A program that makes namespaces of its own reaches much more of the kernel.
  const Fd more(::openat(proc.get(), "sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC));
  if (!more.valid() || ::write(more.get(), "0", 1) != 1)
    return SystemFailure("cannot forbid user namespaces");
  return GiveUpCapabilities();
}

/// What concerns the command alone.
Status LimitCommand(const Arguments& arguments) {
  if (arguments.number("--subreaper") != 0 && ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
    return SystemFailure("cannot become a subreaper");
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  UMBEL_TRY(Limit(RLIMIT_NOFILE, arguments.number("--open-files"), "open files"));
  UMBEL_TRY(Limit(RLIMIT_FSIZE, arguments.number("--file-bytes"), "bytes of a file"));
  return Limit(RLIMIT_NPROC, arguments.number("--processes"), "processes");
}

Status Confine(const Arguments& arguments) {
  UMBEL_TRY(LimitCommand(arguments));
  if (arguments.number("--view") == 0)
    UMBEL_TRY(BecomeUser(static_cast<uid_t>(arguments.number("--uid")),
                         static_cast<gid_t>(arguments.number("--gid"))));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return SystemFailure("cannot give up set-user-id programs");
  if (arguments.number("--view") == 0)
    UMBEL_TRY(DieWith(arguments.number("--parent")));  // a change of user would have undone it
  if (arguments.directory && ::chdir(arguments.directory) != 0)
    return Fail(SystemError("enter", arguments.directory));
  return CloseOthers(arguments.keep);
}

void Report(int fd, Code code, std::string_view message) {
  const char first = static_cast<char>(code);
  static_cast<void>(!::write(fd, &first, 1));
  static_cast<void>(!::write(fd, message.data(), message.size()));
}

/// Closes all but one, so that the ends of what the command was given are its own.
void KeepOnly(int fd) {
  const auto kept = static_cast<unsigned>(fd);
  if (kept > 0) ::close_range(0, kept - 1, 0);
  ::close_range(kept + 1, ~0U, 0);
}

/// Signals that are passed on to the command's group.
constexpr int kPassedOn[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

sigset_t Awaited() {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGCHLD);
  for (const int signal : kPassedOn) sigaddset(&awaited, signal);
  return awaited;
}

/// Waits for the end of `child` and reaps whatever else ends; other signals go to `target`, a pid
/// or the negative of a group. Returns the status of waitpid.
int AwaitEnd(pid_t child, pid_t target) {
  const sigset_t awaited = Awaited();
  for (;;) {
    int status = 0;
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
      if (pid == child) return status;
    const int signal = ::sigwaitinfo(&awaited, nullptr);
    if (signal > 0 && signal != SIGCHLD) ::kill(target, signal);
  }
}

/// Ends this process as the command has ended.
[[noreturn]] void EndAs(int status) {
  if (WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
  const int number = WTERMSIG(status);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::signal(number, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  ::sigprocmask(SIG_UNBLOCK, &one, nullptr);
  ::raise(number);
  ::_exit(128 + number);
}

/// Starts what serves doors, before there is another namespace for children. The end for whoever
/// opens them; invalid when there are none.
Result<Fd> StartDoorkeeper(const std::vector<uint16_t>& ports) {
  if (ports.empty()) return Fd();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Fail(Code::kFailedPrecondition, "cannot make a socket pair");
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t keeper = ::fork();
  if (keeper < 0) return Fail(SystemError("start", "what serves ports"));
  if (keeper > 0) return theirs;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::setsid();
  KeepOnly(ours.get());
  ServeDoors(ours.get(), ports);
}

/// Of the first process: a network of its own, with the doors that are asked for.
Status LeaveNetwork(const Arguments& arguments, const Fd& doorkeeper) {
  if (arguments.number("--no-network") == 0) return {};
  if (::unshare(CLONE_NEWNET) != 0) return SystemFailure("cannot take the network away");
  UMBEL_TRY(BringLoopbackUp());
  if (!doorkeeper.valid()) return {};
  UMBEL_ASSIGN(const auto doors, OpenDoors(arguments.reached));
  return SendDoors(doorkeeper.get(), doors);
}

/// As if the command were this process: stays, while the command runs below the first process of a
/// namespace, with which all others end. Returns in the command only, with what is still to be
/// done.
Status GoInside(const Arguments& arguments) {
  bool own_user = false;
  UMBEL_ASSIGN(const Fd doorkeeper, StartDoorkeeper(arguments.reached));
  UMBEL_TRY(EnterNamespaces(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC, &own_user));
  // The first process sees its end when we end, and tells by it how the command ended.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return SystemFailure("cannot make a socket pair");
  const Fd outside(ends[0]);
  Fd inside(ends[1]);
  const sigset_t awaited = Awaited();
  ::sigprocmask(SIG_BLOCK, &awaited, nullptr);
  const pid_t first = ::fork();
  if (first < 0) return SystemFailure("cannot fork");
  if (first > 0) {
    UMBEL_TRY(DieWith(arguments.number("--parent")));
    KeepOnly(outside.get());
    const int end = AwaitEnd(first, first);
    int status = WIFEXITED(end) ? WEXITSTATUS(end) << 8 : SIGKILL;
    int told = 0;
    if (::recv(outside.get(), &told, sizeof told, MSG_DONTWAIT) == sizeof told) status = told;
    EndAs(status);
  }
  ::close(ends[0]);
  ::setsid();
  UMBEL_TRY(LeaveNetwork(arguments, doorkeeper));
  UMBEL_TRY(EnterIsolation(arguments, own_user));
  // Its parent is of another namespace and has no number here: the socket tells of its death.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return SystemFailure("cannot follow the parent");
  pollfd parent{inside.get(), POLLHUP, 0};
  if (::poll(&parent, 1, 0) != 0) ::_exit(1);
  const pid_t command = ::fork();
  if (command < 0) return SystemFailure("cannot fork");
  if (command == 0) {
    ::setsid();
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    return {};
  }
  KeepOnly(inside.get());
  const int status = AwaitEnd(command, -command);
  static_cast<void>(!::send(inside.get(), &status, sizeof status, MSG_NOSIGNAL));
  ::_exit(0);
}

/// All of it; returns in the process that is to become the command.
Status Prepare(const Arguments& arguments) {
  UMBEL_TRY(RaiseOomScore(arguments.number("--oom-score-more")));
  bool own_user = false;
  if (arguments.number("--view") != 0) {
    UMBEL_TRY(GoInside(arguments));
  } else if (arguments.number("--no-network") != 0) {
    UMBEL_TRY(EnterNamespaces(CLONE_NEWNET, &own_user));
    UMBEL_TRY(BringLoopbackUp());
  }
  return Confine(arguments);
}

}  // namespace

int ConfineMain(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, &arguments)) return 2;
  const int report = static_cast<int>(arguments.number("--report-fd"));
  const int gate = report + 1;
  const int environment_fd = report + 2;
  char go = 0;
  ssize_t n;
  do n = ::read(gate, &go, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1) return 1;  // our parent died, or does not want us any more: nothing has happened
  auto environment = ReadAll(environment_fd);
  const Status confined = environment.ok() ? Prepare(arguments) : Status(Fail(environment.error()));
  if (!confined.ok()) {
    Report(report, confined.error().code, confined.error().message);
    return 1;
  }
  std::vector<char*> variables;
  for (size_t at = 0; at < environment->size(); at = environment->find('\0', at) + 1)
    variables.push_back(environment->data() + at);
  variables.push_back(nullptr);
  environ = variables.data();
  // From here on nothing may allocate: the limit may be below what we use ourselves.
  const uint64_t bytes = arguments.number("--address-space");
  const rlimit limit{bytes, bytes};
  if (bytes != 0 && ::setrlimit(RLIMIT_AS, &limit) != 0) {
    Report(report, Code::kFailedPrecondition, "cannot limit the address space");
    ::_exit(1);
  }
  static_cast<void>(!::write(report, "", 1));
  ::execvp(arguments.command[0], arguments.command);
  const int failed = errno;
  char message[512];
  const int length = std::snprintf(message, sizeof message, "cannot start '%.300s': %s",
                                   arguments.command[0], std::strerror(failed));
  Report(report, failed == ENOENT ? Code::kNotFound : Code::kFailedPrecondition,
         {message, static_cast<size_t>(length)});
  ::_exit(127);
}

}  // namespace umbel::process
