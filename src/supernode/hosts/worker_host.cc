#include "supernode/hosts/worker_host.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <cstring>
#include <deque>
#include <list>
#include <set>

#include "base/log.h"
#include "http/tasks.h"
#include "supernode/hosts/hang.h"

namespace umbel::supernode {
namespace asio = boost::asio;
using flower::Parcel;
using flower::Spool;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr size_t kAppsMax = 4;        // loaded and idle
constexpr size_t kResidentsMax = 16;  // idle
constexpr milliseconds kEndLimit{2000};
constexpr std::string_view kStopped = "ClientApp stopped responding.";

/// Workers of one app.
struct AppWorkers {
  explicit AppWorkers(const asio::any_io_executor& executor) : changed(executor) {}

  std::shared_ptr<const App> app;
  std::optional<std::string> environment;             // "": none; nullopt: not known yet
  std::shared_ptr<WorkerProcess> server;              // what is forked from
  std::deque<std::shared_ptr<WorkerProcess>> spares;  // loaded, for one use each
  bool loading = false;
  bool spawn = false;  // never fork again
  http::Bell changed;
  uint64_t used = 0;
  size_t jobs = 0;
};

/// A worker and a child of it that takes calls.
struct Seat {
  std::shared_ptr<WorkerProcess> worker;
  std::shared_ptr<WorkerChild> child;
  bool single_use = false;  // the worker itself
  WorkerProcess::Loading loading;
};

/// A child that stays for its series.
struct Resident {
  Seat seat;
  Digest app;  // that it has loaded
  uint64_t used = 0;
};

/// How a call ended.
struct Ended {
  std::optional<JobFrame> frame;
  Error error;        // when there is no frame
  bool late = false;  // the wall time was over
  bool hung = false;
};

class WorkerHost final : public Host {
 public:
  WorkerHost(const asio::any_io_executor& executor, asio::thread_pool& pool, WorkerOptions options,
             process::CgroupParent* groups, bool resident, const Clock& clock, size_t spares,
             std::unique_ptr<Environments> environments, std::function<void(const Error&)> on_unfit)
      : executor_(executor),
        pool_(pool),
        options_(std::move(options)),
        groups_(groups),
        resident_(resident),
        clock_(clock),
        spares_(std::max<size_t>(spares, 1)),
        environments_(std::move(environments)),
        on_unfit_(std::move(on_unfit)) {
    Background(KeepIdle());
  }

  std::string_view name() const override { return resident_ ? "resident" : "worker"; }

  void Prepare(std::shared_ptr<const RunInfo> run) override {
    if (!stopping_) Background(Warm(std::move(run)));
  }

  Task<Status> Preload(std::shared_ptr<const App> app) override {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    ++background_;
    const Status loaded = co_await LoadAhead(WorkersOf(app), RunId{});
    --background_;
    bell_.Ring();
    co_return loaded;
  }

  Task<Result<Outcome>> Run(const Job& job) override {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    ++background_;  // Stop() waits for us: what we refer to stays
    auto outcome = co_await RunJob(job);
    --background_;
    bell_.Ring();
    co_return outcome;
  }

  Task<Result<Outcome>> RunJob(const Job& job) {
    auto records = flower::ReadRecords(job.instruction);
    if (!records.ok())
      co_return Failed(job, ReplyError::kUnknown,
                       "the instruction cannot be read: " + records.error().message);
    auto state = flower::DecodeState(job.state, *job.instruction.objects);
    if (!state.ok()) co_return Fail(std::move(state).error());
    UMBEL_CO_ASSIGN(auto out, Spool::Create(job.spool_path));
    AppWorkers& app = WorkersOf(job.run->app);
    ++app.jobs;
    const auto running = running_.insert(job.run->series_id);
    auto outcome = co_await RunOnChild(job, app, *records, *state, out);
    running_.erase(running);
    --app.jobs;
    app.used = ++tick_;
    if (!stopping_) Background(Trim());
    co_return outcome;
  }

  void Drop(RunId run_id) override {
    if (environments_) environments_->Drop(run_id);
  }

