#include "clientapp/native_host.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <mutex>
#include <new>
#include <set>
#include <vector>

#include "base/guarded.h"
#include "base/log.h"
#include "clientapp/answer.h"
#include "http/tasks.h"

namespace umbel::clientapp {
namespace asio = boost::asio;
using flower::MessageError;
using flower::Spool;
using http::Task;
using std::chrono::milliseconds;
using supernode::Job;
using supernode::Outcome;
using supernode::ReplyError;
using supernode::RunInfo;
using Steady = std::chrono::steady_clock;

namespace {

/// What arrays of one message may take: more would only end the process.
uint64_t PhysicalMemory() {
  return static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// A call of the app. While it runs all but `stop` and `mutex` is the pool thread's.
struct Call {
  Message message;
  Context context;
  Answer answer;
  double seconds = 0;
  std::stop_source stop;

  std::mutex mutex;  // of the two below
  bool ran = false;
  bool abandoned = false;  // nobody waits any more, and the io_context may be gone
};

/// Where the coroutine of a call waits.
struct Waiter {
  explicit Waiter(const asio::any_io_executor& executor) : bell(executor) {}

  RunId run_id;
  std::shared_ptr<Call> call;
  http::Bell bell;
  bool calling = false;
  bool done = false;
  bool dropped = false;
  bool abandoned = false;
};

class NativeHost final : public supernode::Host {
 public:
  NativeHost(const asio::any_io_executor& executor, std::shared_ptr<const ClientApp> app,
             NativeOptions options, const Clock& clock)
      : executor_(executor),
        app_(std::move(app)),
        options_(std::move(options)),
        clock_(clock),
        owned_pool_(std::make_unique<asio::thread_pool>(options_.threads)),
        pool_(*owned_pool_),
        changed_(executor, Steady::time_point::max()) {}

  std::string_view name() const override { return "native"; }

  void Prepare(std::shared_ptr<const RunInfo>) override {}

  Task<Result<Outcome>> Run(const Job& job) override {
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    auto waiter = std::make_shared<Waiter>(executor_);
    waiter->run_id = job.run->run_id;
    waiter->call = std::make_shared<Call>();
    live_.insert(waiter);
    auto outcome = co_await Work(job, waiter);
    live_.erase(waiter);
    changed_.cancel();
    co_return outcome;
  }

  void Drop(RunId run_id) override {
    for (const auto& waiter : live_) {
      if (waiter->run_id != run_id) continue;
      waiter->dropped = true;
      waiter->call->stop.request_stop();
    }
  }

  Task<void> Stop(milliseconds grace) override {
    stopping_ = true;
    for (const auto& waiter : live_) waiter->call->stop.request_stop();
    const auto deadline = Steady::now() + grace;
    changed_.expires_at(deadline);
    while (!live_.empty() && Steady::now() < deadline) co_await Changed();
    for (const auto& waiter : live_) Abandon(*waiter);
    changed_.expires_at(Steady::time_point::max());
    while (!live_.empty()) co_await Changed();
  }

  std::string Describe() const override {
    return fmt::format("{} of {} threads work, in this process: without limits", live_.size(),
                       options_.threads);
  }

 private:
  Task<void> Changed() { co_await changed_.async_wait(asio::as_tuple(asio::use_awaitable)); }

  Task<Result<Outcome>> Work(const Job& job, const std::shared_ptr<Waiter>& waiter) {
    Call& call = *waiter->call;
    auto read = [&job, &call] { return Caught([&] { return Read(job, call); }); };
    UMBEL_CO_TRY(co_await http::RunOn(pool_, std::move(read)));
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    if (!std::holds_alternative<MessageError>(call.answer)) co_await Execute(waiter);
    if (waiter->abandoned) co_return Fail(Code::kCancelled, "stopping");
    if (waiter->dropped) co_return Fail(Code::kCancelled, "the run is over");
    auto finish = [this, &job, &call] { return Caught([&] { return Finish(job, call); }); };
    co_return co_await http::RunOn(pool_, std::move(finish));
  }

  /// Memory may end while a model is copied.
  template <typename F>
  static std::invoke_result_t<F> Caught(F work) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      return Fail(Code::kResourceExhausted, "there is not enough memory for the message's arrays");
    }
  }

