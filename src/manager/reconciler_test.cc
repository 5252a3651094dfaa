#include "manager/reconciler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "manager/world_testing.h"

namespace umbel::manager {
namespace {

using testing::FakeGround;
using testing::World;
using Names = std::vector<std::string>;

void ExpectHas(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in '" << text << "'";
}
std::string Joined(const Names& lines) {
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

void ExpectDone(World& world, const std::string& id) {
  const auto project = world.Find(id);
  ASSERT_TRUE(project);
  ASSERT_EQ(project->stage, Stage::kDone) << project->failure << " / " << project->waiting;
  EXPECT_EQ(project->best_round, 2u);
  EXPECT_EQ(project->runs, 1u);
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  ASSERT_EQ(world.logged.size(), 1u);
  EXPECT_EQ(world.logged.begin()->first, "mlflow-" + id + "/1/2");
  ASSERT_EQ(world.mlflow.runs.size(), 3u);
  for (const auto& [key, run] : world.mlflow.runs) {
    EXPECT_EQ(run.status, "FINISHED") << key;
    EXPECT_TRUE(run.metrics.contains("accuracy"));
    EXPECT_EQ(run.name, "FLOps FL round " + key.substr(key.size() - 1));
  }
}

TEST(Reconciler, TakesAProjectThroughAllStages) {
  World world;
  const std::string id = world.Submit(R"({"verbose": true})");
  world.Settle();
  ExpectDone(world, id);
  ExpectHas(world.Words(id), ("Aggregator tasks completed successfully.\n"
                              "accuracy: 0.8\nloss: 0.5\nround: 2\n"));
  ExpectHas(Joined(world.Timeline(id)), "2 learners are with aggr");
  for (const char* service : {"aggr", "flearner", "aggrmodel"})
    ExpectHas(Joined(world.Timeline(id)), service + ShortHash(id) + " is removed");
  const auto started = world.ground().Started();
  EXPECT_EQ(std::count_if(started.begin(), started.end(),
                          [](const auto& name) { return name.starts_with("flearner"); }),
            2);
}

TEST(Reconciler, LearnersGoOnlyWhereTheyMay) {
  World world;
  world.rounds.visible = 0;
  world.Submit();
  world.Settle();
  int learners = 0;
  for (const auto& status : world.ground().List()) {
    if (!status.name.starts_with("flearner")) continue;
    ++learners;
    EXPECT_NE(status.node, "node-0");
  }
  EXPECT_EQ(learners, 2);
}

TEST(Reconciler, ServesTheModelIfAsked) {
  World world;
  const std::string id = world.Submit(R"({"post_training_steps": ["deploy_trained_model_image"]})");
  world.Settle();
  ASSERT_EQ(world.Find(id)->stage, Stage::kDone);
  EXPECT_EQ(world.OnGround(), (Names{"tracking", "trmodel"}));
  world.Want(id, Wanted::kDelete);
  world.Settle();
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  EXPECT_FALSE(world.Find(id));
}

struct Words {
  const char* step;
  const char* error;
};
TEST(Reconciler, AFailedStepIsToldAndUndeployed) {
  for (const Words& words : {Words{"build", "model_manager.py has no class ModelManager"},
                             Words{"initial", "ModelManager() raised ValueError"},
                             Words{"log", "get_model() gave nothing MLflow knows"}}) {
    World world;
    world.errors[words.step] = words.error;
    const std::string id = world.Submit();
    world.Settle();
    const auto project = world.Find(id);
    EXPECT_EQ(project->stage, Stage::kFailed);
    ExpectHas(project->failure, (words.error));
    ExpectHas(project->failure, ("node-"));
    ExpectHas(world.Words(id), ("Terminating this FLOps Project."));
    EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
    world.errors.clear();
    world.Want(id, Wanted::kResume);
    world.Settle();
    ExpectDone(world, id);
  }
}

/// Time passes, and what waits for it goes on.
void SettleFor(World& world, int minutes) {
  for (int i = 0; i < minutes; ++i) {
    world.Settle();
    world.clock().Advance(std::chrono::minutes(1));
  }
  world.Settle();
}

TEST(Reconciler, NoDeadlineEndsByTheClocksBeingSet) {
  for (const std::chrono::hours by :
       {std::chrono::hours(24 * 365), std::chrono::hours(-24 * 365)}) {
    World world;
    world.rounds.online = 0;
    const std::string id = world.Submit();
    world.Settle();
    ASSERT_EQ(world.Find(id)->stage, Stage::kDeploy);
    world.clock().Jump(by);
    world.Settle();
    EXPECT_EQ(world.Find(id)->stage, Stage::kDeploy);
    // What is to be tried again is, and what is overdue is told, whatever the clock says.
    world.rounds.online = 100;
    world.rounds.visible = 1;
    SettleFor(world, 1);
    ASSERT_EQ(world.Find(id)->stage, Stage::kTrain);
    world.clock().Jump(-by);
    world.Settle();
    EXPECT_EQ(world.Find(id)->stage, Stage::kTrain);
    world.clock().Advance(world.options().limits.round + std::chrono::hours(1));
    world.Settle();
    EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
    ExpectHas(world.Find(id)->failure, "nothing came of the rounds");
  }
}

TEST(Reconciler, AStepThatSomebodyKillsIsTriedAgain) {
  for (const char* step : {"build", "initial", "log"}) {
    SCOPED_TRACE(step);
    World world;
    world.killed[step] = 2;
    const std::string id = world.Submit();
    SettleFor(world, 5);
    ExpectDone(world, id);
    ExpectHas(Joined(world.Timeline(id)), "(Killed); it is tried again");
  }
}

TEST(Reconciler, AStepThatIsKilledAgainAndAgainFailsInWords) {
  for (const char* step : {"build", "initial", "log"}) {
    SCOPED_TRACE(step);
    World world;
    world.killed[step] = 100;
    const std::string id = world.Submit();
    SettleFor(world, 20);
    EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
    ExpectHas(world.Find(id)->failure, "ended by signal 9 (Killed)");
    EXPECT_EQ(world.killed[step], 96);
    EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  }
}

TEST(Reconciler, ATrackingServerThatIsAwayDelaysTheModel) {
  World world;
  world.errors["log"] = "logging the model failed: nobody answers";
  world.passing = true;
  const std::string id = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kRecord);
  world.errors.clear();
  SettleFor(world, 2);
  ExpectDone(world, id);
}

TEST(Reconciler, ABadRepositoryEndsAtOnceAPassingTroubleIsTriedAgain) {
  World world;
  world.rounds.fetch = Fail(Code::kNotFound, "ml_repo_url: no such repository");
  const std::string bad = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(bad)->stage, Stage::kFailed);
  EXPECT_EQ(world.Find(bad)->failure, "ml_repo_url: no such repository");

