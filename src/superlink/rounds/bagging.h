// FedXgbBagging: the trees of every reply, appended to the global model.
#pragma once

#include <memory>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"

namespace umbel::superlink::rounds {

/// One array of uint8, XGBoost's model as JSON, of any length; trees come in the order of their
/// nodes' ids (aggregation/xgboost.h).
///
/// memory  the JSON of all replies of a round, parsed one by one.
/// errors  kInvalidArgument: the model is not one such array.
Result<std::unique_ptr<Aggregator>> MakeBagging(const Model& model);

}  // namespace umbel::superlink::rounds
