#include "superlink/rounds/report.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "aggregation/metrics.h"
#include "flower/record_bytes.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

constexpr uint64_t kMetricsMax = uint64_t{64} << 20;  // bytes in memory, of one record

/// What values of one key must share to have a mean.
struct Form {
  bool list = false;
  size_t length = 1;
  bool operator==(const Form&) const = default;
};

Form FormOf(const flower::MetricValue& value) {
  return std::visit(
      [](const auto& held) -> Form {
        if constexpr (requires { held.begin(); }) {
          return {true, held.size()};
        } else {
          static_cast<void>(held);
          return {};
        }
      },
      value);
}

const flower::MetricValue* Find(const flower::MetricRecord& metrics, std::string_view key) {
  for (const auto& [name, value] : metrics)
    if (name == key) return &value;
  return nullptr;
}

std::string Megabytes(uint64_t bytes) {
  return bytes < 1'000'000 ? fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3)
                           : fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string DescribeMetrics(const flwr::proto::MetricRecord& metrics) {
  std::string text;
  for (const auto& item : metrics.items()) {
    text += text.empty() ? ": " : ", ";
    if (item.value().has_double_()) {
      text += fmt::format("{} {:.6g}", item.key(), item.value().double_());
    } else if (item.value().has_double_list()) {
      text += fmt::format("{} [{:.6g}]", item.key(),
                          fmt::join(item.value().double_list().vals(), ", "));
    }
  }
  return text;
}

}  // namespace

std::string DescribePlan(const Plan& plan, const Model& model) {
  const std::string around =
      plan.strategy.inner ? fmt::format(" around {}", plan.strategy.base().name()) : "";
  return fmt::format("{}{}: {} rounds over a model of {} arrays, {}", plan.strategy.name(), around,
                     plan.num_rounds, model.arrays.size(), Megabytes(model.bytes()));
}

std::string DescribeRecord(const ::umbel::rounds::RoundRecord& record) {
  if (record.kind() == "end") return record.outcome();
  const auto& phase = record.phase();
  std::string text = fmt::format("[ROUND {}/{}] {}: {} of {} replies, {} received, {:.3f} s{}",
                                 record.round(), record.num_rounds(), record.kind(),
                                 phase.accepted(), phase.asked(), Megabytes(phase.bytes_received()),
                                 phase.seconds_collected() + phase.seconds_closed(),
                                 DescribeMetrics(phase.metrics()));
  for (const auto& node : phase.nodes())
    if (node.outcome() != "accepted")
      text += fmt::format("\n    node {}: {}{}{}", node.node_id(), node.outcome(),
                          node.detail().empty() ? "" : ": ", node.detail());
  return text;
}

Result<flower::MetricRecord> MeanMetrics(const std::vector<const flower::MetricRecord*>& replies,
                                         std::string_view weighted_by_key) {
  if (replies.empty()) return flower::MetricRecord{};
  std::vector<flower::MetricRecord> shared(replies.size());
  for (const auto& [key, first] : *replies[0]) {
    const Form form = FormOf(first);
    std::vector<const flower::MetricValue*> values;
    for (const flower::MetricRecord* reply : replies) values.push_back(Find(*reply, key));
    if (!std::all_of(values.begin(), values.end(),
                     [&](const auto* value) { return value != nullptr && FormOf(*value) == form; }))
      continue;
    for (size_t i = 0; i < values.size(); ++i) shared[i].emplace_back(key, *values[i]);
  }
  return aggregation::MeanOfMetrics(shared, weighted_by_key);
}

std::optional<double> MetricOf(const flower::MetricRecord& metrics, std::string_view key) {
  const flower::MetricValue* value = Find(metrics, key);
  if (value == nullptr) return std::nullopt;
  return std::visit(
      [](const auto& held) -> std::optional<double> {
        if constexpr (requires { held.begin(); }) {
          return std::nullopt;
        } else {
          return static_cast<double>(held);
        }
      },
      *value);
}

Status EncodeMetrics(const flower::MetricRecord& metrics, flwr::proto::MetricRecord* out) {
  UMBEL_ASSIGN(const std::string bytes, flower::EncodeMetrics(metrics));
  out->ParseFromString(bytes);
  return {};
}

Result<flower::MetricRecord> DecodeMetrics(const flwr::proto::MetricRecord& metrics) {
  flower::Budget budget{kMetricsMax};
  return flower::DecodeMetrics(metrics.SerializeAsString(), budget);
}

Result<std::optional<StepRequest>> ReadStepRequest(const ObjectId& message, RunObjects& objects) {
  UMBEL_ASSIGN(const flower::RecordDict records, flower::ReadRecords(message, objects));
  for (const auto& [name, record] : records) {
    const auto* config = std::get_if<flower::ConfigRecord>(&record);
    if (name != "step" || config == nullptr) continue;
    StepRequest request;
    for (const auto& [key, value] : *config) {
      if (key == "step") {
        const auto* number = std::get_if<int64_t>(&value);
        const auto* natural = std::get_if<uint64_t>(&value);
        const uint64_t step = number != nullptr && *number > 0 ? static_cast<uint64_t>(*number)
                              : natural != nullptr             ? *natural
                                                               : 0;
        if (step == 0 || step > std::numeric_limits<uint32_t>::max())
          return Fail(Code::kInvalidArgument, "'step' is not a number from 1");
        request.step = static_cast<uint32_t>(step);
      } else if (key == "arrays") {
        const auto* wanted = std::get_if<bool>(&value);
        request.arrays = wanted != nullptr && *wanted;
      }
    }
    if (request.step == 0) return Fail(Code::kInvalidArgument, "the record 'step' says no step");
    return std::optional(request);
  }
  return std::optional<StepRequest>();
}

}  // namespace umbel::superlink::rounds