  world.rounds.fetch = Fail(Code::kUnavailable, "cannot resolve host");
  const std::string slow = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(slow)->stage, Stage::kPrepare);
  world.rounds.fetch = Status();
  world.clock().Advance(std::chrono::seconds(2));
  world.Settle();
  EXPECT_EQ(world.Find(slow)->stage, Stage::kDone);

  world.rounds.fetch = Fail(Code::kUnavailable, "cannot resolve host");
  const std::string never = world.Submit();
  for (int i = 0; i < 10; ++i) {
    world.Settle();
    world.clock().Advance(std::chrono::minutes(1));
  }
  EXPECT_EQ(world.Find(never)->stage, Stage::kFailed);
}

TEST(Reconciler, NoPlaceIsAStatusNotAFailure) {
  auto nodes = FakeGround::DefaultNodes();
  for (auto& node : nodes) node.addons.clear();
  World world(nodes);
  const std::string id = world.Submit();
  world.Settle();
  world.clock().Advance(std::chrono::hours(100));
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kDeploy);
  ExpectHas(world.Find(id)->waiting, ("for room for learner 1 of 2"));
  ExpectHas(world.Find(id)->waiting, ("FLOps-learner"));
}

TEST(Reconciler, ALearnerWhoseNodeIsLostGoesToAnother) {
  World world;
  world.rounds.visible = 1;
  const std::string id = world.Submit();
  world.Settle();
  ASSERT_EQ(world.Find(id)->stage, Stage::kTrain);
  world.ground().SetUp("node-2", false);
  world.Settle();
  for (const auto& status : world.ground().List()) {
    if (!status.name.starts_with("flearner")) continue;
    EXPECT_EQ(status.node, "node-1");
  }
  // With the other one it has nowhere to go, and says so as long as that is so.
  world.ground().SetUp("node-1", false);
  SettleFor(world, 1);
  EXPECT_EQ(world.Find(id)->stage, Stage::kTrain);
  ExpectHas(world.Find(id)->waiting, "for room for flearner");
  ExpectHas(world.Find(id)->waiting, "node-1 is down");
  ExpectHas(world.Find(id)->waiting, "node-2 is down");
  world.ground().SetUp("node-1", true);
  world.rounds.visible = 100;
  SettleFor(world, 2);
  ExpectDone(world, id);
}