  Task<void> Stop(milliseconds grace) override {
    stopping_ = true;
    if (environments_) co_await environments_->Stop(grace);
    // Jobs, and what is loaded beside them, hold on to an app's workers until they have ended.
    for (;;) {
      for (const auto& worker : All()) co_await worker->Kill();
      if (background_ == 0) break;
      co_await bell_.Wait();
    }
    apps_.clear();
    residents_.clear();
    idle_.reset();
  }

  std::string Describe() const override {
    size_t children = 0;
    const auto all = All();
    for (const auto& worker : all) children += worker->children();
    return fmt::format("{} workers, {} apps, {} ClientApps", all.size(), apps_.size(), children);
  }

 private:
  std::set<std::shared_ptr<WorkerProcess>> All() const {
    std::set<std::shared_ptr<WorkerProcess>> all = single_use_;
    if (idle_) all.insert(idle_);
    for (const auto& [hash, app] : apps_) {
      if (app.server) all.insert(app.server);
      all.insert(app.spares.begin(), app.spares.end());
    }
    for (const auto& [series, resident] : residents_)
      if (resident.seat.worker->alive()) all.insert(resident.seat.worker);
    return all;
  }

  void Background(Task<void> task) {
    ++background_;
    asio::co_spawn(executor_, std::move(task), [this](std::exception_ptr) {
      --background_;
      bell_.Ring();
    });
  }

  /// Flower is imported before any app is known.
  Task<void> KeepIdle() {
    if (idle_ || stopping_) co_return;
    auto started = WorkerProcess::Start(executor_, pool_, options_, groups_);
    if (!started.ok()) {
      LogWarn("a worker cannot be started", {{"error", started.error().message}});
      co_return;
    }
    idle_ = *started;
    const Status ready = co_await (*started)->BecomeReady();
    if (ready.ok()) co_return;
    if (!stopping_) LogWarn("a worker did not get ready", {{"error", ready.error().message}});
    if (ready.error().code == Code::kFailedPrecondition && on_unfit_) on_unfit_(ready.error());
    co_await (*started)->Kill();
    if (idle_ == *started) idle_.reset();
  }

  /// A worker that has imported Flower.
  Task<Result<std::shared_ptr<WorkerProcess>>> TakeReady() {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    std::shared_ptr<WorkerProcess> worker = std::exchange(idle_, nullptr);
    if (!worker || !worker->alive()) {
      auto started = WorkerProcess::Start(executor_, pool_, options_, groups_);
      if (!started.ok()) co_return Fail(std::move(started).error());
      worker = std::move(*started);
    }
    single_use_.insert(worker);  // so that Stop() finds it
    const Status ready = co_await worker->BecomeReady();
    single_use_.erase(worker);
    if (!ready.ok()) {
      co_await worker->Kill();
      co_return Fail(ready.error());
    }
    if (stopping_) {
      co_await worker->Kill();
      co_return Fail(Code::kCancelled, "stopping");
    }
    Background(KeepIdle());
    co_return worker;
  }

  AppWorkers& WorkersOf(const std::shared_ptr<const App>& app) {
    const auto [entry, fresh] = apps_.try_emplace(app->hash, executor_);
    if (fresh) entry->second.app = app;
    entry->second.used = ++tick_;
    return entry->second;
  }

  Task<Status> LoadAhead(AppWorkers& app, RunId run_id) {
    ++app.jobs;
    const auto loaded = co_await Loaded(app, run_id);
    --app.jobs;
    if (!loaded.ok()) co_return Fail(loaded.error());
    if (!loaded->ok) co_return Fail(Code::kFailedPrecondition, loaded->reason);
    co_return Status{};
  }

  bool Seated(SeriesId series) const {
    return running_.contains(series) ||
           std::any_of(residents_.begin(), residents_.end(),
                       [series](const auto& entry) { return entry.first.second == series; });
  }

  Task<void> Warm(std::shared_ptr<const RunInfo> run) {
    AppWorkers& app = WorkersOf(run->app);
    // One that stays for the series is all it needs: what an app holds may be large.
    if (resident_ && Seated(run->series_id)) co_return;
    if (!app.server && app.spares.empty()) static_cast<void>(co_await LoadAhead(app, run->run_id));
  }

