#include "superlink/rounds/aggregators.h"

#include "superlink/rounds/sums.h"

namespace umbel::superlink::rounds {

bool RunsNatively(aggregation::StrategyKind kind) {
  using Kind = aggregation::StrategyKind;
  return kind == Kind::kFedAvg || kind == Kind::kFedProx;
}

Result<std::unique_ptr<Aggregator>> MakeAggregator(const Plan& plan, const Model& model) {
  using Kind = aggregation::StrategyKind;
  switch (plan.strategy.kind) {
    case Kind::kFedAvg:
    case Kind::kFedProx:
      return MakeSums(model);
    default:
      return Fail(Code::kUnimplemented,
                  fmt::format("strategy {} does not run natively yet", plan.strategy.name()));
  }
}

}  // namespace umbel::superlink::rounds
