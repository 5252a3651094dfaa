#include "orchestrator/local/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "orchestrator/local/instance_log.h"
#include "orchestrator/local/records.h"
#include "orchestrator/placement.h"
#include "process/cgroup.h"
#include "process/confined.h"
#include "process/process.h"
#include "process/watch.h"

namespace umbel::orchestrator {
namespace {

using std::chrono::milliseconds;
using Steady = std::chrono::steady_clock;

constexpr int kGateFd = 3;
constexpr int kReportFd = 4;
constexpr milliseconds kStartLimit{60'000};
constexpr milliseconds kLookForGround{2'000};  // only while there is none

/// Address space is far more than memory: a bound that programs can live with.
constexpr uint64_t kAddressSpaceMore = uint64_t{4} << 30;

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::optional<KeeperOptions> Parse(int argc, char** argv) {
  std::map<std::string_view, const char*> values;
  for (int i = 2; i + 1 < argc; i += 2) values[argv[i]] = argv[i + 1];
  const auto text = [&](std::string_view name) {
    const auto it = values.find(name);
    return std::string(it == values.end() ? "" : it->second);
  };
  const auto number = [&](std::string_view name) {
    return std::strtoull(text(name).c_str(), nullptr, 10);
  };
  KeeperOptions options;
  options.folder = text("--folder");
  options.node = text("--node");
  options.lock_file = text("--lock");
  options.start = static_cast<uint32_t>(number("--start"));
  options.previous = text("--previous");
  options.log_bytes_max = number("--log-bytes");
  options.grace = milliseconds(number("--grace-ms"));
  options.orphan_grace = std::chrono::seconds(number("--orphan-seconds"));
  options.use_groups = number("--groups") != 0;
  options.bound_cpu = number("--cpu") != 0;
  options.processes_max = number("--processes");
  if (argc % 2 != 0 || options.folder.empty()) return std::nullopt;
  return options;
}

/// Whether somebody owns the instance: an event when that ends, looks only while nobody does.
class Owner {
 public:
  Owner(std::string lock_file, std::chrono::seconds patience)
      : lock_file_(std::move(lock_file)), patience_(patience), last_seen_(Steady::now()) {
    Look();
  }

  int pidfd() const { return pidfd_.get(); }  // -1: nobody
  /// After its pidfd became readable, or when `next_look` is over.
  void Look() {
    if (pidfd_.valid() && !process::WaitForEnd(pidfd_.get(), milliseconds(0))) return;
    if (pidfd_.valid()) last_seen_ = Steady::now();
    pidfd_.Close();
    const auto text = ReadFile(lock_file_, 4096);
    const long pid = text.ok() ? std::strtol(text->c_str(), nullptr, 10) : 0;
    Fd pidfd =
        process::OpenPidFd(static_cast<pid_t>(pid), process::StartTicks(static_cast<pid_t>(pid)));
    if (pidfd.valid() && process::LockIsHeld(lock_file_)) pidfd_ = std::move(pidfd);
  }
  /// In which time to look again; nullopt: an event will tell.
  std::optional<milliseconds> next_look() const {
    if (patience_.count() == 0 || pidfd_.valid()) return std::nullopt;
    return std::clamp(milliseconds(patience_) / 4, milliseconds(50), kLookForGround);
  }
  bool GivenUp() const {
    return patience_.count() != 0 && !pidfd_.valid() && Steady::now() - last_seen_ >= patience_;
  }

 private:
  std::string lock_file_;
  std::chrono::seconds patience_;
  Fd pidfd_;
  Steady::time_point last_seen_;
};

class KeeperProcess {
 public:
  KeeperProcess(KeeperOptions options, RecordFile record, Fd signals)
      : options_(std::move(options)),
        record_(std::move(record)),
        signals_(std::move(signals)),
        log_(options_.folder, options_.log_bytes_max),
        owner_(options_.lock_file, options_.orphan_grace) {}

  void Main() {
    const Status started = Start();
    if (!started.ok()) {
      Record record;
      record.phase = Phase::kNotStarted;
      record.code = started.error().code;
      record.detail = started.error().message;
      log_.Append(fmt::format("[umbel] {}\n", record.detail));
      End(record);
      return;
    }
    static_cast<void>(!::write(kReportFd, "r", 1));
    ::close(kReportFd);
    Keep();
    Finish();
  }

 private:
  Status Start() {
    UMBEL_ASSIGN(spec_, ReadWanted(options_.folder));
    process::CommandSpec command;
    for (const std::string& text : spec_.arguments) command.arguments.push_back(AtNode(text));
    for (const std::string& text : spec_.environment) command.environment.push_back(AtNode(text));
    command.directory = spec_.directory.empty() ? options_.folder + "/home" : spec_.directory;
    command.output_pipe = true;
    process::Confinement confinement;
    confinement.network = spec_.network;
    if (spec_.isolated) {
      process::View& view = confinement.view.emplace();
      for (const std::string& path : spec_.shown) view.shown.push_back(AtNode(path));
      view.writable = spec_.writable;
      view.writable.push_back(command.directory);
      view.temporary = options_.folder + "/tmp";
      UMBEL_TRY(MakeDirectories(view.temporary));
      confinement.reached = spec_.reached;
    }
    if (options_.use_groups) {
      groups_ = process::CgroupParent::Open(options_.bound_cpu);
      process::CgroupLimits limits;
      limits.memory_bytes = groups_->memory() ? spec_.resources.memory_bytes : 0;
      limits.processes = groups_->processes() ? options_.processes_max : 0;
      limits.cpu_millicores = groups_->cpu() ? spec_.resources.cpu_millicores : 0;
      UMBEL_ASSIGN(group_, groups_->Create(spec_.name, limits));
    }
    if (!(groups_ && groups_->memory()) && spec_.resources.memory_bytes != 0)
      confinement.address_space_bytes = spec_.resources.memory_bytes + kAddressSpaceMore;
    if (options_.start > 1)
      log_.Append(fmt::format("[umbel] start {}{}{}\n", options_.start,
                              options_.previous.empty() ? "" : "; before: ", options_.previous));
    UMBEL_ASSIGN(child_, process::SpawnConfined(command, confinement));
    if (!child_.pidfd.valid()) return Fail(SystemError("watch", spec_.arguments[0]));
    ::fcntl(child_.output.get(), F_SETFL, O_NONBLOCK);
    // So that it can be found should we be killed.
    Record record;
    record.phase = Phase::kRunning;
    record.pid = child_.pid;
    record.start_ticks = child_.start_ticks;
    UMBEL_TRY(record_.Write(record));
    if (group_.valid()) UMBEL_TRY(group_.Add(child_.pid));
    UMBEL_TRY(child_.Open());
    return child_.AwaitStart(kStartLimit);
  }

  /// With its node's name in the place of "{node}".
  std::string AtNode(std::string text) const {
    constexpr std::string_view kPlace = "{node}";
    for (size_t at = 0; (at = text.find(kPlace, at)) != std::string::npos;
         at += options_.node.size())
      text.replace(at, kPlace.size(), options_.node);
    return text;
  }

  /// Until the command has ended.
  void Keep() {
    for (;;) {
      pollfd entries[] = {{child_.pidfd.get(), POLLIN, 0},
                          {signals_.get(), POLLIN, 0},
                          {child_.output.get(), POLLIN, 0},
                          {owner_.pidfd(), POLLIN, 0}};
      std::optional<milliseconds> patience = owner_.next_look();
      if (kill_at_ && !killed_)
        patience = std::min(
            patience.value_or(milliseconds::max()),
            std::max(std::chrono::ceil<milliseconds>(*kill_at_ - Steady::now()), milliseconds(0)));
      ::poll(entries, std::size(entries), patience ? static_cast<int>(patience->count()) : -1);
      if (entries[2].revents != 0) Drain();
      if (entries[0].revents != 0) return;
      if (entries[1].revents != 0) TakeSignals();
      if (entries[3].revents != 0 || owner_.pidfd() < 0) owner_.Look();
      if (owner_.GivenUp() && !kill_at_) {
        orphaned_ = true;
        EndKindly();
      }
      if (kill_at_ && !killed_ && Steady::now() >= *kill_at_) {
        killed_ = true;
        Signal(SIGKILL);
      }
    }
  }

  void TakeSignals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM && !kill_at_) EndKindly();
      if (info.ssi_signo == SIGCHLD) process::ReapAdopted({child_.pid});
    }
  }

