// The world of a simulated SuperLink: a clock and a disk that can kill the process that uses them.
// A death is an exception, thrown where the process looks at its clock or hands rows to its disk.
// What was on the disk by then is all that the next process finds.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "store/store.h"
#include "superlink/state_testing.h"

namespace umbel::superlink::rounds::testing {

/// The process was killed.
struct Killed {};

/// Counts down to a death. One thread.
class Fate {
 public:
  /// Death comes with the `steps`-th call of Step; 0: not at all.
  void Set(uint64_t steps) { left_ = steps; }
  void Step() {
    if (left_ > 0 && --left_ == 0) throw Killed{};
  }

 private:
  uint64_t left_ = 0;
};

class SimClock final : public Clock {
 public:
  explicit SimClock(Fate& fate) : fate_(fate) {}
  WallTime Now() const override {
    fate_.Step();
    return now_;
  }
  WallTime now() const { return now_; }  // for those who cannot die
  void Advance(Micros by) { now_ += by; }

 private:
  Fate& fate_;
  WallTime now_{std::chrono::seconds(1'800'000'000)};
};

/// Rows that outlive a process.
struct Disk {
  superlink::testing::Rows rows;
  std::map<RunId, std::map<uint64_t, std::string>> rounds;

  void Apply(const std::vector<store::Write>& writes) {
    Changes changes;
    changes.writes = writes;
    rows.Apply(changes);
    for (const store::Write& write : writes)
      if (const auto* put = std::get_if<store::PutRound>(&write))
        rounds[put->row.run_id][put->row.sequence] = put->row.record;
  }
};

/// A store over a Disk. Commits happen on a thread of its own, as a session waits for them, but
/// only when they are allowed to.
class SimStore final : public store::Store {
 public:
  SimStore(Disk& disk, Fate& fate, std::string directory)
      : disk_(disk), fate_(fate), directory_(std::move(directory)), live_(disk) {
    thread_ = std::jthread([this](std::stop_token stop) { Write(stop); });
  }
  ~SimStore() override {
    thread_.request_stop();
    changed_.notify_all();
    thread_.join();
  }

  // --- for the simulation ------------------------------------------------------------------------
  /// Whether what is submitted is committed at once.
  void Automatic(bool on) {
    const std::lock_guard lock(mutex_);
    automatic_ = on;
    waited_for_ = told_;
    changed_.notify_all();
  }
  /// Commits all that was submitted, and returns when those who wait for it know.
  void CommitAll() {
    std::unique_lock lock(mutex_);
    allowed_ = queue_.size();
    changed_.notify_all();
    changed_.wait(lock, [&] { return told_ >= allowed_; });
  }
  /// How many batches somebody may know to be durable, and how many were submitted. A session waits
  /// for each of its writes but those of its log.
  std::pair<size_t, size_t> Fates() const {
    const std::lock_guard lock(mutex_);
    return {automatic_ ? waited_for_ : told_, queue_.size()};
  }
  /// Nothing is committed any more; the first `survivors` batches are what the disk has.
  void Die(size_t survivors) {
    std::unique_lock lock(mutex_);
    dead_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !busy_; });
    for (size_t i = 0; i < survivors; ++i) disk_.Apply(queue_[i].writes);
  }
  Disk Live() const {
    const std::lock_guard lock(mutex_);
    return live_;
  }

  // --- store::Store ------------------------------------------------------------------------------
  void Submit(std::vector<store::Write> writes, std::function<void(Status)> done) override {
    fate_.Step();
    const std::lock_guard lock(mutex_);
    if (dead_) return;
    const bool log = std::all_of(writes.begin(), writes.end(), [](const store::Write& write) {
      return std::holds_alternative<store::AppendLog>(write);
    });
    queue_.push_back({std::move(writes), std::move(done)});
    if (!log) waited_for_ = queue_.size();
    changed_.notify_all();
  }
  bool Overloaded() const override { return false; }
  Status Drain() override {
    {
      const std::lock_guard lock(mutex_);
      if (dead_) return {};
    }
    CommitAll();
    return {};
  }
  Result<store::Snapshot> Load() override { return disk_.rows.Load(); }
  Result<std::string> ReadInline(RunId run_id, const ObjectId& id) override {
    const std::lock_guard lock(mutex_);
    const auto found = live_.rows.objects.find({run_id, id});
    if (found == live_.rows.objects.end()) return Fail(Code::kNotFound, "no such object");
    return found->second.content;
  }
  Result<std::vector<store::RoundRow>> ReadRounds(RunId run_id, uint64_t after,
                                                  uint64_t limit) override {
    const std::lock_guard lock(mutex_);
    std::vector<store::RoundRow> rows;
    for (const auto& [sequence, record] : live_.rounds[run_id])
      if (sequence > after && rows.size() < limit) rows.push_back({run_id, sequence, record});
    return rows;
  }
  Result<std::string> ReadFab(const Digest&) override { return None(); }
  Result<store::SeriesRow> ReadSeries(SeriesId) override { return None(); }
  Result<store::RunListing> ReadRun(RunId) override { return None(); }
  Result<std::vector<store::RunListing>> ListRuns(uint64_t, uint64_t) override { return None(); }
  Result<store::LogChunk> ReadLogs(RunId, int64_t, WallTime, size_t) override { return None(); }
  Result<std::vector<store::AuditRow>> ReadAudit(uint64_t) override { return None(); }
  const std::string& directory() const override { return directory_; }

 private:
  struct Batch {
    std::vector<store::Write> writes;
    std::function<void(Status)> done;
  };

  static tl::unexpected<Error> None() { return Fail(Code::kNotFound, "the simulation has none"); }

  void Write(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] {
        return stop.stop_requested() || (!dead_ && told_ < (automatic_ ? queue_.size() : allowed_));
      });
      if (stop.stop_requested()) return;
      Batch& batch = queue_[told_];
      live_.Apply(batch.writes);
      const auto done = std::exchange(batch.done, {});
      busy_ = true;
      lock.unlock();
      if (done) done({});
      lock.lock();
      busy_ = false;
      ++told_;
      changed_.notify_all();
    }
  }

  Disk& disk_;
  Fate& fate_;
  const std::string directory_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> queue_;  // all of this process; a deque's elements stay where they are
  Disk live_;
  size_t allowed_ = 0;
  size_t told_ = 0;
  size_t waited_for_ = 0;
  bool automatic_ = false;
  bool busy_ = false;
  bool dead_ = false;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace umbel::superlink::rounds::testing
