#include "tracking/sender.h"

#include <pthread.h>

#include <algorithm>
#include <set>

#include "base/log.h"

namespace umbel::tracking {
namespace {

using std::chrono::milliseconds;

constexpr size_t kBatchMin = 20;
/// Of the JSON of one batch; what the numbers of a metric and the punctuation take is estimated.
constexpr size_t kBatchBytes = MlflowClient::kBatchBytesMax / 2;
constexpr size_t kEntryBytes = 120;
constexpr size_t kDelayedMax = 10'000;

/// The length of a text in JSON, at most: control characters and broken bytes take six.
size_t JsonBytes(const std::string& text) {
  size_t size = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    size += byte < ' ' || byte >= 0x7f ? 6 : c == '"' || c == '\\' ? 2 : 1;
  }
  return size;
}

/// The first entries that may go in one request.
std::span<const Entry> Head(std::span<const Entry> entries, size_t count_max) {
  std::set<std::string_view> params, tags;
  size_t bytes = 0;
  size_t count = 0;
  for (const Entry& entry : entries) {
    if (entry.kind == Kind::kBegin || entry.kind == Kind::kEnd || count == count_max) break;
    bytes += kEntryBytes + JsonBytes(entry.key) + JsonBytes(entry.value);
    if (count > 0 && bytes > kBatchBytes) break;
    if (entry.kind == Kind::kParam &&
        (params.size() == MlflowClient::kParamsMax || !params.insert(entry.key).second))
      break;
    if (entry.kind == Kind::kTag &&
        (tags.size() == MlflowClient::kTagsMax || !tags.insert(entry.key).second))
      break;
    ++count;
  }
  return entries.first(count);
}

Batch BatchOf(std::span<const Entry> entries) {
  Batch batch;
  for (const Entry& entry : entries) {
    if (entry.kind == Kind::kParam) batch.params.emplace_back(entry.key, entry.value);
    if (entry.kind == Kind::kTag) batch.tags.emplace_back(entry.key, entry.value);
    if (entry.kind == Kind::kMetric)
      batch.metrics.push_back({entry.key, entry.number, entry.at, entry.step});
  }
  return batch;
}

std::string NameOf(const Entry& entry) {
  switch (entry.kind) {
    case Kind::kBegin:
      return "its beginning";
    case Kind::kParam:
      return fmt::format("param '{}'", entry.key);
    case Kind::kTag:
      return fmt::format("tag '{}'", entry.key);
    case Kind::kMetric:
      return fmt::format("metric '{}' of step {}", entry.key, entry.step);
    case Kind::kEnd:
      return fmt::format("its end '{}'", entry.value);
  }
  return "";
}

std::string WhyOf(const RunRow& run, const std::string& what, const Error& error) {
  return fmt::format("MLflow refuses {} of run '{}' ({}): {}", what, run.id, run.name,
                     error.message);
}

}  // namespace

Sender::Sender(Spool& spool, MlflowClient& client, Options options, std::function<void()> changed)
    : spool_(spool),
      client_(client),
      options_(options),
      changed_(std::move(changed)),
      thread_([this](const std::stop_token& stop) { Loop(stop); }) {}

Sender::~Sender() {
  thread_.request_stop();
  client_.Cancel();
  thread_.join();
}

void Sender::Look() {
  std::lock_guard lock(mutex_);
  look_ = true;
  news_.notify_all();
}

std::string Sender::trouble() const {
  std::lock_guard lock(mutex_);
  return trouble_;
}

