#include "superlink/rounds/plan.h"

#include <gtest/gtest.h>

#include "superlink/rounds/aggregators.h"

namespace umbel::superlink::rounds {
namespace {

Result<Plan> FromRecord(flower::ConfigRecord record) {
  UMBEL_ASSIGN(const std::string plan, PlanFromRecords({{"plan", std::move(record)}}));
  return ReadPlan(plan);
}

TEST(Plan, NamesAWrapperAroundItsStrategy) {
  const auto plan = FromRecord({{"strategy", "FedAdam"},
                                {"param.eta", 0.5},
                                {"wrapper", "DifferentialPrivacyServerSideFixedClipping"},
                                {"wrapper.param.noise_multiplier", int64_t{1}},
                                {"wrapper.param.clipping_norm", 0.25},
                                {"wrapper.param.num_sampled_clients", int64_t{10}}});
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->strategy.name(), "DifferentialPrivacyServerSideFixedClipping");
  EXPECT_EQ(plan->strategy.Float("noise_multiplier"), 1);
  EXPECT_EQ(plan->strategy.base().name(), "FedAdam");
  EXPECT_EQ(plan->strategy.base().Float("eta"), 0.5);
  EXPECT_EQ(plan->min_nodes(true), 2u);
  EXPECT_TRUE(RunsNatively(plan->strategy));
}

TEST(Plan, SaysWhatIsWrongWithAWrapper) {
  const flower::ConfigRecord base = {{"strategy", "FedAvg"}};
  const auto error = [&](flower::ConfigRecord more) {
    more.insert(more.begin(), base.begin(), base.end());
    return FromRecord(std::move(more)).error().message;
  };
  EXPECT_EQ(error({{"wrapper", "ServerSideFixedClipping"}}),
            "DifferentialPrivacyServerSideFixedClipping needs the parameter noise_multiplier");
  EXPECT_EQ(error({{"wrapper", "FedAdam"}}), "FedAdam does not wrap a strategy");
  EXPECT_EQ(error({{"wrapper", int64_t{1}}}), "the plan's 'wrapper' is of another type");
  EXPECT_EQ(error({{"wrapper.clipping_norm", 1.0}}),
            "the plan has an unknown key 'wrapper.clipping_norm'");
  EXPECT_NE(error({{"wrapper.param.clipping_norm", 1.0}}), "");
}

}  // namespace
}  // namespace umbel::superlink::rounds
