// A program that is run to its end: its output taken, its time limited. Any thread.
#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"

namespace umbel::manager {

struct ChildRequest {
  std::vector<std::string> arguments;    // the program first, looked for on $PATH
  std::vector<std::string> environment;  // all of it
  std::string directory;                 // "": ours
  std::chrono::seconds limit{600};
  size_t output_max = size_t{1} << 20;  // of the end of its output
};

struct ChildEnd {
  int status = 0;      // of exit; 128 and the signal's number
  std::string output;  // standard output
  std::string errors;
};

/// In a process group of its own, which is ended with it.
/// errors  kNotFound: no such program; kDeadlineExceeded, kCancelled: it was ended.
Result<ChildEnd> RunChild(const ChildRequest& request, std::stop_token stop);

/// "KEY=value" of those variables that our children need, as we have them: PATH, HOME, proxies,
/// package indexes, certificates. Telemetry is off.
std::vector<std::string> ChildEnvironment();

}  // namespace umbel::manager
