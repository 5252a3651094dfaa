#include "superlink/rounds/report.h"

#include <fmt/ranges.h>

#include "aggregation/exact_scalar.h"
#include "tensor/quote.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

std::vector<double> Numbers(const flower::MetricValue& value) {
  return std::visit(
      [](const auto& held) -> std::vector<double> {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(held)>>) {
          return {static_cast<double>(held)};
        } else {
          std::vector<double> out;
          for (const auto element : held) out.push_back(static_cast<double>(element));
          return out;
        }
      },
      value);
}

bool IsList(const flower::MetricValue& value) { return value.index() >= 3; }

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
  return fmt::format("{}: {} rounds over a model of {} arrays, {}", plan.strategy.name(),
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

flower::MetricRecord MeanMetrics(const std::vector<WeightedMetrics>& replies,
                                 std::string_view weighted_by_key) {
  flower::MetricRecord means;
  if (replies.empty()) return means;
  aggregation::ExactScalar total;
  for (const WeightedMetrics& reply : replies) static_cast<void>(total.Add(reply.weight));
  for (const auto& [key, first] : *replies[0].metrics) {
    if (key == weighted_by_key) continue;
    const bool list = IsList(first);
    const size_t length = Numbers(first).size();
    std::vector<aggregation::ExactScalar> sums(length);
    bool all = true;
    for (const WeightedMetrics& reply : replies) {
      const flower::MetricValue* value = Find(*reply.metrics, key);
      all = value != nullptr && IsList(*value) == list;
      const std::vector<double> numbers = all ? Numbers(*value) : std::vector<double>();
      all = all && numbers.size() == length;
      for (size_t i = 0; all && i < length; ++i)
        all = sums[i].AddProduct(numbers[i], reply.weight).ok();
      if (!all) break;
    }
    if (!all) continue;
    std::vector<double> mean;
    for (const auto& sum : sums) mean.push_back(*aggregation::RoundedQuotient(sum, total));
    if (list) {
      means.emplace_back(key, std::move(mean));
    } else {
      means.emplace_back(key, mean[0]);
    }
  }
  return means;
}

std::optional<double> MetricOf(const flower::MetricRecord& metrics, std::string_view key) {
  const flower::MetricValue* value = Find(metrics, key);
  if (value == nullptr || IsList(*value)) return std::nullopt;
  return Numbers(*value)[0];
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
