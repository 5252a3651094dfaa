// The weighted mean of the updates, as exact sums that grow with the model and not with the nodes.
#pragma once

#include <memory>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/plan.h"

namespace umbel::superlink::rounds {

/// FedAvg (McMahan et al., AISTATS 2017, arXiv:1602.05629): sum of w_i x_i over the sum of w_i.
///
/// memory  16 bytes a parameter on ordinary float32, at most kSumModels models of more.
Result<std::unique_ptr<Aggregator>> MakeSums(const Model& model);

/// The server optimisers over that mean: FedAvgM, FedAdagrad, FedAdam, FedYogi
/// (aggregation/optimizer.h). Their moments are arrays of the model's own, kept with it.
Result<std::unique_ptr<Aggregator>> MakeOptimised(const Plan& plan, const Model& model);

}  // namespace umbel::superlink::rounds
