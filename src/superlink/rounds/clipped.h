// Differential privacy at the server, around another strategy: replies are clipped before it sees
// them, and its result gets noise (aggregation/clipping.h, noise.h).
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/plan.h"

namespace umbel::superlink::rounds {

/// ServerSideFixedClipping and ServerSideAdaptiveClipping. A reply's norm is found when it comes;
/// from then on its arrays are clipped whenever they are read, so that no second copy is kept. A
/// reply with an error leaves model, norm and metrics as they are.
///
/// seed    of the noise; who knows it can take the noise off.
/// state   of before: see Aggregator::Clipping.
/// inner   what is wrapped.
/// memory  of its own a block for each core.
/// errors  kInvalidArgument: an array of the model cannot be clipped.
Result<std::unique_ptr<Aggregator>> MakeClipped(const Plan& plan, const Model& model, uint64_t seed,
                                                const ClippingState& state,
                                                std::unique_ptr<Aggregator> inner);

}  // namespace umbel::superlink::rounds
