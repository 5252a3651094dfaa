// `umbel guard`: the parent of one ServerApp. It starts the command when its SuperLink has written
// down who it is, notes how the command ended, and ends it when no SuperLink has held the state for
// long: a ServerApp outlives a SuperLink that was killed, but not forever.
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "process/process.h"

extern char** environ;

namespace umbel::process {
namespace {

constexpr std::chrono::milliseconds kLookEvery{5000};
constexpr std::chrono::milliseconds kLookEveryMin{50};
constexpr std::chrono::milliseconds kTermGrace{10'000};

struct Arguments {
  int gate_fd = -1;
  std::string lock;
  std::string status;
  int64_t orphan_seconds = 600;
  char** command = nullptr;
};

bool Parse(int argc, char** argv, Arguments* out) {
  for (int i = 2; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--") {
      out->command = argv + i + 1;
      return i + 1 < argc;
    }
    if (++i >= argc) return false;
    if (name == "--gate-fd")
      out->gate_fd = std::atoi(argv[i]);
    else if (name == "--lock")
      out->lock = argv[i];
    else if (name == "--status")
      out->status = argv[i];
    else if (name == "--orphan-seconds")
      out->orphan_seconds = std::atoll(argv[i]);
    else
      return false;
  }
  return false;
}

/// Waits for the command's end. False when it had to be ended: it was without a SuperLink too long.
bool Watch(pid_t child, int pidfd, const Arguments& arguments) {
  using Steady = std::chrono::steady_clock;
  const std::chrono::seconds patience(arguments.orphan_seconds);
  const auto look_every =
      std::clamp(std::chrono::milliseconds(patience) / 4, kLookEveryMin, kLookEvery);
  auto last_held = Steady::now();
  while (!WaitForEnd(pidfd, look_every)) {
    if (LockIsHeld(arguments.lock)) last_held = Steady::now();
    if (Steady::now() - last_held < patience) continue;
    ::kill(child, SIGTERM);
    if (!WaitForEnd(pidfd, kTermGrace)) ::kill(child, SIGKILL);
    return false;
  }
  return true;
}

}  // namespace

int GuardMain(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, &arguments)) return 2;
  char go = 0;
  ssize_t n;
  do n = ::read(arguments.gate_fd, &go, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1) return 1;  // our SuperLink died before it knew us: nothing has happened
  ::close(arguments.gate_fd);
  ::prctl(PR_SET_NAME, "umbel-guard");
  // The group is signalled as one; the guard stays until it has written down the end.
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&defaults, signal);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, arguments.command[0], nullptr, &attributes,
                                    arguments.command, environ);
  std::string end;
  if (failed != 0) {
    end = fmt::format("cannot start '{}': {}", arguments.command[0], std::strerror(failed));
  } else {
    const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    const bool by_itself = Watch(child, pidfd.get(), arguments);
    int status = 0;
    ::waitpid(child, &status, 0);
    end = !by_itself
              ? fmt::format("was ended after {} s without a SuperLink", arguments.orphan_seconds)
          : WIFSIGNALED(status) ? fmt::format("ended by signal {}", WTERMSIG(status))
                                : fmt::format("exited with status {}", WEXITSTATUS(status));
  }
  static_cast<void>(WriteFileAtomic(arguments.status, end));
  // Whatever the command has left in our group goes with it, and so do we.
  if (::getpgrp() == ::getpid()) ::kill(0, SIGKILL);
  return 0;
}

}  // namespace umbel::process