  /// What an app's load came to; afterwards `server` or a spare is there if it went well.
  Task<Result<WorkerProcess::Loading>> Loaded(AppWorkers& app, RunId run_id) {
    if (environments_ && !app.environment) {
      auto environment = co_await environments_->Of(*app.app, run_id);
      if (!environment.ok()) {
        if (environment.error().code == Code::kCancelled)
          co_return Fail(std::move(environment).error());
        WorkerProcess::Loading failed;
        failed.code = static_cast<int64_t>(ReplyError::kRaised);  // as upstream
        failed.reason = std::move(environment).error().message;
        co_return failed;
      }
      app.environment = std::move(*environment);
    }
    for (;;) {
      if (app.server && !app.server->alive()) app.server.reset();
      std::erase_if(app.spares, [](const auto& spare) { return !spare->alive(); });
      if (app.spawn ? !app.spares.empty() : app.server != nullptr) {
        WorkerProcess::Loading there;
        there.ok = true;
        there.fork = !app.spawn;
        co_return there;
      }
      if (!app.loading) break;
      co_await app.changed.Wait();
    }
    app.loading = true;
    auto loading = co_await LoadOne(app);
    app.loading = false;
    app.changed.Ring();
    co_return loading;
  }

  Task<Result<WorkerProcess::Loading>> LoadOne(AppWorkers& app) {
    UMBEL_CO_ASSIGN(auto worker, co_await TakeReady());
    single_use_.insert(worker);
    auto loading = co_await worker->Load(*app.app, app.environment.value_or(""));
    single_use_.erase(worker);
    if (!loading.ok() || !loading->ok || stopping_) {
      co_await worker->Kill();
      if (stopping_) co_return Fail(Code::kCancelled, "stopping");
      co_return loading;
    }
    if (!loading->fork && !app.spawn) {
      app.spawn = true;
      LogInfo("the app gets a fresh process for each message, since forking is not safe",
              {{"app", app.app->fab_id}, {"why", loading->why}});
    }
    if (app.spawn) {
      app.spares.push_back(std::move(worker));
    } else {
      app.server = std::move(worker);
    }
    co_return loading;
  }

  Task<void> KeepSpare(AppWorkers& app) {
    ++app.jobs;
    if (app.spares.size() < spares_ && !app.loading && !stopping_) {
      app.loading = true;
      static_cast<void>(co_await LoadOne(app));
      app.loading = false;
      app.changed.Ring();
    }
    --app.jobs;
  }

  Task<Result<Seat>> TakeSeat(AppWorkers& app, RunId run_id, const std::string& tag) {
    Seat seat;
    UMBEL_CO_ASSIGN(seat.loading, co_await Loaded(app, run_id));
    if (!seat.loading.ok) co_return seat;
    seat.single_use = app.spawn;
    if (app.spawn) {
      if (app.spares.empty()) co_return Fail(Code::kUnavailable, "the app's process is gone");
      seat.worker = std::move(app.spares.front());
      app.spares.pop_front();
      single_use_.insert(seat.worker);
      if (!resident_) Background(KeepSpare(app));
    } else {
      seat.worker = app.server;
    }
    auto child = co_await seat.worker->MakeChild(seat.single_use, tag);
    if (!child.ok()) {
      if (seat.single_use) {
        co_await seat.worker->Kill();
        single_use_.erase(seat.worker);
      }
      co_return Fail(std::move(child).error());
    }
    seat.child = std::move(*child);
    co_return seat;
  }

  Task<void> GiveSeat(Seat& seat) {
    co_await seat.worker->KillChild(*seat.child);
    if (!seat.single_use) co_return;
    co_await seat.worker->Kill();
    single_use_.erase(seat.worker);
  }

  /// A child that is done ends by itself first: its exit handlers run.
  Task<void> LetGo(Seat seat) {
    seat.child->job.Close();
    co_await seat.worker->AwaitEnd(*seat.child, seconds(10));
    co_await GiveSeat(seat);
  }

