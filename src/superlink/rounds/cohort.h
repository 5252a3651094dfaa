// Whom to ask in a round. Functions.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "flower/records.h"
#include "store/rows.h"
#include "superlink/rounds/plan.h"

namespace umbel::superlink::rounds {

struct Cohort {
  std::vector<NodeId> nodes;  // in ascending order; empty: there are not enough
  size_t online = 0;          // of those that may be asked
  size_t needed = 0;
};

/// The seed of one phase's draw: a restarted round draws the same nodes from the same ones online.
uint64_t CohortSeed(uint64_t run_seed, uint32_t round, bool train);

/// As Flower samples: max(floor(online * fraction), the minimum of nodes) without replacement, once
/// at least min_available_nodes are online.
Cohort DrawCohort(const Plan& plan, bool train, uint64_t seed, std::vector<store::NodeRow> online);

/// The plan's config of the phase, with what Flower's strategy adds in each round.
flower::ConfigRecord RoundConfig(const Plan& plan, bool train, uint32_t round);

}  // namespace umbel::superlink::rounds
