#include "superlink/rounds/session.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "aggregation/xgboost.h"
#include "base/file.h"
#include "base/log.h"
#include "flwr/common.pb.h"
#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/cohort.h"
#include "superlink/rounds/collector.h"
#include "superlink/rounds/desk.h"
#include "superlink/rounds/instructions.h"
#include "superlink/rounds/npz.h"
#include "superlink/rounds/plan.h"
#include "superlink/rounds/report.h"
#include "superlink/rounds/signal.h"
#include "superlink/rounds/stop.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace pb = ::umbel::rounds;
namespace {

constexpr double kTtl = 43'200;       // seconds, Flower's own
constexpr double kTtlBeyond = 3'600;  // a phase's instructions outlive its timeout by this
constexpr double kDiskModels = 12;    // beside the spool
constexpr size_t kBesideModels = 4;   // beside replies that are kept whole: the old and the new one
constexpr double kSumsModels = 4;     // a checkpoint: 16 bytes for 4 of a reply
constexpr double kSegmentModels = 1;  // segment files are set aside whole
constexpr size_t kRepliesMin = 2;     // on disk at once, however little room there is
constexpr std::chrono::seconds kLookAgain{60};

class SessionImpl final : public Session {
 public:
  SessionImpl(Engine& engine, const Setup& setup, const store::SessionRow& row)
      : engine_(engine), setup_(setup), row_(row), desk_(engine, setup.run_id, row.name) {}

  Status Restore() {
    UMBEL_ASSIGN(plan_, ReadPlan(row_.plan));
    if (!progress_.ParseFromString(row_.progress))
      return Fail(Code::kDataLoss, "a session's progress cannot be read");
    engine_.Read([&](State& state, WallTime) {
      if (Run* run = state.FindRun(setup_.run_id))
        run->next_round_sequence = std::max(run->next_round_sequence, progress_.next_sequence());
    });
    UMBEL_ASSIGN(model_, LoadModel(engine_, setup_.run_id, row_.model_tree));
    if (phase() == Phase::kPrepare) return Begin();
    if (phase() == Phase::kTrain || phase() == Phase::kEvaluate) return Collect();
    return {};
  }

  WallTime Now() const override { return engine_.clock().Now(); }
  void Deliver(Delivery message) override { desk_.Put(std::move(message)); }

  std::optional<WallTime> Step(const std::shared_ptr<Wakeable>& waker) override {
    waker_ = waker;
    Result<bool> moved = true;
    while (!gone_ && phase() != Phase::kEnded) {
      desk_.Answer(plan_, progress_, model_);
      if (plan_.stepped && progress_.step() >= desk_.granted()) {
        ended_.reset();
        return std::nullopt;
      }
      wait_until_ = Now() + kLookAgain;
      moved = collector_ ? Look() : Ask();
      if (!moved.ok()) break;
      if (!*moved) return wait_until_;
    }
    // A store that is closing says so: the next process goes on from what is durable.
    if (!moved.ok() && moved.error().code == Code::kCancelled) return std::nullopt;
    if (!moved.ok() && !gone_) {
      if (phase() != Phase::kEnded) Move(PhaseEvent::kFailed);
      progress_.set_failure(moved.error().message);
    }
    if (!gone_ && !progress_.told_end()) End();
    if (!gone_) desk_.Answer(plan_, progress_, model_);
    if (gone_) ForgetAll();
    return std::nullopt;
  }

 private:
  Phase phase() const { return static_cast<Phase>(progress_.phase()); }
  bool training() const { return IsTrain(phase()); }

  void Move(PhaseEvent event) {
    const auto next = Next(phase(), event);
    UMBEL_CHECK(next.has_value());
    progress_.set_phase(static_cast<uint32_t>(*next));
  }

  store::SessionRow Row() {
    row_.progress = progress_.SerializeAsString();
    return row_;
  }

  /// A line of the run's log.
  void Say(std::string text) {
    const TaskId task_id = engine_.Read([&](State& state, WallTime) {
      const Run* run = state.FindRun(setup_.run_id);
      return run ? run->task.task_id : TaskId{};
    });
    if (task_id) engine_.AppendLog(setup_.run_id, task_id, text + "\n");
  }

  // --- the beginning -----------------------------------------------------------------------------

