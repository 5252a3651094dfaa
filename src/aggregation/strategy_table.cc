// The table of strategies. tests/golden/strategies.json holds it to Flower's constructors.
#include <utility>

#include "aggregation/strategy.h"

namespace umbel::aggregation {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Interval kAny{.low_open = true, .high_open = true};
constexpr Interval kFraction{.low = 0, .high = 1};
constexpr Interval kZeroOrOne{.low = 0, .high = 1, .ends_only = true};
constexpr Interval kBelowOne{.low = 0, .high = 1, .high_open = true};
constexpr Interval kNotNegative{.low = 0, .high = kInfinity, .high_open = true};
constexpr Interval kPositive{.low = 0, .high = kInfinity, .low_open = true, .high_open = true};
constexpr Interval kFromOne{.low = 1, .high = kInfinity, .high_open = true};

ParamInfo Float(std::string name, double standard, Interval range = kAny) {
  return {.name = std::move(name), .type = ParamType::kFloat, .standard = standard, .range = range};
}
ParamInfo Int(std::string name, int64_t standard, Interval range = kNotNegative) {
  return {.name = std::move(name), .type = ParamType::kInt, .standard = standard, .range = range};
}
ParamInfo Text(std::string name, std::string standard) {
  return {.name = std::move(name), .type = ParamType::kText, .standard = std::move(standard)};
}
ParamInfo Python(std::string name) {
  return {.name = std::move(name), .type = ParamType::kPython, .standard = {}, .optional = true};
}
ParamInfo Required(ParamInfo param) {
  param.required = true;
  param.standard = {};
  return param;
}

using ParamList = std::vector<ParamInfo>;

ParamList Join(std::initializer_list<ParamList> lists) {
  ParamList out;
  for (const ParamList& list : lists) out.insert(out.end(), list.begin(), list.end());
  return out;
}

ParamList Sampling() {
  return {Float("fraction_train", 1.0, kFraction), Float("fraction_evaluate", 1.0, kFraction),
          Int("min_train_nodes", 2), Int("min_evaluate_nodes", 2), Int("min_available_nodes", 2)};
}
ParamList CyclicSampling() {
  return {Float("fraction_train", 1.0, kZeroOrOne), Float("fraction_evaluate", 1.0, kZeroOrOne),
          Int("min_available_nodes", 2)};
}
ParamList Keys() {
  return {Text("weighted_by_key", "num-examples"), Text("arrayrecord_key", "arrays"),
          Text("configrecord_key", "config"), Python("train_metrics_aggr_fn"),
          Python("evaluate_metrics_aggr_fn")};
}
ParamList FedAvgAnd(ParamList after) { return Join({Sampling(), Keys(), after}); }

ParamList Adaptive(double eta, double eta_l) {
  return {Float("eta", eta), Float("eta_l", eta_l), Float("beta_1", 0.9, kBelowOne),
          Float("beta_2", 0.99, kBelowOne), Float("tau", 1e-3, kNotNegative)};
}

ParamInfo Malicious() { return Int("num_malicious_nodes", 0); }
ParamInfo Noise() { return Required(Float("noise_multiplier", 0, kNotNegative)); }
ParamInfo Sampled() { return Required(Int("num_sampled_clients", 0, kFromOne)); }
ParamInfo Wrapped() {
  ParamInfo wrapped = Python("strategy");
  wrapped.required = true;
  return wrapped;
}
ParamInfo CountDeviation() {
  ParamInfo param = Float("clipped_count_stddev", 0, kNotNegative);
  param.standard = {};
  param.optional = true;
  return param;
}

std::vector<StrategyInfo> MakeTable() {
  using Kind = StrategyKind;
  const std::string reddi = "Reddi et al. 2020, arXiv:2003.00295";
  const std::string yin = "Yin et al. 2018, arXiv:1803.01498";
  const std::string blanchard = "Blanchard et al. 2017, arXiv:1703.02757";
  return {
      {Kind::kFedAvg, "FedAvg", "McMahan et al. 2016, arXiv:1602.05629", FedAvgAnd({}), {}},
      {Kind::kFedProx,
       "FedProx",
       "Li et al. 2018, arXiv:1812.06127",
       FedAvgAnd({Float("proximal_mu", 0.0)}),
       {}},
      {Kind::kFedAvgM,
       "FedAvgM",
       "Hsu et al. 2019, arXiv:1909.06335",
       FedAvgAnd({Float("server_learning_rate", 1.0), Float("server_momentum", 0.0)}),
       {}},
      {Kind::kFedAdagrad,
       "FedAdagrad",
       reddi,
       FedAvgAnd({Float("eta", 0.1), Float("eta_l", 0.1), Float("tau", 1e-3, kNotNegative)}),
       {{"beta_1", 0.0}, {"beta_2", 0.0}}},
      {Kind::kFedAdam, "FedAdam", reddi, FedAvgAnd(Adaptive(0.1, 0.1)), {}},
      {Kind::kFedYogi, "FedYogi", reddi, FedAvgAnd(Adaptive(0.01, 0.0316)), {}},
      {Kind::kQFedAvg,
       "QFedAvg",
       "Li et al. 2020, openreview.net/pdf?id=ByexElSYDr",
       Join({{Required(Float("client_learning_rate", 0, kPositive)), Float("q", 0.1),
              Text("train_loss_key", "train_loss")},
             Sampling(),
             Keys()}),
       {}},
      {Kind::kFedMedian, "FedMedian", yin, FedAvgAnd({}), {}},
      {Kind::kFedTrimmedAvg,
       "FedTrimmedAvg",
       yin,
       FedAvgAnd({Float("beta", 0.2, {.low = 0, .high = 0.5, .high_open = true})}),
       {}},
      {Kind::kKrum,
       "Krum",
       blanchard,
       Join({Sampling(), {Malicious()}, Keys()}),
       {{"num_nodes_to_select", int64_t{1}}}},
      {Kind::kMultiKrum,
       "MultiKrum",
       blanchard,
       Join({Sampling(), {Malicious(), Int("num_nodes_to_select", 1, kFromOne)}, Keys()}),
       {}},
      {Kind::kBulyan,
       "Bulyan",
       "El Mhamdi et al. 2018, arXiv:1802.07927",
       Join({Sampling(), {Malicious()}, Keys(), {Python("selection_rule")}}),
       {}},
      {Kind::kFedXgbBagging, "FedXgbBagging", "", FedAvgAnd({}), {}},
      {Kind::kFedXgbCyclic,
       "FedXgbCyclic",
       "",
       Join({CyclicSampling(), Keys()}),
       {{"min_train_nodes", int64_t{2}}, {"min_evaluate_nodes", int64_t{2}}}},
      {Kind::kServerSideFixedClipping,
       "DifferentialPrivacyServerSideFixedClipping",
       "McMahan et al. 2017, arXiv:1710.06963",
       {Wrapped(), Noise(), Required(Float("clipping_norm", 0, kPositive)), Sampled(),
        Python("accountant")},
       {},
       true},
      {Kind::kServerSideAdaptiveClipping,
       "DifferentialPrivacyServerSideAdaptiveClipping",
       "Andrew et al. 2019, arXiv:1905.03871",
       {Wrapped(), Noise(), Sampled(), Float("initial_clipping_norm", 0.1, kPositive),
        Float("target_clipped_quantile", 0.5, kFraction), Float("clip_norm_lr", 0.2, kPositive),
        CountDeviation()},
       {},
       true},
  };
}

}  // namespace

std::span<const StrategyInfo> Strategies() {
  static const std::vector<StrategyInfo> table = MakeTable();
  return table;
}

const StrategyInfo& InfoOf(StrategyKind kind) {
  const StrategyInfo& info = Strategies()[static_cast<size_t>(kind)];
  UMBEL_CHECK(info.kind == kind);  // rows stand in the order of the enum
  return info;
}

}  // namespace umbel::aggregation