  Task<Result<Outcome>> RunOnChild(const Job& job, AppWorkers& app,
                                   const flower::RecordDict& records,
                                   const flower::RecordDict& state, std::shared_ptr<Spool> out) {
    const std::string tag = fmt::format("run {} message {}", job.run->run_id,
                                        job.instruction.head.message_id.substr(0, 12));
    const SeriesId series = job.run->series_id;
    const auto key = std::pair(job.node_id, series);
    for (bool again = false;; again = true) {
      Seat seat;
      bool kept = false;
      if (const auto found = residents_.find(key); resident_ && found != residents_.end()) {
        seat = std::move(found->second.seat);
        // A series may go on with another app.
        kept = !seat.child->ended && found->second.app == job.run->app->hash;
        residents_.erase(found);
        if (kept) {
          seat.child->output->Tag(tag, options_.limits.output_bytes);
        } else if (seat.child->ended) {
          co_await GiveSeat(seat);
        } else {
          Background(LetGo(std::move(seat)));
        }
      }
      if (!kept) {
        UMBEL_CO_ASSIGN(seat, co_await TakeSeat(app, job.run->run_id, tag));
        if (!seat.loading.ok)
          co_return Failed(job, static_cast<ReplyError>(seat.loading.code), seat.loading.reason,
                           out);
        if (resident_)
          LogInfo("a resident process keeps what the app holds in memory between messages",
                  {{"run_id", job.run->run_id}, {"pid", seat.child->pid}});
      }
      Ended ended = co_await CallChild(job, seat, records, state, *out, !again && !app.spawn);
      if (ended.frame) {
        auto outcome = co_await Finish(job, std::move(*ended.frame), out);
        // What an app has forked and left must neither count against its next message nor answer
        // it.
        const bool alone = !seat.child->group.valid() || seat.child->group.Pids().size() <= 1;
        if (resident_ && !stopping_ && alone) {
          residents_[key] = Resident{std::move(seat), job.run->app->hash, ++tick_};
        } else {
          Background(LetGo(std::move(seat)));
        }
        co_return outcome;
      }
      if (ended.hung && !again) {
        LogWarn(
            "a forked ClientApp hangs before it has done anything; its app gets fresh processes "
            "from now on",
            {{"app", app.app->fab_id}});
        app.spawn = true;
        co_await GiveSeat(seat);
        continue;
      }
      auto outcome = co_await Explain(job, seat, std::move(ended), out);
      co_await GiveSeat(seat);
      if (kept && !outcome.ok() && !again) continue;  // the resident had died before
      co_return outcome;
    }
  }

  /// Sends the call and waits for what comes of it.
  Task<Ended> CallChild(const Job& job, Seat& seat, const flower::RecordDict& records,
                        const flower::RecordDict& state, Spool& out, bool watch_for_hang) {
    Ended ended;
    Call call{job.instruction.head, records, job.node_id, job.run->series_id, job.node_config,
              job.run->run_config,  state,   out.size()};
    auto frame = CallFrame(call);
    if (!frame.ok()) {
      ended.error = std::move(frame).error();
      co_return ended;
    }
    const int descriptors[] = {job.instruction.objects->fd(), out.fd()};
    // What ends the wait but an answer: the wall time, or a child that hangs.
    struct Watch {
      explicit Watch(const asio::any_io_executor& executor) : timer(executor) {}
      asio::steady_timer timer;
      bool over = false, late = false, hung = false;
    };
    const auto watch = std::make_shared<Watch>(executor_);
    auto guard = [this, watch, child = seat.child, watch_for_hang]() -> Task<void> {
      const auto begin = std::chrono::steady_clock::now();
      HangWatch hang(child->pid);
      const auto wall = options_.limits.wall_time;
      while (!watch->over) {
        const auto spent = std::chrono::steady_clock::now() - begin;
        if (wall > seconds(0) && spent >= wall) {
          watch->late = true;
        } else if (watch_for_hang && spent < HangWatch::kFirst && hang.Hangs()) {
          watch->hung = true;
        }
        if (watch->late || watch->hung) {
          child->job.Close();
          co_return;
        }
        std::chrono::steady_clock::duration next = std::chrono::hours(24);
        if (wall > seconds(0)) next = wall - spent;
        if (watch_for_hang && spent < HangWatch::kFirst)
          next = std::min<std::chrono::steady_clock::duration>(next, HangWatch::kEvery);
        watch->timer.expires_after(next);
        co_await watch->timer.async_wait(asio::as_tuple(asio::use_awaitable));
      }
    };
    Background(Held(std::move(guard)));
    Status sent = co_await seat.child->job.Send(std::move(*frame), descriptors);
    Result<std::string> answer = Fail(Code::kUnavailable, "");
    if (sent.ok()) answer = co_await seat.child->job.Receive(kFrameMax);
    watch->over = true;
    watch->timer.cancel();
    ended.late = watch->late;
    ended.hung = watch->hung;
    if (!sent.ok()) {
      ended.error = std::move(sent).error();
    } else if (!answer.ok()) {
      ended.error = std::move(answer).error();
    } else {
      auto read = ReadJobFrame(*answer, call.out_offset);
      if (read.ok()) {
        ended.frame = std::move(*read);
      } else {
        ended.error = std::move(read).error();
      }
    }
    co_return ended;
  }

