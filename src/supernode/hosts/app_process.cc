#include "supernode/hosts/app_process.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

#include "base/file.h"
#include "base/log.h"
#include "http/tasks.h"
#include "process/cgroup.h"
#include "process/process.h"

namespace umbel::supernode {
namespace asio = boost::asio;
namespace {

using Steady = std::chrono::steady_clock;

constexpr size_t kLineMax = 8192;  // longer ones are cut
constexpr size_t kReportMax = 4096;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

std::string HowItEnded(std::optional<int> status) {
  if (!status) return "ended, nobody saw how";
  if (WIFEXITED(*status)) return fmt::format("exited with status {}", WEXITSTATUS(*status));
  const char* name = ::sigabbrev_np(WTERMSIG(*status));
  return fmt::format("was killed by signal {} (SIG{})", WTERMSIG(*status), name ? name : "?");
}

class AppProcessImpl final : public AppProcess,
                             public std::enable_shared_from_this<AppProcessImpl> {
 public:
  AppProcessImpl(asio::io_context& context, asio::thread_pool& pool, process::Child child,
                 process::Cgroup group, uint64_t memory_bytes, Observer observer)
      : context_(context),
        pool_(pool),
        pid_(child.pid),
        report_(std::move(child.report)),
        group_(std::move(group)),
        memory_bytes_(memory_bytes),
        observer_(std::move(observer)),
        output_(context, child.output.Release()),
        pidfd_(context, child.pidfd.Release()),
        deadline_(context) {
    output_.non_blocking(true);
  }
  ~AppProcessImpl() override {
    // Only when the io_context goes before the process has ended: it must not outlive us.
    if (!ended_) process::SignalGroup(pid_, SIGKILL);
  }

  void Follow() {
    asio::co_spawn(
        context_, [self = shared_from_this()] { return self->Read(); }, asio::detached);
    asio::co_spawn(
        context_, [self = shared_from_this()] { return self->Watch(); }, asio::detached);
  }

  pid_t pid() const override { return pid_; }

  void EndSoon(std::chrono::milliseconds polite, std::chrono::milliseconds grace) override {
    if (ended_) return;
    const auto term_at = Steady::now() + polite;
    term_at_ = std::min(term_at_, term_at);
    kill_at_ = std::min(kill_at_, term_at + grace);
    if (std::exchange(ending_, true)) {
      deadline_.cancel();  // it looks again
    } else {
      asio::co_spawn(
          context_, [self = shared_from_this()] { return self->EndInTime(); }, asio::detached);
    }
  }

 private:
  http::Task<void> Read() {
    for (;;) {
      auto [error] = co_await output_.async_wait(asio::posix::stream_descriptor::wait_read, kTuple);
      if (error || ended_ || !Drain()) co_return;
    }
  }

  /// Takes what is there. False at the end of it.
  bool Drain() {
    for (;;) {
      char buffer[16384];
      const ssize_t n = ::read(output_.native_handle(), buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN;
      if (n == 0) return false;
      Split({buffer, static_cast<size_t>(n)});
      // One that writes without end must not keep us from everything else.
      if (n == static_cast<ssize_t>(sizeof buffer) && !ended_) return true;
    }
  }
  void Split(std::string_view text) {
    while (!text.empty()) {
      const size_t end = text.find('\n');
      partial_.append(text.substr(0, end));
      if (partial_.size() > kLineMax) partial_.resize(kLineMax);
      if (end == std::string_view::npos) return;
      Line();
      text.remove_prefix(end + 1);
    }
  }
  void Line() {
    if (!partial_.empty() && partial_.back() == '\r') partial_.pop_back();
    observer_.line(partial_);
    partial_.clear();
  }

  http::Task<void> Watch() {
    auto [error] = co_await pidfd_.async_wait(asio::posix::stream_descriptor::wait_read, kTuple);
    if (error) co_return;
    ended_ = true;
    End end;
    // What it left behind. Until it is reaped its number is its own.
    process::SignalGroup(pid_, SIGKILL);
    if (group_.valid()) {
      end.out_of_memory = group_.OomKills() > 0;
      auto clear = [this] {
        const Status killed = group_.Kill();
        const Status removed = group_.Remove();
        return killed.ok() ? removed : killed;
      };
      if (const Status done = co_await http::RunOn(pool_, std::move(clear)); !done.ok())
        LogWarn("what a ClientApp has left behind could not be ended",
                {{"pid", pid_}, {"error", done.error().message}});
    }
    end.status = process::Reap(pidfd_.native_handle());
    end.how = How(end);
    Drain();
    if (!partial_.empty()) Line();
    boost::system::error_code ignored;
    output_.close(ignored);
    deadline_.cancel();
    const Observer observer = std::exchange(observer_, {});
    observer.end(end);
  }

  /// Memory first: it may be used up before the program has begun.
  std::string How(const End& end) const {
    if (end.out_of_memory)
      return fmt::format("needed more memory than this site's limit, {} MiB", memory_bytes_ >> 20);
    char text[kReportMax];
    const ssize_t size = ::read(report_.get(), text, sizeof text);
    const Status started =
        process::StartReport({text, static_cast<size_t>(std::max<ssize_t>(size, 0))});
    if (!started.ok()) return "could not be started: " + started.error().message;
    return HowItEnded(end.status);
  }

  http::Task<void> EndInTime() {
    while (!ended_) {
      const auto now = Steady::now();
      if (now >= kill_at_) {
        process::SignalGroup(pid_, SIGKILL);
        co_return;
      }
      if (now >= term_at_ && !std::exchange(termed_, true)) process::SignalGroup(pid_, SIGTERM);
      deadline_.expires_at(termed_ ? kill_at_ : std::min(term_at_, kill_at_));
      co_await deadline_.async_wait(kTuple);
    }
  }

  asio::io_context& context_;
  asio::thread_pool& pool_;
  const pid_t pid_;
  const Fd report_;
  process::Cgroup group_;
  const uint64_t memory_bytes_;  // its group's limit
  Observer observer_;
  asio::posix::stream_descriptor output_;
  asio::posix::stream_descriptor pidfd_;
  asio::steady_timer deadline_;
  std::string partial_;
  Steady::time_point term_at_ = Steady::time_point::max();
  Steady::time_point kill_at_ = Steady::time_point::max();
  bool ending_ = false;
  bool termed_ = false;
  bool ended_ = false;
};

}  // namespace

Result<std::shared_ptr<AppProcess>> AppProcess::Start(asio::io_context& context,
                                                      asio::thread_pool& pool,
                                                      process::CommandSpec command,
                                                      const Limits& limits,
                                                      process::CgroupParent* groups,
                                                      const std::string& name, Observer observer) {
  process::Confinement confinement;
  confinement.uid = limits.uid;
  confinement.gid = limits.uid;
  confinement.open_files = limits.open_files;
  process::Cgroup group;
  if (groups) {
    UMBEL_ASSIGN(group, groups->Create(name, {limits.memory_bytes, limits.processes}));
  } else {
    confinement.processes = limits.processes;
    confinement.address_space_bytes = limits.memory_bytes;
  }
  command.output_pipe = true;
  UMBEL_ASSIGN(process::Child child, process::SpawnConfined(command, confinement));
  Status open = group.valid() ? group.Add(child.pid) : Status();
  if (open.ok()) open = child.Open();
  if (!open.ok()) {
    child.gate.Close();
    process::SignalGroup(child.pid, SIGKILL);
    process::WaitForEnd(child.pidfd.get(), std::chrono::seconds(1));
    process::Reap(child.pidfd.get());
    return Fail(std::move(open).error());
  }
  auto process = std::make_shared<AppProcessImpl>(context, pool, std::move(child), std::move(group),
                                                  limits.memory_bytes, std::move(observer));
  process->Follow();
  return std::shared_ptr<AppProcess>(std::move(process));
}

}  // namespace umbel::supernode
