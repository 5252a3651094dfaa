// Weighted means of the metrics that replies carry, as Flower's aggregate_metricrecords has them:
// each key but the weight's, lists element by element. Sums are exact, so the order of replies
// shows in nothing but the order of keys, which is the first reply's. Functions; safe from any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

/// What Flower's MetricRecord may hold, in its order.
using MetricValue = std::variant<int64_t, uint64_t, double, std::vector<int64_t>,
                                 std::vector<uint64_t>, std::vector<double>>;
using Metrics = std::vector<std::pair<std::string, MetricValue>>;  // distinct keys

/// returns  of each key the mean weighted by `weight_key`, correctly rounded: a double, or a list
/// of
///          doubles. NaN and infinities go through as they would in a sum of doubles.
/// errors   kInvalidArgument, with the reply's number and the key: no replies, keys that differ, a
///          missing weight, one that is a list, not finite or not above 0, a key that is a number
///          here and a list there, or lists of different lengths.
Result<Metrics> MeanOfMetrics(std::span<const Metrics> replies, std::string_view weight_key);

}  // namespace umbel::aggregation
