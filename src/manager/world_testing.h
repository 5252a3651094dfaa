// A world for tests of the reconciler: everything that outlives a manager (ground, aggregators, the
// tracking server, files), and a manager that can be killed at any of its steps. One thread.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing.h"
#include "manager/reconciler.h"
#include "orchestrator/fake_ground.h"

namespace umbel::manager::testing {

using orchestrator::FakeGround;
using orchestrator::InstanceState;

/// Counts what a manager does to the world, and ends it at one of these.
class Life {
 public:
  /// after  false: it dies before the step is done; true: before it hears that it was.
  void DieAt(uint64_t step, bool after) {
    left_ = step;
    after_ = after;
    dead_ = false;
  }
  void LiveOn() { DieAt(~uint64_t{0}, false); }
  bool dead() const { return dead_; }
  uint64_t steps() const { return steps_; }

  /// Whether the step is done, and whether it is heard of.
  struct Step {
    bool done;
    bool heard;
  };
  Step Next() {
    if (dead_) return {false, false};
    ++steps_;
    if (--left_ > 0) return {true, true};
    dead_ = true;
    return {after_, false};
  }

 private:
  uint64_t left_ = ~uint64_t{0};
  bool after_ = false;
  bool dead_ = false;
  uint64_t steps_ = 0;
};

inline tl::unexpected<Error> Dead() { return Fail(Code::kCancelled, "the process is dead"); }

/// Does `act` unless the manager dies first; what it hears.
template <typename F>
auto Live(Life& life, F&& act) -> decltype(act()) {
  const Life::Step step = life.Next();
  if (!step.done) return Dead();
  auto result = act();
  if (!step.heard) return Dead();
  return result;
}

class DyingGround final : public orchestrator::Ground {
 public:
  DyingGround(FakeGround& ground, Life& life) : ground_(ground), life_(life) {}
  std::vector<orchestrator::Node> Nodes() override { return ground_.Nodes(); }
  Status Apply(const InstanceSpec& spec) override {
    return Live(life_, [&] { return ground_.Apply(spec); });
  }
  Status Remove(std::string_view name) override {
    return Live(life_, [&] { return ground_.Remove(name); });
  }
  std::vector<orchestrator::InstanceStatus> List() override { return ground_.List(); }
  std::optional<orchestrator::InstanceStatus> Find(std::string_view name) override {
    return ground_.Find(name);
  }
  Result<orchestrator::LogPart> Logs(std::string_view name, uint64_t offset,
                                     size_t limit) override {
    return ground_.Logs(name, offset, limit);
  }
  bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) override {
    return ground_.WatchLog(name, waker);
  }
  void Watch(std::shared_ptr<Wakeable> waker) override { ground_.Watch(std::move(waker)); }

 private:
  FakeGround& ground_;
  Life& life_;
};

/// An MLflow server with its spool: what was told, once.
struct Mlflow {
  struct Run {
    std::string name;
    std::string status;
    std::map<std::string, double> metrics;
    int ends = 0;
  };
  std::map<std::string, Run> runs;
  std::set<std::string> forgotten;  // beginnings of keys
  bool down = false;
};

class FakeTracker final : public tracking::Tracker {
 public:
  FakeTracker(Mlflow& mlflow, Life& life) : mlflow_(mlflow), life_(life) {}
  Status Begin(const tracking::RunStart& run) override {
    return Live(life_, [&]() -> Status {
      mlflow_.runs[run.id].name = run.name;
      return {};
    });
  }
  Status Log(const std::string& run, const std::vector<tracking::Metric>& metrics) override {
    return Live(life_, [&]() -> Status {
      UMBEL_CHECK(mlflow_.runs.contains(run));
      for (const auto& metric : metrics) mlflow_.runs[run].metrics[metric.key] = metric.value;
      return {};
    });
  }
  Status Tag(const std::string&, const std::string&, const std::string&) override { return {}; }
  Status End(const std::string& run, const std::string& status, WallTime) override {
    return Live(life_, [&]() -> Status {
      UMBEL_CHECK(mlflow_.runs.contains(run));
      mlflow_.runs[run].status = status;
      return {};
    });
  }
  Status Forget(const std::string& prefix) override {
    return Live(life_, [&]() -> Status {
      mlflow_.forgotten.insert(prefix);
      return {};
    });
  }
  std::optional<std::string> RunIdOf(const std::string& run) override {
    if (mlflow_.down || !mlflow_.runs.contains(run)) return std::nullopt;
    return "mlflow-" + run;
  }
  std::optional<std::string> ExperimentIdOf(const std::string&) override { return "1"; }
  tracking::TrackerState state() override { return {0, 0, mlflow_.down ? "nobody answers" : ""}; }
  Status Flush(std::chrono::milliseconds) override { return {}; }
  void Watch(std::shared_ptr<Wakeable>) override {}

