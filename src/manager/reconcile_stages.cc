// What is next in each stage. Facts that are known are not asked for again: a project that is taken
// up anew passes through.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "manager/reconciler.h"
#include "orchestrator/placement.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::set<Kind> kAllButObserver = {Kind::kBuilder, Kind::kModel, Kind::kAggregator,
                                        Kind::kLearner, Kind::kServing};
const std::set<Kind> kActors = {Kind::kBuilder, Kind::kModel, Kind::kAggregator, Kind::kLearner};

constexpr std::chrono::seconds kAnswerLimit{60};
constexpr uint32_t kNoLimit = ~0u;  // of retries: a deadline ends it
constexpr uint32_t kStepRetries = 3;

std::string KeyOf(const Project& project, const std::string& step) {
  return fmt::format("project/{}/step/{}", project.id, step);
}

std::string Number(double value) {
  return std::isnan(value) ? "not measured" : fmt::format("{:.6g}", value);
}

bool Exists(const std::string& path) {
  std::error_code ignored;
  return !path.empty() && fs::exists(path, ignored);
}

}  // namespace

std::string Reconciler::TrackingUrl(const Service& service) {
  return fmt::format("http://127.0.0.1:{}", service.port);
}

Status Reconciler::Begin() { return Look(); }

Status Reconciler::Look() {
  return p_.store.Read([&](Connection& db) -> Status {
    UMBEL_ASSIGN(view_.projects, ListProjects(db));
    UMBEL_ASSIGN(view_.services, ListServices(db, false));
    UMBEL_ASSIGN(view_.instances, ListInstances(db));
    return {};
  });
}

Result<std::optional<WallTime>> Reconciler::Pass() {
  look_at_.reset();
  for (bool moved = true; moved;) {
    moved = false;
    view_.seen.clear();
    for (auto& status : p_.ground.List()) view_.seen.emplace(status.name, std::move(status));
    UMBEL_TRY(Look());
    for (const auto step :
         {&Reconciler::SyncInstances, &Reconciler::DropStrangers, &Reconciler::EnsureTracking,
          &Reconciler::DropMocks, &Reconciler::EnsureData, &Reconciler::DropEnvironments}) {
      const auto any = (this->*step)();
      // A name or a port was taken since this look.
      const bool stale = !any.ok() && any.error().code == Code::kAlreadyExists;
      if (!any.ok() && !stale) return Fail(any.error());
      if (!stale && !*any) continue;
      moved = true;
      break;
    }
    if (moved) continue;
    for (const Project& project : view_.projects) {
      auto any = StepProject(project);
      // Deleted meanwhile, or a name or a port was taken: look again.
      if (!any.ok() && any.error().code != Code::kAborted &&
          any.error().code != Code::kAlreadyExists)
        return Fail(any.error());
      moved = moved || !any.ok() || *any;
      if (moved) break;
    }
  }
  return look_at_;
}

Reconciler::Moved Reconciler::StepProject(Project project) {
  const bool stop = project.wanted == Wanted::kStop || project.wanted == Wanted::kDelete;
  if (stop && project.live()) {
    CancelJobs(project);
    Told told;
    told.entries.push_back(
        Say(project, Level::kInfo, "stopped: `umbel project resume` takes it up again"));
    told.words = "This FLOps Project was stopped.\n";
    return Advance(project, Event::kCancel, std::move(told));
  }
  if (project.wanted == Wanted::kDelete) {
    CancelJobs(project);
    return FinishDelete(project);
  }
  if (project.wanted == Wanted::kResume && !project.live()) return Resume(project);
  const auto sla = ParseSla(project.sla);
  if (!sla.ok()) return project.live() ? FailProject(project, sla.error().message) : Moved(false);
  switch (project.stage) {
    case Stage::kPrepare:
      return StepPrepare(project, *sla);
    case Stage::kBuild:
      return StepBuild(project, *sla);
    case Stage::kDeploy:
      return StepDeploy(project, *sla);
    case Stage::kTrain:
      return StepTrain(project, *sla);
    case Stage::kRecord:
      return StepRecord(project, *sla);
    case Stage::kServe:
      return StepServe(project, *sla);
    case Stage::kDone:
      return WantNothing(project, stop ? kAllButObserver : kActors);
    case Stage::kFailed:
    case Stage::kCancelled:
      return WantNothing(project, kAllButObserver);
  }
  return false;
}

