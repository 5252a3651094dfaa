// What a run's log says of its rounds, and means of what nodes measured. Functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flower/records.h"
#include "superlink/rounds/model.h"
#include "superlink/rounds/plan.h"

namespace umbel::rounds {
class RoundRecord;
}  // namespace umbel::rounds

namespace umbel::superlink::rounds {

/// Several lines, without an end of line.
std::string DescribePlan(const Plan& plan, const Model& model);
std::string DescribeRecord(const ::umbel::rounds::RoundRecord& record);

struct WeightedMetrics {
  double weight = 0;
  const flower::MetricRecord* metrics = nullptr;
};
/// Weighted means of every metric but the weight, lists element by element, summed exactly. A key
/// that not all have, or not all in one length, has no mean.
flower::MetricRecord MeanMetrics(const std::vector<WeightedMetrics>& replies,
                                 std::string_view weighted_by_key);

/// A metric that is one number.
std::optional<double> MetricOf(const flower::MetricRecord& metrics, std::string_view key);

struct StepRequest {
  uint32_t step = 0;
  bool arrays = false;
};
/// The "step" record of a message to node 1; nullopt: it has none.
/// errors  kInvalidArgument: it is of another form.
Result<std::optional<StepRequest>> ReadStepRequest(const ObjectId& message, RunObjects& objects);

}  // namespace umbel::superlink::rounds
