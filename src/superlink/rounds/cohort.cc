#include "superlink/rounds/cohort.h"

#include <algorithm>
#include <cmath>

namespace umbel::superlink::rounds {
namespace {

/// SplitMix64 (Steele et al., OOPSLA 2014): spreads a counter over 64 bits.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

template <typename T>
void Set(flower::ConfigRecord& config, const std::string& key, T value) {
  for (auto& [name, held] : config) {
    if (name != key) continue;
    held = value;
    return;
  }
  config.emplace_back(key, value);
}

}  // namespace

uint64_t CohortSeed(uint64_t run_seed, uint32_t round, bool train) {
  return Mix(Mix(run_seed) ^ (uint64_t{round} * 2 + (train ? 0 : 1)));
}

Cohort DrawCohort(const Plan& plan, bool train, uint64_t seed, std::vector<store::NodeRow> online) {
  std::vector<NodeId> ids;
  for (const store::NodeRow& row : online) {
    const auto& names = plan.node_names;
    if (names.empty() || std::find(names.begin(), names.end(), row.name) != names.end())
      ids.push_back(row.node_id);
  }
  std::sort(ids.begin(), ids.end());
  Cohort cohort;
  cohort.online = ids.size();
  const auto share = static_cast<size_t>(static_cast<double>(ids.size()) * plan.fraction(train));
  const size_t size = std::max<size_t>(share, plan.min_nodes(train));
  cohort.needed = std::max<size_t>({size, plan.min_available(), 1});
  if (ids.size() < cohort.needed) return cohort;
  // The first `size` places of a shuffle.
  for (size_t i = 0; i < size; ++i) {
    const unsigned __int128 left = ids.size() - i;
    seed = Mix(seed);
    std::swap(ids[i], ids[i + static_cast<size_t>(left * seed >> 64)]);
  }
  ids.resize(size);
  std::sort(ids.begin(), ids.end());
  cohort.nodes = std::move(ids);
  return cohort;
}

flower::ConfigRecord RoundConfig(const Plan& plan, bool train, uint32_t round) {
  flower::ConfigRecord config = train ? plan.train_config : plan.evaluate_config;
  Set(config, "server-round", int64_t{round});
  if (train && plan.strategy.base().Has("proximal_mu"))
    Set(config, "proximal-mu", plan.strategy.base().Float("proximal_mu"));
  return config;
}

}  // namespace umbel::superlink::rounds