void Sender::Loop(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "tracking");
  while (!stop.stop_requested()) {
    if (Steady::now() < calm_) {
      Wait(stop, calm_, false);
      continue;
    }
    {
      std::lock_guard lock(mutex_);
      look_ = false;
    }
    std::set<int64_t> without;
    auto soonest = Steady::time_point::max();
    for (const auto& [run, delay] : delayed_) {
      if (delay.until <= Steady::now()) continue;
      without.insert(run);
      soonest = std::min(soonest, delay.until);
    }
    const auto run = spool_.Next(without);
    if (run.ok() && !*run) {
      const auto shrunk = spool_.Shrink();
      if (!shrunk.ok() || !*shrunk) Wait(stop, soonest, true);
      continue;
    }
    const int64_t number = run.ok() ? (*run)->number : 0;
    const Status done = run.ok() ? Step(**run) : Status(Fail(run.error()));
    if (stop.stop_requested()) return;
    if (done.ok())
      Succeeded(number);
    else
      Failed(number, done.error());
  }
}

void Sender::Wait(const std::stop_token& stop, Steady::time_point until, bool news) {
  std::unique_lock lock(mutex_);
  const auto done = [&] { return news && look_; };
  if (until == Steady::time_point::max())
    news_.wait(lock, stop, done);
  else
    news_.wait_until(lock, stop, until, done);
}

void Sender::Succeeded(int64_t run) {
  failures_ = 0;
  delayed_.erase(run);
  bool over = false;
  {
    std::lock_guard lock(mutex_);
    // One run's trouble is not over because another's entries get through.
    if (delayed_.empty()) over = !std::exchange(trouble_, std::string()).empty();
  }
  if (over) LogInfo("tracking goes on");
  changed_();
}

void Sender::Failed(int64_t run, const Error& error) {
  ++failures_;
  const auto now = Steady::now();
  calm_ = now + Pause(failures_);
  // The server is there and has failed at this run: others may fare better meanwhile.
  if (error.wire_code != 0 && delayed_.size() < kDelayedMax) {
    Delay& delay = delayed_[run];
    delay.until = now + Pause(++delay.failures) * 2;
  }
  bool began = false;
  {
    std::lock_guard lock(mutex_);
    began = trouble_.empty();
    trouble_ = error.message;
  }
  if (!began) return;
  LogWarn("tracking is held up; what is to be tracked is kept", {{"error", error.message}});
  changed_();
}

milliseconds Sender::Pause(int failures) {
  const milliseconds ceiling =
      std::min(options_.pause_max, options_.pause_min * (int64_t{1} << std::min(failures - 1, 20)));
  const auto half = static_cast<uint64_t>(ceiling.count() / 2);
  return milliseconds(half + rng_.U64() % (half + 1));
}

Status Sender::Step(const RunRow& run) {
  UMBEL_ASSIGN(const std::vector<Entry> entries, spool_.Load(run.number, batch_max_, kBatchBytes));
  if (entries.empty()) return {};
  if (entries.front().kind == Kind::kBegin) return Make(run);
  if (entries.front().kind == Kind::kEnd) return Finish(run, entries.front());
  const std::span<const Entry> head = Head(entries, batch_max_);
  Status sent = SendBatch(run, head);
  // A server that does not manage so much in time may manage less.
  if (sent.ok())
    batch_max_ = std::min(batch_max_ * 2, MlflowClient::kMetricsMax);
  else if (sent.error().code == Code::kUnavailable && sent.error().wire_code == 0)
    batch_max_ = std::max(batch_max_ / 2, kBatchMin);
  return sent;
}

Status Sender::Make(const RunRow& run) {
  const auto make = [&]() -> Status {
    UMBEL_ASSIGN(const std::string experiment_id, client_.EnsureExperiment(run.experiment));
    std::string run_id;
    if (run.asked > 0) {
      // What became of that request was never heard.
      UMBEL_ASSIGN(const auto made, client_.RunsByTag(experiment_id, kRunTag, run.id));
      if (!made.empty()) run_id = made.front().id;
    }
    if (run_id.empty()) {
      UMBEL_TRY(spool_.NoteAsked(run.number));
      UMBEL_ASSIGN(run_id, client_.CreateRun({.experiment_id = experiment_id,
                                              .name = run.name,
                                              .started_at = run.started_at,
                                              .tags = {{kRunTag, run.id}}}));
    }
    if (run.asked > 0) UMBEL_TRY(DeleteTwins(run, experiment_id, run_id));
    return spool_.NoteMade(run.number, experiment_id, run_id);
  };
  Status made = make();
  if (made.ok() || !IsRefusal(made.error())) return made;
  const std::string why = WhyOf(run, "all", made.error());
  LogWarn("MLflow refuses a run", {{"why", why}});
  return spool_.NoteRunRefused(run.number, why);
}

