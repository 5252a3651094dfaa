// Which aggregator a strategy has.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/plan.h"

namespace umbel::superlink::rounds {

bool RunsNatively(const aggregation::StrategySpec& strategy);
/// Whether it needs all replies of a round on the disk until the end: others keep sums.
bool KeepsReplies(aggregation::StrategyKind kind);
/// How many arrays of state, each of the model's shape, it keeps from round to round.
size_t MomentCount(const aggregation::StrategySpec& strategy);
/// Names of those that run natively, wrappers among them: each runs around any that can be wrapped.
std::vector<std::string> NativeStrategies();

/// seed      of the run's noise.
/// clipping  what Aggregator::Clipping said last; of the first round nothing.
/// errors    kInvalidArgument: an array of the model cannot be averaged; kUnimplemented: the
///           strategy; kResourceExhausted: no memory for the sums.
Result<std::unique_ptr<Aggregator>> MakeAggregator(const Plan& plan, const Model& model,
                                                   uint64_t seed, const ClippingState& clipping);

}  // namespace umbel::superlink::rounds