TEST(Reconciler, NodesThatStayLostEndTheRoundsInWords) {
  World world;
  world.rounds.visible = 1;
  const std::string id = world.Submit();
  world.Settle();
  for (const char* node : {"node-1", "node-2"}) world.ground().SetUp(node, false);
  SettleFor(world, 1);
  world.clock().Advance(world.options().limits.round + std::chrono::hours(1));
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
  ExpectHas(world.Find(id)->failure, "node-2 is down");
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
}

TEST(Reconciler, ProjectsTakeTurnsWhereThereIsLittleRoom) {
  auto nodes = FakeGround::DefaultNodes();
  for (auto& node : nodes) node.capacity = {1'500'000'000, 4000, uint64_t{1} << 40};
  World world(nodes);
  world.rounds.visible = 0;
  const std::string first = world.Submit();
  const std::string second = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(first)->stage, Stage::kTrain);
  EXPECT_EQ(world.Find(second)->stage, Stage::kDeploy);
  ExpectHas(world.Find(second)->waiting, ("for room"));
  world.rounds.visible = 100;
  for (int i = 0; i < 5; ++i) {
    world.clock().Advance(std::chrono::minutes(2));
    world.Settle();
  }
  EXPECT_EQ(world.Find(first)->stage, Stage::kDone);
  EXPECT_EQ(world.Find(second)->stage, Stage::kDone);
}

TEST(Reconciler, ALearnerThatCannotStayUpEndsTheProject) {
  World world;
  world.rounds.online = 0;
  const std::string id = world.Submit();
  world.Settle();
  const std::string learner = "flearner" + ShortHash(id) + ".1";
  world.ground().Print(learner, "ModuleNotFoundError: no module named x\n");
  for (uint32_t i = 0; i < world.options().limits.starts; ++i) {
    world.ground().End(learner, 1);
    world.Settle();
    if (i + 1 < world.options().limits.starts) world.ground().Restart(learner);
    world.Settle();
  }
  EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
  ExpectHas(world.Find(id)->failure, (learner + " on node-"));
  ExpectHas(world.Find(id)->failure, ("no module named x"));
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
}

TEST(Reconciler, LearnersThatNeverComeEndTheProjectInWords) {
  World world;
  world.rounds.online = 1;
  const std::string id = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kDeploy);
  world.clock().Advance(world.options().limits.deploy);
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
  ExpectHas(world.Find(id)->failure, ("2 learners were not with their aggregator"));
}

TEST(Reconciler, ARunThatFailsIsBegunAnewWhenTakenUp) {
  World world;
  world.rounds.failure = "fewer usable replies than 2";
  const std::string id = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
  ExpectHas(world.Find(id)->failure, ("fewer usable replies than 2"));
  world.rounds.failure.clear();
  world.Want(id, Wanted::kResume);
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kDone);
  EXPECT_EQ(world.Find(id)->runs, 2u);
}

TEST(Reconciler, WhatIsNoNumberIsNoModel) {
  World world;
  world.rounds.accuracies = {std::nan(""), std::nan(""), std::nan("")};
  const std::string id = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kFailed);
  ExpectHas(world.Find(id)->failure, ("evaluate_model()"));
  world.rounds.accuracies = {std::nan(""), 0.1, std::nan("")};
  world.Want(id, Wanted::kResume);
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kDone);
  EXPECT_EQ(world.Find(id)->best_round, 2u);
}

