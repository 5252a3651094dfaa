#include "process/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

extern char** environ;

namespace umbel::process {
namespace {

constexpr int kGateFd = 3;

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

Status GatedProcess::Open() {
  if (::write(gate.get(), "g", 1) != 1) return Fail(SystemError("open the gate of", "guard"));
  gate.Close();
  return {};
}

Result<GatedProcess> SpawnGuard(const GuardSpec& spec) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Fail(SystemError("create", "pipe"));
  const Fd read_end(ends[0]);
  GatedProcess process;
  process.gate = Fd(ends[1]);
  std::vector<std::string> arguments{"umbel",
                                     "guard",
                                     "--gate-fd",
                                     std::to_string(kGateFd),
                                     "--lock",
                                     spec.lock_file,
                                     "--status",
                                     spec.status_file,
                                     "--orphan-seconds",
                                     std::to_string(spec.orphan_seconds),
                                     "--"};
  arguments.insert(arguments.end(), spec.command.begin(), spec.command.end());
  std::vector<std::string> variables;
  constexpr std::string_view kPath = "PYTHONPATH=";
  std::string python_path = spec.python_path;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view variable = *entry;
    if (!python_path.empty() && variable.starts_with(kPath)) {
      if (variable.size() > kPath.size())
        python_path = fmt::format("{}:{}", variable.substr(kPath.size()), python_path);
    } else if (!variable.starts_with("PYTHONUNBUFFERED=")) {
      variables.emplace_back(variable);
    }
  }
  if (!python_path.empty()) variables.push_back(std::string(kPath) + python_path);
  variables.emplace_back("PYTHONUNBUFFERED=1");  // the log is to follow the output at once

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, read_end.get(), kGateFd);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, spec.output_file.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, kGateFd + 1);
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
  const int failed = ::posix_spawn(&process.pid, "/proc/self/exe", &actions, &attributes,
                                   Pointers(arguments).data(), Pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    errno = failed;
    return Fail(SystemError("start", "umbel guard"));
  }
  process.start_ticks = StartTicks(process.pid);
  return process;
}

uint64_t StartTicks(pid_t pid) {
  const auto stat = ReadFile(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat.ok()) return 0;
  // The name in parentheses may hold anything, so count from the last one: start time is 20th.
  const size_t name_end = stat->rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat->substr(name_end + 1));
  std::string field;
  for (int i = 0; i < 20; ++i)
    if (!(fields >> field)) return 0;
  return std::strtoull(field.c_str(), nullptr, 10);
}

Fd OpenPidFd(pid_t pid, uint64_t start_ticks) {
  if (pid <= 0) return Fd();
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  // Checked after opening: from then on the descriptor stays with that very process.
  if (fd.valid() && StartTicks(pid) != start_ticks) return Fd();
  return fd;
}

void SignalGroup(pid_t group, int signal) {
  if (group > 1) ::kill(-group, signal);
}

bool WaitForEnd(int pidfd, std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd entry{pidfd, POLLIN, 0};
    const int n = ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

std::optional<int> Reap(int pidfd) {
  siginfo_t info{};
  if (::waitid(static_cast<idtype_t>(3) /* P_PIDFD */, static_cast<id_t>(pidfd), &info,
               WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0)
    return std::nullopt;
  if (info.si_code == CLD_EXITED) return info.si_status << 8;
  return info.si_status | (info.si_code == CLD_DUMPED ? 0x80 : 0);
}

bool LockIsHeld(const std::string& lock_file) {
  struct stat file;
  const auto owner = ReadFile(lock_file, 4096);
  if (!owner.ok() || ::stat(lock_file.c_str(), &file) != 0) return false;
  const long long owner_pid = std::strtoll(owner->c_str(), nullptr, 10);
  const auto locks = ReadFile("/proc/locks");
  if (!locks.ok()) return true;  // nobody may be ended for what cannot be known
  // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"; a line of one that waits has "->" in it.
  std::istringstream lines(*locks);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string number, type, mode, access, inode;
    long long pid = 0;
    if (!(fields >> number >> type >> mode >> access >> pid >> inode)) continue;
    if (type != "FLOCK" || pid != owner_pid) continue;
    const size_t colon = inode.rfind(':');
    if (colon != std::string::npos &&
        std::strtoull(inode.c_str() + colon + 1, nullptr, 10) == file.st_ino)
      return true;
  }
  return false;
}

}  // namespace umbel::process