Reconciler::Moved Reconciler::Resume(Project& project) {
  // Nothing of before may be left: it would be taken for what is about to be made.
  UMBEL_ASSIGN(const bool dropped, WantNothing(project, kAllButObserver));
  if (dropped) return true;
  for (const Service& service : view_.services)
    if (service.project == project.id && service.kind != Kind::kObserver) return false;
  project.failure.clear();
  project.ended_at = {};
  if (project.environment.empty()) project.commit.clear();  // perhaps a newer one is better
  return Advance(project, Event::kResume);
}

Reconciler::Moved Reconciler::StepPrepare(Project& project, const Sla& sla) {
  UMBEL_TRY(MakeDirectories(FolderOf(p_.options, project.id)));
  if (!project.commit.empty() && Exists(project.source))
    return Advance(project, Event::kCommitKnown);
  const std::string secret = p_.options.state + "/secrets/" + project.id;
  const std::string token = Exists(secret) ? secret : "";
  auto& peers = p_.peers;
  const auto got = Attempt<Checkout>(
      "project/" + project.id + "/fetch",
      [&peers, sla, commit = project.commit, token](std::stop_token stop) {
        return peers.Fetch(sla, commit, token, stop);
      },
      p_.options.limits.retries);
  if (got && !got->ok()) return FailProject(project, got->error().message);
  if (!got) {
    if (Overdue(project, p_.options.limits.prepare, {}))
      return FailProject(project, fmt::format("ml_repo_url: '{}' was not there after {} s",
                                              sla.repository, p_.options.limits.prepare.count()));
    return Wait(project, "for the repository");
  }
  project.commit = (*got)->commit;
  project.source = (*got)->folder;
  Told told;
  told.entries.push_back(Say(project, Level::kInfo,
                             fmt::format("{} is at commit {}", sla.repository, project.commit)));
  return Advance(project, Event::kCommitKnown, std::move(told));
}

Reconciler::StepEnd Reconciler::EndOfStep(const Project& project, const Service& service,
                                          uint32_t number, const std::string& step) {
  const Instance* instance = FindInstance(service, number);
  if (!instance || !instance->wanted ||
      (instance->state != InstanceState::kCompleted && instance->state != InstanceState::kFailed))
    return {};
  StepEnd end;
  end.done = true;
  const std::string path = ResultFile(p_.options, project.id, step);
  const auto text = ReadFile(path);
  const json result = text.ok() ? json::parse(*text, nullptr, false) : json();
  const auto error = result.is_object() ? result.find("error") : result.end();
  if (result.is_object() && error != result.end() && error->is_string()) {
    end.error = error->get<std::string>();
    end.passes = result.value("passes", false);
  } else if (instance->state == InstanceState::kFailed) {
    const std::string last = LastLines(instance->name);
    end.error = fmt::format("{}{}{}", instance->detail, last.empty() ? "" : ":\n", last);
    end.passes = true;  // it left no word of its own: somebody else ended it
  } else if (!result.is_object()) {
    end.error = fmt::format("it ended well and left no result in {}", path);
  } else {
    end.json = result.dump();
  }
  if (!end.error.empty())
    end.error = fmt::format("{} on {}: {}", instance->name,
                            instance->node.empty() ? "no node" : instance->node, end.error);
  else
    retries_.erase(KeyOf(project, step));
  return end;
}

