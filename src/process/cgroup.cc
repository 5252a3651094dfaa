#include "process/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "process/process.h"
#include "process/watch.h"

namespace umbel::process {
namespace {

using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

constexpr milliseconds kKillLimit{10'000};
constexpr milliseconds kFreezeLimit{200};
constexpr milliseconds kLookAgain{2};
constexpr uint64_t kCpuPeriodMicros = 100'000;
constexpr uint64_t kCpuQuotaMicrosMin = 1'000;  // the kernel takes no less
constexpr char kHomePrefix[] = "umbel-";
constexpr char kOwnLeaf[] = "umbel-node";

/// Control files take a value in one write, and the write's error is the answer. `number`: errno.
Status WriteControl(const std::string& path, std::string_view value, int* number = nullptr) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.valid() &&
      ::write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size()))
    return {};
  if (number) *number = errno;
  return Fail(SystemError(fmt::format("write '{}' to", value), path));
}

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool HasWord(const std::string& path, const std::string& word) {
  const auto text = ReadFile(path);
  if (!text.ok()) return false;
  std::istringstream words(*text);
  for (std::string each; words >> each;)
    if (each == word) return true;
  return false;
}

/// The number behind `key` in a file of "key number" lines, or its only number without a key.
uint64_t ReadNumber(const std::string& path, std::string_view key = {}) {
  const auto text = ReadFile(path);
  if (!text.ok()) return 0;
  if (key.empty()) return std::strtoull(text->c_str(), nullptr, 10);
  std::istringstream words(*text);
  std::string name, number;
  while (words >> name >> number)
    if (name == key) return std::strtoull(number.c_str(), nullptr, 10);
  return 0;
}

std::vector<std::string> Subfolders(const std::string& path) {
  std::vector<std::string> folders;
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    if (it->is_directory(gone)) folders.push_back(it->path().native());
  }
  return folders;
}

void CollectPids(const std::string& folder, std::set<pid_t>* pids) {
  if (const auto text = ReadFile(folder + "/cgroup.procs"); text.ok()) {
    std::istringstream numbers(*text);
    // 0 stands for a process of another pid namespace.
    for (pid_t pid = 0; numbers >> pid;)
      if (pid > 0) pids->insert(pid);
  }
  for (const std::string& below : Subfolders(folder)) CollectPids(below, pids);
}

Status RemoveFolder(const std::string& folder, Steady::time_point until) {
  for (const std::string& below : Subfolders(folder)) UMBEL_TRY(RemoveFolder(below, until));
  // A process leaves its group a moment after its parent can know of its end.
  while (::rmdir(folder.c_str()) != 0 && errno != ENOENT) {
    if (errno != EBUSY || Steady::now() >= until) return Fail(SystemError("remove", folder));
    ::poll(nullptr, 0, static_cast<int>(kLookAgain.count()));
  }
  return {};
}

/// Stops everything at once, so that nothing can fork its way out while it is listed. Not getting
/// there (a process in the middle of a system call) is no harm: Kill looks again.
void Freeze(const std::string& folder) {
  const std::string state = folder + "/freezer.state";
  if (!WriteControl(state, "FROZEN").ok()) return;
  const auto until = Steady::now() + kFreezeLimit;
  while (!HasWord(state, "FROZEN") && Steady::now() < until)
    ::poll(nullptr, 0, static_cast<int>(kLookAgain.count()));
}

