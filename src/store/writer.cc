#include "store/writer.h"

#include <pthread.h>

#include <algorithm>
#include <future>
#include <memory>
#include <span>
#include <utility>

#include "base/log.h"

namespace umbel::store {
namespace {

constexpr std::chrono::milliseconds kBackoffFirst{10};
constexpr std::chrono::milliseconds kBackoffMax{1000};
// One transaction's size: the first of a long queue should not wait for the last.
constexpr size_t kTransactionBytesMax = size_t{16} << 20;
constexpr int64_t kFreePagesKept = 512;  // the next rows will want some
constexpr int kVacuumStepPages = 128;
// The log is copied in the background each time it has grown so far. Under a steady load that never
// catches up with its end, so at the second mark the writer itself copies the little that is left.
constexpr int kLogPagesStep = 1024;
constexpr int kLogPagesMax = 4096;

/// The write itself is at fault: no retry will help, and others must not suffer.
bool IsPermanent(const Error& error) {
  return error.code == Code::kAlreadyExists || error.code == Code::kInvalidArgument ||
         error.code == Code::kFailedPrecondition || error.code == Code::kInternal;
}

}  // namespace

Writer::Group::Group(std::vector<Write> w, std::function<void(Status)> d)
    : writes(std::move(w)), done(std::move(d)), bytes(sizeof(Group)) {
  for (const Write& write : writes) bytes += WriteBytes(write);
}

Writer::Writer(Pool& pool, std::unique_ptr<Checkpointer> checkpointer, WriterOptions options)
    : pool_(pool),
      checkpointer_(std::move(checkpointer)),
      options_(options),
      thread_([this](const std::stop_token& stop) { Loop(stop); }) {}

Writer::~Writer() {
  thread_.request_stop();
  thread_.join();
}

void Writer::Submit(std::vector<Write> writes, std::function<void(Status)> done) {
  Group group(std::move(writes), std::move(done));
  {
    std::lock_guard lock(mutex_);
    if (!closed_) {
      queue_bytes_ += group.bytes;
      queue_.push_back(std::move(group));
      arrived_.notify_one();
      return;
    }
  }
  if (group.done) group.done(Fail(Code::kCancelled, "the store is closed"));
}

Status Writer::Drain() {
  UMBEL_CHECK(std::this_thread::get_id() != thread_.get_id());
  std::promise<Status> promise;
  std::future<Status> result = promise.get_future();
  Submit({}, [&promise](Status status) { promise.set_value(std::move(status)); });
  return result.get();
}

bool Writer::Overloaded() const {
  return failing_.load(std::memory_order_relaxed) ||
         queue_bytes_.load(std::memory_order_relaxed) > options_.queue_bytes_max;
}

void Writer::Loop(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "store-writer");
  // Counts instead of SQLite's own checkpoint, which would run before the commit is answered.
  sqlite3_wal_hook(
      pool_.Take()->handle(),
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<Writer*>(self)->wal_pages_ = pages;
        return SQLITE_OK;
      },
      this);
  bool more = false;
  for (;;) {
    std::optional<std::chrono::milliseconds> patience;
    if (space_freed_) patience = more ? std::chrono::milliseconds(0) : options_.idle;
    std::vector<Group> groups = Next(stop, patience);
    if (groups.empty()) {
      if (stop.stop_requested()) break;
      more = Vacuum();
      BoundLog();
      continue;
    }
    more = false;
    Commit(groups, stop);
    for (Group& group : groups) {
      // Freed first: whoever looks at Overloaded() in `done` sees it.
      queue_bytes_ -= group.bytes;
      space_freed_ =
          space_freed_ || std::any_of(group.writes.begin(), group.writes.end(), FreesSpace);
      std::vector<Write>().swap(group.writes);
      if (group.done) group.done(std::move(group.status));
    }
    BoundLog();
  }
  sqlite3_wal_hook(pool_.Take()->handle(), nullptr, nullptr);
}

