// What the tests of confined processes share. Values; one thread.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "process/confined.h"
#include "process/process.h"

namespace umbel::process::testing {

/// The launcher of a test's processes is the test's own binary, as `umbel confine` is the node's.
/// Before main, so that gtest never sees the launcher's arguments.
[[gnu::constructor]] inline void BecomeLauncher(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "confine") == 0) std::_Exit(ConfineMain(argc, argv));
}

inline constexpr std::chrono::seconds kPatience{60};

inline CommandSpec Shell(const std::string& script) {
  CommandSpec command;
  command.arguments = {"/bin/sh", "-c", script};
  command.environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  command.output_pipe = true;
  return command;
}

inline Child Spawn(const CommandSpec& command, const Confinement& confinement = {}) {
  auto child = SpawnConfined(command, confinement);
  EXPECT_TRUE(child.ok()) << child.error().ToString();
  UMBEL_CHECK(child.ok());
  UMBEL_CHECK(child->pidfd.valid());
  return std::move(*child);
}

/// All that the child and those it has left behind write, to the last end of the pipe.
inline std::string ReadOutput(const Child& child) {
  std::string text;
  char buffer[4096];
  while (WaitForEnd(child.output.get(), kPatience)) {
    const ssize_t n = ::read(child.output.get(), buffer, sizeof buffer);
    if (n <= 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
  ADD_FAILURE() << "no end of output after: " << text;
  return text;
}

/// Up to the end of one line, which the child writes when it is where the test wants it.
inline std::string ReadLine(const Child& child) {
  std::string line;
  char byte = 0;
  while (WaitForEnd(child.output.get(), kPatience) && ::read(child.output.get(), &byte, 1) == 1 &&
         byte != '\n')
    line += byte;
  return line;
}

/// The status of waitpid.
inline int End(const Child& child) {
  EXPECT_TRUE(WaitForEnd(child.pidfd.get(), kPatience));
  int status = 0;
  EXPECT_EQ(::waitpid(child.pid, &status, WNOHANG), child.pid);
  return status;
}

/// Opens the gate, and returns the output.
inline std::string RunToEnd(const CommandSpec& command, const Confinement& confinement = {}) {
  Child child = Spawn(command, confinement);
  EXPECT_TRUE(child.Open().ok());
  const Status started = child.AwaitStart(kPatience);
  EXPECT_TRUE(started.ok()) << started.error().ToString();
  std::string output = ReadOutput(child);
  End(child);
  return output;
}

}  // namespace umbel::process::testing