  /// A closure's coroutine must not outlive the closure.
  template <typename F>
  static Task<void> Held(F f) {
    co_await f();
  }

  Task<Result<Outcome>> Finish(const Job& job, JobFrame frame, std::shared_ptr<Spool> out) {
    // Hashing a model takes a while: elsewhere.
    auto work = [this, &job, frame = std::move(frame), out]() mutable {
      return Assemble(job, std::move(frame), out);
    };
    co_return co_await http::RunOn(pool_, std::move(work));
  }

  Result<Outcome> Assemble(const Job& job, JobFrame frame,
                           const std::shared_ptr<Spool>& out) const {
    Outcome outcome;
    flower::MessageHead head = flower::ReplyHead(job.instruction.head, UnixSeconds(clock_.Now()));
    const auto common = [&](auto& f) -> Status {
      out->SkipTo(f.out_end);
      UMBEL_ASSIGN(outcome.state, flower::EncodeState(f.state, *out));
      outcome.runtime_seconds = f.runtime_seconds;
      return {};
    };
    if (auto* reply = std::get_if<Reply>(&frame)) {
      UMBEL_TRY(common(*reply));
      head.type = reply->head.type;
      head.group_id = reply->head.group_id;
      head.ttl = reply->head.ttl;
      head.created_at = reply->head.created_at;
      auto parcel = flower::MakeParcel(head, reply->content, out);
      if (parcel.ok()) {
        outcome.reply = std::move(*parcel);
        return outcome;
      }
      UMBEL_ASSIGN(outcome.reply,
                   flower::MakeErrorParcel(head,
                                           {static_cast<int64_t>(ReplyError::kRaised),
                                            "the reply cannot be sent: " + parcel.error().message},
                                           out));
      return outcome;
    }
    flower::MessageError error{static_cast<int64_t>(ReplyError::kRaised),
                               "ClientApp returned None; it is to return a Message"};
    if (auto* failed = std::get_if<AppError>(&frame)) {
      UMBEL_TRY(common(*failed));
      error = {failed->code, failed->reason};
    } else {
      UMBEL_TRY(common(std::get<Nothing>(frame)));
    }
    UMBEL_ASSIGN(outcome.reply, flower::MakeErrorParcel(head, std::move(error), out));
    return outcome;
  }

  Result<Outcome> Failed(const Job& job, ReplyError code, std::string reason,
                         std::shared_ptr<Spool> out = nullptr) {
    if (!out) {
      UMBEL_ASSIGN(out, Spool::Create(job.spool_path));
    }
    Outcome outcome;
    UMBEL_ASSIGN(
        outcome.reply,
        flower::MakeErrorParcel(flower::ReplyHead(job.instruction.head, UnixSeconds(clock_.Now())),
                                {static_cast<int64_t>(code), std::move(reason)}, std::move(out)));
    return outcome;
  }

