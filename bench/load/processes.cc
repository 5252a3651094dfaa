#include "processes.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/file.h"

namespace umbel::bench {
namespace {

struct Child {
  pid_t pid = 0;
  Fd results;
};

std::string Report(const Result<Tally>& tally) {
  nlohmann::json out;
  if (tally.ok()) {
    out["tally"] = *tally;
  } else {
    out["error"] = tally.error().ToString();
  }
  return out.dump();
}

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> piece{};
  for (ssize_t n = 0; (n = ::read(fd, piece.data(), piece.size())) > 0;)
    text.append(piece.data(), static_cast<size_t>(n));
  return text;
}

}  // namespace

Result<Tally> RunProcesses(size_t count, const std::function<Result<Tally>(size_t)>& work) {
  std::vector<Child> children;
  for (size_t i = 0; i < count; ++i) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) return Fail(SystemError("open", "pipe"));
    Fd read_end(ends[0]);
    Fd write_end(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) return Fail(SystemError("start", "process"));
    if (pid == 0) {
      const std::string report = Report(work(i));
      const ssize_t n = ::write(write_end.get(), report.data(), report.size());
      ::_exit(n == static_cast<ssize_t>(report.size()) ? 0 : 1);
    }
    children.push_back({pid, std::move(read_end)});
  }
  Tally total;
  std::string error;
  for (const Child& child : children) {
    const auto report = nlohmann::json::parse(ReadAll(child.results.get()), nullptr, false);
    int ended = 0;
    ::waitpid(child.pid, &ended, 0);
    if (report.is_discarded()) {
      error = "a process died";
    } else if (report.contains("error")) {
      error = report["error"];
    } else {
      for (const auto& [name, value] : report["tally"].get<Tally>()) total[name] += value;
    }
  }
  if (!error.empty()) return Fail(Code::kUnknown, error);
  return total;
}

}  // namespace umbel::bench
