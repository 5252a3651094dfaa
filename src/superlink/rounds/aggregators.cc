#include "superlink/rounds/aggregators.h"

#include "aggregation/optimizer.h"
#include "superlink/rounds/bagging.h"
#include "superlink/rounds/clipped.h"
#include "superlink/rounds/cyclic.h"
#include "superlink/rounds/spooled.h"
#include "superlink/rounds/sums.h"

namespace umbel::superlink::rounds {
namespace {

using Kind = aggregation::StrategyKind;

enum class Way { kSums, kOptimised, kSpooled, kBagging, kCyclic, kClipped, kPython };

constexpr Way WayOf(Kind kind) {
  switch (kind) {
    case Kind::kFedAvg:
    case Kind::kFedProx:
      return Way::kSums;
    case Kind::kFedAvgM:
    case Kind::kFedAdagrad:
    case Kind::kFedAdam:
    case Kind::kFedYogi:
      return Way::kOptimised;
    case Kind::kFedMedian:
    case Kind::kFedTrimmedAvg:
    case Kind::kKrum:
    case Kind::kMultiKrum:
    case Kind::kBulyan:
    case Kind::kQFedAvg:
      return Way::kSpooled;
    case Kind::kFedXgbBagging:
      return Way::kBagging;
    case Kind::kFedXgbCyclic:
      return Way::kCyclic;
    case Kind::kServerSideFixedClipping:
    case Kind::kServerSideAdaptiveClipping:
      return Way::kClipped;
    default:
      return Way::kPython;
  }
}

Result<std::unique_ptr<Aggregator>> MakeBase(const Plan& plan, const Model& model) {
  switch (WayOf(plan.strategy.base().kind)) {
    case Way::kSums:
      return MakeSums(model);
    case Way::kOptimised:
      return MakeOptimised(plan, model);
    case Way::kSpooled:
      return MakeSpooled(plan, model);
    case Way::kBagging:
      return MakeBagging(model);
    case Way::kCyclic:
      return MakeCyclic(model);
    default:
      return Fail(Code::kUnimplemented, fmt::format("strategy {} does not run natively yet",
                                                    plan.strategy.base().name()));
  }
}

}  // namespace

bool RunsNatively(const aggregation::StrategySpec& strategy) {
  return WayOf(strategy.kind) != Way::kPython && WayOf(strategy.base().kind) != Way::kPython;
}

bool KeepsReplies(Kind kind) {
  return WayOf(kind) == Way::kSpooled || WayOf(kind) == Way::kBagging ||
         WayOf(kind) == Way::kCyclic;
}

size_t MomentCount(const aggregation::StrategySpec& strategy) {
  if (WayOf(strategy.kind) != Way::kOptimised || aggregation::IsMean(strategy)) return 0;
  const aggregation::Moments kept = aggregation::MomentsOf(strategy);
  return size_t{kept.first} + size_t{kept.second};
}

std::vector<std::string> NativeStrategies() {
  std::vector<std::string> names;
  for (const auto& strategy : aggregation::Strategies())
    if (WayOf(strategy.kind) != Way::kPython) names.push_back(strategy.name);
  return names;
}

Result<std::unique_ptr<Aggregator>> MakeAggregator(const Plan& plan, const Model& model,
                                                   uint64_t seed, const ClippingState& clipping) {
  UMBEL_ASSIGN(auto made, MakeBase(plan, model));
  if (WayOf(plan.strategy.kind) != Way::kClipped) return made;
  return MakeClipped(plan, model, seed, clipping, std::move(made));
}

}  // namespace umbel::superlink::rounds
