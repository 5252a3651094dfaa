// FedXgbCyclic: one node a phase, and its model becomes the global one.
#pragma once

#include <memory>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"

namespace umbel::superlink::rounds {

/// One array of uint8 of any length, which nobody looks into. Whose turn it is, the session says
/// (aggregation/xgboost.h: CyclicTurns).
///
/// memory  none of the model's size: it is copied from where the reply lies.
/// errors  kInvalidArgument: the model is not one such array.
Result<std::unique_ptr<Aggregator>> MakeCyclic(const Model& model);

}  // namespace umbel::superlink::rounds