  Status Begin() {
    // What cannot be summed is refused before anybody is asked.
    UMBEL_ASSIGN(const auto aggregator, MakeAggregator(plan_, model_, 0, {}));
    static_cast<void>(aggregator);
    UMBEL_TRY(CheckDisk(plan_.spool_models + kDiskModels, "its rounds"));
    progress_.set_model_bytes(model_.bytes());
    progress_.set_seed(plan_.seed != 0 ? plan_.seed : engine_.rng().U64());
    progress_.set_round(1);
    progress_.set_started_at(UnixSeconds(Now()));
    Move(plan_.num_rounds > 0 ? PhaseEvent::kBegin : PhaseEvent::kStopped);
    Say(DescribePlan(plan_, model_));
    return Save({}, {});
  }

  /// Whether so many models fit on the disk: see DESIGN.md.
  Status CheckDisk(double models, std::string_view what) const {
    if (setup_.checkpoints.empty()) return {};
    const auto need = static_cast<uint64_t>(models * static_cast<double>(model_.bytes()));
    std::error_code error;
    const auto space = std::filesystem::space(setup_.checkpoints, error);
    if (error || space.available >= need) return {};
    return Fail(
        Code::kResourceExhausted,
        fmt::format("{} may take {} bytes of disk, {:.0f} times its model; '{}' has {} free: make "
                    "room{}",
                    what, need, models, setup_.checkpoints, space.available,
                    KeepsReplies(plan_.strategy.base().kind)
                        ? ", or ask fewer nodes"
                        : fmt::format(", or lower spool_models ({})", plan_.spool_models)));
  }

  /// How many replies may lie on the disk at once, so that all stays within spool_models +
  /// kDiskModels first models: beside a checkpoint, its successor and the model as it is; and
  /// beside a checkpoint, the model as it is and the next one. 0: any number.
  size_t RepliesAtOnce() const {
    const auto unit = static_cast<double>(progress_.model_bytes());
    if (!training() || KeepsReplies(plan_.strategy.base().kind) || unit == 0 ||
        model_.bytes() < setup_.fold_early_from)
      return 0;
    const auto all_bytes = [](const Model& model) {
      uint64_t sum = model.bytes();
      for (const auto& moment : model.moments)
        for (const ModelArray& array : moment) sum += array.data_bytes();
      return static_cast<double>(sum);
    };
    const double now = all_bytes(model_) / unit;
    // Optimisers compute in float64, and keep what they compute.
    const double next =
        std::max(now, 2.0 * static_cast<double>(MomentCount(plan_.strategy.base()) + 1));
    const double room = plan_.spool_models + kDiskModels - kSegmentModels - now - kSumsModels -
                        std::max(kSumsModels, next);
    return std::max(kRepliesMin, static_cast<size_t>(std::clamp(room, 0.0, plan_.spool_models)));
  }

  /// Writes the row, and what else belongs to the same moment, and waits until it is durable.
  Status Save(std::vector<State::ModelObject> objects, const std::vector<ObjectId>& withdrawn,
              std::vector<store::Write> more = {}) {
    store::SessionRow row = Row();
    auto [found, commit] = engine_.Apply([&](State& state, WallTime, Changes& changes) {
      Run* run = state.FindRun(setup_.run_id);
      if (!run) return false;
      for (const ObjectId& id : withdrawn) state.Withdraw(*run, id, changes);
      state.PutSession(*run, std::move(row), std::move(objects), changes);
      for (store::Write& write : more) changes.writes.push_back(std::move(write));
      return true;
    });
    UMBEL_TRY(WaitFor(commit));
    gone_ = !found;
    engine_.Read([&](State& state, WallTime) {
      if (Run* run = state.FindRun(setup_.run_id)) state.ModelStored(*run, row_.name);
    });
    return {};
  }

  // --- asking ------------------------------------------------------------------------------------

