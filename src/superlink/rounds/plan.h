// How a session is to train, checked once. A value; safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aggregation/strategy.h"
#include "base/result.h"
#include "flower/records.h"

namespace umbel::superlink::rounds {

/// When to end before the last round. By the metrics of the evaluation, as they are aggregated.
struct StopRules {
  std::string metric;
  std::optional<double> at_least;
  std::optional<double> at_most;
  uint32_t patience = 0;  // rounds without a better value; 0: no such rule
  bool smaller_is_better = false;
  std::string tie_metric;  // of two equal values the one with the smaller of these is better
  double seconds = 0;      // of the whole; 0: no such rule
};

enum class Keep { kLast, kBest, kAll };

struct Plan {
  aggregation::StrategySpec strategy;
  uint32_t num_rounds = 3;
  double timeout = 3600;  // seconds a phase waits for replies
  flower::ConfigRecord train_config;
  flower::ConfigRecord evaluate_config;
  uint64_t seed = 0;  // of sampling and noise; 0: one is drawn
  uint32_t close_train_at = 0;
  uint32_t close_evaluate_at = 0;
  std::vector<std::string> node_names;  // empty: any
  uint32_t min_train_replies = 0;
  bool fail_on_non_finite = false;
  StopRules stop;
  Keep keep = Keep::kLast;
  double spool_models = 8;
  bool stepped = false;

  double fraction(bool train) const;
  uint32_t min_nodes(bool train) const;
  uint32_t min_available() const;
  const std::string& Key(std::string_view param) const { return strategy.base().Text(param); }
};

/// serialized  an umbel.rounds.Plan.
/// errors      kInvalidArgument, kNotFound, kUnimplemented: the message names the field, its value
///             and the rule.
Result<Plan> ReadPlan(std::string_view serialized);

/// The same plan as a ServerApp sends it, in records: "plan" (strategy, num-rounds, timeout,
/// stepped, seed, param.<name>, wrapper, wrapper.param.<name>), "train-config" and
/// "evaluate-config". returns  a serialized umbel.rounds.Plan; what it says is checked by ReadPlan.
/// errors   kInvalidArgument: no record "plan", or a key of it is unknown or of another type.
Result<std::string> PlanFromRecords(const flower::RecordDict& records);

}  // namespace umbel::superlink::rounds
