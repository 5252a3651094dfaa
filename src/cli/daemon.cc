#include "cli/daemon.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "base/await_file.h"
#include "base/file.h"

namespace umbel::cli {
namespace {

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

}  // namespace

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

Status BecomeDaemon(const LogOptions& log) {
  UMBEL_TRY(LogStart(log));
  const sigset_t signals = Signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return {};
}

void EndDaemon() { ::kill(::getpid(), SIGUSR1); }

void AwaitSignal() {
  const sigset_t signals = Signals();
  int signal = 0;
  sigwait(&signals, &signal);
  if (signal != SIGUSR1) LogInfo("stopping", {{"signal", signal == SIGINT ? "SIGINT" : "SIGTERM"}});
  std::thread([signals] {
    int second = SIGUSR1;
    while (second == SIGUSR1) sigwait(&signals, &second);
    ::_exit(128 + second);
  }).detach();
}

Result<bool> AwaitFileOrSignal(const std::string& path) {
  const sigset_t signals = Signals();
  const Fd stop(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!stop.valid()) return Fail(SystemError("watch", "signals"));
  return AwaitFile(path, stop.get());
}

std::string UmbelHome() {
  const char* home = std::getenv("UMBEL_HOME");
  const char* user = std::getenv("HOME");
  if (home && *home) return home;
  return user && *user ? std::string(user) + "/.umbel" : ".umbel";
}

}  // namespace umbel::cli