  /// True: the phase is another one now.
  Result<bool> Ask() {
    const bool train = training();
    if (plan_.fraction(train) == 0) return Skip(train);
    if (wait_began_ == WallTime{}) wait_began_ = Now();
    const uint64_t seed = CohortSeed(progress_.seed(), progress_.round(), train);
    Cohort cohort = engine_.Read([&](State& state, WallTime) {
      Cohort drawn = DrawCohort(plan_, train, seed, state.ListNodes(true));
      if (drawn.nodes.empty()) state.node_waiters().Add(waker_);
      return drawn;
    });
    if (cohort.nodes.empty()) {
      ended_.reset();
      if (!std::exchange(said_waiting_, true))
        Say(fmt::format("waiting for nodes: {} online, {} needed", cohort.online, cohort.needed));
      return false;
    }
    said_waiting_ = false;
    if (plan_.strategy.base().kind == aggregation::StrategyKind::kFedXgbCyclic)
      TakeTurn(cohort.nodes);
    if (train && KeepsReplies(plan_.strategy.base().kind))
      UMBEL_TRY(CheckDisk(static_cast<double>(cohort.nodes.size() + kBesideModels),
                          fmt::format("a round of {} nodes", cohort.nodes.size())));
    InstructionSpec spec;
    spec.run_id = setup_.run_id;
    spec.type = train ? "train" : "evaluate";
    spec.arrayrecord_key = plan_.Key("arrayrecord_key");
    spec.configrecord_key = plan_.Key("configrecord_key");
    spec.config = RoundConfig(plan_, train, progress_.round());
    spec.now = Now();
    spec.ttl = std::max(kTtl, plan_.timeout + kTtlBeyond);
    UMBEL_ASSIGN(Instructions made, MakeInstructions(spec, model_, cohort.nodes));
    progress_.set_waited(std::chrono::duration<double>(spec.now - wait_began_).count());
    wait_began_ = WallTime{};
    progress_.set_asked_at(UnixSeconds(spec.now));
    progress_.clear_asked();
    for (const NewMessage& message : made.messages) {
      pb::Asked* asked = progress_.add_asked();
      asked->set_node_id(message.message.dst.value);
      asked->set_instruction(message.message.id.bytes.data(), message.message.id.bytes.size());
    }
    Move(PhaseEvent::kAsked);
    UMBEL_TRY(Push(std::move(made)));
    ended_.reset();
    if (!gone_) UMBEL_TRY(Collect());
    return true;
  }

  /// Leaves the one whose turn it is. The order in which nodes were seen becomes durable with the
  /// instruction.
  void TakeTurn(std::vector<NodeId>& nodes) {
    aggregation::CyclicTurns turns({progress_.seen().begin(), progress_.seen().end()});
    std::vector<uint64_t> ids;
    for (const NodeId node : nodes) ids.push_back(node.value);
    nodes = {NodeId{turns.Pick(ids, progress_.round())}};
    progress_.mutable_seen()->Assign(turns.Seen().begin(), turns.Seen().end());
  }

  /// Nobody is to be asked in this phase.
  Result<bool> Skip(bool train) {
    ended_.reset();
    last_metrics_.clear();
    UMBEL_TRY(KeepStep(train, true));
    const bool last = !train && LastRound();
    Move(last ? PhaseEvent::kStopped : PhaseEvent::kSkipped);
    if (phase() == Phase::kTrainWait) progress_.set_round(progress_.round() + 1);
    UMBEL_TRY(Save({}, {}));
    return true;
  }

  /// The instructions, with the session's row, in one transaction; then they are shown.
  Status Push(Instructions made) {
    std::unordered_map<ObjectId, store::ObjectRow> rows;
    for (store::ObjectRow& row : made.objects) rows.emplace(row.object_id, std::move(row));
    store::SessionRow session = Row();
    std::unordered_map<ObjectId, uint64_t> numbers;
    auto [outcome, commit] = engine_.Apply(
        [&](State& state, WallTime now, Changes& changes) -> std::optional<PushOutcome> {
          Run* run = state.FindRun(setup_.run_id);
          if (!run) return std::nullopt;
          PushOutcome pushed = state.PushInstructions(*run, std::move(made.messages), now, changes);
          for (const ObjectId& id : pushed.objects_to_push)
            numbers[id] = state.KeepObject(*run, std::move(rows.at(id)), nullptr, changes);
          state.PutSession(*run, std::move(session), {}, changes);
          return pushed;
        });
    UMBEL_TRY(WaitFor(commit));
    gone_ = !outcome;
    if (gone_) return {};
    engine_.Read([&](State& state, WallTime now) {
      Run* run = state.FindRun(setup_.run_id);
      if (!run) return;
      for (const auto& [id, number] : numbers)
        state.ObjectStored(*run, kSuperLinkNode, id, outcome->session_id, number, now);
      state.Publish(setup_.run_id, outcome->publish, now);
    });
    return {};
  }

