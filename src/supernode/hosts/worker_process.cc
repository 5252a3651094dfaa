#include "supernode/hosts/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/detached.hpp>

#include "base/log.h"
#include "http/tasks.h"
#include "process/process.h"
#include "process/watch.h"

namespace umbel::supernode {
namespace asio = boost::asio;
using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kReadyLimit{120};  // an import of Flower takes two
constexpr seconds kForkLimit{30};
constexpr milliseconds kEndLimit{1000};
constexpr size_t kControlFrameMax = size_t{1} << 20;

// `-c` drops what it is given into the folder of the sources; see docs/worker-protocol.md.
constexpr const char* kBegin =
    "import sys; at = sys.argv.pop(); sys.path[:sys.path[0] == \"\"] = [at]; "
    "from _umbel_worker.main import run; run(at)";

Result<std::pair<Fd, Fd>> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return Fail(SystemError("make", "a pipe"));
  ::fcntl(fds[0], F_SETFL, O_NONBLOCK);
  return std::pair<Fd, Fd>(Fd(fds[0]), Fd(fds[1]));
}

}  // namespace

struct WorkerProcess::Waiting {
  explicit Waiting(const asio::any_io_executor& e) : executor(e), changed(e) {}

  asio::any_io_executor executor;
  http::Bell changed;
};

Result<std::shared_ptr<WorkerProcess>> WorkerProcess::Start(const asio::any_io_executor& executor,
                                                            asio::thread_pool& pool,
                                                            const WorkerOptions& options,
                                                            process::CgroupParent* groups) {
  UMBEL_ASSIGN(auto control, FrameSocket::Pair());
  UMBEL_ASSIGN(auto output, MakePipe());
  process::CommandSpec command;
  command.arguments = {options.python, "-c", kBegin, options.sources};
  command.environment = options.environment;
  command.descriptors = {
      {output.second.get(), 1}, {output.second.get(), 2}, {control.second.get(), 3}};
  process::Confinement confinement;
  confinement.uid = options.uid;
  confinement.gid = options.uid;
  confinement.open_files = options.limits.open_files;
  confinement.network = options.limits.network;
  confinement.view = options.view;
  if (groups == nullptr) confinement.processes = options.limits.processes;
  UMBEL_ASSIGN(process::Child child, process::SpawnConfined(command, confinement));
  std::shared_ptr<WorkerProcess> worker(new WorkerProcess(
      executor, pool, options, groups, std::move(child), std::move(control.first)));
  static std::atomic<uint64_t> number{0};
  UMBEL_ASSIGN(worker->group_, worker->MakeGroup("w", ++number));
  if (worker->group_.valid()) UMBEL_TRY(worker->group_.Add(worker->child_.pid));
  UMBEL_TRY(worker->child_.Open());
  worker->Begin(std::move(output.first));
  return worker;
}

WorkerProcess::WorkerProcess(const asio::any_io_executor& executor, asio::thread_pool& pool,
                             const WorkerOptions& options, process::CgroupParent* groups,
                             process::Child child, Fd control)
    : waiting_(std::make_unique<Waiting>(executor)),
      pool_(pool),
      options_(options),
      groups_(groups),
      child_(std::move(child)),
      control_(executor, std::move(control)) {}

WorkerProcess::~WorkerProcess() {
  // Whoever lets go of one has called Kill(), unless it has never begun or the io_context is gone.
  if (child_.pid <= 0 || ended_) return;
  ::kill(-child_.pid, SIGKILL);
  process::WaitForEnd(child_.pidfd.get(), seconds(1));
  process::Reap(child_.pidfd.get());
}

void WorkerProcess::Begin(Fd output) {
  output_ = AppOutput::Follow(waiting_->executor, std::move(output),
                              fmt::format("worker {}", child_.pid), options_.limits.output_bytes);
  auto read = [self = shared_from_this()]() -> Task<void> { co_await self->ReadControl(); };
  asio::co_spawn(waiting_->executor, std::move(read), asio::detached);
}

Result<process::Cgroup> WorkerProcess::MakeGroup(std::string_view kind, uint64_t id) {
  if (groups_ == nullptr) return process::Cgroup();
  uint64_t processes = options_.limits.processes;
  // Two of ours stand before a worker with a view.
  if (processes != 0 && options_.view && kind == "w") processes += 2;
  return groups_->Create(fmt::format("{}{}-{}", kind, child_.pid, id),
                         {options_.limits.memory_bytes, processes});
}

