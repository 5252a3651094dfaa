// The SuperLink's one State with its lock, its store and its files. Any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "base/wake.h"
#include "store/segments.h"
#include "store/store.h"
#include "superlink/state.h"

namespace umbel::superlink {

/// Says when a change is durable.
class Commit {
 public:
  bool done() const { return done_.load(std::memory_order_acquire); }
  const Status& status() const { return status_; }  // once done
  /// Wakes `waiter` when done, at once if it is already.
  void Notify(const std::shared_ptr<Wakeable>& waiter);
  void Finish(Status status);

 private:
  std::atomic<bool> done_{false};
  std::mutex mutex_;
  Status status_;
  WaitList waiting_;
};
using CommitPtr = std::shared_ptr<Commit>;

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Open(const store::StoreOptions& options,
                                              const Clock& clock, Rng& rng);
  /// Over a store of the caller's, which is new to this process.
  static Result<std::unique_ptr<Engine>> Open(std::unique_ptr<store::Store> store, bool sync_files,
                                              const Clock& clock, Rng& rng);
  ~Engine();

  /// Calls f(State&, WallTime now, Changes&) under the lock and queues what it changed, in that
  /// order, for the store. Returns f's result and the commit to wait for before anyone is told.
  template <typename F>
  auto Apply(F&& f) {
    Changes changes;
    std::unique_lock lock(mutex_);
    const WallTime now = clock_.Now();
    using R = decltype(f(state_, now, changes));
    if constexpr (std::is_void_v<R>) {
      f(state_, now, changes);
      return Queue(std::move(changes), std::move(lock));
    } else {
      R result = f(state_, now, changes);
      CommitPtr commit = Queue(std::move(changes), std::move(lock));
      return std::pair<R, CommitPtr>(std::move(result), std::move(commit));
    }
  }
  /// Calls f(State&, WallTime now) under the lock; nothing is changed that a restart would need.
  template <typename F>
  auto Read(F&& f) {
    std::lock_guard lock(mutex_);
    return f(state_, clock_.Now());
  }
  /// Writes that are not part of the State: log text, audit rows, FABs, contexts.
  CommitPtr Write(std::vector<store::Write> writes);
  /// Log text of a run, waking those who follow it.
  /// output_offset  how far its output file has been read, which is then remembered with it.
  CommitPtr AppendLog(RunId run_id, TaskId task_id, std::string text,
                      std::optional<uint64_t> output_offset = std::nullopt);

  store::Store& store() { return *store_; }
  store::Segments& segments() { return *segments_; }
  const Clock& clock() const { return clock_; }
  Rng& rng() { return rng_; }
  bool sync_files() const { return sync_files_; }
  bool Overloaded() const { return store_->Overloaded(); }
  ExtentPtr OwnExtent(const store::Extent& extent);

  /// Called, on any thread and never under the lock, when a task is waiting or a run has ended.
  /// A call may still be under way when this returns.
  void OnTasksChanged(std::function<void()> callback) {
    const std::lock_guard lock(mutex_);
    tasks_changed_ = std::move(callback);
  }

 private:
  Engine(const Clock& clock, Rng& rng) : clock_(clock), rng_(rng), state_(rng) {}
  CommitPtr Queue(Changes changes, std::unique_lock<std::mutex> lock);

  const Clock& clock_;
  Rng& rng_;
  bool sync_files_ = false;
  std::shared_ptr<store::Segments> segments_;
  std::mutex mutex_;
  State state_;
  std::function<void()> tasks_changed_;
  // Last, so that it is closed first: the writer's callbacks use the rest.
  std::unique_ptr<store::Store> store_;
};

}  // namespace umbel::superlink