Status Sender::SendBatch(const RunRow& run, std::span<const Entry> entries) {
  const Status sent = client_.LogBatch(run.run_id, BatchOf(entries));
  if (sent.ok()) return spool_.NoteSaid(run.number, entries.back().id);
  if (!IsRefusal(sent.error())) return sent;
  UMBEL_ASSIGN(const bool gone, RunIsGone(run, sent.error()));
  if (gone) return {};
  // One of them is at fault: halved until it stands alone, so that the others get through.
  const auto halve = [&](const auto& self, std::span<const Entry> part,
                         const Error& refusal) -> Status {
    if (part.size() == 1) {
      const std::string why = WhyOf(run, NameOf(part.front()), refusal);
      LogWarn("MLflow refuses an entry", {{"why", why}});
      return spool_.NoteRefused(run.number, part.front().id, why);
    }
    for (const auto& half : {part.first(part.size() / 2), part.subspan(part.size() / 2)}) {
      const Status status = client_.LogBatch(run.run_id, BatchOf(half));
      if (status.ok())
        UMBEL_TRY(spool_.NoteSaid(run.number, half.back().id));
      else if (IsRefusal(status.error()))
        UMBEL_TRY(self(self, half, status.error()));
      else
        return status;
    }
    return {};
  };
  return halve(halve, entries, sent.error());
}

Status Sender::Finish(const RunRow& run, const Entry& entry) {
  const Status ended = client_.UpdateRun(run.run_id, entry.value, entry.at);
  if (!ended.ok()) {
    if (!IsRefusal(ended.error())) return ended;
    UMBEL_ASSIGN(const bool gone, RunIsGone(run, ended.error()));
    if (gone) return {};
    const std::string why = WhyOf(run, NameOf(entry), ended.error());
    LogWarn("MLflow refuses an entry", {{"why", why}});
    return spool_.NoteRefused(run.number, entry.id, why);
  }
  // A request to make the run may have been carried out long after its sender gave it up.
  if (run.asked > 1) UMBEL_TRY(DeleteTwins(run, run.experiment_id, run.run_id));
  return spool_.NoteSaid(run.number, entry.id);
}

Status Sender::DeleteTwins(const RunRow& run, const std::string& experiment_id,
                           const std::string& keep) {
  UMBEL_ASSIGN(const auto all, client_.RunsByTag(experiment_id, kRunTag, run.id));
  for (const Run& one : all) {
    if (one.id == keep) continue;
    const Status deleted = client_.DeleteRun(one.id);
    if (!deleted.ok() && !IsRefusal(deleted.error())) return deleted;
    LogInfo("MLflow had made a run twice; the empty one is deleted",
            {{"run", run.id}, {"deleted", one.id}});
  }
  return {};
}

Result<bool> Sender::RunIsGone(const RunRow& run, const Error& refusal) {
  const auto now = client_.GetRun(run.run_id);
  if (!now.ok() && !(IsRefusal(now.error()) && now.error().code == Code::kNotFound)) {
    if (IsRefusal(now.error())) return false;
    return Fail(now.error());
  }
  if (now.ok() && !now->deleted) return false;
  const std::string why = WhyOf(
      run, now.ok() ? "all, since it was deleted there," : "all, since it is not there,", refusal);
  LogWarn("MLflow has a run no more", {{"why", why}});
  UMBEL_TRY(spool_.NoteRunRefused(run.number, why));
  return true;
}

}  // namespace umbel::tracking
