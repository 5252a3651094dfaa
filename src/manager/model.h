// What the manager knows: projects that move through stages, services with instances, a timeline in
// words. Values and tables; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "orchestrator/ground.h"

namespace umbel::manager {

enum class Stage {
  kPrepare,  // the repository at its commit
  kBuild,    // environment, FAB, initial model
  kDeploy,   // aggregator and learners
  kTrain,    // rounds
  kRecord,   // the best model goes to the tracking server
  kServe,    // it answers, if that was asked for
  kDone,
  kFailed,
  kCancelled,
};

enum class Event {
  kCommitKnown,
  kBuilt,
  kNodesReady,
  kRunFinished,
  kModelLogged,
  kServed,
  kFail,
  kCancel,
  kResume,
};

struct Transition {
  Stage from;
  Event event;
  Stage to;
};

/// A project that is taken up again goes through all stages; each sees what is there already.
inline constexpr Transition kStageTransitions[] = {
    {Stage::kPrepare, Event::kCommitKnown, Stage::kBuild},
    {Stage::kBuild, Event::kBuilt, Stage::kDeploy},
    {Stage::kDeploy, Event::kNodesReady, Stage::kTrain},
    {Stage::kTrain, Event::kRunFinished, Stage::kRecord},
    {Stage::kRecord, Event::kModelLogged, Stage::kServe},
    {Stage::kServe, Event::kServed, Stage::kDone},
    {Stage::kFailed, Event::kResume, Stage::kPrepare},
    {Stage::kCancelled, Event::kResume, Stage::kPrepare},
};  // from any live stage: kFail, kCancel

constexpr bool IsLive(Stage stage) { return stage < Stage::kDone; }

constexpr std::optional<Stage> Next(Stage from, Event event) {
  if (IsLive(from) && event == Event::kFail) return Stage::kFailed;
  if (IsLive(from) && event == Event::kCancel) return Stage::kCancelled;
  for (const Transition& row : kStageTransitions)
    if (row.from == from && row.event == event) return row.to;
  return std::nullopt;
}

constexpr std::string_view Name(Stage stage) {
  constexpr std::string_view kNames[] = {"prepare", "build", "deploy", "train",    "record",
                                         "serve",   "done",  "failed", "cancelled"};
  return kNames[static_cast<size_t>(stage)];
}

/// What its owner wants of a project.
/// kResume becomes kRun once it has been taken up.
enum class Wanted { kRun, kStop, kDelete, kResume };

/// As they are stored: new ones at the end.
enum class Kind {
  kObserver,
  kTracking,
  kBuilder,
  kModel,
  kAggregator,
  kLearner,
  kServing,
  kData,  // of a node
  kMock,
};

/// Names and namespaces as FLOps has them.
struct KindNames {
  Kind kind;
  std::string_view prefix;
  std::string_view space;
  bool one_shot;
};
inline constexpr KindNames kKinds[] = {
    {Kind::kObserver, "observ", "observ", false},  {Kind::kTracking, "tracking", "tracking", false},
    {Kind::kBuilder, "builder", "builder", true},  {Kind::kModel, "aggrmodel", "aggr", true},
    {Kind::kAggregator, "aggr", "aggr", false},    {Kind::kLearner, "flearner", "flearner", false},
    {Kind::kServing, "trmodel", "trmodel", false}, {Kind::kData, "mldata", "mldata", false},
    {Kind::kMock, "mockdp", "mockdp", true},
};
constexpr const KindNames& NamesOf(Kind kind) { return kKinds[static_cast<size_t>(kind)]; }

struct Project {
  std::string id;         // 24 hexadecimal digits
  uint64_t sequence = 0;  // order of submission
  std::string customer;
  std::string sla;  // as JSON, without secrets
  std::string app_id;
  std::string app_name;  // "proj" and twelve digits
  Stage stage = Stage::kPrepare;
  Wanted wanted = Wanted::kRun;
  WallTime created_at{};
  WallTime stage_since{};
  WallTime ended_at{};
  std::string waiting;  // what for, now; "": for nothing
  std::string failure;

  // What is known so far. "" and 0: not yet.
  std::string commit;
  std::string source;       // folder of the repository at that commit
  std::string environment;  // JSON of the builder
  std::string initial;      // .npz
  uint64_t run_id = 0;
  std::string run_token;
  double run_asked_at = 0;  // seconds since 1970: part of the initial model's message
  bool run_begun = false;   // it has its initial model
  bool run_finished = false;
  uint64_t watched = 0;  // sequence of the last round record
  uint32_t best_round = 0;
  double best_accuracy = 0;
  double best_loss = 0;
  std::string best_model;  // .npz
  std::string model;       // JSON of what logged it
  uint32_t runs = 0;       // how many were begun

  bool live() const { return IsLive(stage); }
};

struct App {
  std::string id;
  std::string name;
  std::string space;
  std::string customer;
  std::string project;  // "": of a customer
};

struct Service {
  std::string id;
  Kind kind = Kind::kObserver;
  std::string name;
  std::string app_id;
  std::string project;  // "": of a customer
  std::string customer;
  uint16_t port = 0;
  WallTime created_at{};
  bool gone = false;  // removed; its log is kept until the project is deleted
};

struct Instance {
  std::string service_id;
  uint32_t number = 0;
  std::string name;  // of the service, '.', number
  std::string spec;  // JSON
  bool wanted = true;
  orchestrator::InstanceState state = orchestrator::InstanceState::kWaiting;
  std::string node;
  std::string address;
  std::string detail;
  uint32_t starts = 0;
  WallTime since{};
  // A learner's part of the data: on which node, and among how many it was dealt there.
  std::string share_node;  // "": it has none
  uint32_t share_of = 0;
};

enum class Level { kInfo, kWarn, kError };

struct Entry {
  uint64_t sequence = 0;
  WallTime at{};
  Stage stage = Stage::kPrepare;
  Level level = Level::kInfo;
  std::string text;
};

struct Round {
  uint32_t run = 0;  // Project::runs at that time
  uint32_t round = 0;
  double began_at = 0;
  double ended_at = 0;
  std::optional<double> accuracy;  // nullopt: was not measured, or is no number
  std::optional<double> loss;
  uint32_t trained = 0;  // nodes whose update counts
  uint32_t evaluated = 0;
  uint64_t bytes = 0;
};

/// Whether a round is better than the best so far: by accuracy, ties by loss; what was not measured
/// never wins.
bool IsBetter(const Round& round, const Project& best);

}  // namespace umbel::manager