/// Also what was frozen by itself, by a process that was killed before it came to thaw it: nothing
/// frozen can end.
void Thaw(const std::string& folder) {
  static_cast<void>(WriteControl(folder + "/freezer.state", "THAWED"));
  for (const std::string& below : Subfolders(folder)) Thaw(below);
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= 128 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

Status SetLimits(const CgroupFolder& folder, const CgroupLimits& limits) {
  if (folder.memory && limits.memory_bytes != 0) {
    const std::string bytes = std::to_string(limits.memory_bytes);
    if (folder.unified) {
      UMBEL_TRY(WriteControl(folder.path + "/memory.max", bytes));
      if (const std::string swap = folder.path + "/memory.swap.max"; Exists(swap))
        UMBEL_TRY(WriteControl(swap, "0"));
      // An app that has lost one of its processes would only hang.
      if (const std::string all = folder.path + "/memory.oom.group"; Exists(all))
        UMBEL_TRY(WriteControl(all, "1"));
    } else {
      UMBEL_TRY(WriteControl(folder.path + "/memory.limit_in_bytes", bytes));
      if (const std::string swap = folder.path + "/memory.memsw.limit_in_bytes"; Exists(swap))
        UMBEL_TRY(WriteControl(swap, bytes));
    }
  }
  if (folder.processes && limits.processes != 0)
    UMBEL_TRY(WriteControl(folder.path + "/pids.max", std::to_string(limits.processes)));
  if (folder.cpu && limits.cpu_millicores != 0) {
    const uint64_t quota =
        std::max(limits.cpu_millicores * kCpuPeriodMicros / 1000, kCpuQuotaMicrosMin);
    if (folder.unified) {
      UMBEL_TRY(
          WriteControl(folder.path + "/cpu.max", fmt::format("{} {}", quota, kCpuPeriodMicros)));
    } else {
      UMBEL_TRY(WriteControl(folder.path + "/cpu.cfs_period_us", std::to_string(kCpuPeriodMicros)));
      int number = 0;
      const Status set =
          WriteControl(folder.path + "/cpu.cfs_quota_us", std::to_string(quota), &number);
      // More than the group above may use, which then is the bound.
      if (!set.ok() && number != EINVAL) return set;
    }
  }
  return {};
}

/// Our own group's folder in every hierarchy that is mounted: by controller, "" for v2.
std::map<std::string, std::string> OwnFolders(std::string_view mounts,
                                              std::string_view own_groups) {
  std::map<std::string, std::string> paths;  // "4:memory:/a/b", "0::/a/b"
  for (const std::string& line : Split(std::string(own_groups), '\n')) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty()) paths[""] = line.substr(second + 1);
    for (const std::string& name : Split(controllers, ',')) paths[name] = line.substr(second + 1);
  }
  std::map<std::string, std::string> folders;
  for (const std::string& line : Split(std::string(mounts), '\n')) {
    // "31 24 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
    std::istringstream fields(line);
    std::string id, parent, device, root, point, skipped, type, source, options;
    if (!(fields >> id >> parent >> device >> root >> point)) continue;
    while (fields >> skipped && skipped != "-") continue;
    if (!(fields >> type >> source >> options)) continue;
    if (type != "cgroup" && type != "cgroup2") continue;
    std::vector<std::string> names{""};
    if (type == "cgroup") names = Split(options, ',');
    for (const std::string& name : names) {
      const auto path = paths.find(name);
      if (path == paths.end() || folders.count(name) != 0) continue;
      // In a container the mount may begin at our own group, whose path is seen from outside.
      std::string below = path->second;
      if (root != "/") below = below.starts_with(root) ? below.substr(root.size()) : "";
      if (below == "/" || below.find("..") != std::string::npos) below.clear();
      folders[name] = point + below;
    }
  }
  return folders;
}

/// Sees to it that groups below `*base` have the two controllers. May move this process one down.
Status EnableControllers(std::string* base) {
  if (base->ends_with(std::string("/") + kOwnLeaf)) base->resize(base->rfind('/'));
  for (const char* name : {"memory", "pids"})
    if (!HasWord(*base + "/cgroup.controllers", name))
      return Fail(Code::kFailedPrecondition,
                  fmt::format("v2 has no controller {} in '{}'", name, *base));
  const std::string control = *base + "/cgroup.subtree_control";
  if (HasWord(control, "memory") && HasWord(control, "pids")) return {};
  const Status enabled = WriteControl(control, "+memory +pids");
  if (enabled.ok()) return {};
  const auto beside = ReadFile(*base + "/cgroup.procs");
  if (!beside.ok() || *beside != fmt::format("{}\n", ::getpid()))
    return Fail(enabled.error().code,
                fmt::format("{} (v2 wants a group without other processes: with systemd, a service "
                            "with Delegate=yes)",
                            enabled.error().message));
  const std::string leaf = fmt::format("{}/{}", *base, kOwnLeaf);
  if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return Fail(SystemError("create", leaf));
  UMBEL_TRY(WriteControl(leaf + "/cgroup.procs", "0"));
  Status again = WriteControl(control, "+memory +pids");
  if (!again.ok() && WriteControl(*base + "/cgroup.procs", "0").ok()) ::rmdir(leaf.c_str());
  return again;
}

