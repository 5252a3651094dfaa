#include "process/watch.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "base/file.h"
#include "process/process.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

constexpr milliseconds kKillLimit{10'000};
constexpr milliseconds kLookEvery{50};
constexpr int kStopRoundsMax = 20;

/// Adds to `members` all that descend from one of them.
void AddDescendants(const std::vector<ProcessEntry>& all, std::set<pid_t>* members) {
  std::multimap<pid_t, pid_t> children;
  for (const ProcessEntry& entry : all) children.emplace(entry.parent, entry.id.pid);
  std::vector<pid_t> open(members->begin(), members->end());
  while (!open.empty()) {
    const auto [first, last] = children.equal_range(open.back());
    open.pop_back();
    for (auto it = first; it != last; ++it)
      if (members->insert(it->second).second) open.push_back(it->second);
  }
}

/// The processes of one tree that are alive, each held by a pidfd.
class Tree {
 public:
  explicit Tree(const ProcessId& root) : root_(root) {}

  /// Takes in what is there now and lets go of what has ended. True when that was news.
  bool Look() {
    const std::vector<ProcessEntry> all = AllProcesses();
    std::set<pid_t> members;
    // Its number goes to nobody else while a session or group bears it; but the number of a
    // process that was reaped, with neither, may be another's by now.
    bool number_is_anothers = false;
    for (const ProcessEntry& entry : all)
      if (entry.id.pid == root_.pid && entry.id != root_) number_is_anothers = true;
    for (const ProcessEntry& entry : all)
      if (entry.id == root_ || held_.count(entry.id.pid) != 0 ||
          (!number_is_anothers && (entry.session == root_.pid || entry.group == root_.pid)))
        members.insert(entry.id.pid);
    AddDescendants(all, &members);
    members.erase(::getpid());
    std::map<pid_t, Held> now;
    bool news = false;
    for (const ProcessEntry& entry : all) {
      if (entry.ended || members.count(entry.id.pid) == 0) continue;
      const auto known = held_.find(entry.id.pid);
      if (known != held_.end() && known->second.id == entry.id) {
        now[entry.id.pid] = std::move(known->second);
      } else {
        news = true;
        if (Fd pidfd = OpenPidFd(entry.id.pid, entry.id.start_ticks); pidfd.valid())
          now[entry.id.pid] = {entry.id, std::move(pidfd), false};
      }
      if (const auto it = now.find(entry.id.pid); it != now.end())
        it->second.in_group = entry.group == root_.pid;
    }
    held_ = std::move(now);
    return news;
  }

  bool empty() const { return held_.empty(); }
  size_t size() const { return held_.size(); }

  void Signal(int signal, bool group_only) {
    for (const auto& [pid, held] : held_)
      if (!group_only || held.in_group)
        ::syscall(SYS_pidfd_send_signal, held.pidfd.get(), signal, nullptr, 0);
  }

  /// The root last: as long as it is there, a subreaper keeps what it has adopted in sight.
  void Kill() {
    for (const auto& [pid, held] : held_)
      if (pid != root_.pid || held_.size() == 1)
        ::syscall(SYS_pidfd_send_signal, held.pidfd.get(), SIGKILL, nullptr, 0);
  }

  /// Until all but `left` have ended or `limit` is over.
  void Wait(milliseconds limit, size_t left) {
    const auto until = Steady::now() + limit;
    size_t alive = held_.size();
    for (const auto& [pid, held] : held_) {
      if (alive <= left) return;
      if (left != 0 && pid == root_.pid) continue;
      if (!WaitForEnd(held.pidfd.get(), std::chrono::ceil<milliseconds>(until - Steady::now())))
        return;
      --alive;
    }
  }

 private:
  struct Held {
    ProcessId id;
    Fd pidfd;
    bool in_group = false;
  };

  ProcessId root_;
  std::map<pid_t, Held> held_;
};

/// SIGKILL to all that is found until nothing is.
Status KillAll(Tree& tree, pid_t root, Steady::time_point until) {
  for (;;) {
    // One look can miss what changes its parent just then.
    tree.Look();
    if (tree.empty() && !tree.Look() && tree.empty()) return {};
    if (Steady::now() >= until)
      return Fail(Code::kDeadlineExceeded,
                  fmt::format("{} processes of the tree of {} did not end", tree.size(), root));
    // What is stopped forks no more; stopped all, they can be listed and killed.
    int rounds = 0;
    do tree.Signal(SIGSTOP, false);
    while (tree.Look() && ++rounds < kStopRoundsMax);
    tree.Kill();
    tree.Wait(kLookEvery, tree.size() == 1 ? 0 : 1);
  }
}

}  // namespace

