#include "manager/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/file.h"
#include "process/process.h"

extern char** environ;

namespace umbel::manager {
namespace {

using Steady = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kGrace{2000};

/// Takes what is there; false at the end.
bool Drain(int fd, std::string* out, size_t max) {
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    out->append(buffer, static_cast<size_t>(got));
    if (out->size() > 2 * max) out->erase(0, out->size() - max);
  }
}

struct Pipe {
  Fd read;
  Fd write;
};
Result<Pipe> MakePipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Fail(SystemError("make", "a pipe"));
  Pipe pipe{Fd(ends[0]), Fd(ends[1])};
  ::fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

Result<pid_t> Spawn(const ChildRequest& request, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  if (!request.directory.empty())
    posix_spawn_file_actions_addchdir_np(&actions, request.directory.c_str());
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error =
      ::posix_spawnp(&pid, request.arguments[0].c_str(), &actions, &attributes,
                     Pointers(request.arguments).data(), Pointers(request.environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0)
    return Fail(Code::kNotFound,
                fmt::format("cannot start '{}': {}", request.arguments[0], std::strerror(error)));
  return pid;
}

}  // namespace

Result<ChildEnd> RunChild(const ChildRequest& request, std::stop_token stop) {
  UMBEL_ASSIGN(Pipe out, MakePipe());
  UMBEL_ASSIGN(Pipe err, MakePipe());
  const Fd bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  UMBEL_ASSIGN(const pid_t pid, Spawn(request, out.write.get(), err.write.get()));
  out.write.Close();
  err.write.Close();
  const std::stop_callback ring(stop, [&] { ::eventfd_write(bell.get(), 1); });
  const Fd pidfd = process::OpenPidFd(pid, process::StartTicks(pid));
  ChildEnd end;
  auto deadline = Steady::now() + request.limit;
  bool killed = false;
  Code why = Code{0};
  int status = 0;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Steady::now());
    pollfd fds[] = {{pidfd.get(), POLLIN, 0},
                    {out.read.get(), POLLIN, 0},
                    {err.read.get(), POLLIN, 0},
                    {why == Code{0} ? bell.get() : -1, POLLIN, 0}};
    const int wait = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
    static_cast<void>(::poll(fds, 4, wait));
    if (out.read.valid() && !Drain(out.read.get(), &end.output, request.output_max))
      out.read.Close();
    if (err.read.valid() && !Drain(err.read.get(), &end.errors, request.output_max))
      err.read.Close();
    if (::waitpid(pid, &status, WNOHANG) == pid) break;
    const bool over = Steady::now() >= deadline;
    if (why == Code{0} && (over || stop.stop_requested())) {
      why = over ? Code::kDeadlineExceeded : Code::kCancelled;
      ::kill(-pid, SIGTERM);
      deadline = Steady::now() + kGrace;
    } else if (over && !killed) {
      killed = true;
      ::kill(-pid, SIGKILL);
      deadline = Steady::now() + std::chrono::hours(1);
    }
  }
  ::kill(-pid, SIGKILL);  // what it has left behind
  if (out.read.valid()) Drain(out.read.get(), &end.output, request.output_max);
  if (err.read.valid()) Drain(err.read.get(), &end.errors, request.output_max);
  if (why == Code::kCancelled) return Fail(why, "it was cancelled");
  if (why == Code::kDeadlineExceeded)
    return Fail(why, fmt::format("'{}' was not done after {} s", request.arguments[0],
                                 request.limit.count()));
  end.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return end;
}

std::vector<std::string> ChildEnvironment() {
  static constexpr std::string_view kKept[] = {"PATH",
                                               "HOME",
                                               "USER",
                                               "LANG",
                                               "LC_ALL",
                                               "TMPDIR",
                                               "TZ",
                                               "http_proxy",
                                               "https_proxy",
                                               "no_proxy",
                                               "HTTP_PROXY",
                                               "HTTPS_PROXY",
                                               "NO_PROXY",
                                               "ALL_PROXY",
                                               "SSL_CERT_FILE",
                                               "SSL_CERT_DIR",
                                               "REQUESTS_CA_BUNDLE",
                                               "CURL_CA_BUNDLE",
                                               "GIT_SSL_CAINFO",
                                               "NETRC",
                                               "SSH_AUTH_SOCK",
                                               "XDG_CACHE_HOME",
                                               "XDG_CONFIG_HOME",
                                               "HF_HOME"};
  std::vector<std::string> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    bool keep = name.starts_with("UV_") || name.starts_with("PIP_");
    for (const std::string_view each : kKept) keep = keep || name == each;
    if (keep) kept.emplace_back(text);
  }
  for (const char* off : {"FLWR_TELEMETRY_ENABLED=0", "MLFLOW_DISABLE_TELEMETRY=true",
                          "DO_NOT_TRACK=1", "FLWR_DISABLE_UPDATE_CHECK=1", "PYTHONUNBUFFERED=1"})
    kept.emplace_back(off);
  return kept;
}

}  // namespace umbel::manager