/// Whether groups below `base` can bound CPU: a controller that is not missed where it is not
/// given.
bool EnableCpu(const std::string& base) {
  const std::string control = base + "/cgroup.subtree_control";
  return HasWord(control, "cpu") ||
         (HasWord(base + "/cgroup.controllers", "cpu") && WriteControl(control, "+cpu").ok());
}

}  // namespace

Cgroup& Cgroup::operator=(Cgroup&& other) noexcept {
  if (this != &other) {
    static_cast<void>(Remove());
    folders_ = std::exchange(other.folders_, {});
  }
  return *this;
}

Cgroup::~Cgroup() { static_cast<void>(Remove()); }

Status Cgroup::Add(pid_t pid) {
  if (pid <= 0)  // 0 would be ourselves
    return Fail(Code::kInvalidArgument, fmt::format("no process has number {}", pid));
  for (const CgroupFolder& folder : folders_) {
    int number = 0;
    Status added = WriteControl(folder.path + "/cgroup.procs", std::to_string(pid), &number);
    if (number == ESRCH) return Fail(Code::kNotFound, fmt::format("process {} is gone", pid));
    if (!added.ok()) return added;
  }
  return {};
}

std::vector<pid_t> Cgroup::Pids() const {
  std::set<pid_t> pids;
  for (const CgroupFolder& folder : folders_) CollectPids(folder.path, &pids);
  pids.erase(::getpid());
  return {pids.begin(), pids.end()};
}

Status Cgroup::Kill() {
  const auto until = Steady::now() + kKillLimit;
  for (std::vector<pid_t> pids = Pids(); !pids.empty(); pids = Pids()) {
    if (Steady::now() >= until)
      return Fail(Code::kDeadlineExceeded,
                  fmt::format("{} processes of '{}' did not end, one is {}", pids.size(),
                              folders_.front().path, pids.front()));
    bool killed = false;
    for (const CgroupFolder& folder : folders_) {
      if (folder.kill && !folder.unified) Freeze(folder.path);
      if (folder.unified && WriteControl(folder.path + "/cgroup.kill", "1").ok()) killed = true;
    }
    std::vector<std::pair<pid_t, Fd>> held;
    for (const pid_t pid : Pids()) {
      Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
      if (pidfd.valid()) held.emplace_back(pid, std::move(pidfd));
    }
    // A number that is still listed now was not given to another process before it was held.
    pids = Pids();
    for (const auto& [pid, pidfd] : held)
      if (!killed && std::binary_search(pids.begin(), pids.end(), pid))
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
    for (const CgroupFolder& folder : folders_)
      if (folder.kill && !folder.unified) Thaw(folder.path);
    const auto look_again = Steady::now() + kFreezeLimit;
    for (const auto& [pid, pidfd] : held)
      WaitForEnd(pidfd.get(), std::chrono::ceil<milliseconds>(look_again - Steady::now()));
    if (held.empty()) ::poll(nullptr, 0, static_cast<int>(kLookAgain.count()));
  }
  return {};
}

uint64_t Cgroup::OomKills() const {
  for (const CgroupFolder& folder : folders_)
    if (folder.memory)
      return ReadNumber(folder.path + (folder.unified ? "/memory.events" : "/memory.oom_control"),
                        "oom_kill");
  return 0;
}