Reconciler::Moved Reconciler::BeginStep(const Project& project, const std::string& step,
                                        const Service& service, const InstanceSpec& spec,
                                        uint32_t number, const std::string& words) {
  UMBEL_TRY(MakeDirectories(FolderOfStep(p_.options, project.id, step)));
  std::error_code ignored;  // of an earlier attempt
  fs::remove(ResultFile(p_.options, project.id, step), ignored);
  return EnsureInstance(service, spec, number, words);
}

bool Reconciler::MayStep(const Project& project, const std::string& step) {
  return MayTry(KeyOf(project, step));
}

Reconciler::Moved Reconciler::AfterFailure(Project& project, const Service& service,
                                           const std::string& step, const StepEnd& end) {
  const Error error{Code::kUnavailable, end.error, 0};
  if (!end.passes || !TryLater(KeyOf(project, step), error, kStepRetries))
    return FailProject(project,
                       (service.kind == Kind::kBuilder ? "Builder failed. " : "") + end.error);
  Told told;
  told.entries.push_back(Say(project, Level::kWarn, end.error + "; it is tried again"));
  UMBEL_TRY(Save(project, told));
  return WantNothing(project, {service.kind});
}

Reconciler::Moved Reconciler::StepBuild(Project& project, const Sla& sla) {
  const json facts = json::parse(project.environment, nullptr, false);
  if (!facts.is_object() || !Exists(facts.value("python", "")) || !Exists(facts.value("fab", ""))) {
    UMBEL_ASSIGN(const Service* const builder, EnsureService(project, Kind::kBuilder, 0));
    if (!builder) return true;
    if (!FindInstance(*builder, 0)) {
      if (SweepsEnvironments()) return Wait(project, "for old environments to be removed");
      if (!MayStep(project, "build")) return Wait(project, "to build the environment again");
      return BeginStep(project, "build", *builder, BuilderSpec(p_.options, project, sla, *builder),
                       0, sla.verbose ? "New Builder service created & deployed\n" : "");
    }
    const StepEnd end = EndOfStep(project, *builder, 0, "build");
    if (!end.done) {
      const Instance* instance = FindInstance(*builder, 0);
      if (const std::string why = WhoHasNoRoom(project); !why.empty()) return Wait(project, why);
      if (Overdue(project, p_.options.limits.build, SinceWhen(*instance)))
        return FailProject(project, fmt::format("{} on {} was not done after {} s", instance->name,
                                                instance->node, p_.options.limits.build.count()));
      return Wait(project, "for the environment");
    }
    if (!end.error.empty()) return AfterFailure(project, *builder, "build", end);
    project.environment = end.json;
    const json made = json::parse(end.json);
    Told told;
    told.entries.push_back(
        Say(project, Level::kInfo,
            fmt::format("environment {} {}", made.value("key", "").substr(0, 12),
                        made.value("cached", false) ? "was there already" : "is built")));
    if (made.value("cached", false))
      told.words = "Latest FLOps images already exists for the provided repo.\n";
    return Save(project, told);
  }
  if (!Exists(project.initial)) {
    UMBEL_ASSIGN(const bool dropped, WantNothing(project, {Kind::kBuilder}));
    if (dropped) return true;
    UMBEL_ASSIGN(const Service* const model, EnsureService(project, Kind::kModel, 0));
    if (!model) return true;
    if (!FindInstance(*model, 0)) {
      if (!MayStep(project, "initial")) return Wait(project, "to make the initial model again");
      return BeginStep(project, "initial", *model, InitialSpec(p_.options, project, sla, *model),
                       0);
    }
    const StepEnd end = EndOfStep(project, *model, 0, "initial");
    if (!end.done) {
      const Instance* instance = FindInstance(*model, 0);
      if (const std::string why = WhoHasNoRoom(project); !why.empty()) return Wait(project, why);
      if (Overdue(project, p_.options.limits.build, SinceWhen(*instance)))
        return FailProject(project,
                           fmt::format("{} on {} gave no initial model in {} s", instance->name,
                                       instance->node, p_.options.limits.build.count()));
      return Wait(project, "for the initial model");
    }
    if (!end.error.empty()) return AfterFailure(project, *model, "initial", end);
    project.initial = FolderOfStep(p_.options, project.id, "initial") + "/initial.npz";
    if (!Exists(project.initial))
      return FailProject(project, fmt::format("{}.0 left no model", model->name));
    return Save(project, {});
  }
  UMBEL_ASSIGN(const bool dropped, WantNothing(project, {Kind::kBuilder, Kind::kModel}));
  if (dropped) return true;
  return Advance(project, Event::kBuilt);
}

