#include "tracking/tracker.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "tracking/sender.h"
#include "tracking/spool.h"

namespace umbel::tracking {
namespace {

constexpr size_t kIdMax = 250;

/// An id is searched for by MLflow's filters, which know no escapes.
Status CheckId(const std::string& id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](char c) {
    return c > ' ' && c < '\x7f' && c != '\'' && c != '"' && c != '`' && c != '\\' && c != '%';
  });
  if (plain && !id.empty() && id.size() <= kIdMax) return {};
  return Fail(Code::kInvalidArgument,
              fmt::format("run id '{}' is not 1 to {} letters, digits and signs without quotes",
                          id.substr(0, kIdMax), kIdMax));
}

/// By it the run is found again; with another value it would not be.
Status CheckTag(const std::string& key) {
  if (key != kRunTag) return {};
  return Fail(Code::kInvalidArgument, fmt::format("tag '{}' is the tracker's own", key));
}

class TrackerImpl final : public Tracker {
 public:
  TrackerImpl(std::unique_ptr<Spool> spool, std::unique_ptr<MlflowClient> client,
              const Options& options)
      : spool_(std::move(spool)),
        client_(std::move(client)),
        sender_(*spool_, *client_, {options.pause_min, options.pause_max}, [this] { Changed(); }) {}

  Status Begin(const RunStart& run) override {
    UMBEL_TRY(CheckId(run.id));
    if (run.experiment.empty() || run.name.empty())
      return Fail(Code::kInvalidArgument,
                  fmt::format("run '{}' has no name, or its experiment has none", run.id));
    for (const auto& [key, value] : run.tags) UMBEL_TRY(CheckTag(key));
    return Said(spool_->Begin(run));
  }
  Status Log(const std::string& run, const std::vector<Metric>& metrics) override {
    return Said(spool_->Log(run, metrics));
  }
  Status Tag(const std::string& run, const std::string& key, const std::string& value) override {
    UMBEL_TRY(CheckTag(key));
    return Said(spool_->Tag(run, key, value));
  }
  Status End(const std::string& run, const std::string& status, WallTime at) override {
    if (status != "FINISHED" && status != "FAILED" && status != "KILLED")
      return Fail(Code::kInvalidArgument,
                  fmt::format("'{}' is not FINISHED, FAILED or KILLED", status));
    return Said(spool_->End(run, status, at));
  }

  Status Forget(const std::string& prefix) override { return spool_->Forget(prefix); }

  std::optional<std::string> RunIdOf(const std::string& run) override {
    return Known(run, &RunRow::run_id);
  }
  std::optional<std::string> ExperimentIdOf(const std::string& run) override {
    return Known(run, &RunRow::experiment_id);
  }

  TrackerState state() override {
    TrackerState out;
    out.trouble = sender_.trouble();
    const auto waiting = spool_->Waiting();
    const auto refused = spool_->Refused();
    if (!waiting.ok() || !refused.ok()) {
      out.trouble = waiting.ok() ? refused.error().message : waiting.error().message;
      return out;
    }
    out.waiting = *waiting;
    out.refused = refused->count;
    if (refused->count > 0)
      out.trouble += fmt::format("{}{} {} set aside, the last: {}", out.trouble.empty() ? "" : "; ",
                                 refused->count, refused->count == 1 ? "entry is" : "entries are",
                                 refused->last);
    return out;
  }

  Status Flush(std::chrono::milliseconds limit) override {
    const auto until = std::chrono::steady_clock::now() + limit;
    UMBEL_ASSIGN(const int64_t newest, spool_->Newest());
    for (uint64_t seen = 0;;) {
      {
        std::lock_guard lock(mutex_);
        seen = changes_;
      }
      UMBEL_ASSIGN(const std::optional<int64_t> oldest, spool_->Oldest());
      if (!oldest || *oldest > newest) return {};
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, until, [&] { return changes_ != seen; })) break;
    }
    const TrackerState now = state();
    return Fail(
        Code::kDeadlineExceeded,
        fmt::format("{} entries are not with MLflow after {} ms: {}", now.waiting, limit.count(),
                    now.trouble.empty() ? "it takes them slowly" : now.trouble));
  }

  void Watch(std::shared_ptr<Wakeable> waker) override {
    std::lock_guard lock(mutex_);
    std::erase_if(watchers_, [&](const auto& w) { return w.expired() || w.lock() == waker; });
    watchers_.push_back(waker);
  }

 private:
  Status Said(Status kept) {
    if (kept.ok()) sender_.Look();
    return kept;
  }

  std::optional<std::string> Known(const std::string& run, std::string RunRow::*field) {
    auto row = spool_->Find(run);
    if (!row.ok() || !*row || ((**row).*field).empty()) return std::nullopt;
    return std::move((**row).*field);
  }

  void Changed() {
    std::lock_guard lock(mutex_);
    ++changes_;
    changed_.notify_all();
    for (const auto& weak : watchers_)
      if (const auto waker = weak.lock()) waker->Wake();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t changes_ = 0;
  std::vector<std::weak_ptr<Wakeable>> watchers_;
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<MlflowClient> client_;
  Sender sender_;  // last: its thread uses the rest
};

}  // namespace

Result<std::unique_ptr<Tracker>> Tracker::Open(const Options& options) {
  if (options.pause_min.count() <= 0 || options.pause_max < options.pause_min ||
      options.request_timeout.count() <= 0)
    return Fail(Code::kInvalidArgument, "a tracker's pauses and time limit must be positive");
  UMBEL_ASSIGN(auto client, MlflowClient::Make(options.url, {.user = options.user,
                                                             .timeout = options.request_timeout}));
  UMBEL_ASSIGN(auto spool, Spool::Open(options.spool, options.spool_bytes_max));
  return std::unique_ptr<Tracker>(
      std::make_unique<TrackerImpl>(std::move(spool), std::move(client), options));
}

}  // namespace umbel::tracking