  static Status Read(const Job& job, Call& call) {
    static const uint64_t memory = PhysicalMemory();
    Spool& spool = *job.instruction.objects;
    auto content = flower::ReadRecords(job.instruction);
    auto loaded = content.ok() ? Load(*content, spool, memory)
                               : Result<RecordDict>(Fail(std::move(content).error()));
    if (!loaded.ok()) {
      call.answer = MessageError{static_cast<int64_t>(ReplyError::kUnknown),
                                 "the instruction cannot be read: " + loaded.error().message};
      return {};
    }
    UMBEL_ASSIGN(const auto state, flower::DecodeState(job.state, spool));
    UMBEL_ASSIGN(call.context.state, Load(state, spool, memory));
    const flower::MessageHead& head = job.instruction.head;
    call.message = Message{head.type, head.group_id, *std::move(loaded)};
    call.context.run_id = job.run->run_id;
    call.context.node_id = job.node_id;
    call.context.node_config = job.node_config;
    call.context.run_config = job.run->run_config;
    call.context.stop = call.stop.get_token();
    return {};
  }

  /// Waits for the app's function, but not beyond Abandon().
  Task<void> Execute(const std::shared_ptr<Waiter>& waiter) {
    auto work = [call = waiter->call, app = app_, home = executor_,
                 back = std::weak_ptr<Waiter>(waiter)]() mutable {
      const auto begin = Steady::now();
      call->answer = AnswerOf(*app, call->message, call->context);
      call->seconds = std::chrono::duration<double>(Steady::now() - begin).count();
      call->message.content = {};  // the reply needs the room
      std::lock_guard lock(call->mutex);
      if (call->abandoned) return;
      call->ran = true;
      asio::post(home, [back = std::move(back)] {
        const auto there = back.lock();
        if (!there) return;
        there->done = true;
        there->bell.Ring();
      });
    };
    waiter->calling = true;
    asio::post(pool_, std::move(work));
    while (!waiter->done && !waiter->abandoned) co_await waiter->bell.Wait();
    waiter->calling = false;
  }

  /// What is not in the app's hands ends by itself.
  void Abandon(Waiter& waiter) {
    if (!waiter.calling) return;
    {
      std::lock_guard lock(waiter.call->mutex);
      if (waiter.call->ran) return;
      waiter.call->abandoned = true;
    }
    waiter.abandoned = true;
    waiter.bell.Ring();
    LogWarn("a ClientApp does not end; its message is run again after a restart",
            {{"run_id", waiter.run_id}});
    if (!owned_pool_) return;
    // Its thread is left behind, too: the pool's end would wait for it.
    static auto* const left_behind = new Guarded<std::vector<std::unique_ptr<asio::thread_pool>>>;
    left_behind->With([&](auto& pools) { pools.push_back(std::move(owned_pool_)); });
    if (options_.on_abandon) options_.on_abandon();
  }

  Result<Outcome> Finish(const Job& job, Call& call) const {
    UMBEL_ASSIGN(const auto out, Spool::Create(job.spool_path));
    const flower::MessageHead head =
        flower::ReplyHead(job.instruction.head, UnixSeconds(clock_.Now()));
    Outcome outcome;
    outcome.runtime_seconds = call.seconds;
    if (call.ran) {
      auto state = EncodeContext(call.context.state, *out);
      if (state.ok()) {
        outcome.state = *std::move(state);
      } else {
        call.answer = Blame("the context's state cannot be kept: " + state.error().message);
      }
    }
    if (const auto* content = std::get_if<RecordDict>(&call.answer)) {
      UMBEL_ASSIGN(const auto records, Keep(*content, *out));
      auto parcel = flower::MakeParcel(head, records, out);
      if (parcel.ok()) {
        outcome.reply = *std::move(parcel);
        return outcome;
      }
      call.answer = Blame("the reply cannot be sent: " + parcel.error().message);
    }
    UMBEL_ASSIGN(outcome.reply, flower::MakeErrorParcel(
                                    head, std::get<MessageError>(std::move(call.answer)), out));
    return outcome;
  }

  static Result<std::string> EncodeContext(const RecordDict& state, Spool& out) {
    UMBEL_ASSIGN(const auto records, Keep(state, out));
    return flower::EncodeState(records, out);
  }

  static MessageError Blame(std::string reason) {
    return {static_cast<int64_t>(ReplyError::kRaised), std::move(reason)};
  }

  const asio::any_io_executor executor_;
  const std::shared_ptr<const ClientApp> app_;
  const NativeOptions options_;
  const Clock& clock_;
  std::unique_ptr<asio::thread_pool> owned_pool_;
  asio::thread_pool& pool_;
  asio::steady_timer changed_;
  std::set<std::shared_ptr<Waiter>> live_;
  bool stopping_ = false;
};

}  // namespace

std::unique_ptr<supernode::Host> MakeNativeHost(const asio::any_io_executor& executor,
                                                std::shared_ptr<const ClientApp> app,
                                                NativeOptions options, const Clock& clock) {
  options.threads = std::max<size_t>(options.threads, 1);
  return std::make_unique<NativeHost>(executor, std::move(app), std::move(options), clock);
}

}  // namespace umbel::clientapp
