// When rounds end before the last one. Functions.
#pragma once

#include <string>

#include "flower/records.h"
#include "superlink/rounds/plan.h"

namespace umbel::rounds {
class Progress;
}  // namespace umbel::rounds

namespace umbel::superlink::rounds {

/// Notes what the rules have to know of a round that ends with these metrics.
void CountRound(const StopRules& rules, const flower::MetricRecord& evaluation,
                ::umbel::rounds::Progress* progress);

/// The rule that ends it here, in words; "": none does.
/// now  seconds since 1970.
std::string WhyStop(const StopRules& rules, const flower::MetricRecord& evaluation,
                    const ::umbel::rounds::Progress& progress, double now);

}  // namespace umbel::superlink::rounds