 private:
  Mlflow& mlflow_;
  Life& life_;
};

/// The aggregators' side, by run.
struct Rounds {
  struct Run {
    uint64_t id = 0;
    bool begun = false;
    bool stopped = false;
    std::vector<RoundSeen> records;
  };
  std::vector<Run> runs;
  std::vector<double> accuracies = {0.5, 0.8, 0.7};
  std::vector<double> losses = {1, 0.5, 0.6};
  std::string failure;   // how the run ends, if not well
  size_t visible = 100;  // records that are there by now
  Status fetch;
  uint32_t online = 100;
};

/// What nodes' data servers have on record, and what learners have read.
struct Data {
  struct Deal {
    int id = 0;
    uint32_t of = 0;
    std::map<std::string, uint32_t> parts;  // by learner

    bool operator==(const Deal&) const = default;
  };
  std::map<std::pair<std::string, std::string>, Deal> deals;  // by location and project
  /// By learner, since it was started last. Who has a part reads it at once.
  struct Read {
    std::string location;
    int deal = 0;
    uint32_t part = 0;
  };
  std::map<std::string, Read> read;
  int dealt = 0;

  Status Assign(const ShareWish& wish) {
    Deal& deal = deals[{wish.location, wish.project}];
    if (deal.id == 0) deal = {++dealt, wish.of, {}};
    if (deal.of != wish.of) return Fail(Code::kFailedPrecondition, "shared out among others");
    if (!deal.parts.contains(wish.learner)) {
      std::set<uint32_t> taken;
      for (const auto& [learner, part] : deal.parts) taken.insert(part);
      uint32_t part = 0;
      while (taken.contains(part)) ++part;
      if (part >= deal.of) return Fail(Code::kFailedPrecondition, "all parts are taken");
      deal.parts[wish.learner] = part;
    }
    read[wish.learner] = {wish.location, deal.id, deal.parts[wish.learner]};
    // Parts of one deal have no row in common; those of two deals may have.
    for (const auto& [other, seen] : read)
      if (other != wish.learner && seen.location == wish.location &&
          (seen.deal != deal.id || seen.part == deal.parts[wish.learner]))
        overlaps.push_back(fmt::format("{} and {}", wish.learner, other));
    return {};
  }
  void Release(const ShareWish& wish) {
    const auto found = deals.find({wish.location, wish.project});
    if (found == deals.end()) return;
    found->second.parts.erase(wish.learner);
    if (found->second.parts.empty()) deals.erase(found);
  }
  std::vector<std::string> overlaps;  // of rows, between learners that run
};

class FakePeers final : public Peers {
 public:
  FakePeers(Rounds& rounds, Mlflow& mlflow, Data& data, Life& life, std::string folder)
      : rounds_(rounds), mlflow_(mlflow), data_(data), life_(life), folder_(std::move(folder)) {}