  void EndKindly() {
    kill_at_ = Steady::now() + options_.grace;
    Signal(SIGTERM);
  }

  /// The command's group, and the command: it may have left its group.
  void Signal(int signal) {
    process::SignalGroup(child_.pid, signal);
    if (signal == SIGKILL || ::getpgid(child_.pid) != child_.pid) ::kill(child_.pid, signal);
  }

  /// What can be read now. A bounded amount, so that whoever only prints can be ended.
  void Drain() {
    char buffer[65536];
    for (int i = 0; i < 16 && child_.output.valid(); ++i) {
      const ssize_t n = ::read(child_.output.get(), buffer, sizeof buffer);
      if (n > 0) log_.Append({buffer, static_cast<size_t>(n)});
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) child_.output.Close();
      if (n <= 0) return;
    }
  }

  /// The command has ended: so does all it has started.
  void Finish() {
    const int status = process::Reap(child_.pidfd.get()).value_or(0);
    KillRest();
    Drain();  // nobody is left to write more than what is in the pipe
    Record record;
    record.phase = Phase::kEnded;
    record.status = status;
    record.told_to = kill_at_.has_value();
    record.detail = Describe(status);
    End(record);
  }

  void KillRest() {
    if (group_.valid()) static_cast<void>(group_.Kill());
    static_cast<void>(process::EndDescendants());
    process::ReapAdopted({});
  }

