#include "superlink/rounds/cohort.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

namespace umbel::superlink::rounds {
namespace {

Plan PlanOf(const aggregation::Params& params) {
  Plan plan;
  plan.strategy = *aggregation::MakeStrategy("FedAvg", params);
  return plan;
}

std::vector<store::NodeRow> Nodes(size_t count) {
  std::vector<store::NodeRow> rows(count);
  for (size_t i = 0; i < count; ++i) {
    rows[i].node_id = NodeId{100 + i};
    rows[i].name = fmt::format("site-{}", i);
  }
  return rows;
}

RC_GTEST_PROP(Cohort, HasFlowersSizeAndEachNodeOnce, ()) {
  const auto count = *rc::gen::inRange<size_t>(0, 40);
  const double fraction = *rc::gen::inRange(0, 101) / 100.0;
  const auto least = *rc::gen::inRange<int64_t>(0, 10);
  const auto available = *rc::gen::inRange<int64_t>(0, 10);
  const Plan plan = PlanOf({{"fraction_train", fraction},
                            {"min_train_nodes", least},
                            {"min_available_nodes", available}});
  const Cohort cohort = DrawCohort(plan, true, *rc::gen::arbitrary<uint64_t>(), Nodes(count));
  const size_t minimum = fraction == 0 ? 0 : static_cast<size_t>(least);
  const size_t size = std::max(static_cast<size_t>(static_cast<double>(count) * fraction), minimum);
  const size_t needed = std::max({size, static_cast<size_t>(available), size_t{1}});
  RC_ASSERT(cohort.needed == needed);
  RC_ASSERT(cohort.nodes.size() == (count < needed ? 0 : size));
  const std::set<NodeId> distinct(cohort.nodes.begin(), cohort.nodes.end());
  RC_ASSERT(distinct.size() == cohort.nodes.size());
  RC_ASSERT(std::is_sorted(cohort.nodes.begin(), cohort.nodes.end()));
}

RC_GTEST_PROP(Cohort, DependsOnTheNodesAndNotOnTheirOrder, (uint64_t seed)) {
  const Plan plan = PlanOf({{"fraction_train", 0.5}});
  auto nodes = Nodes(20);
  const Cohort cohort = DrawCohort(plan, true, seed, nodes);
  std::reverse(nodes.begin(), nodes.end());
  RC_ASSERT(DrawCohort(plan, true, seed, nodes).nodes == cohort.nodes);
}

TEST(Cohort, EveryNodeHasItsChance) {
  const Plan plan = PlanOf({{"fraction_train", 0.1}, {"min_train_nodes", int64_t{1}}});
  std::map<NodeId, int> drawn;
  constexpr int kRounds = 4000;
  for (uint32_t round = 0; round < kRounds; ++round)
    for (const NodeId node : DrawCohort(plan, true, CohortSeed(7, round, true), Nodes(10)).nodes)
      ++drawn[node];
  ASSERT_EQ(drawn.size(), 10u);
  // Binomial with mean 400 and deviation 19: six deviations.
  for (const auto& [node, times] : drawn) EXPECT_NEAR(times, kRounds / 10, 114) << node.value;
}

TEST(Cohort, RoundsAndPhasesDrawApart) {
  std::set<uint64_t> seeds;
  for (uint32_t round = 1; round <= 100; ++round)
    for (const bool train : {true, false}) seeds.insert(CohortSeed(1, round, train));
  EXPECT_EQ(seeds.size(), 200u);
}

TEST(Cohort, NamesLimitWhoIsAsked) {
  Plan plan = PlanOf({{"min_available_nodes", int64_t{1}}, {"min_train_nodes", int64_t{1}}});
  plan.node_names = {"site-3", "site-5", "nobody"};
  const Cohort cohort = DrawCohort(plan, true, 1, Nodes(10));
  EXPECT_EQ(cohort.online, 2u);
  EXPECT_EQ(cohort.nodes, (std::vector<NodeId>{NodeId{103}, NodeId{105}}));
}

TEST(RoundConfig, HasTheRoundAndKeepsTheUsersKeys) {
  Plan plan;
  plan.strategy = *aggregation::MakeStrategy("FedProx", {{"proximal_mu", 0.25}});
  plan.train_config = {{"lr", 0.1}, {"server-round", int64_t{99}}};
  const flower::ConfigRecord want = {
      {"lr", 0.1}, {"server-round", int64_t{4}}, {"proximal-mu", 0.25}};
  EXPECT_EQ(RoundConfig(plan, true, 4), want);
  EXPECT_EQ(RoundConfig(plan, false, 4), (flower::ConfigRecord{{"server-round", int64_t{4}}}));
}

}  // namespace
}  // namespace umbel::superlink::rounds
