// Rounds: begun once, watched to their end, told to the timeline, the observer and MLflow.
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "manager/reconciler.h"

namespace umbel::manager {
namespace {

using nlohmann::json;

constexpr uint32_t kNoLimit = ~0u;
constexpr std::chrono::minutes kStallBeyondRound{10};

std::string KeyOf(const Project& project, uint32_t round) {
  return fmt::format("{}/{}/{}", project.id, project.runs, round);
}

std::optional<double> MetricOf(const RoundSeen& record, const char* key) {
  const auto found = record.metrics.find(key);
  if (found == record.metrics.end() || std::isnan(found->second)) return std::nullopt;
  return found->second;
}

std::string Show(const std::optional<double>& value) {
  return value ? fmt::format("{:.4g}", *value) : "not measured";
}

void ForgetRun(Project& project) {
  project.run_id = 0;
  project.run_token.clear();
  project.run_begun = project.run_finished = false;
  project.watched = 0;
  project.best_round = 0;
  project.best_accuracy = project.best_loss = 0;
  project.best_model.clear();
}

tracking::RunStart StartOf(const Project& project, const Sla& sla, const Round& round) {
  tracking::RunStart start;
  start.id = KeyOf(project, round.round);
  start.experiment = "FLOps Project " + project.id;
  start.name = fmt::format("FLOps FL round {}", round.round);
  start.started_at = FromUnixSeconds(round.began_at);
  start.params = {{"min_available_clients", std::to_string(sla.min_available)},
                  {"min_fit_clients", std::to_string(sla.min_fit)},
                  {"min_evaluate_clients", std::to_string(sla.min_evaluate)},
                  {"fraction_fit", "1.0"},
                  {"fraction_evaluate", "1.0"},
                  {"strategy", "FedAvg"},
                  {"training_rounds", std::to_string(sla.rounds)}};
  start.tags = {{"flops_project_id", project.id},          {"ml_repo_url", sla.repository},
                {"ml_repo_commit", project.commit},        {"ml_model_flavor", sla.flavor},
                {"aggregator_type", "CLASSIC_AGGREGATOR"}, {"round", std::to_string(round.round)}};
  return start;
}

/// The run of one record, as MLflow is to see it. Safe to tell again: same run, same values, same
/// times.
Status TellTracker(tracking::Tracker& tracker, const Project& project, const Sla& sla,
                   const RoundSeen& record, const Round& round,
                   std::vector<tracking::Metric> metrics) {
  const std::string key = KeyOf(project, round.round);
  const WallTime at = FromUnixSeconds(record.at);
  const auto add = [&](const std::string& name, double value) {
    metrics.push_back({name, value, at, round.round});
  };
  UMBEL_TRY(tracker.Begin(StartOf(project, sla, round)));
  if (record.kind == "train") {
    add("train_seconds", record.seconds);
    add("train_clients", record.accepted);
    add("received_bytes", static_cast<double>(record.bytes));
  } else {
    add("evaluate_seconds", record.seconds);
    add("evaluate_clients", record.accepted);
  }
  for (const auto& [name, value] : record.metrics) {
    const bool plain = record.kind == "evaluate" || name.starts_with("train");
    add(plain ? name : "train_" + name, value);
  }
  UMBEL_TRY(tracker.Log(key, metrics));
  return record.kind == "evaluate" ? tracker.End(key, "FINISHED", at) : Status();
}

}  // namespace

Result<tracking::Tracker*> Reconciler::TrackerOf(const std::string& customer) {
  if (const auto found = trackers_.find(customer); found != trackers_.end())
    return found->second.get();
  const Service* service = FindTracking(customer);
  if (!service) return Fail(Code::kAborted, "its tracking server is not there yet");
  const std::string folder = FolderOfTracking(p_.options, customer);
  UMBEL_TRY(MakeDirectories(folder));
  tracking::Tracker::Options options;
  options.url = TrackingUrl(*service);
  options.spool = folder + "/spool.db";
  options.user = customer;
  UMBEL_ASSIGN(auto tracker, p_.peers.OpenTracker(options));
  tracker->Watch(p_.waker);
  return (trackers_[customer] = std::move(tracker)).get();
}

std::vector<tracking::Metric> Reconciler::SampleAggregator(const Project& project, WallTime at,
                                                           uint32_t round) {
  const std::string folder = FolderOf(p_.options, project.id) + "/aggregator";
  auto found = samplers_.find(project.id);
  if (found == samplers_.end()) {
    // Where aggregator and manager share a machine, its lock says which process it is.
    const auto owner = ReadFile(folder + "/lock", 100);
    const int pid = owner.ok() ? std::atoi(owner->c_str()) : 0;
    if (pid <= 0) return {};
    found =
        samplers_.emplace(project.id, tracking::ProcessMetrics({static_cast<pid_t>(pid)}, folder))
            .first;
  }
  return found->second.Sample(at, round);
}

Status Reconciler::EndRounds(const Project& project, const std::string& status) {
  UMBEL_ASSIGN(const std::vector<Round> rounds, p_.store.Read([&](Connection& db) {
    return ListRounds(db, project.id, project.runs);
  }));
  for (const Round& round : rounds) {
    if (round.ended_at > 0 || !FindTracking(project.customer)) continue;
    UMBEL_ASSIGN(tracking::Tracker* const tracker, TrackerOf(project.customer));
    const Status ended = tracker->End(KeyOf(project, round.round), status, Now());
    if (!ended.ok() && ended.error().code != Code::kNotFound) return ended;
  }
  return {};
}

Reconciler::Moved Reconciler::StepTrain(Project& project, const Sla& sla) {
  if (project.run_finished) return Advance(project, Event::kRunFinished);
  Actors actors;
  UMBEL_ASSIGN(const bool moved, EnsureActors(project, sla, sla.min_available, &actors));
  if (moved) return true;
  UMBEL_ASSIGN(const bool failed, CheckActors(project));
  if (failed) return true;
  const auto stall = p_.options.limits.round + kStallBeyondRound;
  if (Overdue(project, stall, heard_[project.id]))
    return FailProject(project, fmt::format("nothing came of the rounds for {} s ({})",
                                            stall.count(), project.waiting));
  if (actors.address.empty()) return Wait(project, actors.why);
  bool shared = false;  // those who have moved connect when it is so again
  UMBEL_ASSIGN(const bool told_share, EnsureShares(project, sla, &shared));
  if (told_share) return true;
  auto& peers = p_.peers;
  const std::string jobs = "project/" + project.id + "/";
  if (project.run_id == 0) {
    const json facts = json::parse(project.environment, nullptr, false);
    TrainingWish wish;
    wish.fab = facts.is_object() ? facts.value("fab", "") : "";
    wish.rounds = sla.rounds;
    wish.min_available = sla.min_available;
    wish.min_fit = sla.min_fit;
    wish.min_evaluate = sla.min_evaluate;
    wish.round_timeout = static_cast<double>(p_.options.limits.round.count());
    const auto run = Attempt<TrainingRun>(
        jobs + "begin",
        [&peers, address = actors.address, wish](std::stop_token stop) {
          return peers.Begin(address, wish, stop);
        },
        p_.options.limits.retries);
    if (!run) return Wait(project, "for the run to begin");
    if (!run->ok()) return FailProject(project, run->error().message);
    project.run_id = (*run)->id;
    project.run_token = (*run)->token;
    project.run_asked_at = UnixSeconds(Now());
    ++project.runs;
    return Save(project, {});
  }
  if (!project.run_begun) {
    const TrainingRun run{project.run_id, project.run_token};
    const std::function<Result<bool>(std::stop_token)> work =
        [&peers, address = actors.address, run, model = project.initial,
         at = project.run_asked_at](std::stop_token stop) -> Result<bool> {
      UMBEL_TRY(peers.SendModel(address, run, model, at, stop));
      return true;
    };
    const auto sent = Attempt<bool>(jobs + "send", work, p_.options.limits.retries);
    if (!sent) return Wait(project, "for the initial model to be taken");
    if (!sent->ok()) {
      ForgetRun(project);
      return FailProject(project, sent->error().message);
    }
    project.run_begun = true;
    return Save(project, {});
  }
  const auto seen = Attempt<Seen>(
      jobs + "watch",
      [&peers, address = actors.address, run = project.run_id, after = project.watched](
          std::stop_token stop) { return peers.Watch(address, run, after, stop); },
      kNoLimit);
  if (!seen) {
    const std::string why = WhoHasNoRoom(project);
    return Wait(
        project,
        why.empty() ? fmt::format("for round {} of {}", project.watched / 2 + 1, sla.rounds) : why);
  }
  if (!seen->ok()) {
    ForgetRun(project);
    return FailProject(project, (*seen).error().message);
  }
  if (!(*seen)->records.empty()) return TakeRecords(project, sla, **seen);
  if ((*seen)->finished) return FinishRun(project, **seen);
  LookAgainAt(Timer());
  return false;
}

Reconciler::Moved Reconciler::TakeRecords(Project& project, const Sla& sla, const Seen& seen) {
  UMBEL_ASSIGN(tracking::Tracker* const tracker, TrackerOf(project.customer));
  Told told;
  std::map<uint32_t, Round> rounds;
  for (const RoundSeen& record : seen.records) {
    if (record.sequence <= project.watched) continue;
    project.watched = record.sequence;
    if (record.kind == "end") {
      told.words += record.outcome + "\n";
      continue;
    }
    if (!rounds.contains(record.round)) {
      UMBEL_ASSIGN(const auto known, p_.store.Read([&](Connection& db) {
        return FindRound(db, project.id, project.runs, record.round);
      }));
      rounds[record.round] = known.value_or(Round{});
    }
    Round& round = rounds[record.round];
    round.run = project.runs;
    round.round = record.round;
    round.bytes += record.bytes;
    if (round.began_at == 0) round.began_at = record.at - record.seconds;
    for (const NodeTrouble& trouble : record.troubles)
      told.entries.push_back(
          Say(project, Level::kWarn,
              fmt::format("round {} {}: node {} {}{}{}", record.round, record.kind, trouble.node,
                          trouble.outcome, trouble.detail.empty() ? "" : ": ", trouble.detail)));
    if (record.kind == "train") {
      round.trained = record.accepted;
    } else {
      round.evaluated = record.accepted;
      round.ended_at = record.at;
      round.accuracy = MetricOf(record, "accuracy");
      round.loss = MetricOf(record, "loss");
      if (IsBetter(round, project)) {
        project.best_round = round.round;
        project.best_accuracy = *round.accuracy;
        project.best_loss = round.loss.value_or(std::nan(""));
      }
      const std::string line = fmt::format(
          "round {} of {}: accuracy {}, loss {}, {} learners, {:.1f} s", round.round, sla.rounds,
          Show(round.accuracy), Show(round.loss), round.trained, round.ended_at - round.began_at);
      told.entries.push_back(Say(project, Level::kInfo, line));
      told.words += line + "\n";
    }
    // Before the commit: what is told twice is the same, what is never told would be lost.
    UMBEL_TRY(TellTracker(*tracker, project, sla, record, round,
                          SampleAggregator(project, FromUnixSeconds(record.at), record.round)));
  }
  heard_[project.id] = Timer();
  project.waiting.clear();
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    UMBEL_ASSIGN(const auto now, FindProject(db, project.id));
    if (!now) return Fail(Code::kAborted, "the project is gone");
    Project row = project;
    row.wanted = now->wanted;
    UMBEL_TRY(UpdateProject(db, row));
    for (const auto& [number, round] : rounds) UMBEL_TRY(PutRound(db, project.id, round));
    for (const Entry& entry : told.entries) UMBEL_TRY(AddEntry(db, project.id, entry));
    return AddWords(db, project.id, told.words);
  }));
  return true;
}

Reconciler::Moved Reconciler::FinishRun(Project& project, const Seen& seen) {
  UMBEL_TRY(EndRounds(project, seen.well ? "FINISHED" : "FAILED"));
  std::string why;
  if (!seen.well) {
    const size_t end = seen.outcome.find_last_not_of('.') + 1;
    why = fmt::format(
        "the rounds ended without a model: {}. What learners said stands above and "
        "in the log of their service",
        seen.outcome.substr(0, end));
  } else if (project.best_round == 0) {
    UMBEL_ASSIGN(const auto trouble, p_.store.Read([&](Connection& db) {
      return LastEntry(db, project.id, Stage::kTrain, Level::kWarn);
    }));
    why = fmt::format(
        "no round has an accuracy that is a number: evaluate_model() has to return (loss, "
        "accuracy, n){}{}",
        trouble ? "; " : "", trouble.value_or(""));
  }
  if (!why.empty()) {
    ForgetRun(project);
    return FailProject(project, why);
  }
  project.run_finished = true;
  return Advance(project, Event::kRunFinished);
}

}  // namespace umbel::manager