  // --- collecting --------------------------------------------------------------------------------

  /// The phase's nodes were asked, now or by an earlier process: time it was away counts for
  /// nobody.
  Status Collect() {
    deadline_ = Now() + Micros(static_cast<int64_t>(plan_.timeout * 1e6));
    replies_at_once_ = RepliesAtOnce();
    engine_.Read([&](State& state, WallTime) {
      if (Run* run = state.FindRun(setup_.run_id)) state.BoundReplies(*run, replies_at_once_);
    });
    UMBEL_ASSIGN(collector_,
                 Collector::Make(engine_, setup_.run_id, plan_, model_, phase() == Phase::kTrain,
                                 progress_, setup_.fold_early_from));
    return {};
  }

  Result<bool> Look() {
    UMBEL_ASSIGN(const bool there, collector_->Look(waker_));
    gone_ = !there;
    if (gone_) return true;
    if (collector_->Full() || Now() >= deadline_) {
      UMBEL_TRY(training() ? CloseTrain() : CloseEvaluate());
      return true;
    }
    const double spool = plan_.spool_models * static_cast<double>(model_.bytes());
    if (collector_->spooled() > static_cast<uint64_t>(spool) || RoomIsWanted())
      UMBEL_TRY(Checkpoint());
    wait_until_ = std::min(wait_until_, deadline_);
    return false;
  }

  /// Nodes are held back, and it is worth a checkpoint to let them go on.
  bool RoomIsWanted() {
    if (replies_at_once_ == 0 || collector_->kept() * 2 < replies_at_once_) return false;
    return engine_.Read([&](State& state, WallTime) {
      const Run* run = state.FindRun(setup_.run_id);
      return run != nullptr && run->room.wanted;
    });
  }

  /// Saves the sums, so that the replies in them need not be kept.
  Status Checkpoint() {
    if (!collector_->aggregator() || !collector_->aggregator()->CanSave()) return {};
    const std::string before = progress_.checkpoint();
    std::string path;
    if (!setup_.checkpoints.empty())
      path = fmt::format("{}/{}-{}-{}-{}.sums", setup_.checkpoints, setup_.run_id,
                         row_.name.substr(0, 16), progress_.round(), collector_->accepted());
    UMBEL_ASSIGN(const auto saved, collector_->Save(path, &progress_));
    UMBEL_TRY(Save({}, saved));
    if (before != path && !gone_) Forget(before);
    return {};
  }

  /// The run was stopped: what it has saved goes once it cannot come back.
  void ForgetAll() {
    if (progress_.checkpoint().empty() || !engine_.store().Drain().ok()) return;
    Forget(progress_.checkpoint());
    progress_.clear_checkpoint();
  }

  static void Forget(const std::string& path) {
    if (path.empty()) return;
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }

  // --- closing -----------------------------------------------------------------------------------

  Status CloseTrain() {
    const WallTime closed = Now();
    UMBEL_TRY(collector_->Close());
    const size_t count = collector_->accepted();
    if (count < plan_.min_train_replies)
      return Fail(Code::kFailedPrecondition,
                  fmt::format("round {}: {} of {} replies can be used, {} are needed: {}",
                              progress_.round(), count, collector_->asked(),
                              plan_.min_train_replies, collector_->Reasons()));
    std::vector<State::ModelObject> objects;
    if (count > 0) {  // else the model stays, as Flower's does
      WarnOfSampled(count);
      auto next = collector_->aggregator()->Finish(progress_.round());
      if (!next.ok() && next.error().code != Code::kFailedPrecondition) return Fail(next.error());
      if (next.ok()) {
        UMBEL_ASSIGN(NewModel made, collector_->TakeWriter()->Finish(*std::move(next)));
        row_.model_tree = std::move(made.tree);
        objects = std::move(made.objects);
      } else {
        collector_->SetUnused();
        Say(fmt::format("the model stays as it is: {}", next.error().message));
      }
      collector_->KeepClipping(&progress_);
    }
    UMBEL_ASSIGN(last_metrics_, collector_->MeanMetrics());
    const std::string before = progress_.checkpoint();
    progress_.clear_checkpoint();
    UMBEL_TRY(CommitPhase(PhaseEvent::kClosed, std::move(objects), closed));
    // Of a run that was stopped meanwhile the end may not be durable yet: see ForgetAll.
    if (gone_) {
      progress_.set_checkpoint(before);
    } else {
      Forget(before);
    }
    if (count > 0 && !gone_) {
      UMBEL_ASSIGN(model_, LoadModel(engine_, setup_.run_id, row_.model_tree));
    }
    return {};
  }