TEST(Reconciler, MlflowBeingDownOnlyDelaysTheEnd) {
  World world;
  world.mlflow.down = true;
  const std::string id = world.Submit();
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kRecord);
  ExpectHas(world.Find(id)->waiting, ("nobody answers"));
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  world.mlflow.down = false;
  world.Settle();
  ExpectDone(world, id);
}

TEST(Environments, ThatNobodyUsesAreRemovedAfterAWhile) {
  namespace fs = std::filesystem;
  World world;
  world.options().limits.build = std::chrono::hours(100);
  const std::string folder = world.options().state + "/environments/";
  const auto put = [&](const std::string& name, int days) {
    const std::string result = folder + name + "/umbel/result.json";
    fs::create_directories(fs::path(result).parent_path());
    std::ofstream(result) << "{}";
    fs::last_write_time(result, std::chrono::time_point_cast<fs::file_time_type::duration>(
                                    std::chrono::file_clock::from_sys(world.clock().wall.Now() -
                                                                      std::chrono::days(days))));
  };
  put("old", 31);
  put("young", 29);
  put("e", 31);  // what the builder of this world takes
  fs::create_directories(folder + "unfinished");
  fs::create_directories(folder + ".gone-before/lib");
  const std::string id = world.Submit();
  world.hang = true;
  world.rounds.visible = 3;
  world.Settle();  // the first look comes before the project's
  EXPECT_FALSE(fs::exists(folder + "old"));
  EXPECT_FALSE(fs::exists(folder + ".gone-before"));
  EXPECT_TRUE(fs::exists(folder + "young"));
  EXPECT_TRUE(fs::exists(folder + "unfinished"));
  put("old", 31);
  world.clock().Advance(std::chrono::hours(25));
  world.Settle();
  EXPECT_TRUE(fs::exists(folder + "old"));  // a builder is at work
  world.hang = false;
  world.Want(id, Wanted::kStop);
  world.Settle();
  EXPECT_FALSE(fs::exists(folder + "old"));
  EXPECT_FALSE(fs::exists(folder + "young"));
  world.Want(id, Wanted::kResume);
  world.Settle();
  ASSERT_EQ(world.Find(id)->stage, Stage::kTrain);
  put("e", 31);
  world.clock().Advance(std::chrono::hours(25));
  world.Settle();
  EXPECT_TRUE(fs::exists(folder + "e/umbel/result.json"));
}

/// A project in training with data on two nodes, and what is moved about meanwhile.
class MovedLearners : public ::testing::Test {
 protected:
  void Begin(int learners) {
    world_.ServeData();
    world_.rounds.visible = 3;
    id_ = world_.Submit(fmt::format(
        R"({{"training_configuration": {{"data_tags": ["t"], "min_available_clients": {0},
            "min_fit_clients": {0}, "min_evaluate_clients": {0}}}}})",
        learners));
    world_.Settle();
  }
  std::string Learner(int number) const {
    return fmt::format("flearner{}.{}", ShortHash(id_), number);
  }
  std::string NodeOf(int number) { return world_.ground().Find(Learner(number))->node; }
  /// How many learners hold a part on each node, and that each holds one where it is.
  std::map<std::string, size_t> Holders(int learners) {
    std::map<std::string, size_t> count;
    const auto rows = world_.store().Read([](Connection& db) { return ListInstances(db); });
    for (const Instance& row : *rows) {
      if (!row.name.starts_with("flearner")) continue;
      EXPECT_EQ(row.share_node, row.node) << row.name;
      EXPECT_TRUE(world_.data.read.contains(row.name)) << row.name;
      ++count[row.node];
      --learners;
    }
    EXPECT_EQ(learners, 0);
    return count;
  }
  void ExpectEnd() {
    EXPECT_EQ(world_.data.overlaps, Names{});
    // Only who is there can be told that a part is given back.
    for (const char* node : {"node-1", "node-2"}) world_.ground().SetUp(node, true);
    world_.Settle();
    world_.rounds.visible = 100;
    SettleFor(world_, 10);
    ASSERT_EQ(world_.Find(id_)->stage, Stage::kDone) << world_.Find(id_)->failure;
    EXPECT_TRUE(world_.data.deals.empty());
  }

  World world_;
  std::string id_;
};
using Count = std::map<std::string, size_t>;