uint64_t Cgroup::RefusedForks() const {
  for (const CgroupFolder& folder : folders_)
    if (folder.processes) return ReadNumber(folder.path + "/pids.events", "max");
  return 0;
}

uint64_t Cgroup::PeakBytes() const {
  for (const CgroupFolder& folder : folders_)
    if (folder.memory)
      return ReadNumber(folder.path +
                        (folder.unified ? "/memory.peak" : "/memory.max_usage_in_bytes"));
  return 0;
}

Status Cgroup::Remove() {
  if (folders_.empty()) return {};
  UMBEL_TRY(Kill());
  const auto until = Steady::now() + kKillLimit;
  for (const CgroupFolder& folder : folders_) UMBEL_TRY(RemoveFolder(folder.path, until));
  folders_.clear();
  return {};
}

std::unique_ptr<CgroupParent> CgroupParent::Open(bool with_cpu) {
  const auto mounts = ReadFile("/proc/self/mountinfo");
  const auto own_groups = ReadFile("/proc/self/cgroup");
  return Find(mounts.ok() ? *mounts : "", own_groups.ok() ? *own_groups : "", with_cpu);
}

std::unique_ptr<CgroupParent> CgroupParent::Find(std::string_view mounts,
                                                 std::string_view own_groups, bool with_cpu) {
  std::unique_ptr<CgroupParent> parent(new CgroupParent);
  std::map<std::string, std::string> own = OwnFolders(mounts, own_groups);
  std::vector<std::string> found, missing;
  const auto unified = own.find("");
  std::string why;
  if (unified != own.end()) {
    std::string base = unified->second;
    const Status enabled = EnableControllers(&base);
    if (!enabled.ok())
      missing.push_back(enabled.error().message);
    else if (parent->Use({base, true, true, true, true, with_cpu && EnableCpu(base)}, &why)) {
      parent->found_ = parent->cpu_ ? "cgroup v2: memory, pids, cpu" : "cgroup v2: memory, pids";
      return parent;
    } else {
      missing.push_back(why);
    }
  }
  for (const std::string name : {"memory", "pids", "freezer"}) {
    const auto folder = own.find(name);
    if (folder == own.end())
      missing.push_back(fmt::format("v1 {} is not mounted", name));
    else if (parent->Use({folder->second, false, name == "memory", name == "pids",
                          name == "freezer", false},
                         &why))
      found.push_back(name);
    else
      missing.push_back(why);
  }
  if (const auto folder = own.find("cpu");
      with_cpu && !found.empty() && folder != own.end() &&
      parent->Use({folder->second, false, false, false, false, true}, &why))
    found.emplace_back("cpu");
  // Where only the limits are v1's, v2 still ends a group better than a loop of signals.
  if (!found.empty() && !parent->kill_ && unified != own.end() &&
      parent->Use({unified->second, true, false, false, true, false}, &why))
    found.emplace_back("v2 to end them");
  parent->found_ = found.empty() ? fmt::format("no cgroup: {}", fmt::join(missing, "; "))
                                 : fmt::format("cgroup v1: {}", fmt::join(found, ", "));
  if (!found.empty() && !(parent->memory_ && parent->processes_ && parent->kill_))
    parent->found_ += fmt::format("; {}", fmt::join(missing, "; "));
  return parent;
}