  /// The noise of a strategy that clips is made for so many replies.
  void WarnOfSampled(size_t count) {
    const auto& strategy = plan_.strategy;
    if (!strategy.inner || static_cast<uint64_t>(strategy.Int("num_sampled_clients")) == count)
      return;
    Say(
        fmt::format("{} replies can be used, num_sampled_clients is {}: the noise does not have "
                    "the strength that was meant",
                    count, strategy.Int("num_sampled_clients")));
  }

  Status CloseEvaluate() {
    const WallTime closed = Now();
    UMBEL_TRY(collector_->Close());
    UMBEL_ASSIGN(last_metrics_, collector_->MeanMetrics());
    CountRound(plan_.stop, last_metrics_, &progress_);
    if (plan_.keep != Keep::kLast) UMBEL_TRY(KeepModel());
    return CommitPhase(LastRound() ? PhaseEvent::kStopped : PhaseEvent::kClosed, {}, closed);
  }

  bool LastRound() {
    if (progress_.round() >= plan_.num_rounds) return true;
    progress_.set_stopped_by(WhyStop(plan_.stop, last_metrics_, progress_, UnixSeconds(Now())));
    return !progress_.stopped_by().empty();
  }

  /// The end of a phase becomes durable: its record, the next model, and nothing is asked any more.
  Status CommitPhase(PhaseEvent event, std::vector<State::ModelObject> objects, WallTime closed) {
    const bool train = training();
    pb::RoundRecord record = Record(train ? "train" : "evaluate");
    pb::Phase* told = record.mutable_phase();
    collector_->Describe(told);
    told->set_seconds_waited(progress_.waited());
    told->set_seconds_collected(UnixSeconds(closed) - progress_.asked_at());
    told->set_seconds_closed(std::chrono::duration<double>(Now() - closed).count());
    UMBEL_TRY(EncodeMetrics(last_metrics_, told->mutable_metrics()));
    UMBEL_TRY(KeepStep(train, false));
    progress_.clear_asked();
    progress_.clear_answered();
    Move(event);
    if (phase() == Phase::kTrainWait) progress_.set_round(progress_.round() + 1);
    const std::vector<ObjectId> withdrawn = collector_->Instructions();
    store::RoundRow row = Tell(record);
    UMBEL_TRY(Save(std::move(objects), withdrawn, {store::PutRound{std::move(row)}}));
    ended_ = std::move(collector_);
    Say(DescribeRecord(record));
    return {};
  }

  /// What a caller that steps may ask of the phase that ends here.
  Status KeepStep(bool train, bool skipped) {
    progress_.set_step(progress_.step() + 1);
    if (!plan_.stepped) return {};
    pb::Step* step = progress_.mutable_last();
    step->Clear();
    step->set_round(progress_.round());
    step->set_kind(train ? "train" : "evaluate");
    step->set_skipped(skipped);
    if (skipped) return {};
    UMBEL_TRY(EncodeMetrics(last_metrics_, step->mutable_metrics()));
    for (const auto& [id, part] : collector_->Accepted())
      UMBEL_TRY(EncodePart(id, *part, step->add_replies()));
    step->set_failures(static_cast<uint32_t>(collector_->asked() - collector_->accepted()));
    return {};
  }

  pb::RoundRecord Record(std::string_view kind) const {
    pb::RoundRecord record;
    record.set_session(row_.name);
    record.set_round(progress_.round());
    record.set_num_rounds(plan_.num_rounds);
    record.set_kind(std::string(kind));
    record.set_at(UnixSeconds(Now()));
    return record;
  }