  Result<Checkout> Fetch(const Sla&, const std::string& commit, const std::string&,
                         std::stop_token) override {
    return Live(life_, [&]() -> Result<Checkout> {
      UMBEL_TRY(Status(rounds_.fetch));
      const std::string source = folder_ + "/source";
      UMBEL_TRY(MakeDirectories(source));
      return Checkout{commit.empty() ? std::string(40, 'a') : commit, source};
    });
  }
  Result<TrainingRun> Begin(const std::string&, const TrainingWish& wish,
                            std::stop_token) override {
    return Live(life_, [&]() -> Result<TrainingRun> {
      UMBEL_CHECK(std::filesystem::exists(wish.fab));
      for (Rounds::Run& run : rounds_.runs) run.stopped = true;
      Rounds::Run run;
      run.id = 100 + rounds_.runs.size();
      uint64_t sequence = 0;
      for (uint32_t round = 1; round <= wish.rounds && rounds_.failure.empty(); ++round) {
        const double at = 1000.0 * round;
        RoundSeen train{++sequence, round, "train", at, 5, 2, 2, 100, {{"loss", 3}}, {}, ""};
        RoundSeen evaluate = train;
        evaluate.sequence = ++sequence;
        evaluate.kind = "evaluate";
        evaluate.at = at + 10;
        const size_t i = (round - 1) % rounds_.accuracies.size();
        evaluate.metrics = {{"accuracy", rounds_.accuracies[i]}, {"loss", rounds_.losses[i]}};
        run.records.push_back(train);
        run.records.push_back(evaluate);
      }
      RoundSeen end;
      end.sequence = ++sequence;
      end.kind = "end";
      end.outcome = rounds_.failure.empty() ? "completed" : "failed: " + rounds_.failure;
      run.records.push_back(end);
      rounds_.runs.push_back(run);
      return TrainingRun{run.id, "token"};
    });
  }
  Status SendModel(const std::string&, const TrainingRun& run, const std::string& npz, double,
                   std::stop_token) override {
    return Live(life_, [&]() -> Status {
      UMBEL_CHECK(std::filesystem::exists(npz));
      Find(run.id)->begun = true;
      return {};
    });
  }
  Result<Seen> Watch(const std::string&, uint64_t id, uint64_t after, std::stop_token) override {
    return Live(life_, [&]() -> Result<Seen> {
      const Rounds::Run* run = Find(id);
      UMBEL_CHECK(run && run->begun && !run->stopped);
      Seen seen;
      for (size_t i = 0; i < run->records.size() && i < rounds_.visible; ++i)
        if (run->records[i].sequence > after && seen.records.size() < 2)
          seen.records.push_back(run->records[i]);
      if (!seen.records.empty()) return seen;
      if (rounds_.visible < run->records.size()) return Fail(Code::kUnavailable, "not yet");
      seen.finished = true;
      seen.well = rounds_.failure.empty();
      seen.outcome = rounds_.failure;
      return seen;
    });
  }
  Result<uint32_t> WaitForNodes(const std::string&, uint32_t count, std::stop_token) override {
    return Live(life_, [&]() -> Result<uint32_t> {
      if (rounds_.online < count) return Fail(Code::kUnavailable, "not yet");
      return rounds_.online;
    });
  }
  Status SaveModel(const std::string&, uint64_t, uint32_t round, const std::string& npz,
                   std::stop_token) override {
    return Live(life_, [&] { return WriteFileAtomic(npz, std::to_string(round)); });
  }
  Result<uint64_t> Share(const ShareWish& wish, std::stop_token) override {
    return Live(life_, [&]() -> Result<uint64_t> {
      UMBEL_TRY(data_.Assign(wish));
      return uint64_t{100};
    });
  }
  Status Unshare(const ShareWish& wish, std::stop_token) override {
    return Live(life_, [&]() -> Status {
      data_.Release(wish);
      return {};
    });
  }
  Status WaitHealthy(const std::string&, std::chrono::seconds, std::stop_token) override {
    return Live(life_, [] { return Status(); });
  }
  Result<std::unique_ptr<tracking::Tracker>> OpenTracker(
      const tracking::Tracker::Options&) override {
    return std::make_unique<FakeTracker>(mlflow_, life_);
  }
  Result<std::string> MakeMlflow(const std::string&, std::stop_token) override {
    return Live(life_, [] { return Result<std::string>("/mlflow/bin/python"); });
  }