Task<void> WorkerProcess::ReadControl() {
  milliseconds first{0};
  for (;;) {
    auto payload = co_await control_.Receive(kControlFrameMax);
    if (!payload.ok()) {
      first = kEndLimit;  // its sockets are closed a moment before it has ended
      break;
    }
    auto frame = ReadControlFrame(*payload);
    if (!frame.ok()) {
      LogWarn("a worker breaks its protocol and is ended",
              {{"pid", child_.pid}, {"error", frame.error().message}});
      break;
    }
    Take(std::move(*frame));
    waiting_->changed.Ring();
  }
  co_await Kill(first);
}

void WorkerProcess::Take(ControlFrame frame) {
  if (const auto* ready = std::get_if<Ready>(&frame)) {
    ready_ = *ready;
  } else if (auto* unfit = std::get_if<Unfit>(&frame)) {
    unfit_ = std::move(unfit->reason);
  } else if (auto* loaded = std::get_if<Loaded>(&frame)) {
    loading_ = Loading{true, loaded->fork, std::move(loaded->why), 0, ""};
  } else if (auto* failed = std::get_if<LoadFailed>(&frame)) {
    LogWarn("a ClientApp cannot be loaded",
            {{"reason", failed->reason}, {"traceback", failed->traceback}});
    loading_ = Loading{false, false, "", failed->code, std::move(failed->reason)};
  } else if (const auto* forked = std::get_if<Forked>(&frame)) {
    const auto child = children_.find(forked->id);
    if (child != children_.end() && child->second->pid == 0) child->second->pid = forked->pid;
  } else if (const auto* exited = std::get_if<Exited>(&frame)) {
    const auto child = children_.find(exited->id);
    if (child == children_.end()) return;
    child->second->status = exited->status;
    child->second->ended = true;
    children_.erase(child);
  }
}

Task<Status> WorkerProcess::Await(std::function<bool()> condition, milliseconds limit,
                                  std::string_view what) {
  const auto self = shared_from_this();
  const auto late = std::make_shared<bool>(false);
  asio::steady_timer timer(waiting_->executor, limit);
  timer.async_wait([late, self](boost::system::error_code error) {
    if (error) return;
    *late = true;
    self->waiting_->changed.Ring();
  });
  while (!condition() && !gone_ && !*late) co_await waiting_->changed.Wait();
  if (condition()) co_return Status{};
  if (gone_)
    co_return Fail(Code::kUnavailable,
                   fmt::format("the worker (pid {}) ended while it was to {}", child_.pid, what));
  co_return Fail(Code::kUnavailable, fmt::format("the worker (pid {}) did not {} within {} s",
                                                 child_.pid, what, limit.count() / 1000));
}

Task<Status> WorkerProcess::BecomeReady() {
  auto done = [this] { return ready_.has_value() || !unfit_.empty(); };
  UMBEL_CO_TRY(co_await Await(std::move(done), kReadyLimit, "import Flower"));
  if (!unfit_.empty())
    co_return Fail(Code::kFailedPrecondition,
                   fmt::format("the Python '{}' is unfit: {}", options_.python, unfit_));
  co_return Status{};
}

Task<Result<WorkerProcess::Loading>> WorkerProcess::Load(const App& app,
                                                         const std::string& environment) {
  loading_.reset();
  UMBEL_CO_ASSIGN(std::string frame,
                  LoadFrame(app.directory, app.clientapp, app.fab_id, environment));
  UMBEL_CO_TRY(co_await control_.Send(std::move(frame), {}));
  auto done = [this] { return loading_.has_value(); };
  // An import may take as long as it likes: a model may be read in it.
  UMBEL_CO_TRY(co_await Await(std::move(done), std::chrono::hours(1), "load the app"));
  co_return *loading_;
}

