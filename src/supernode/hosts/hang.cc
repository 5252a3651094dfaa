#include "supernode/hosts/hang.h"

#include <sys/syscall.h>

#include <charconv>
#include <filesystem>
#include <string>

#include "base/file.h"

namespace umbel::supernode {
namespace {

constexpr int kLooks = 4;

/// The number of the system call a thread is in; -1 when it is in none, or it cannot be told.
long SystemCall(const std::string& task) {
  const auto text = ReadFile(task + "/syscall", 4096);
  long number = -1;
  if (text.ok()) std::from_chars(text->data(), text->data() + text->size(), number);
  return number;
}

/// Time used, in clock ticks: fields 14 and 15, counted behind the name in brackets.
uint64_t Ticks(const std::string& process) {
  const auto text = ReadFile(process + "/stat", 4096);
  if (!text.ok()) return 0;
  size_t at = text->rfind(')');
  uint64_t sum = 0;
  for (int field = 2; at != std::string::npos && field <= 15; ++field) {
    at = text->find(' ', at);
    if (at == std::string::npos) break;
    ++at;
    uint64_t value = 0;
    if (field >= 13) std::from_chars(text->data() + at, text->data() + text->size(), value);
    sum += value;
  }
  return sum;
}

}  // namespace

bool HangWatch::Hangs() {
  const std::string process = "/proc/" + std::to_string(pid_);
  std::error_code error;
  bool waits = false;
  // Not a range-for, which throws when the process ends meanwhile.
  std::filesystem::directory_iterator tasks(process + "/task", error);
  while (!error && tasks != std::filesystem::directory_iterator()) {
    waits = SystemCall(tasks->path().native()) == SYS_futex;
    if (!waits) break;
    tasks.increment(error);
  }
  const uint64_t ticks = Ticks(process);
  still_ = waits && !error && ticks == ticks_ ? still_ + 1 : 0;
  ticks_ = ticks;
  return still_ >= kLooks;
}

}  // namespace umbel::supernode