  store::RoundRow Tell(pb::RoundRecord& record) {
    const uint64_t sequence = engine_.Read([&](State& state, WallTime) {
      Run* run = state.FindRun(setup_.run_id);
      return run ? state.NextRoundSequence(*run) : 0;
    });
    record.set_sequence(sequence);
    progress_.set_next_sequence(sequence + 1);
    return {setup_.run_id, sequence, record.SerializeAsString()};
  }

  // --- the end -----------------------------------------------------------------------------------

  /// The last record; what is the whole of a run ends it, in the same moment.
  void End() {
    progress_.set_told_end(true);
    const std::string checkpoint = progress_.checkpoint();
    progress_.clear_checkpoint();
    progress_.clear_answered();
    std::vector<ObjectId> withdrawn;
    if (collector_) withdrawn = collector_->Instructions();
    collector_.reset();
    ended_.reset();
    progress_.clear_asked();
    std::string failure = progress_.failure();
    if (const Status kept = KeepModel(); !kept.ok() && failure.empty())
      failure = "its model cannot be kept: " + kept.error().message;
    pb::RoundRecord record = Record("end");
    record.set_outcome(!failure.empty()                 ? "failed: " + failure
                       : progress_.stopped_by().empty() ? "completed"
                                                        : "stopped: " + progress_.stopped_by());
    store::RoundRow told = Tell(record);
    Say(DescribeRecord(record));
    store::SessionRow row = Row();
    const CommitPtr commit = engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      Run* run = state.FindRun(setup_.run_id);
      gone_ = run == nullptr;
      if (gone_) return;
      for (const ObjectId& id : withdrawn) state.Withdraw(*run, id, changes);
      state.PutSession(*run, std::move(row), {}, changes);
      changes.writes.push_back(store::PutRound{std::move(told)});
      if (!row_.name.empty()) return;
      state.FinishTask(setup_.run_id, failure.empty() ? TaskEvent::kComplete : TaskEvent::kFail,
                       failure, now, changes);
      gone_ = true;
    });
    static_cast<void>(WaitFor(commit));
    Forget(checkpoint);
  }

  /// The model as it is now, by the plan's policy: at the end of a round, or of all.
  Status KeepModel() {
    if (setup_.models.empty() || !row_.name.empty()) return {};
    const bool ended = phase() == Phase::kEnded;
    const bool best = plan_.keep == Keep::kBest && progress_.has_best() &&
                      progress_.best_round() == progress_.round();
    if (!ended && !best && plan_.keep != Keep::kAll) return {};
    const std::string directory = ModelFolder(setup_.models, setup_.run_id);
    UMBEL_TRY(MakeDirectories(directory));
    const auto path_of = [&](uint32_t round) {
      return ModelPath(setup_.models, setup_.run_id, round);
    };
    const std::string path = path_of(progress_.round());
    UMBEL_TRY(WriteNpz(path, model_.arrays));
    if (plan_.keep == Keep::kAll) return {};
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
      const std::string kept = entry.path().string();
      if (kept != path && !(plan_.keep == Keep::kBest && kept == path_of(progress_.best_round())))
        std::filesystem::remove(entry.path(), ignored);
    }
    return {};
  }

  Engine& engine_;
  const Setup setup_;
  store::SessionRow row_;
  Plan plan_;
  pb::Progress progress_;
  Model model_;
  Desk desk_;
  std::shared_ptr<Wakeable> waker_;
  bool gone_ = false;  // the run is over, or its data is

  std::unique_ptr<Collector> collector_;  // while replies are collected
  std::unique_ptr<Collector> ended_;      // giving back its memory is not what nodes wait for
  WallTime deadline_;
  WallTime wait_until_;
  WallTime wait_began_;
  bool said_waiting_ = false;
  size_t replies_at_once_ = 0;         // on disk, in this phase; 0: any number
  flower::MetricRecord last_metrics_;  // of the phase that ends, or has ended
};

}  // namespace

Result<std::unique_ptr<Session>> Session::Open(Engine& engine, const Setup& setup,
                                               const store::SessionRow& row) {
  auto session = std::make_unique<SessionImpl>(engine, setup, row);
  UMBEL_TRY(session->Restore());
  return std::unique_ptr<Session>(std::move(session));
}

}  // namespace umbel::superlink::rounds
