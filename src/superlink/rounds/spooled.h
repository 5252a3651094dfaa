// Strategies that need all updates at once: they stay in the run's segment files, and are read
// block by block, so that memory does not grow with their number. (Disk does: it holds them all.)
#pragma once

#include <memory>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/plan.h"

namespace umbel::superlink::rounds {

/// FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan, QFedAvg; see aggregation/robust.h, krum.h and
/// qfedavg.h. The result depends on the nodes' ids and not on who answered first.
///
/// errors  kInvalidArgument: an array of the model has no such mean; kUnimplemented.
Result<std::unique_ptr<Aggregator>> MakeSpooled(const Plan& plan, const Model& model);

}  // namespace umbel::superlink::rounds
