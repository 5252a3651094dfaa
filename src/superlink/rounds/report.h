// What a run's log says of its rounds, and means of what nodes measured. Functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flower/records.h"
#include "superlink/rounds/model.h"
#include "superlink/rounds/plan.h"

namespace flwr::proto {
class MetricRecord;
}  // namespace flwr::proto

namespace umbel::rounds {
class RoundRecord;
}  // namespace umbel::rounds

namespace umbel::superlink::rounds {

/// Several lines, without an end of line.
std::string DescribePlan(const Plan& plan, const Model& model);
std::string DescribeRecord(const ::umbel::rounds::RoundRecord& record);

/// aggregation::MeanOfMetrics of the keys that all replies have, in one length: a node that
/// measures otherwise does not fail the round. No replies have no metrics.
///
/// errors  kInvalidArgument: a reply without a weight, which Judge does not accept.
Result<flower::MetricRecord> MeanMetrics(const std::vector<const flower::MetricRecord*>& replies,
                                         std::string_view weighted_by_key);

/// Between a record and its message, as a session's progress has it.
/// errors  kInvalidArgument, as flower::EncodeMetrics and DecodeMetrics.
Status EncodeMetrics(const flower::MetricRecord& metrics, flwr::proto::MetricRecord* out);
Result<flower::MetricRecord> DecodeMetrics(const flwr::proto::MetricRecord& metrics);

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