 private:
  Rounds::Run* Find(uint64_t id) {
    for (Rounds::Run& run : rounds_.runs)
      if (run.id == id) return &run;
    return nullptr;
  }

  Rounds& rounds_;
  Mlflow& mlflow_;
  Data& data_;
  Life& life_;
  const std::string folder_;
};

/// Time that passes for everybody, and the machine's clock, which somebody may set.
struct Times {
  FakeClock wall;
  FakeClock timer{WallTime(std::chrono::seconds(1000))};

  void Advance(Micros by) {
    wall.Advance(by);
    timer.Advance(by);
  }
  void Jump(Micros by) { wall.Advance(by); }
};

class World {
 public:
  explicit World(std::vector<orchestrator::Node> nodes = FakeGround::DefaultNodes())
      : ground_(clock_.wall, std::move(nodes)) {
    options_.state = dir_.path();
    options_.program = "/bin/umbel";
    options_.python = "/bin/python";
    options_.flops = "/flops";
    // Not 7027: real ones may run on this machine.
    options_.tracking_port = 37027;
    options_.aggregator_port = 38080;
    options_.serving_port = 39080;
    options_.data_port = 40027;
    ground_.set_program(
        [this](FakeGround& ground, const InstanceSpec& spec) { RunProgram(ground, spec); });
    Restart();
  }

  /// A new process on what the last one left.
  void Restart() {
    reconciler_.reset();
    jobs_.reset();
    store_.reset();
    auto opened = Store::Open(dir_.path() + "/manager.db");
    UMBEL_CHECK(opened.ok());
    store_ = std::move(*opened);
    store_->alive = [this] { return life_.Next().done; };
    peers_ = std::make_unique<FakePeers>(rounds, mlflow, data, life_, dir_.path());
    jobs_ = std::make_unique<Jobs>([] {}, true);
    dying_ = std::make_unique<DyingGround>(ground_, life_);
    reconciler_ = std::make_unique<Reconciler>(
        Reconciler::Parts{options_, *store_, *dying_, *peers_, *jobs_, clock_.wall, clock_.timer,
                          rng_, ids_, nullptr});
    static_cast<void>(reconciler_->Begin());
  }