bool CgroupParent::Use(CgroupFolder base, std::string* why) {
  memory_ |= base.memory;
  processes_ |= base.processes;
  kill_ |= base.kill;
  cpu_ |= base.cpu;
  for (size_t i = 0; i < bases_.size(); ++i) {  // two controllers of one hierarchy
    if (bases_[i].path != base.path) continue;
    for (CgroupFolder* folder : {&bases_[i], &homes_[i]}) {
      folder->memory |= base.memory;
      folder->processes |= base.processes;
      folder->kill |= base.kill;
      folder->cpu |= base.cpu;
    }
    return true;
  }
  CgroupFolder home = base;
  home.path = fmt::format("{}/{}{}-{}", base.path, kHomePrefix, ::getpid(), StartTicks(::getpid()));
  Status made;
  if (::mkdir(home.path.c_str(), 0755) != 0 && errno != EEXIST)
    made = Fail(SystemError("create", home.path));
  else if (base.unified && base.memory)
    made = WriteControl(home.path + "/cgroup.subtree_control",
                        base.cpu ? "+memory +pids +cpu" : "+memory +pids");
  if (!made.ok()) {
    *why = made.error().message;
    memory_ &= !base.memory;
    processes_ &= !base.processes;
    kill_ &= !base.kill;
    cpu_ &= !base.cpu;
    ::rmdir(home.path.c_str());
    return false;
  }
  locks_.emplace_back(::open(home.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ::flock(locks_.back().get(), LOCK_SH | LOCK_NB);
  bases_.push_back(std::move(base));
  homes_.push_back(std::move(home));
  return true;
}

CgroupParent::~CgroupParent() {
  // Fails while another parent of this process still has groups there.
  for (const CgroupFolder& home : homes_) ::rmdir(home.path.c_str());
}

Result<Cgroup> CgroupParent::Create(std::string_view name, const CgroupLimits& limits) {
  if (!IsName(name))
    return Fail(Code::kInvalidArgument,
                fmt::format("cgroup name '{}' is not 1 to 128 of A-Z a-z 0-9 . _ -", name));
  if (homes_.empty() || (limits.memory_bytes != 0 && !memory_) ||
      (limits.processes != 0 && !processes_) || (limits.cpu_millicores != 0 && !cpu_))
    return Fail(Code::kFailedPrecondition,
                fmt::format("the limits asked for '{}' cannot be kept here: {}", name, found_));
  Cgroup group;
  for (const CgroupFolder& home : homes_) {
    CgroupFolder folder = home;
    folder.path = fmt::format("{}/{}", home.path, name);
    if (::mkdir(folder.path.c_str(), 0755) != 0) {
      if (errno == EEXIST)
        return Fail(Code::kAlreadyExists, fmt::format("cgroup '{}' exists", folder.path));
      return Fail(SystemError("create", folder.path));
    }
    group.folders_.push_back(folder);
    UMBEL_TRY(SetLimits(folder, limits));
  }
  return group;
}

Result<size_t> CgroupParent::ClearStale() {
  std::map<std::string, Cgroup> stale;  // by name: one dead process, in all hierarchies
  std::vector<Fd> held;
  std::set<std::string> alive;
  for (const CgroupFolder& base : bases_) {
    for (const std::string& path : Subfolders(base.path)) {
      const std::string name = path.substr(path.rfind('/') + 1);
      if (!name.starts_with(kHomePrefix)) continue;
      char* end = nullptr;
      const long pid = std::strtol(name.c_str() + sizeof kHomePrefix - 1, &end, 10);
      if (pid <= 0 || *end != '-') continue;
      const char* const ticks_text = end + 1;
      const uint64_t ticks = std::strtoull(ticks_text, &end, 10);
      if (end == ticks_text || *end != '\0') continue;
      // Numbers say nothing about processes of other pid namespaces; the lock does.
      Fd lock(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      const auto process = FindProcess(static_cast<pid_t>(pid));
      if ((process && process->id.start_ticks == ticks && !process->ended) || !lock.valid() ||
          ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        alive.insert(name);
        continue;
      }
      held.push_back(std::move(lock));
      CgroupFolder folder = base;
      folder.path = path;
      stale[name].folders_.push_back(folder);
    }
  }
  size_t cleared = 0;
  std::optional<Error> failed;
  for (auto& [name, group] : stale) {
    if (alive.count(name) != 0) {
      group.folders_.clear();
      continue;
    }
    if (const Status removed = group.Remove(); removed.ok())
      ++cleared;
    else
      failed = removed.error();
  }
  if (failed) return Fail(*failed);
  return cleared;
}

}  // namespace umbel::process