  std::string Describe(int status) const {
    if (orphaned_)
      return fmt::format("was ended after {} s without the ground that started it",
                         options_.orphan_grace.count());
    const uint64_t oom_kills = group_.valid() ? group_.OomKills() : 0;
    const std::string memory =
        fmt::format("used more than its {} of memory", BytesText(spec_.resources.memory_bytes));
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && oom_kills != 0)
      return "killed: " + memory;
    std::string text = WIFSIGNALED(status)
                           ? fmt::format("ended by signal {} ({})", WTERMSIG(status),
                                         ::strsignal(WTERMSIG(status)))
                           : fmt::format("exited with status {}", WEXITSTATUS(status));
    if (oom_kills != 0 && status != 0)
      text +=
          fmt::format(", after the kernel had killed {} of its processes: {}", oom_kills, memory);
    return text;
  }

  /// Nothing is left behind, then it is written down.
  void End(const Record& record) {
    if (record.phase == Phase::kNotStarted) KillRest();
    static_cast<void>(group_.Remove());
    groups_.reset();
    static_cast<void>(record_.Write(record));
  }

  const KeeperOptions options_;
  RecordFile record_;
  const Fd signals_;
  LogWriter log_;
  Owner owner_;
  InstanceSpec spec_;
  std::unique_ptr<process::CgroupParent> groups_;
  process::Cgroup group_;
  process::Child child_;
  std::optional<Steady::time_point> kill_at_;
  bool killed_ = false;
  bool orphaned_ = false;
};

}  // namespace

Status Keeper::Open() {
  if (::send(gate.get(), "g", 1, MSG_NOSIGNAL) != 1)
    return Fail(SystemError("open the gate of", "umbel keeper"));
  gate.Close();
  return {};
}

Result<Keeper> SpawnKeeper(const KeeperOptions& options) {
  int ends[2];
  // A socket, since a write to a pipe that nobody reads any more would raise SIGPIPE.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Fail(SystemError("create", "gate"));
  Keeper keeper;
  const Fd gate(ends[0]);
  keeper.gate = Fd(ends[1]);
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return Fail(SystemError("create", "pipe"));
  keeper.report = Fd(ends[0]);
  const Fd report(ends[1]);
  // Copies above the numbers they are to have, so that none is overwritten before it is passed.
  const Fd gate_copy(::fcntl(gate.get(), F_DUPFD_CLOEXEC, kReportFd + 1));
  const Fd report_copy(::fcntl(report.get(), F_DUPFD_CLOEXEC, kReportFd + 1));
  if (!gate_copy.valid() || !report_copy.valid()) return Fail(SystemError("copy", "descriptor"));
  std::vector<std::string> arguments{"umbel",
                                     "keeper",
                                     "--folder",
                                     options.folder,
                                     "--node",
                                     options.node,
                                     "--lock",
                                     options.lock_file,
                                     "--start",
                                     std::to_string(options.start),
                                     "--previous",
                                     options.previous,
                                     "--log-bytes",
                                     std::to_string(options.log_bytes_max),
                                     "--grace-ms",
                                     std::to_string(options.grace.count()),
                                     "--groups",
                                     options.use_groups ? "1" : "0",
                                     "--cpu",
                                     options.bound_cpu ? "1" : "0",
                                     "--processes",
                                     std::to_string(options.processes_max),
                                     "--orphan-seconds",
                                     std::to_string(options.orphan_grace.count())};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int standard : {0, 1, 2})
    posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&actions, gate_copy.get(), kGateFd);
  posix_spawn_file_actions_adddup2(&actions, report_copy.get(), kReportFd);
  posix_spawn_file_actions_addclosefrom_np(&actions, kReportFd + 1);
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
  char* nothing[] = {nullptr};
  const int failed = ::posix_spawn(&keeper.pid, "/proc/self/exe", &actions, &attributes,
                                   Pointers(arguments).data(), nothing);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    errno = failed;
    return Fail(SystemError("start", "umbel keeper"));
  }
  keeper.start_ticks = process::StartTicks(keeper.pid);
  keeper.pidfd = process::OpenPidFd(keeper.pid, keeper.start_ticks);
  if (!keeper.pidfd.valid()) {
    const Error error = SystemError("watch", "umbel keeper");
    keeper.gate.Close();
    ::waitpid(keeper.pid, nullptr, 0);
    return Fail(error);
  }
  return keeper;
}

int KeeperMain(int argc, char** argv) {
  const auto options = Parse(argc, argv);
  if (!options) return 2;
  char go = 0;
  ssize_t n;
  do n = ::read(kGateFd, &go, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1) return 1;  // our ground died before it knew us: nothing has happened
  ::close(kGateFd);
  ::prctl(PR_SET_NAME, "umbel-keeper");
  // What the instance leaves behind becomes our child, so that it is found at the end.
  if (!process::BecomeSubreaper().ok()) return 1;
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGCHLD}) sigaddset(&handled, signal);
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  Fd signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid() || ::chdir("/") != 0) return 1;
  ::fcntl(kReportFd, F_SETFD, FD_CLOEXEC);
  auto record = RecordFile::Create(options->folder);
  if (!record.ok()) return 1;
  KeeperProcess(*options, std::move(*record), std::move(signals)).Main();
  return 0;
}

}  // namespace umbel::orchestrator