std::optional<ProcessEntry> FindProcess(pid_t pid) {
  const auto stat = ReadFile(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat.ok()) return std::nullopt;
  const size_t name_end = stat->rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat->substr(name_end + 1));
  ProcessEntry entry;
  entry.id.pid = pid;
  std::string state, skipped;
  if (!(fields >> state >> entry.parent >> entry.group >> entry.session)) return std::nullopt;
  for (int i = 7; i < 20; ++i) fields >> skipped;
  long threads = 0;
  if (!(fields >> threads >> skipped >> entry.id.start_ticks)) return std::nullopt;
  // A main thread that has ended looks like a zombie while other threads go on.
  entry.ended = (state == "Z" && threads <= 1) || state == "X";
  return entry;
}

std::vector<ProcessEntry> AllProcesses() {
  std::vector<ProcessEntry> all;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), ::closedir);
  if (!folder) return all;
  while (const dirent* entry = ::readdir(folder.get())) {
    const long pid = std::strtol(entry->d_name, nullptr, 10);
    if (pid <= 0) continue;
    if (auto process = FindProcess(static_cast<pid_t>(pid))) all.push_back(*process);
  }
  return all;
}

std::optional<ProcessEntry> FindInside(pid_t root, pid_t number) {
  constexpr std::string_view kNumbers = "\nNSpid:";
  for (const ProcessEntry& entry : Descendants(root)) {
    const auto status = ReadFile(fmt::format("/proc/{}/status", entry.id.pid), 1 << 16);
    const size_t at = status.ok() ? status->find(kNumbers) : std::string::npos;
    if (at == std::string::npos) continue;
    // Outermost first.
    std::istringstream line(status->substr(at + kNumbers.size()));
    std::string text;
    std::getline(line, text);
    std::istringstream words(text);
    std::vector<pid_t> numbers;
    for (pid_t each; words >> each;) numbers.push_back(each);
    if (numbers.size() > 1 && numbers.back() == number) return entry;
  }
  return std::nullopt;
}

std::vector<ProcessEntry> Descendants(pid_t root) {
  std::vector<ProcessEntry> all = AllProcesses();
  std::set<pid_t> members{root};
  AddDescendants(all, &members);
  std::erase_if(all, [&](const ProcessEntry& entry) {
    return entry.id.pid == root || members.count(entry.id.pid) == 0;
  });
  return all;
}

Status EndTree(const ProcessId& root, milliseconds grace) {
  if (root.pid <= 1 || root.pid == ::getpid())
    return Fail(Code::kInvalidArgument, fmt::format("process {} is not ours to end", root.pid));
  Tree tree(root);
  tree.Look();
  tree.Signal(SIGTERM, true);
  const auto killing = Steady::now() + grace;
  while (!tree.empty() && Steady::now() < killing) {
    tree.Wait(std::min(kLookEvery, std::chrono::ceil<milliseconds>(killing - Steady::now())), 0);
    tree.Look();
  }
  return KillAll(tree, root.pid, Steady::now() + kKillLimit);
}

Status EndDescendants() {
  const pid_t own = ::getpid();
  Tree tree({own, StartTicks(own)});
  return KillAll(tree, own, Steady::now() + kKillLimit);
}

Status BecomeSubreaper() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
    return Fail(SystemError("become", "child subreaper"));
  return {};
}

int ReapAdopted(const std::vector<pid_t>& own) {
  int reaped = 0;
  for (const ProcessEntry& entry : AllProcesses()) {
    if (!entry.ended || entry.parent != ::getpid()) continue;
    if (std::find(own.begin(), own.end(), entry.id.pid) != own.end()) continue;
    if (::waitpid(entry.id.pid, nullptr, WNOHANG) == entry.id.pid) ++reaped;
  }
  return reaped;
}

}  // namespace umbel::process
