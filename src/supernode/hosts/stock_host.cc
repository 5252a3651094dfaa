#include "supernode/hosts/stock_host.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdlib>
#include <list>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "supernode/hosts/app_process.h"
#include "supernode/runtime/waiter.h"

namespace umbel::supernode {
namespace asio = boost::asio;
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

constexpr uint64_t kProcessBytes = uint64_t{150} << 20;  // flwr imported, an app not yet
constexpr milliseconds kLeaveBySelf{5000};               // after it said that it is done
constexpr milliseconds kTermGrace{3000};
constexpr seconds kBackoffMax{60};

class StockHost final : public Host {
 public:
  StockHost(asio::io_context& context, asio::thread_pool& pool, TaskTable& tasks,
            StockOptions options, process::CgroupParent* groups)
      : context_(context),
        pool_(pool),
        tasks_(tasks),
        options_(std::move(options)),
        groups_(groups),
        spares_(std::min(options_.spares, SparesBearable())),
        again_(context) {}

  std::string_view name() const override { return "stock"; }

  void Prepare(std::shared_ptr<const RunInfo> run) override {
    if (stopping_) return;
    runs_.insert(run->run_id);
    Refill();
  }

  Task<Result<Outcome>> Run(const Job& job) override {
    if (stopping_) co_return Fail(Code::kCancelled, "the node is stopping");
    runs_.insert(job.run->run_id);
    SlotPtr slot = TakeSpare();
    if (!slot) {
      auto started = Start();
      if (!started.ok()) co_return Fail(started.error());
      slot = std::move(*started);
    }
    slot->run_id = job.run->run_id;
    slot->message_id = job.instruction.head.message_id;
    slot->last_line.clear();  // from here on it is the app that speaks
    tasks_.Assign(*slot->task, job, options_.limits.wall_time);
    Refill();
    Result<Outcome> outcome = co_await tasks_.Finish(slot->task, job);
    slot->over = true;
    if (slot->dropped > 0 && options_.output)
      options_.output(slot->run_id, slot->message_id,
                      fmt::format("[umbel] {} bytes more were not kept", slot->dropped));
    const bool by_itself = outcome.ok() && outcome->state.has_value();
    if (by_itself) failures_ = 0;
    slot->process->EndSoon(by_itself ? kLeaveBySelf : milliseconds(0), kTermGrace);
    co_return outcome;
  }

  void Drop(RunId run_id) override {
    runs_.erase(run_id);
    for (const SlotPtr& slot : slots_)
      if (slot->run_id == run_id) tasks_.Cancel(*slot->task);
    // A spare fits any run, but a node without runs is to be light.
    if (runs_.empty()) EndSpares();
  }

  Task<void> Stop(milliseconds grace) override {
    stopping_ = true;
    again_.cancel();
    for (const SlotPtr& slot : slots_) {
      tasks_.Cancel(*slot->task);
      slot->process->EndSoon(milliseconds(0), grace);
    }
    const auto waiter = std::make_shared<Waiter>(context_.get_executor());
    // SIGKILL comes after `grace`; a process that outlives that is the kernel's.
    const auto deadline = Steady::now() + grace + seconds(5);
    while (!slots_.empty() && Steady::now() < deadline) {
      changed_.Add(waiter);
      co_await waiter->Wait(deadline);
    }
  }

  std::string Describe() const override {
    size_t working = 0;
    size_t waiting = 0;
    size_t starting = 0;
    for (const SlotPtr& slot : slots_) {
      if (slot->over) continue;
      if (slot->run_id) {
        ++working;
      } else {
        ++(slot->task->asked ? waiting : starting);
      }
    }
    return fmt::format("stock: {} working, {} waiting, {} starting", working, waiting, starting);
  }

 private:
  /// A process and the task its token stands for.
  struct Slot {
    AppTaskPtr task;
    std::shared_ptr<AppProcess> process;
    RunId run_id;  // none: a spare
    std::string message_id;
    std::string last_line;
    uint64_t printed = 0;
    uint64_t dropped = 0;
    bool over = false;
  };
  using SlotPtr = std::shared_ptr<Slot>;

  Result<SlotPtr> Start() {
    auto slot = std::make_shared<Slot>();
    slot->task = tasks_.Warm();
    process::CommandSpec command;
    command.arguments = {options_.program, "--runtime-api-address", options_.runtime_address,
                         "--token", slot->task->token};
    // Another user may not ask for us, which it would take for our end; the kernel ends it with us.
    if (options_.limits.uid == 0) {
      command.arguments.emplace_back("--parent-pid");
      command.arguments.push_back(std::to_string(::getpid()));
    }
    if (options_.root_certificates.empty()) {
      command.arguments.emplace_back("--insecure");
    } else {
      command.arguments.emplace_back("--root-certificates");
      command.arguments.push_back(options_.root_certificates);
    }
    if (options_.allow_runtime_dependency_installation)
      command.arguments.emplace_back("--allow-runtime-dependency-installation");
    command.environment = options_.environment;
    command.environment.emplace_back("PYTHONUNBUFFERED=1");  // so that its output comes at once
    command.directory = options_.directory;
    const std::weak_ptr<Slot> weak = slot;
    AppProcess::Observer observer;
    observer.line = [this, weak](std::string_view line) {
      if (const SlotPtr known = weak.lock()) Printed(*known, line);
    };
    observer.end = [this, weak](const AppProcess::End& end) {
      if (const SlotPtr known = weak.lock()) Ended(known, end);
    };
    auto process = AppProcess::Start(context_, pool_, std::move(command), options_.limits, groups_,
                                     fmt::format("s{}", ++groups_made_), std::move(observer));
    if (!process.ok()) {
      tasks_.Cancel(*slot->task);
      return Fail(process.error());
    }
    slot->process = std::move(*process);
    slots_.push_back(slot);
    LogDebug("flwr-clientapp started", {{"pid", slot->process->pid()}});
    return slot;
  }