Task<Result<std::shared_ptr<WorkerChild>>> WorkerProcess::MakeChild(bool serve, std::string tag) {
  const auto self = shared_from_this();
  UMBEL_CO_ASSIGN(auto job, FrameSocket::Pair());
  UMBEL_CO_ASSIGN(auto pipe, MakePipe());
  auto child = std::make_shared<WorkerChild>(waiting_->executor, std::move(job.first));
  child->id = ++next_id_;
  child->output = AppOutput::Follow(waiting_->executor, std::move(pipe.first), std::move(tag),
                                    options_.limits.output_bytes);
  ChildLimits limits;
  limits.open_files = options_.limits.open_files;
  if (groups_ == nullptr) {
    limits.processes = options_.limits.processes;
    limits.address_space = options_.limits.memory_bytes;
  }
  UMBEL_CO_ASSIGN(std::string frame,
                  serve ? ServeFrame(child->id, limits) : ForkFrame(child->id, limits));
  children_[child->id] = child;
  const int descriptors[] = {job.second.get(), pipe.second.get()};
  Status made = co_await control_.Send(std::move(frame), descriptors);
  if (made.ok()) {
    auto forked = [child] { return child->pid > 0 || child->ended; };
    made = co_await Await(std::move(forked), kForkLimit, "fork");
  }
  if (made.ok() && child->ended) made = Fail(Code::kUnavailable, "the system refused to fork");
  if (made.ok()) made = CheckChild(*child, serve);
  if (made.ok()) {
    auto group = MakeGroup("c", child->id);
    if (group.ok()) {
      child->group = std::move(*group);
      if (child->group.valid()) made = child->group.Add(child->pid);
    } else {
      made = Fail(std::move(group).error());
    }
  }
  if (made.ok()) co_return child;
  children_.erase(child->id);
  child->job.Close();
  co_return Fail(std::move(made).error());
}

/// What a worker says of pids is a stranger's word, and whatever it names will be killed.
Status WorkerProcess::CheckChild(WorkerChild& child, bool serve) const {
  if (options_.view) {
    // All that is in its namespace is its own, whichever it names.
    const auto inside = process::FindInside(child_.pid, child.pid);
    if (!inside) return Fail(Code::kUnavailable, "the child has ended");
    child.pid = inside->id.pid;
    child.pidfd = process::OpenPidFd(child.pid, inside->id.start_ticks);
    return {};
  }
  child.pidfd = process::OpenPidFd(child.pid, process::StartTicks(child.pid));
  const auto found = process::FindProcess(child.pid);
  if (!found) return Fail(Code::kUnavailable, "the child has ended");
  if (serve ? child.pid == child_.pid : found->parent == child_.pid) return {};
  child.pidfd.Close();
  return Fail(Code::kUnavailable,
              fmt::format("the worker (pid {}) names process {}, which is not its child",
                          child_.pid, child.pid));
}

Task<void> WorkerProcess::AwaitEnd(const WorkerChild& child, milliseconds limit) {
  auto ended = [&child] { return child.ended; };
  const Status done = co_await Await(std::move(ended), limit, "end");
  static_cast<void>(done);
}

Task<void> WorkerProcess::KillChild(WorkerChild& child) {
  const auto self = shared_from_this();
  child.job.Close();
  if (child.group.valid()) {
    auto kill = [&child] {
      const Status killed = child.group.Kill();
      const Status removed = child.group.Remove();
      return killed.ok() ? removed : killed;
    };
    if (const Status done = co_await http::RunOn(pool_, std::move(kill)); !done.ok())
      LogWarn("a ClientApp's processes could not be ended", {{"error", done.error().message}});
  } else if (child.pidfd.valid()) {
    ::syscall(SYS_pidfd_send_signal, child.pidfd.get(), SIGKILL, nullptr, 0);
  }
}

Task<void> WorkerProcess::Kill(milliseconds first) {
  const auto self = shared_from_this();
  if (std::exchange(gone_, true)) {
    while (!ended_) co_await waiting_->changed.Wait();
    co_return;
  }
  control_.Close();
  for (auto& [id, child] : children_) child->ended = true;
  auto children = std::exchange(children_, {});
  waiting_->changed.Ring();
  auto end = [this, first] {
    process::WaitForEnd(child_.pidfd.get(), first);
    // One that serves has moved to its child's group.
    if (group_.valid()) ::syscall(SYS_pidfd_send_signal, child_.pidfd.get(), SIGKILL, nullptr, 0);
    Status done = group_.valid()
                      ? group_.Kill()
                      : process::EndTree({child_.pid, child_.start_ticks}, milliseconds(0));
    process::WaitForEnd(child_.pidfd.get(), seconds(10));
    status_ = process::Reap(child_.pidfd.get());
    const Status removed = group_.valid() ? group_.Remove() : Status();
    if (done.ok()) done = removed;
    return done;
  };
  const Status done = co_await http::RunOn(pool_, std::move(end));
  ended_ = true;
  waiting_->changed.Ring();
  if (!done.ok())
    LogWarn("a worker could not be ended", {{"pid", child_.pid}, {"error", done.error().message}});
}

}  // namespace umbel::supernode