TEST_F(MovedLearners, TheNodeTheyComeToIsDealtAnew) {
  Begin(2);
  ASSERT_EQ(world_.Find(id_)->stage, Stage::kTrain);
  EXPECT_EQ(Holders(2), (Count{{"node-1", 1}, {"node-2", 1}}));
  const int mover = NodeOf(0) == "node-2" ? 0 : 1;
  world_.ground().SetUp("node-2", false);
  world_.Settle();
  ASSERT_EQ(world_.Find(id_)->stage, Stage::kTrain);
  EXPECT_EQ(Holders(2), (Count{{"node-1", 2}}));
  const std::string told = Joined(world_.Timeline(id_));
  ExpectHas(told, Learner(mover) + " has moved from node-2 to node-1");
  ExpectHas(told, Learner(1 - mover) + " begins anew: another learner has come to node-1");
  ExpectEnd();
}

TEST_F(MovedLearners, AServerThatWasAwayForgetsWhoHasLeft) {
  Begin(4);
  EXPECT_EQ(Holders(4), (Count{{"node-1", 2}, {"node-2", 2}}));
  for (const auto& [down, up] : {std::pair("node-2", "node-1"), std::pair("node-1", "node-2"),
                                 std::pair("node-2", "node-1")}) {
    // node-0 has no add-on: whoever has no other place waits for one.
    world_.ground().SetUp(down, false);
    world_.Settle();
    EXPECT_EQ(Holders(4), (Count{{up, 4}})) << down;
    world_.ground().SetUp(down, true);
    world_.Settle();
  }
  ExpectEnd();
}

TEST_F(MovedLearners, NobodyIsDealtDataBeforeAllHaveAPlace) {
  Begin(2);
  for (const char* node : {"node-1", "node-2"}) world_.ground().SetUp(node, false);
  world_.Settle();
  ASSERT_EQ(world_.Find(id_)->stage, Stage::kTrain);
  world_.ground().SetUp("node-1", true);
  world_.Settle();
  EXPECT_EQ(Holders(2), (Count{{"node-1", 2}}));
  ExpectEnd();
}

TEST(Kills, AtStepsOfAMoveLeaveEachLearnerItsOwnRows) {
  for (const bool after : {false, true}) {
    // Not at each, which takes minutes.
    for (uint64_t step = after ? 1 : 3;; step += 5) {
      SCOPED_TRACE(fmt::format("killed {} step {}", after ? "after" : "before", step));
      World world;
      world.ServeData();
      world.rounds.visible = 3;
      const std::string id = world.Submit(R"({"training_configuration": {"data_tags": ["t"]}})");
      world.Settle();
      world.ground().SetUp("node-2", false);
      bool died = false;
      world.on_death = [&] { died = true; };
      world.life().DieAt(step, after);
      world.Settle();
      world.life().LiveOn();
      EXPECT_EQ(world.data.overlaps, Names{});
      EXPECT_EQ(world.data.read.size(), 2u);
      world.rounds.visible = 100;
      SettleFor(world, 10);
      ASSERT_EQ(world.Find(id)->stage, Stage::kDone) << world.Find(id)->failure;
      if (::testing::Test::HasFailure()) return;
      if (!died) break;
      ASSERT_LT(step, 500u);
    }
  }
}

/// Runs until the project waits in `stage`, for want of rounds, learners or the like.
void WaitIn(World& world, Stage stage) {
  world.hang = stage == Stage::kBuild;
  if (stage == Stage::kPrepare) world.rounds.fetch = Fail(Code::kUnavailable, "not yet");
  if (stage == Stage::kDeploy) world.rounds.online = 0;
  if (stage == Stage::kTrain) world.rounds.visible = 3;
  if (stage == Stage::kRecord) world.mlflow.down = true;
  world.Settle();
}
void GoOn(World& world) {
  world.hang = false;
  world.rounds.fetch = Status();
  world.rounds.online = 100;
  world.rounds.visible = 100;
  world.mlflow.down = false;
}

class EachStage : public ::testing::TestWithParam<Stage> {};