std::string Reconciler::WhyNoRoom(const Project& project, const Sla& sla) {
  // All learners of a project or none: two projects that have half of theirs would wait for each
  // other.
  std::vector<orchestrator::NodeLoad> loads;
  for (orchestrator::Node& node : p_.ground.Nodes()) loads.push_back({std::move(node), 0});
  Service any;
  any.kind = Kind::kLearner;
  const InstanceSpec learner = LearnerSpec(p_.options, project, sla, any, 0, "");
  const std::vector<const InstanceSpec*> gang(sla.min_available, &learner);
  const auto seats = orchestrator::Place(loads, gang);
  for (size_t i = 0; i < seats.size(); ++i)
    if (seats[i].node.empty())
      return fmt::format("for room for learner {} of {}: {}", i + 1, seats.size(), seats[i].why);
  return "";
}

Reconciler::Moved Reconciler::EnsureActors(Project& project, const Sla& sla, uint32_t learners,
                                           Actors* actors) {
  UMBEL_ASSIGN(const Service* const aggregator,
               EnsureService(project, Kind::kAggregator, p_.options.aggregator_port));
  if (!aggregator) return true;
  UMBEL_ASSIGN(const bool made,
               EnsureInstance(*aggregator, AggregatorSpec(p_.options, project, *aggregator), 0,
                              sla.verbose ? "Preparing new FL Aggregator.\n" : ""));
  if (made) return true;
  const Instance* instance = FindInstance(*aggregator, 0);
  if (instance->state != InstanceState::kRunning) {
    actors->why = fmt::format("for {}{}{}", instance->name, instance->detail.empty() ? "" : ": ",
                              instance->detail);
    return false;
  }
  const std::string where = fmt::format("{}:{}", instance->address, aggregator->port);
  const std::string healthy = fmt::format("{}#{}", instance->name, instance->starts);
  if (!healthy_.contains(healthy)) {
    auto& peers = p_.peers;
    const std::function<Result<bool>(std::stop_token)> work =
        [&peers, where](std::stop_token stop) -> Result<bool> {
      UMBEL_TRY(peers.WaitHealthy(fmt::format("http://{}/readyz", where), kAnswerLimit, stop));
      return true;
    };
    const auto ready =
        Attempt<bool>("project/" + project.id + "/ready", work, p_.options.limits.retries);
    if (ready && !ready->ok())
      return FailProject(project, fmt::format("{} on {} does not answer: {}", instance->name,
                                              instance->node, ready->error().message));
    if (ready) healthy_.insert(healthy);
    if (!ready) actors->why = fmt::format("for {} to answer", instance->name);
    return ready.has_value();
  }
  actors->address = where;
  if (learners == 0) return false;
  UMBEL_ASSIGN(const Service* const service, EnsureService(project, Kind::kLearner, 0));
  if (!service) return true;
  for (uint32_t i = 0; i < learners; ++i) {
    const InstanceSpec spec = LearnerSpec(p_.options, project, sla, *service, i, where);
    UMBEL_ASSIGN(const bool added, EnsureInstance(*service, spec, i));
    if (added) return true;
  }
  return false;
}