  /// Why a child did not answer: an error reply if the app is to blame, an error if it was killed
  /// from outside, which is worth another try.
  Task<Result<Outcome>> Explain(const Job& job, Seat& seat, Ended ended,
                                std::shared_ptr<Spool> out) {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    WorkerChild& child = *seat.child;
    if (ended.late)
      co_return Failed(job, ReplyError::kCrashed,
                       fmt::format("{} It had not answered after {} s, this site's limit.",
                                   kStopped, options_.limits.wall_time.count()),
                       out);
    if (ended.error.code != Code::kUnavailable)
      co_return Failed(job, ReplyError::kCrashed,
                       fmt::format("{} It broke its protocol: {}", kStopped, ended.error.message),
                       out);
    std::optional<int> status;
    if (seat.single_use) {
      co_await seat.worker->Kill(kEndLimit);
      status = seat.worker->status();
    } else {
      co_await seat.worker->AwaitEnd(child, kEndLimit);
      status = child.status;
    }
    const uint64_t oom = child.group.valid() ? child.group.OomKills() : 0;
    if (oom > 0)
      co_return Failed(job, ReplyError::kCrashed,
                       fmt::format("{} It needed more memory than this site's limit, {} MiB.",
                                   kStopped, options_.limits.memory_bytes >> 20),
                       out);
    const bool killed = !status || (WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL);
    if (killed)
      co_return Fail(Code::kUnavailable,
                     fmt::format("The process of the ClientApp (pid {}) was killed.", child.pid));
    std::string how = WIFSIGNALED(*status)
                          ? fmt::format("It died of signal {} ({}).", WTERMSIG(*status),
                                        ::strsignal(WTERMSIG(*status)))
                          : fmt::format("It ended with status {}.", WEXITSTATUS(*status));
    child.output->Drain();
    if (!child.output->last_line().empty()) how += " Its last words: " + child.output->last_line();
    co_return Failed(job, ReplyError::kCrashed, fmt::format("{} {}", kStopped, how), out);
  }

  /// Not more processes than may be useful again.
  Task<void> Trim() {
    while (residents_.size() > kResidentsMax) {
      auto oldest = std::min_element(
          residents_.begin(), residents_.end(),
          [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
      Seat seat = std::move(oldest->second.seat);
      residents_.erase(oldest);
      co_await LetGo(std::move(seat));
    }
    while (apps_.size() > kAppsMax) {
      auto oldest = apps_.end();
      for (auto it = apps_.begin(); it != apps_.end(); ++it)
        if (it->second.jobs == 0 && !it->second.loading &&
            (!it->second.server || it->second.server->children() == 0) &&
            (oldest == apps_.end() || it->second.used < oldest->second.used))
          oldest = it;
      if (oldest == apps_.end()) co_return;
      auto server = std::move(oldest->second.server);
      auto spares = std::move(oldest->second.spares);
      apps_.erase(oldest);
      if (server) co_await server->Kill();
      for (const auto& spare : spares) co_await spare->Kill();
    }
  }

  const asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  const WorkerOptions options_;
  process::CgroupParent* const groups_;
  const bool resident_;
  const Clock& clock_;
  const size_t spares_;
  const std::unique_ptr<Environments> environments_;
  const std::function<void(const Error&)> on_unfit_;
  std::shared_ptr<WorkerProcess> idle_;
  std::map<Digest, AppWorkers> apps_;
  std::map<std::pair<NodeId, SeriesId>, Resident> residents_;
  std::multiset<SeriesId> running_;  // series whose messages are worked on
  std::set<std::shared_ptr<WorkerProcess>> single_use_;
  http::Bell bell_{executor_};
  uint64_t tick_ = 0;
  size_t background_ = 0;  // jobs, and what goes on beside them
  bool stopping_ = false;
};

}  // namespace

std::unique_ptr<Host> MakeWorkerHost(const asio::any_io_executor& executor, asio::thread_pool& pool,
                                     WorkerOptions options, process::CgroupParent* groups,
                                     bool resident, const Clock& clock, size_t spares,
                                     std::unique_ptr<Environments> environments,
                                     std::function<void(const Error&)> on_unfit) {
  return std::make_unique<WorkerHost>(executor, pool, std::move(options), groups, resident, clock,
                                      spares, std::move(environments), std::move(on_unfit));
}

}  // namespace umbel::supernode
