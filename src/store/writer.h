// The one thread that changes the database. Submit, Drain and Overloaded may be called from any
// thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/result.h"
#include "store/checkpointer.h"
#include "store/pool.h"
#include "store/rows.h"
#include "store/writes.h"

namespace umbel::store {

struct WriterOptions {
  WriteLimits limits;
  size_t queue_bytes_max = 0;
  /// How long nothing must have been written before space is given back to the file system.
  std::chrono::milliseconds idle{200};
};

/// Takes all that waits, writes it as one transaction, answers, and takes what came meanwhile: the
/// slower the disk, the larger the groups.
class Writer {
 public:
  /// The pool holds the writer's connection; it is borrowed for each transaction, so that readers
  /// which share it (in memory) see committed state only. It must outlive the Writer.
  /// checkpointer  null in memory, where there is no log to copy.
  Writer(Pool& pool, std::unique_ptr<Checkpointer> checkpointer, WriterOptions options);
  /// Writes what waits if the disk lets it, then answers the rest with kCancelled.
  ~Writer();

  void Submit(std::vector<Write> writes, std::function<void(Status)> done);
  Status Drain();
  bool Overloaded() const;

 private:
  /// One Submit. Only ever moved: its writes may be megabytes.
  struct Group {
    Group(std::vector<Write> w, std::function<void(Status)> d);
    Group(Group&&) noexcept = default;
    Group& operator=(Group&&) noexcept = default;

    std::vector<Write> writes;
    std::function<void(Status)> done;
    size_t bytes;
    Status status;
  };

  void Loop(const std::stop_token& stop);
  /// Waits for work; with a `patience`, no longer than that. Empty: nothing came in time, or we are
  /// stopping and nothing is left.
  std::vector<Group> Next(const std::stop_token& stop,
                          std::optional<std::chrono::milliseconds> patience);
  /// Leaves each group's outcome in its status.
  void Commit(std::vector<Group>& groups, const std::stop_token& stop);
  Status CommitOnce(std::span<const Group> groups);
  /// Waits before the next attempt. False: stopping, give up.
  bool AwaitRetry(const std::stop_token& stop, const Error& error);
  void EndOutage();
  /// Keeps the write-ahead log bounded.
  void BoundLog();
  /// One step of giving free pages back to the file system. True: there is more to do.
  bool Vacuum();

  Pool& pool_;
  const std::unique_ptr<Checkpointer> checkpointer_;
  const WriterOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable_any arrived_;
  std::deque<Group> queue_;
  bool closed_ = false;

  std::atomic<size_t> queue_bytes_{0};
  std::atomic<bool> failing_{false};
  // The writer thread's own.
  std::chrono::milliseconds backoff_{0};
  int wal_pages_ = 0;
  int wal_pages_seen_ = 0;
  bool space_freed_ = true;  // an earlier owner may have left free pages behind

  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace umbel::store