Reconciler::Moved Reconciler::CheckActors(Project& project) {
  for (const Kind kind : {Kind::kAggregator, Kind::kLearner}) {
    const Service* service = FindService(kind, project);
    if (!service) continue;
    for (const Instance* instance : InstancesOf(*service)) {
      // What was never started cannot be: its spec is refused.
      const bool hopeless = instance->starts == 0 || instance->starts >= p_.options.limits.starts;
      if (instance->state != InstanceState::kFailed || !hopeless) continue;
      const std::string last = LastLines(instance->name);
      return FailProject(
          project, fmt::format("{} on {} failed {} times: {}{}{}", instance->name,
                               instance->node.empty() ? "no node" : instance->node,
                               instance->starts, instance->detail, last.empty() ? "" : "\n", last));
    }
  }
  return false;
}

bool Reconciler::IsItsTurn(const Project& project) const {
  // One after the other: who came first takes its room first.
  for (const Project& other : view_.projects) {
    if (other.id == project.id || other.stage != Stage::kDeploy) continue;
    if (!FindService(Kind::kAggregator, other)) continue;
    const Service* learners = FindService(Kind::kLearner, other);
    if (!learners || InstancesOf(*learners).empty()) return false;
  }
  return true;
}

std::string Reconciler::WhoHasNoRoom(const Project& project) const {
  for (const Kind kind : {Kind::kBuilder, Kind::kModel, Kind::kAggregator, Kind::kLearner})
    if (const Service* service = FindService(kind, project))
      for (const Instance* instance : InstancesOf(*service))
        if (instance->state == InstanceState::kWaiting)
          return fmt::format("for room for {}: {}", instance->name, instance->detail);
  return "";
}

Reconciler::Moved Reconciler::StepDeploy(Project& project, const Sla& sla) {
  if (!FindService(Kind::kAggregator, project)) {
    if (!IsItsTurn(project)) return Wait(project, "for its turn");
    const std::string why = WhyNoRoom(project, sla);
    if (!why.empty()) return Wait(project, why);
  }
  Actors actors;
  UMBEL_ASSIGN(const bool moved, EnsureActors(project, sla, sla.min_available, &actors));
  if (moved) return true;
  UMBEL_ASSIGN(const bool failed, CheckActors(project));
  if (failed) return true;
  if (const std::string why = WhoHasNoRoom(project); !why.empty()) return Wait(project, why);
  WallTime since{};
  std::string last;
  for (const Kind kind : {Kind::kAggregator, Kind::kLearner}) {
    const Service* service = FindService(kind, project);
    if (!service) continue;
    for (const Instance* instance : InstancesOf(*service))
      since = std::max(since, SinceWhen(*instance));
  }
  if (Overdue(project, p_.options.limits.deploy, since)) {
    if (const Service* learners = FindService(Kind::kLearner, project))
      for (const Instance* instance : InstancesOf(*learners))
        last += fmt::format("\n{} on {}: {}", instance->name, instance->node,
                            LastLines(instance->name));
    return FailProject(project,
                       fmt::format("{} learners were not with their aggregator after {} s; their "
                                   "logs end with:{}",
                                   sla.min_available, p_.options.limits.deploy.count(), last));
  }
  if (actors.address.empty()) return Wait(project, actors.why);
  bool shared = false;
  UMBEL_ASSIGN(const bool told_share, EnsureShares(project, sla, &shared));
  if (told_share) return true;
  if (!shared) return Wait(project, "for the learners' data");
  auto& peers = p_.peers;
  const auto online = Attempt<uint32_t>(
      "project/" + project.id + "/nodes",
      [&peers, address = actors.address, count = sla.min_available](std::stop_token stop) {
        return peers.WaitForNodes(address, count, stop);
      },
      kNoLimit);
  if (online && !online->ok()) return FailProject(project, online->error().message);
  if (!online || **online < sla.min_available) {
    if (online) LookAgainAt(Timer());
    return Wait(project, fmt::format("for {} learners to connect", sla.min_available));
  }
  Told told;
  told.entries.push_back(Say(project, Level::kInfo,
                             fmt::format("{} learners are with {}", sla.min_available,
                                         FindService(Kind::kAggregator, project)->name)));
  const Service* tracking = FindTracking(project.customer);
  if (sla.verbose) told.words = "New FL Learners service created & deployed\n";
  told.words +=
      fmt::format("FL training starts: {} rounds, {} learners. Tracking: {}\n", sla.rounds,
                  sla.min_available, tracking ? TrackingUrl(*tracking) : "none");
  return Advance(project, Event::kNodesReady, std::move(told));
}

