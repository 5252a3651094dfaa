#include "manager/model.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

namespace umbel::manager {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

constexpr Event kEvents[] = {Event::kCommitKnown, Event::kBuilt,       Event::kNodesReady,
                             Event::kRunFinished, Event::kModelLogged, Event::kServed,
                             Event::kFail,        Event::kCancel,      Event::kResume};

TEST(Stages, AllAreReachedFromTheFirst) {
  std::set<Stage> seen = {Stage::kPrepare};
  for (size_t before = 0; before != seen.size();) {
    before = seen.size();
    for (const Stage stage : std::set<Stage>(seen))
      for (const Event event : kEvents)
        if (const auto next = Next(stage, event)) seen.insert(*next);
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(Stage::kCancelled) + 1);
}

TEST(Stages, DoneHasNoExitAndFailedOnlyToBeTakenUpAgain) {
  for (const Event event : kEvents) {
    EXPECT_FALSE(Next(Stage::kDone, event));
    for (const Stage stage : {Stage::kFailed, Stage::kCancelled})
      EXPECT_EQ(Next(stage, event).has_value(), event == Event::kResume);
  }
}

TEST(Stages, EachLiveOneCanFailAndBeCancelled) {
  for (int i = 0; i < static_cast<int>(Stage::kDone); ++i) {
    EXPECT_EQ(Next(static_cast<Stage>(i), Event::kFail), Stage::kFailed);
    EXPECT_EQ(Next(static_cast<Stage>(i), Event::kCancel), Stage::kCancelled);
  }
}

TEST(Stages, OneEventLeadsToOneStage) {
  std::set<std::pair<Stage, Event>> seen;
  for (const Transition& row : kStageTransitions)
    EXPECT_TRUE(seen.emplace(row.from, row.event).second);
}

TEST(Kinds, StandInTheirOrder) {
  for (const KindNames& names : kKinds) EXPECT_EQ(NamesOf(names.kind).kind, names.kind);
}

TEST(Best, ByAccuracyThenLossAndWhatIsNoNumberNever) {
  Project best;
  Round round;
  EXPECT_FALSE(IsBetter(round, best));
  round.accuracy = kNan;
  EXPECT_FALSE(IsBetter(round, best));
  round.accuracy = 0.0;
  EXPECT_TRUE(IsBetter(round, best));
  best.best_round = 1;
  best.best_accuracy = 0.5;
  best.best_loss = 1;
  EXPECT_FALSE(IsBetter(round, best));
  round.accuracy = 0.5;
  EXPECT_FALSE(IsBetter(round, best));
  round.loss = 1.0;
  EXPECT_FALSE(IsBetter(round, best));
  round.loss = kNan;
  EXPECT_FALSE(IsBetter(round, best));
  round.loss = 0.9;
  EXPECT_TRUE(IsBetter(round, best));
  best.best_loss = kNan;
  round.loss = 9.0;
  EXPECT_TRUE(IsBetter(round, best));
}

}  // namespace
}  // namespace umbel::manager
