#include "aggregation/strategy.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

namespace umbel::aggregation {
namespace {

using Json = nlohmann::ordered_json;

std::string ErrorOf(const Result<StrategySpec>& result) {
  return result.ok() ? "" : result.error().message;
}

Json ToJson(const ParamInfo& param) {
  Json out = {{"name", param.name}};
  switch (param.type) {
    case ParamType::kInt:
      out["type"] = "int";
      break;
    case ParamType::kFloat:
      out["type"] = "float";
      break;
    case ParamType::kText:
      out["type"] = "str";
      break;
    case ParamType::kPython:
      out["type"] =
          param.name == "strategy" || param.name == "accountant" ? param.name : "callable";
      break;
  }
  if (param.required) return out;
  out["default"] = nullptr;
  if (const auto* v = std::get_if<int64_t>(&param.standard)) out["default"] = *v;
  if (const auto* v = std::get_if<double>(&param.standard)) out["default"] = *v;
  if (const auto* v = std::get_if<std::string>(&param.standard)) out["default"] = *v;
  return out;
}

TEST(Strategy, TheTableIsFlowersConstructors) {
  std::ifstream file(UMBEL_SOURCE_DIR "/tests/golden/strategies.json");
  const Json golden = Json::parse(file);
  std::set<std::string> ours;
  for (const StrategyInfo& info : Strategies()) {
    ours.insert(info.name);
    EXPECT_EQ(&InfoOf(info.kind), &info);
    ASSERT_TRUE(golden.contains(info.name)) << info.name;
    Json described = Json::array();
    for (const ParamInfo& param : info.params) described.push_back(ToJson(param));
    EXPECT_EQ(described.dump(), golden[info.name].dump()) << info.name;
  }
  for (const auto& [name, unused] : golden.items()) {
    const bool client_side = name.starts_with("DifferentialPrivacyClientSide");
    EXPECT_EQ(ours.contains(name), !client_side) << name;
    if (!client_side) continue;
    EXPECT_EQ(MakeStrategy(name, {}).error().code, Code::kUnimplemented);
  }
}

TEST(Strategy, DefaultsAreFilledInAndCheckedThemselves) {
  for (const StrategyInfo& info : Strategies()) {
    Params needed;
    for (const ParamInfo& param : info.params) {
      if (param.required && param.type == ParamType::kFloat) needed[param.name] = 0.5;
      if (param.required && param.type == ParamType::kInt) needed[param.name] = int64_t{100};
    }
    auto made = info.wrapper ? WrapStrategy(info.name, needed, *MakeStrategy("FedAvg", {}))
                             : MakeStrategy(info.name, needed);
    ASSERT_TRUE(made.ok()) << ErrorOf(made);
    EXPECT_EQ(made->name(), info.name);
    for (const char* param : {"min_train_nodes", "min_evaluate_nodes"})
      EXPECT_EQ(made->base().Int(param), 2);
    EXPECT_EQ(made->base().Text("weighted_by_key"), "num-examples");
    // Given back, defaults are accepted.
    Params all = made->params;
    for (const auto& [name, value] : info.fixed) all.erase(name);
    made = info.wrapper ? WrapStrategy(info.name, all, made->base()) : MakeStrategy(info.name, all);
    EXPECT_TRUE(made.ok()) << ErrorOf(made);
    for (const auto& [name, value] : needed) {
      Params rest = needed;
      rest.erase(name);
      made = info.wrapper ? WrapStrategy(info.name, rest, *MakeStrategy("FedAvg", {}))
                          : MakeStrategy(info.name, rest);
      EXPECT_EQ(ErrorOf(made), fmt::format("{} needs the parameter {}", info.name, name));
    }
  }
}

TEST(Strategy, WhatTheConstructorsDerive) {
  const auto idle = MakeStrategy("FedAvg", {{"fraction_train", int64_t{0}}}).value();
  EXPECT_EQ(idle.Int("min_train_nodes"), 0);
  EXPECT_EQ(idle.Int("min_evaluate_nodes"), 2);
  EXPECT_EQ(MakeStrategy("krum", {})->Int("num_nodes_to_select"), 1);
  EXPECT_EQ(MakeStrategy("fedadagrad", {})->Float("beta_1"), 0);
  EXPECT_EQ(MakeStrategy("FEDADAM", {{"eta", "1e-2"}})->Float("eta"), 0.01);
  EXPECT_EQ(MakeStrategy("multikrum", {{"num_malicious_nodes", "3"}})->Int("num_malicious_nodes"),
            3);
}

TEST(Strategy, AnErrorNamesTheThingItsValueAndTheRule) {
  const struct {
    std::string_view name;
    Params params;
    std::string_view message;
  } kCases[] = {
      {"FedAdm", {}, "unknown strategy 'FedAdm'; did you mean 'FedAdam'?"},
      {"multi-krum", {}, "unknown strategy 'multi-krum'; did you mean 'MultiKrum'?"},
      {"nothing at all", {}, "unknown strategy 'nothing at all'"},
      {"FedTrimmedAvg", {{"beta", 0.7}}, "beta 0.7 not in [0, 0.5)"},
      {"FedTrimmedAvg", {{"beta", 0.5}}, "beta 0.5 not in [0, 0.5)"},
      {"FedTrimmedAvg", {{"beta", "much"}}, "beta 'much' is not a float"},
      {"FedTrimmedAvg", {{"beta", std::nan("")}}, "beta nan not in [0, 0.5)"},
      {"FedTrimmedAvg",
       {{"Beta", 0.1}},
       "FedTrimmedAvg has no parameter 'Beta'; did you mean 'beta'?"},
      {"FedAvg", {{"beta_1", 0.1}}, "FedAvg has no parameter 'beta_1'"},
      {"FedAdam", {{"beta1", 0.1}}, "FedAdam has no parameter 'beta1'; did you mean 'beta_1'?"},
      {"FedAdam", {{"eta", HUGE_VAL}}, "eta inf not in (-inf, inf)"},
      {"FedAdam", {{"beta_2", int64_t{1}}}, "beta_2 1 not in [0, 1)"},
      {"FedXgbCyclic", {{"fraction_train", 0.5}}, "fraction_train 0.5 not in {0, 1}"},
      {"FedXgbCyclic",
       {{"min_train_nodes", int64_t{3}}},
       "FedXgbCyclic has no parameter 'min_train_nodes'"},
      {"FedAvg", {{"min_train_nodes", 2.0}}, "min_train_nodes 2 is not an int"},
      {"FedAvg", {{"min_train_nodes", int64_t{-1}}}, "min_train_nodes -1 not in [0, inf)"},
      {"FedAvg", {{"fraction_train", 1.5}}, "fraction_train 1.5 not in [0, 1]"},
      {"FedAvg", {{"weighted_by_key", int64_t{3}}}, "weighted_by_key 3 is not a text"},
      {"FedAvg", {{"weighted_by_key", ""}}, "weighted_by_key is empty"},
      {"FedAvg", {{"weighted_by_key", {}}}, "weighted_by_key may not be None"},
      {"FedAvg",
       {{"train_metrics_aggr_fn", "mean"}},
       "train_metrics_aggr_fn is an object of Python; only a ServerApp can give it"},
      {"QFedAvg", {{"client_learning_rate", 0.0}}, "client_learning_rate 0 not in (0, inf)"},
      {"DifferentialPrivacyServerSideFixedClipping",
       {},
       "DifferentialPrivacyServerSideFixedClipping wraps a strategy; name that one, too"},
  };
  for (const auto& c : kCases) {
    const std::string error = ErrorOf(MakeStrategy(c.name, c.params));
    // A hint may follow where none is demanded.
    EXPECT_TRUE(error.starts_with(c.message)) << "got: " << error << "\nnot: " << c.message;
    if (c.message.find("did you") == std::string_view::npos) continue;
    EXPECT_EQ(error, c.message);
  }
}

TEST(Strategy, WrappersCheckTheirNoise) {
  const StrategySpec inner = MakeStrategy("FedAdam", {}).value();
  const std::string adaptive = "DifferentialPrivacyServerSideAdaptiveClipping";
  const Params few = {{"noise_multiplier", 1.0}, {"num_sampled_clients", int64_t{10}}};
  EXPECT_EQ(ErrorOf(WrapStrategy(adaptive, few, inner)),
            "noise_multiplier 1 not below twice the clipped_count_stddev 0.5, by default a 20th of "
            "num_sampled_clients");
  Params more = few;
  more["clipped_count_stddev"] = 0.6;
  const auto made = WrapStrategy(adaptive, more, inner);
  ASSERT_TRUE(made.ok()) << ErrorOf(made);
  EXPECT_EQ(made->base().kind, StrategyKind::kFedAdam);
  EXPECT_NE(ErrorOf(WrapStrategy(adaptive, more, *made)), "");
  EXPECT_EQ(ErrorOf(WrapStrategy("FedAvg", {}, inner)), "FedAvg does not wrap a strategy");
  EXPECT_EQ(WrapStrategy("serversideAdaptiveClipping", more, inner)->name(), adaptive);
  EXPECT_EQ(ErrorOf(WrapStrategy("ServerSideFixClipping", {}, inner)),
            "unknown strategy 'ServerSideFixClipping'; did you mean 'ServerSideFixedClipping'?");
  for (const char* trees : {"FedXgbBagging", "FedXgbCyclic"})
    EXPECT_NE(ErrorOf(WrapStrategy(adaptive, more, *MakeStrategy(trees, {}))).find(trees),
              std::string::npos);
  more["strategy"] = "FedAvg";
  EXPECT_NE(ErrorOf(WrapStrategy(adaptive, more, inner)), "");
}

}  // namespace
}  // namespace umbel::aggregation