Reconciler::Moved Reconciler::StepRecord(Project& project, const Sla& sla) {
  UMBEL_ASSIGN(const bool dropped, WantNothing(project, {Kind::kLearner}));
  if (dropped) return true;
  if (Overdue(project, p_.options.limits.record, {}))
    return FailProject(
        project, fmt::format("the best model was not recorded after {} s ({}); its parameters are "
                             "in {}; `umbel project resume` tries again",
                             p_.options.limits.record.count(),
                             project.waiting.empty() ? "no reason known" : project.waiting,
                             project.best_model.empty() ? "the aggregator" : project.best_model));
  if (!Exists(project.best_model)) {
    Actors actors;
    UMBEL_ASSIGN(const bool moved, EnsureActors(project, sla, 0, &actors));
    if (moved) return true;
    UMBEL_ASSIGN(const bool failed, CheckActors(project));
    if (failed) return true;
    if (actors.address.empty()) return Wait(project, actors.why);
    const std::string path = FolderOf(p_.options, project.id) + "/best.npz";
    auto& peers = p_.peers;
    const std::function<Result<bool>(std::stop_token)> work =
        [&peers, address = actors.address, run = project.run_id, round = project.best_round,
         path](std::stop_token stop) -> Result<bool> {
      UMBEL_TRY(peers.SaveModel(address, run, round, path, stop));
      return true;
    };
    const auto saved =
        Attempt<bool>("project/" + project.id + "/save", work, p_.options.limits.retries);
    if (!saved) return Wait(project, "for the best model");
    if (!saved->ok()) return FailProject(project, saved->error().message);
    project.best_model = path;
    return Save(project, {});
  }
  UMBEL_ASSIGN(const bool undeployed, WantNothing(project, {Kind::kAggregator, Kind::kLearner}));
  if (undeployed) return true;
  const Service* tracking = FindTracking(project.customer);
  if (!tracking) return Wait(project, "for the tracking server");
  if (project.model.empty()) {
    UMBEL_ASSIGN(tracking::Tracker* const tracker, TrackerOf(project.customer));
    const std::string key = fmt::format("{}/{}/{}", project.id, project.runs, project.best_round);
    const auto run = tracker->RunIdOf(key);
    if (!run) {
      const std::string trouble = tracker->state().trouble;
      return Wait(project, fmt::format("for {} to take the rounds{}{}{}", tracking->name,
                                       trouble.empty() ? "" : ": ", trouble,
                                       mlflow_trouble_.empty() ? "" : "; " + mlflow_trouble_));
    }
    UMBEL_ASSIGN(const Service* const model, EnsureService(project, Kind::kModel, 0));
    if (!model) return true;
    if (!FindInstance(*model, 1)) {
      if (!MayStep(project, "log")) return Wait(project, "to log the model again");
      const LogWish wish{TrackingUrl(*tracking), tracking->port, *run};
      return BeginStep(project, "log", *model, LogSpec(p_.options, project, sla, *model, wish), 1);
    }
    const StepEnd end = EndOfStep(project, *model, 1, "log");
    if (!end.done) {
      const std::string why = WhoHasNoRoom(project);
      return Wait(project, why.empty() ? "for the model to be logged" : why);
    }
    if (!end.error.empty()) return AfterFailure(project, *model, "log", end);
    json facts = json::parse(end.json);
    facts["run_id"] = *run;
    facts["experiment_id"] = tracker->ExperimentIdOf(key).value_or("");
    project.model = facts.dump();
    return Save(project, {});
  }
  UMBEL_ASSIGN(const bool over, WantNothing(project, {Kind::kModel}));
  if (over) return true;
  for (const Service& service : view_.services)
    if (service.project == project.id && kActors.contains(service.kind)) return false;
  std::error_code ignored;  // what actors leave behind; all that is of worth is recorded
  for (const auto& entry : fs::directory_iterator(FolderOf(p_.options, project.id), ignored))
    if (entry.is_directory(ignored) && entry.path().filename() != "steps")
      fs::remove_all(entry.path(), ignored);
  const json model = json::parse(project.model);
  Told told;
  told.entries.push_back(
      Say(project, Level::kInfo,
          fmt::format("round {} is the best: accuracy {}, loss {}; its model is {}",
                      project.best_round, Number(project.best_accuracy), Number(project.best_loss),
                      model.value("model_uri", ""))));
  told.words = fmt::format(
      "Aggregator tasks completed successfully.\n"
      "accuracy: {}\nloss: {}\nround: {}\nexperiment_id: {}\nrun_id: {}\nmodel: {}\ntracking: {}\n",
      Number(project.best_accuracy), Number(project.best_loss), project.best_round,
      model.value("experiment_id", ""), model.value("run_id", ""), model.value("model_uri", ""),
      TrackingUrl(*tracking));
  if (!sla.build_image && !sla.serve) told.words += "No further post training steps requested.\n";
  return Advance(project, Event::kModelLogged, std::move(told));
}

