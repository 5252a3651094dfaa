#include "aggregation/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "aggregation/exact_scalar.h"
#include "tensor/quote.h"

namespace umbel::aggregation {
namespace {

/// A number as the sum of two doubles: integers of 64 bits do not fit into one.
using Split = std::array<double, 2>;

Split SplitOf(double value) { return {value, 0}; }
Split SplitOf(int64_t value) {
  const int64_t low = value & 0xffff'ffff;
  return {static_cast<double>(value - low), static_cast<double>(low)};
}
Split SplitOf(uint64_t value) {
  const uint64_t low = value & 0xffff'ffff;
  return {static_cast<double>(value - low), static_cast<double>(low)};
}

/// A value of any kind as a list; `list` tells whether it was one.
struct Numbers {
  bool list = false;
  std::vector<Split> values;

  explicit Numbers(const MetricValue& metric) {
    std::visit(
        [&](const auto& value) {
          if constexpr (requires { value.begin(); }) {
            list = true;
            for (const auto element : value) values.push_back(SplitOf(element));
          } else {
            values.push_back(SplitOf(value));
          }
        },
        metric);
  }
};

/// The sum of products of values and weights, where values may be NaN or infinite.
class Sum {
 public:
  void Add(const Split& value, const Split& weight) {
    if (!std::isfinite(value[0])) {
      special_ += value[0];  // NaN stays, infinities of both signs become NaN
      return;
    }
    for (const double v : value)
      for (const double w : weight) UMBEL_CHECK(sum_.AddProduct(v, w).ok());
  }
  double MeanBy(const ExactScalar& weights) const {
    if (special_ != 0) return special_;  // NaN is not 0, either
    return RoundedQuotient(sum_, weights).value();
  }

 private:
  double special_ = 0;
  ExactScalar sum_;
};

struct Column {
  bool list = false;
  std::vector<Sum> sums;
};

tl::unexpected<Error> Bad(size_t reply, std::string_view key, std::string_view what) {
  return Fail(Code::kInvalidArgument,
              fmt::format("metrics of reply {}: {} {}", reply, tensor::Quote(key), what));
}

Result<Split> WeightOf(const Metrics& metrics, size_t reply, std::string_view key) {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const auto& entry) { return entry.first == key; });
  if (found == metrics.end()) return Bad(reply, key, "is missing");
  const Numbers numbers(found->second);
  if (numbers.list) return Bad(reply, key, "is a list, not a weight");
  const Split weight = numbers.values[0];
  const double size = weight[0] + weight[1];
  if (!std::isfinite(size) || size <= 0)
    return Bad(reply, key, fmt::format("{} not in (0, inf)", size));
  return weight;
}

}  // namespace

Result<Metrics> MeanOfMetrics(std::span<const Metrics> replies, std::string_view weight_key) {
  if (replies.empty()) return Fail(Code::kInvalidArgument, "metrics of no replies");
  std::map<std::string_view, Column> columns;
  ExactScalar weights;
  for (size_t i = 0; i < replies.size(); ++i) {
    UMBEL_ASSIGN(const Split weight, WeightOf(replies[i], i, weight_key));
    for (const double part : weight) UMBEL_TRY(weights.Add(part));
    if (replies[i].size() != replies[0].size())
      return Fail(Code::kInvalidArgument,
                  fmt::format("metrics of reply {}: {} keys, not {} as in the first", i,
                              replies[i].size(), replies[0].size()));
    for (const auto& [key, metric] : replies[i]) {
      const Numbers numbers(metric);
      const auto [entry, fresh] = columns.try_emplace(key);
      Column& column = entry->second;
      if (fresh && i != 0) return Bad(i, key, "is not in the first");
      if (fresh) column = {numbers.list, std::vector<Sum>(numbers.values.size())};
      if (key == weight_key) continue;
      if (column.list != numbers.list)
        return Bad(
            i, key,
            numbers.list ? "is a list, in the first a number" : "is a number, in the first a list");
      if (column.sums.size() != numbers.values.size())
        return Bad(i, key,
                   fmt::format("has {} values, in the first {}", numbers.values.size(),
                               column.sums.size()));
      for (size_t k = 0; k < numbers.values.size(); ++k)
        column.sums[k].Add(numbers.values[k], weight);
    }
  }
  Metrics out;
  for (const auto& [key, unused] : replies[0]) {
    if (key == weight_key) continue;
    const Column& column = columns.at(key);
    std::vector<double> means;
    for (const Sum& sum : column.sums) means.push_back(sum.MeanBy(weights));
    if (column.list) {
      out.emplace_back(key, std::move(means));
    } else {
      out.emplace_back(key, means[0]);
    }
  }
  return out;
}

}  // namespace umbel::aggregation
