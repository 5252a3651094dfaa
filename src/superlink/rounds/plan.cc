#include "superlink/rounds/plan.h"

#include <cmath>

#include "flower/record_bytes.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

constexpr uint32_t kRoundsMax = 1'000'000;
constexpr double kSecondsMax = 1e9;
constexpr uint64_t kConfigMax = uint64_t{1} << 20;
constexpr double kSpoolModels = 8;

Result<aggregation::ParamValue> ToParam(const std::string& name, const flwr::proto::Scalar& value) {
  switch (value.scalar_case()) {
    case flwr::proto::Scalar::kDouble:
      return aggregation::ParamValue(value.double_());
    case flwr::proto::Scalar::kUint64:
      if (value.uint64() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return Fail(Code::kInvalidArgument,
                    fmt::format("{} {} is above 2^63", name, value.uint64()));
      return aggregation::ParamValue(static_cast<int64_t>(value.uint64()));
    case flwr::proto::Scalar::kSint64:
      return aggregation::ParamValue(int64_t{value.sint64()});
    case flwr::proto::Scalar::kBool:
      return aggregation::ParamValue(int64_t{value.bool_()});
    case flwr::proto::Scalar::kString:
      return aggregation::ParamValue(value.string());
    default:
      return Fail(Code::kInvalidArgument, fmt::format("{} has no value", name));
  }
}

Result<aggregation::Params> ToParams(
    const google::protobuf::Map<std::string, flwr::proto::Scalar>& given) {
  aggregation::Params params;
  for (const auto& [name, value] : given) {
    UMBEL_ASSIGN(params[name], ToParam(name, value));
  }
  return params;
}

Result<flower::ConfigRecord> ToConfig(std::string_view what,
                                      const flwr::proto::ConfigRecord& config) {
  flower::Budget budget{kConfigMax};
  auto read = flower::DecodeConfig(config.SerializeAsString(), budget);
  if (!read.ok()) return Fail(read.error().code, fmt::format("{}: {}", what, read.error().message));
  return read;
}

Status CheckSeconds(std::string_view what, double seconds) {
  if (seconds >= 0 && seconds <= kSecondsMax) return {};
  return Fail(Code::kInvalidArgument,
              fmt::format("{} {} not in [0, {}] seconds", what, seconds, kSecondsMax));
}

Result<StopRules> ToRules(const ::umbel::rounds::Plan::Stop& stop) {
  StopRules rules;
  rules.metric = stop.metric();
  if (stop.has_at_least()) rules.at_least = stop.at_least();
  if (stop.has_at_most()) rules.at_most = stop.at_most();
  rules.patience = stop.patience();
  rules.smaller_is_better = stop.smaller_is_better();
  rules.tie_metric = stop.tie_metric();
  rules.seconds = stop.seconds();
  UMBEL_TRY(CheckSeconds("stop.seconds", rules.seconds));
  if (rules.metric.empty() && (rules.at_least || rules.at_most || rules.patience > 0))
    return Fail(Code::kInvalidArgument, "stop.metric is missing: which metric is to be looked at?");
  if ((rules.at_least && std::isnan(*rules.at_least)) ||
      (rules.at_most && std::isnan(*rules.at_most)))
    return Fail(Code::kInvalidArgument, "a bound of stop is not a number");
  return rules;
}

}  // namespace

double Plan::fraction(bool train) const {
  return strategy.base().Float(train ? "fraction_train" : "fraction_evaluate");
}

uint32_t Plan::min_nodes(bool train) const {
  const std::string_view name = train ? "min_train_nodes" : "min_evaluate_nodes";
  return strategy.base().Has(name) ? static_cast<uint32_t>(strategy.base().Int(name)) : 1;
}

uint32_t Plan::min_available() const {
  return static_cast<uint32_t>(strategy.base().Int("min_available_nodes"));
}

Result<Plan> ReadPlan(std::string_view serialized) {
  ::umbel::rounds::Plan in;
  if (!in.ParseFromArray(serialized.data(), static_cast<int>(serialized.size())))
    return Fail(Code::kInvalidArgument, "the plan is not an umbel.rounds.Plan");
  Plan plan;
  UMBEL_ASSIGN(const aggregation::Params params, ToParams(in.parameters()));
  UMBEL_ASSIGN(plan.strategy, aggregation::MakeStrategy(in.strategy(), params));
  if (in.has_wrapper()) {
    UMBEL_ASSIGN(const aggregation::Params around, ToParams(in.wrapper().parameters()));
    UMBEL_ASSIGN(plan.strategy,
                 aggregation::WrapStrategy(in.wrapper().name(), around, std::move(plan.strategy)));
  }
  if (in.num_rounds() > kRoundsMax)
    return Fail(Code::kInvalidArgument,
                fmt::format("num_rounds {} not in [0, {}]", in.num_rounds(), kRoundsMax));
  plan.num_rounds = in.num_rounds();
  UMBEL_TRY(CheckSeconds("timeout", in.timeout()));
  if (in.timeout() > 0) plan.timeout = in.timeout();
  UMBEL_ASSIGN(plan.train_config, ToConfig("train_config", in.train_config()));
  UMBEL_ASSIGN(plan.evaluate_config, ToConfig("evaluate_config", in.evaluate_config()));
  plan.seed = in.seed();
  plan.close_train_at = in.close_train_at();
  plan.close_evaluate_at = in.close_evaluate_at();
  plan.node_names.assign(in.node_names().begin(), in.node_names().end());
  plan.min_train_replies = in.min_train_replies();
  plan.fail_on_non_finite = in.non_finite() == ::umbel::rounds::Plan::FAIL;
  UMBEL_ASSIGN(plan.stop, ToRules(in.stop()));
  switch (in.keep_models()) {
    case ::umbel::rounds::Plan::ALL:
      plan.keep = Keep::kAll;
      break;
    case ::umbel::rounds::Plan::BEST:
      if (plan.stop.metric.empty())
        return Fail(Code::kInvalidArgument, "keep_models BEST needs stop.metric: best by what?");
      plan.keep = Keep::kBest;
      break;
    default:
      plan.keep = Keep::kLast;
  }
  const double spool = in.spool_models();
  if (!(spool >= 0 && spool <= 1e6))
    return Fail(Code::kInvalidArgument, fmt::format("spool_models {} not in [0, 10^6]", spool));
  plan.spool_models = spool > 0 ? spool : kSpoolModels;
  plan.stepped = in.stepped();
  return plan;
}