std::vector<Writer::Group> Writer::Next(const std::stop_token& stop,
                                        std::optional<std::chrono::milliseconds> patience) {
  std::vector<Group> groups;
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return !queue_.empty(); };
  if (patience.has_value())
    arrived_.wait_for(lock, stop, *patience, ready);
  else
    arrived_.wait(lock, stop, ready);
  size_t bytes = 0;
  while (!queue_.empty() && bytes < kTransactionBytesMax) {
    bytes += queue_.front().bytes;
    groups.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  if (groups.empty() && stop.stop_requested()) closed_ = true;
  return groups;
}

void Writer::Commit(std::vector<Group>& groups, const std::stop_token& stop) {
  const std::span<Group> all(groups);
  size_t first = 0;
  size_t width = all.size();
  while (first < all.size()) {
    Status status = CommitOnce(all.subspan(first, width));
    if (status.ok()) {
      first += width;
      width = std::min(width * 2, all.size() - first);
      EndOutage();
    } else if (IsPermanent(status.error()) && width > 1) {
      width /= 2;  // closes in on the group that is at fault
    } else if (IsPermanent(status.error())) {
      all[first].status = std::move(status);
      ++first;
      width = std::min(width, all.size() - first);
      EndOutage();
    } else if (!AwaitRetry(stop, status.error())) {
      for (Group& group : all.subspan(first))
        group.status = Fail(Code::kCancelled, fmt::format("the store closed while it could not "
                                                          "write: {}",
                                                          status.error().message));
      return;
    }
  }
}

Status Writer::CommitOnce(std::span<const Group> groups) {
  if (std::all_of(groups.begin(), groups.end(), [](const Group& g) { return g.writes.empty(); }))
    return {};
  const Pool::Lease db = pool_.Take();
  const auto apply = [&]() -> Status {
    UMBEL_TRY(db->Run("BEGIN IMMEDIATE"));
    for (const Group& group : groups)
      for (const Write& write : group.writes) UMBEL_TRY(Apply(*db, options_.limits, write));
    return db->Run("COMMIT");
  };
  Status status = apply();
  if (!status.ok()) db->Rollback();
  return status;
}

bool Writer::AwaitRetry(const std::stop_token& stop, const Error& error) {
  if (stop.stop_requested()) return false;
  if (backoff_.count() == 0) {
    LogError("the store cannot write; it tries again until it can", {{"error", error.ToString()}});
    failing_ = true;
    backoff_ = kBackoffFirst;
  }
  std::unique_lock lock(mutex_);
  arrived_.wait_for(lock, stop, backoff_, [] { return false; });
  backoff_ = std::min(backoff_ * 2, kBackoffMax);
  return true;
}

void Writer::EndOutage() {
  if (backoff_.count() == 0) return;
  backoff_ = std::chrono::milliseconds(0);
  failing_ = false;
  LogInfo("the store writes again");
}

void Writer::BoundLog() {
  if (wal_pages_ < wal_pages_seen_) wal_pages_seen_ = 0;  // it has started again
  if (wal_pages_ < wal_pages_seen_ + kLogPagesStep) return;
  wal_pages_seen_ = wal_pages_;
  if (wal_pages_ >= kLogPagesMax)
    checkpointer_->RunOn(*pool_.Take());
  else
    checkpointer_->Poke();
}

bool Writer::Vacuum() {
  if (!space_freed_) return false;
  {
    const Pool::Lease db = pool_.Take();
    const Result<int64_t> free_pages = db->Integer("PRAGMA freelist_count");
    if (free_pages.ok() && *free_pages > kFreePagesKept &&
        db->Execute(fmt::format("PRAGMA incremental_vacuum({})", kVacuumStepPages)).ok())
      return true;
  }
  space_freed_ = false;
  if (checkpointer_) checkpointer_->RunOn(*pool_.Take());  // the file itself shrinks only now
  return false;
}

}  // namespace umbel::store