  std::string Submit(const std::string& changes = "{}") {
    auto document = nlohmann::json::parse(R"({"customerID": "Admin", "ml_repo_url": "/repo",
      "ml_model_flavor": "sklearn", "training_configuration": {"training_rounds": 3,
      "min_available_clients": 2, "min_fit_clients": 2, "min_evaluate_clients": 2}})");
    document.merge_patch(nlohmann::json::parse(changes));
    const auto sla = ParseSla(document.dump());
    UMBEL_CHECK(sla.ok());
    Project project;
    project.id = ids_.Next();
    project.customer = sla->customer;
    project.sla = ToJson(*sla);
    project.app_id = ids_.Next();
    project.app_name = "proj" + ShortHash(project.id);
    project.stage_since = clock_.wall.Now();
    UMBEL_CHECK(
        store_
            ->Write([&](Connection& db) -> Status {
              UMBEL_TRY(InsertProject(db, project));
              return InsertApp(db, {project.app_id, project.app_name, "proj", "Admin", project.id});
            })
            .ok());
    return project.id;
  }

  /// Until nothing moves; a killed manager is followed by another.
  void Settle() {
    for (int i = 0; i < 1000; ++i) {
      const auto next = reconciler_->Pass();
      if (next.ok() && !life_.dead()) {
        if (!*next || **next > clock_.timer.Now()) return;
        continue;
      }
      UMBEL_CHECK(life_.dead());
      OnDeath();
      Restart();
    }
    UMBEL_CHECK(false && "it never settles");
  }
  std::function<void()> on_death = [] {};
  void OnDeath() {
    life_.LiveOn();
    on_death();
  }

  void Want(const std::string& id, Wanted wanted) {
    UMBEL_CHECK(store_
                    ->Write([&](Connection& db) -> Status {
                      UMBEL_ASSIGN(auto project, FindProject(db, id));
                      project->wanted = wanted;
                      return UpdateProject(db, *project);
                    })
                    .ok());
  }
  std::optional<Project> Find(const std::string& id) {
    return *store_->Read([&](Connection& db) { return FindProject(db, id); });
  }
  std::string Words(const std::string& id) {
    return *store_->Read([&](Connection& db) { return ReadWords(db, id, 0, 1 << 20); });
  }
  std::vector<std::string> Timeline(const std::string& id) {
    std::vector<std::string> texts;
    const auto entries = store_->Read([&](Connection& db) { return ListEntries(db, id, 0, 1000); });
    for (const Entry& entry : *entries) texts.push_back(entry.text);
    return texts;
  }
  /// Names of what is on the ground, without the hash and number.
  std::vector<std::string> OnGround() {
    std::vector<std::string> names;
    for (const auto& status : ground_.List())
      names.push_back(status.name.substr(0, status.name.find('.') - 12));
    return names;
  }

  FakeGround& ground() { return ground_; }
  Times& clock() { return clock_; }
  Life& life() { return life_; }
  Store& store() { return *store_; }
  Options& options() { return options_; }
  /// Learner nodes have data servers.
  void ServeData() {
    options_.dataserver = "/bin/umbel-dataserver";
    options_.sockets = dir_.path() + "/sockets";
    Restart();
  }

  Rounds rounds;
  Mlflow mlflow;
  Data data;
  std::map<std::string, int> logged;          // MLflow's run -> models in it
  std::map<std::string, std::string> errors;  // step -> what it fails with
  bool passing = false;                       // another time it may go better
  std::map<std::string, int> killed;          // step -> how often somebody ends it
  bool hang = false;                          // Python steps do not end

 private:
  static std::string After(const InstanceSpec& spec, const std::string& flag) {
    for (size_t i = 0; i + 1 < spec.arguments.size(); ++i)
      if (spec.arguments[i] == flag) return spec.arguments[i + 1];
    return "";
  }
  static void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
  }

  void RunProgram(FakeGround& ground, const InstanceSpec& spec) {
    data.read.erase(spec.name);  // a new process has read nothing
    if (spec.arguments.size() < 4 || spec.arguments[2] != "umbel.flops" || hang) return;
    const std::string step = spec.arguments[3];
    nlohmann::json result = nlohmann::json::object();
    if (killed[step] > 0) {
      --killed[step];
      ground.End(spec.name, 137, "ended by signal 9 (Killed)");
      return;
    }
    if (errors.contains(step)) {
      Write(After(spec, "--out"),
            nlohmann::json{{"error", errors[step]}, {"passes", passing}}.dump());
      ground.End(spec.name, 1);
      return;
    }
    if (step == "build") {
      const std::string folder = After(spec, "--environments") + "/e";
      Write(folder + "/python", "");
      Write(folder + "/app.fab", "");
      result = {{"python", folder + "/python"},
                {"fab", folder + "/app.fab"},
                {"key", "k"},
                {"cached", false}};
    } else if (step == "initial") {
      Write(After(spec, "--model"), "m");
    } else if (step == "log") {
      logged[After(spec, "--run-id")] = 1;
      result = {{"model_id", "m-1"}, {"model_uri", "models:/m-1"}, {"version", 1}};
    }
    Write(After(spec, "--out"), result.dump());
    ground.End(spec.name, 0);
  }

  umbel::testing::TempDir dir_;
  Times clock_;
  SeededRng rng_{7};
  ObjectIds ids_{clock_.wall, rng_};
  Options options_;
  Life life_;
  FakeGround ground_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<FakePeers> peers_;
  std::unique_ptr<Jobs> jobs_;
  std::unique_ptr<DyingGround> dying_;
  std::unique_ptr<Reconciler> reconciler_;
};

}  // namespace umbel::manager::testing
