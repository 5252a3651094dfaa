#include "superlink/engine.h"

#include "base/log.h"
#include "superlink/verify.h"

namespace umbel::superlink {

void Commit::Notify(const std::shared_ptr<Wakeable>& waiter) {
  {
    std::lock_guard lock(mutex_);
    if (!done()) {
      waiting_.Add(waiter);
      return;
    }
  }
  waiter->Wake();
}

void Commit::Finish(Status status) {
  std::lock_guard lock(mutex_);
  status_ = std::move(status);
  done_.store(true, std::memory_order_release);
  waiting_.WakeAll();
}

Result<std::unique_ptr<Engine>> Engine::Open(const store::StoreOptions& options, const Clock& clock,
                                             Rng& rng) {
  UMBEL_ASSIGN(auto store, store::Store::Open(options));
  return Open(std::move(store), options.durability == store::Durability::kPower, clock, rng);
}

Result<std::unique_ptr<Engine>> Engine::Open(std::unique_ptr<store::Store> store, bool sync_files,
                                             const Clock& clock, Rng& rng) {
  std::unique_ptr<Engine> engine(new Engine(clock, rng));
  engine->store_ = std::move(store);
  UMBEL_ASSIGN(store::Snapshot snapshot, engine->store_->Load());
  engine->sync_files_ = sync_files;
  const std::string& directory = engine->store_->directory();
  UMBEL_ASSIGN(auto segments, store::Segments::Open(directory.empty() ? "" : directory + "/objects",
                                                    engine->sync_files_, snapshot.objects));
  engine->segments_ = std::move(segments);
  if (snapshot.unclean_machine_stop) {
    auto writes = DropDamaged(snapshot, *engine->store_, *engine->segments_);
    writes.push_back(store::ObjectsVerified{});  // until then, another start verifies them again
    engine->store_->Submit(std::move(writes));
  }
  if (!snapshot.runs.empty())
    LogInfo("taking up where the last process stopped", {{"runs", snapshot.runs.size()},
                                                         {"messages", snapshot.messages.size()},
                                                         {"objects", snapshot.objects.size()},
                                                         {"nodes", snapshot.nodes.size()}});
  engine->state_.Restore(std::move(snapshot), clock.Now(),
                         [&](const store::Extent& extent) { return engine->OwnExtent(extent); });
  return engine;
}

Engine::~Engine() {
  if (store_) static_cast<void>(store_->Drain());
  store_.reset();
}

ExtentPtr Engine::OwnExtent(const store::Extent& extent) {
  return ExtentPtr(new store::Extent(extent), [segments = segments_](const store::Extent* owned) {
    segments->Free(*owned);
    delete owned;
  });
}

CommitPtr Engine::Queue(Changes changes, std::unique_lock<std::mutex> lock) {
  auto commit = std::make_shared<Commit>();
  const bool notify = changes.tasks_changed;
  if (changes.writes.empty()) {
    commit->Finish({});
  } else {
    // Under the lock: rows must reach the store in the order in which the State changed.
    store_->Submit(
        std::move(changes.writes),
        [commit, segments = segments_,
         released = std::make_shared<std::vector<ExtentPtr>>(std::move(changes.released)),
         finished = std::move(changes.finished_runs)](Status status) {
          // Only now may the space be used again.
          released->clear();
          for (const RunId run_id : finished) segments->DropRun(run_id);
          commit->Finish(std::move(status));
        });
  }
  const std::function<void()> tell = notify ? tasks_changed_ : nullptr;
  lock.unlock();
  if (tell) tell();
  return commit;
}

CommitPtr Engine::Write(std::vector<store::Write> writes) {
  auto commit = std::make_shared<Commit>();
  store_->Submit(std::move(writes), [commit](Status status) { commit->Finish(std::move(status)); });
  return commit;
}

CommitPtr Engine::AppendLog(RunId run_id, TaskId task_id, std::string text,
                            std::optional<uint64_t> output_offset) {
  auto commit = std::make_shared<Commit>();
  std::vector<store::Write> writes;
  writes.push_back(store::AppendLog{{run_id, task_id, clock_.Now(), std::move(text)}});
  std::lock_guard lock(mutex_);
  if (Run* run = state_.FindRun(run_id); run && output_offset) {
    run->task.output_offset = *output_offset;
    writes.push_back(store::PutTask{run->task});
  }
  store_->Submit(std::move(writes), [this, commit, run_id](Status status) {
    commit->Finish(std::move(status));
    std::lock_guard wake(mutex_);
    if (Run* run = state_.FindRun(run_id)) {
      ++run->log_version;
      run->log_waiters.WakeAll();
    }
  });
  return commit;
}

}  // namespace umbel::superlink