Reconciler::Moved Reconciler::StepServe(Project& project, const Sla& sla) {
  if (!sla.serve) return Advance(project, Event::kServed);
  UMBEL_ASSIGN(const Service* const service,
               EnsureService(project, Kind::kServing, p_.options.serving_port));
  const Service* tracking = FindTracking(project.customer);
  if (!service || !tracking) return !service;
  UMBEL_TRY(MakeDirectories(FolderOfStep(p_.options, project.id, "serve")));
  UMBEL_ASSIGN(
      const bool made,
      EnsureInstance(*service, ServingSpec(p_.options, project, *service, TrackingUrl(*tracking)),
                     0));
  if (made) return true;
  const Instance* instance = FindInstance(*service, 0);
  if (Overdue(project, p_.options.limits.serve, {}) ||
      (instance->state == InstanceState::kFailed && instance->starts >= p_.options.limits.starts))
    return FailProject(project,
                       fmt::format("{} on {} does not serve the model: {}\n{}", instance->name,
                                   instance->node, instance->detail, LastLines(instance->name)));
  if (instance->state != InstanceState::kRunning)
    return Wait(project, fmt::format("for {}{}{}", instance->name,
                                     instance->detail.empty() ? "" : ": ", instance->detail));
  const std::string url = fmt::format("http://{}:{}", instance->address, service->port);
  auto& peers = p_.peers;
  const std::function<Result<bool>(std::stop_token)> work =
      [&peers, url](std::stop_token stop) -> Result<bool> {
    UMBEL_TRY(peers.WaitHealthy(url + "/ping", std::chrono::seconds(120), stop));
    return true;
  };
  const auto ready = Attempt<bool>("project/" + project.id + "/serve", work, kNoLimit);
  if (!ready) return Wait(project, fmt::format("for {} to answer", instance->name));
  if (!ready->ok()) return FailProject(project, ready->error().message);
  Told told;
  told.entries.push_back(
      Say(project, Level::kInfo,
          fmt::format("{} serves the model at {}/invocations", service->name, url)));
  told.words = fmt::format("The trained model is served at {}/invocations\n", url);
  return Advance(project, Event::kServed, std::move(told));
}

}  // namespace umbel::manager