namespace {

/// A number of the plan, however Python has written it.
std::optional<double> Number(const flower::ConfigValue& value) {
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1 : 0;
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  return std::nullopt;
}

std::optional<uint64_t> Natural(const flower::ConfigValue& value) {
  if (const auto* u = std::get_if<uint64_t>(&value)) return *u;
  if (const auto* i = std::get_if<int64_t>(&value); i && *i >= 0) return static_cast<uint64_t>(*i);
  return std::nullopt;
}

bool SetScalar(const flower::ConfigValue& value, flwr::proto::Scalar& out) {
  if (const auto* b = std::get_if<bool>(&value)) {
    out.set_bool_(*b);
  } else if (const auto* i = std::get_if<int64_t>(&value)) {
    out.set_sint64(*i);
  } else if (const auto* u = std::get_if<uint64_t>(&value)) {
    out.set_uint64(*u);
  } else if (const auto* d = std::get_if<double>(&value)) {
    out.set_double_(*d);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    out.set_string(*text);
  } else {
    return false;
  }
  return true;
}

Status SetKey(const std::string& key, const flower::ConfigValue& value,
              ::umbel::rounds::Plan& plan) {
  constexpr std::string_view kParam = "param.";
  constexpr std::string_view kWrapperParam = "wrapper.param.";
  const auto natural = Natural(value);
  bool fits = true;
  if (key == "strategy") {
    const auto* text = std::get_if<std::string>(&value);
    fits = text != nullptr;
    if (fits) plan.set_strategy(*text);
  } else if (key == "wrapper") {
    const auto* text = std::get_if<std::string>(&value);
    fits = text != nullptr;
    if (fits) plan.mutable_wrapper()->set_name(*text);
  } else if (key.starts_with(kWrapperParam)) {
    fits = SetScalar(
        value, (*plan.mutable_wrapper()->mutable_parameters())[key.substr(kWrapperParam.size())]);
  } else if (key == "num-rounds") {
    fits = natural && *natural <= kRoundsMax;
    if (fits) plan.set_num_rounds(static_cast<uint32_t>(*natural));
  } else if (key == "timeout") {
    const auto number = Number(value);
    fits = number.has_value();
    if (fits) plan.set_timeout(*number);
  } else if (key == "seed") {
    fits = natural.has_value();
    if (fits) plan.set_seed(*natural);
  } else if (key == "stepped") {
    const auto* flag = std::get_if<bool>(&value);
    fits = flag != nullptr;
    if (fits) plan.set_stepped(*flag);
  } else if (key.starts_with(kParam)) {
    fits = SetScalar(value, (*plan.mutable_parameters())[key.substr(kParam.size())]);
  } else {
    return Fail(Code::kInvalidArgument, fmt::format("the plan has an unknown key '{}'", key));
  }
  if (fits) return {};
  return Fail(Code::kInvalidArgument, fmt::format("the plan's '{}' is of another type", key));
}

}  // namespace

Result<std::string> PlanFromRecords(const flower::RecordDict& records) {
  ::umbel::rounds::Plan plan;
  bool found = false;
  for (const auto& [name, record] : records) {
    const auto* config = std::get_if<flower::ConfigRecord>(&record);
    if (config == nullptr) continue;
    if (name == "plan") {
      found = true;
      for (const auto& [key, value] : *config) UMBEL_TRY(SetKey(key, value, plan));
    } else if (name == "train-config" || name == "evaluate-config") {
      UMBEL_ASSIGN(const std::string body, flower::EncodeConfig(*config));
      auto* out =
          name == "train-config" ? plan.mutable_train_config() : plan.mutable_evaluate_config();
      out->ParseFromString(body);
    }
  }
  if (!found) return Fail(Code::kInvalidArgument, "the message has no ConfigRecord 'plan'");
  return plan.SerializeAsString();
}

}  // namespace umbel::superlink::rounds