TEST_P(EachStage, StopsAndIsTakenUpAgain) {
  World world;
  const std::string id = world.Submit();
  WaitIn(world, GetParam());
  ASSERT_EQ(world.Find(id)->stage, GetParam());
  world.Want(id, Wanted::kStop);
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kCancelled);
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  GoOn(world);
  world.Settle();
  EXPECT_EQ(world.Find(id)->stage, Stage::kCancelled);
  world.Want(id, Wanted::kResume);
  world.Settle();
  ExpectDone(world, id);
}

TEST_P(EachStage, IsDeletedWithoutATrace) {
  World world;
  const std::string id = world.Submit();
  WaitIn(world, GetParam());
  ASSERT_EQ(world.Find(id)->stage, GetParam());
  world.Want(id, Wanted::kDelete);
  world.Settle();
  EXPECT_FALSE(world.Find(id));
  EXPECT_EQ(world.OnGround(), (Names{"tracking"}));
  EXPECT_TRUE(world.Timeline(id).empty());
  EXPECT_TRUE(world.mlflow.forgotten.contains(id + "/"));
  EXPECT_FALSE(std::filesystem::exists(FolderOf(world.options(), id)));
  const auto services = world.store().Read([](Connection& db) { return ListServices(db, true); });
  for (const Service& service : *services) EXPECT_EQ(service.project, "");
  for (const auto& [key, run] : world.mlflow.runs) EXPECT_NE(run.status, "") << key;
}

INSTANTIATE_TEST_SUITE_P(Stages, EachStage,
                         ::testing::Values(Stage::kPrepare, Stage::kBuild, Stage::kDeploy,
                                           Stage::kTrain, Stage::kRecord),
                         [](const auto& stage) { return std::string(Name(stage.param)); });

/// What a project leaves behind, as far as it must not depend on when its manager was killed.
std::string Traces(World& world, const std::string& id) {
  std::string all = world.Words(id);
  for (const std::string& text : world.Timeline(id)) all += text + "\n";
  for (const std::string& name : world.ground().Started()) all += name + "\n";
  return all;
}

TEST(Kills, AtEachStepLeaveNoTrace) {
  std::string wanted;
  uint64_t steps = 0;
  {
    World world;
    const std::string id = world.Submit(R"({"verbose": true})");
    const uint64_t before = world.life().steps();
    world.Settle();
    ExpectDone(world, id);
    steps = world.life().steps() - before;
    wanted = Traces(world, id);
  }
  EXPECT_GT(steps, 40u);
  for (const bool after : {false, true}) {
    for (uint64_t step = 1; step <= steps; ++step) {
      SCOPED_TRACE(fmt::format("killed {} step {} of {}", after ? "after" : "before", step, steps));
      World world;
      const std::string id = world.Submit(R"({"verbose": true})");
      world.life().DieAt(step, after);
      world.Settle();
      ExpectDone(world, id);
      EXPECT_EQ(Traces(world, id), wanted);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(Kills, OneAfterTheOtherAndATakenUpProject) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    SeededRng rng(seed);
    World world;
    const std::string id = world.Submit();
    int kills = 0;
    world.on_death = [&] {
      if (++kills < 25) world.life().DieAt(8 + rng.U64() % 20, rng.U64() % 2 == 0);
    };
    world.life().DieAt(1 + rng.U64() % 20, rng.U64() % 2 == 0);
    world.rounds.visible = 3;
    world.Settle();
    world.life().LiveOn();
    world.Want(id, Wanted::kStop);
    world.life().DieAt(1 + rng.U64() % 5, rng.U64() % 2 == 0);
    world.Settle();
    world.life().LiveOn();
    GoOn(world);
    world.Want(id, Wanted::kResume);
    world.life().DieAt(1 + rng.U64() % 20, rng.U64() % 2 == 0);
    world.Settle();
    ExpectDone(world, id);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Kills, WhileItIsDeletedStillDeleteIt) {
  for (uint64_t step = 1; step <= 12; ++step) {
    World world;
    const std::string id = world.Submit();
    world.rounds.visible = 3;
    world.Settle();
    world.Want(id, Wanted::kDelete);
    world.life().DieAt(step, step % 2 == 0);
    world.Settle();
    EXPECT_FALSE(world.Find(id)) << step;
    EXPECT_EQ(world.OnGround(), (Names{"tracking"})) << step;
  }
}

}  // namespace
}  // namespace umbel::manager
