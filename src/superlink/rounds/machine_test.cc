#include "superlink/rounds/machine.h"

#include <gtest/gtest.h>

#include <set>

namespace umbel::superlink::rounds {
namespace {

TEST(PhaseTable, EveryPhaseCanBeReachedAndTheEndIsOne) {
  std::set<Phase> reached = {Phase::kPrepare};
  for (size_t before = 0; before != reached.size();) {
    before = reached.size();
    for (const auto& row : kPhaseTransitions)
      if (reached.contains(row.from)) reached.insert(row.to);
  }
  EXPECT_EQ(reached.size(), static_cast<size_t>(Phase::kEnded) + 1);
  for (const auto& row : kPhaseTransitions) EXPECT_NE(row.from, Phase::kEnded);
}

TEST(PhaseTable, EveryLivePhaseCanFail) {
  for (size_t i = 0; i < static_cast<size_t>(Phase::kEnded); ++i)
    EXPECT_EQ(Next(static_cast<Phase>(i), PhaseEvent::kFailed), Phase::kEnded);
}

TEST(PhaseTable, OneEventLeadsToOnePhase) {
  std::set<std::pair<Phase, PhaseEvent>> seen;
  for (const auto& row : kPhaseTransitions)
    EXPECT_TRUE(seen.emplace(row.from, row.event).second) << Name(row.from);
}

TEST(PhaseTable, NamesDiffer) {
  std::set<std::string_view> names;
  for (size_t i = 0; i <= static_cast<size_t>(Phase::kEnded); ++i)
    names.insert(Name(static_cast<Phase>(i)));
  EXPECT_EQ(names.size(), static_cast<size_t>(Phase::kEnded) + 1);
  names.clear();
  for (size_t i = 0; i <= static_cast<size_t>(Outcome::kLate); ++i)
    names.insert(Name(static_cast<Outcome>(i)));
  EXPECT_EQ(names.size(), static_cast<size_t>(Outcome::kLate) + 1);
}

TEST(Outcome, IsFoundByItsName) {
  for (int i = 0; i <= static_cast<int>(Outcome::kLate); ++i)
    EXPECT_EQ(OutcomeOf(Name(static_cast<Outcome>(i))), static_cast<Outcome>(i));
  EXPECT_EQ(OutcomeOf("no such"), Outcome::kMalformed);
}

}  // namespace
}  // namespace umbel::superlink::rounds