  /// One that waits already, else one that still starts, or null.
  SlotPtr TakeSpare() {
    SlotPtr found;
    for (const SlotPtr& slot : slots_) {
      if (slot->run_id || slot->over) continue;
      if (!found || (slot->task->asked && !found->task->asked)) found = slot;
    }
    return found;
  }

  void Refill() {
    if (stopping_ || runs_.empty()) return;
    size_t waiting = 0;
    for (const SlotPtr& slot : slots_)
      if (!slot->run_id && !slot->over) ++waiting;
    for (; waiting < spares_; ++waiting) {
      if (Steady::now() < not_before_) return RefillLater();
      const auto started = Start();
      if (started.ok()) continue;
      LogWarn("flwr-clientapp cannot be started", {{"error", started.error().message}});
      return Failed();
    }
  }
  void RefillLater() {
    again_.expires_at(not_before_);
    again_.async_wait([this](boost::system::error_code error) {
      if (!error) Refill();
    });
  }
  /// A program that ends at once must not be started without end.
  void Failed() {
    const auto wait = std::min<Steady::duration>(
        seconds(1) * (int64_t{1} << std::min(failures_, 6)), kBackoffMax);
    ++failures_;
    not_before_ = Steady::now() + wait;
    Refill();
  }

  void EndSpares() {
    for (const SlotPtr& slot : slots_) {
      if (slot->run_id || slot->over) continue;
      slot->over = true;
      tasks_.Cancel(*slot->task);
      slot->process->EndSoon(milliseconds(0), kTermGrace);
    }
  }

  void Printed(Slot& slot, std::string_view line) {
    if (!line.empty()) slot.last_line = line;
    if (!slot.run_id) {
      LogDebug("flwr-clientapp without a task", {{"text", line}});
      return;
    }
    slot.printed += line.size() + 1;
    const uint64_t limit = options_.limits.output_bytes;
    if (limit > 0 && slot.printed > limit) {
      slot.dropped += line.size() + 1;
    } else if (options_.output) {
      options_.output(slot.run_id, slot.message_id, line);
    }
  }

  void Ended(const SlotPtr& slot, const AppProcess::End& end) {
    slots_.remove(slot);
    const bool spare = !slot->run_id && !slot->over;
    const bool killed = !end.out_of_memory && end.status && WIFSIGNALED(*end.status) &&
                        WTERMSIG(*end.status) == SIGKILL;
    tasks_.ProcessEnded(*slot->task, end.how, slot->last_line, killed);
    changed_.WakeAll();
    if (!spare || stopping_) return;
    LogWarn("a waiting flwr-clientapp has ended",
            {{"how", end.how}, {"last_line", slot->last_line}});
    Failed();
  }

  asio::io_context& context_;
  asio::thread_pool& pool_;
  TaskTable& tasks_;
  const StockOptions options_;
  process::CgroupParent* const groups_;
  uint64_t groups_made_ = 0;
  const size_t spares_;
  std::set<RunId> runs_;
  std::list<SlotPtr> slots_;  // all whose process has not ended, oldest first
  int failures_ = 0;          // in a row
  Steady::time_point not_before_;
  asio::steady_timer again_;
  WaitList changed_;
  bool stopping_ = false;
};

}  // namespace

size_t SparesBearable() {
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const auto text = ReadFile("/proc/meminfo", 64 * 1024);
  constexpr std::string_view kAvailable = "MemAvailable:";
  const size_t at = text.ok() ? text->find(kAvailable) : std::string::npos;
  if (at == std::string::npos) return cores;
  const uint64_t kib = std::strtoull(text->c_str() + at + kAvailable.size(), nullptr, 10);
  const uint64_t fit = kib * 1024 / 2 / kProcessBytes;
  return std::clamp<size_t>(static_cast<size_t>(fit), 1, cores);
}

std::unique_ptr<Host> MakeStockHost(asio::io_context& context, asio::thread_pool& pool,
                                    TaskTable& tasks, StockOptions options,
                                    process::CgroupParent* groups) {
  return std::make_unique<StockHost>(context, pool, tasks, std::move(options), groups);
}

}  // namespace umbel::supernode
