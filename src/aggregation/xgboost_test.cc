#include "aggregation/xgboost.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <nlohmann/json.hpp>
#include <random>

namespace umbel::aggregation {
namespace {

using Json = nlohmann::ordered_json;

/// The parts of XGBoost's JSON that matter here; `tag` tells trees apart.
Json Model(int trees, int parallel, double tag) {
  Json model = {
      {"gbtree_model_param",
       {{"num_parallel_tree", std::to_string(parallel)}, {"num_trees", std::to_string(trees)}}},
      {"iteration_indptr", Json::array()},
      {"tree_info", Json::array()},
      {"trees", Json::array()}};
  for (int i = 0; i <= trees; i += parallel) model["iteration_indptr"].push_back(i);
  for (int i = 0; i < trees; ++i) {
    model["tree_info"].push_back(0);
    model["trees"].push_back({{"base_weights", {tag, 0.1f, -1e-7}}, {"id", i}});
  }
  return {{"learner",
           {{"attributes", Json::object()},
            {"gradient_booster", {{"model", model}, {"name", "gbtree"}}},
            {"objective", {{"name", "binary:logistic"}}}}},
          {"version", {2, 1, 3}}};
}

Json& ModelOf(Json& json) { return json["learner"]["gradient_booster"]["model"]; }

TEST(XgbBagging, AppendsTheTreesOfEachReply) {
  auto bagging = XgbBagging::Start(Model(2, 1, 1).dump());
  ASSERT_TRUE(bagging.ok());
  ASSERT_TRUE(bagging->Add(Model(1, 1, 2).dump()).ok());
  ASSERT_TRUE(bagging->Add(Model(3, 1, 3).dump()).ok());  // its first tree alone
  Json json = Json::parse(bagging->Finish().value());
  EXPECT_EQ(json["version"], Json({2, 1, 3}));
  const Json& model = ModelOf(json);
  EXPECT_EQ(model["gbtree_model_param"]["num_trees"], "4");
  EXPECT_EQ(model["iteration_indptr"], Json({0, 1, 2, 3, 4}));
  EXPECT_EQ(model["tree_info"], Json({0, 0, 0, 0}));
  ASSERT_EQ(model["trees"].size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(model["trees"][static_cast<size_t>(i)]["id"], i);
  EXPECT_EQ(model["trees"][2]["base_weights"][0], 2);
  EXPECT_EQ(model["trees"][3]["base_weights"][0], 3);
}

TEST(XgbBagging, ForestsGrowByTheirParallelTrees) {
  auto bagging = XgbBagging::Start(Model(4, 2, 1).dump());
  ASSERT_TRUE(bagging->Add(Model(2, 2, 2).dump()).ok());
  Json json = Json::parse(bagging->Finish().value());
  EXPECT_EQ(ModelOf(json)["iteration_indptr"], Json({0, 2, 4, 6}));
  EXPECT_EQ(ModelOf(json)["gbtree_model_param"]["num_trees"], "6");
}

TEST(XgbBagging, TheFirstReplyOfAllIsTheModelUnchanged) {
  auto bagging = XgbBagging::Start("");
  ASSERT_TRUE(bagging.ok());
  EXPECT_EQ(bagging->Finish().value(), "");
  const std::string first = Model(1, 1, 1).dump(3);
  ASSERT_TRUE(bagging->Add(first).ok());
  EXPECT_EQ(bagging->Finish().value(), first);
  ASSERT_TRUE(bagging->Add(first).ok());
  Json json = Json::parse(bagging->Finish().value());
  EXPECT_EQ(ModelOf(json)["trees"].size(), 2u);
}

TEST(XgbBagging, ABadReplyLeavesNoTrace) {
  auto bagging = XgbBagging::Start(Model(2, 1, 1).dump());
  const std::string before = bagging->Finish().value();
  const auto edited = [](auto edit) {
    Json json = Model(2, 1, 9);
    edit(json);
    return json.dump();
  };
  const std::pair<std::string, std::string> kCases[] = {
      {"", "XGBoost model: not JSON"},
      {"{\"learner\": ", "XGBoost model: not JSON"},
      {"[1, 2]", "XGBoost model: no 'learner'"},
      {"{\"learner\": 3}", "XGBoost model: 'learner' is of another type"},
      {edited([](Json& j) { ModelOf(j)["gbtree_model_param"]["num_trees"] = 2; }),
       "XGBoost model: 'num_trees' is of another type"},
      {edited([](Json& j) { ModelOf(j)["gbtree_model_param"]["num_parallel_tree"] = "-1"; }),
       "XGBoost model: 'num_parallel_tree' '-1' is not a count"},
      {edited(
           [](Json& j) { ModelOf(j)["gbtree_model_param"]["num_parallel_tree"] = "99999999999"; }),
       "XGBoost model: 'num_parallel_tree' '99999999999' is not a count"},
      {edited([](Json& j) { ModelOf(j)["gbtree_model_param"]["num_parallel_tree"] = "3"; }),
       "XGBoost model: 2 trees, fewer than num_parallel_tree 3"},
      {edited([](Json& j) { ModelOf(j)["trees"][0] = 7; }), "XGBoost model: tree 0 is no object"},
      {edited([](Json& j) { ModelOf(j).erase("trees"); }), "XGBoost model: no 'trees'"},
  };
  for (const auto& [reply, message] : kCases) {
    const Status status = bagging->Add(reply);
    ASSERT_FALSE(status.ok()) << message;
    EXPECT_EQ(status.error().message, message);
    EXPECT_EQ(bagging->Finish().value(), before);
  }
  EXPECT_FALSE(XgbBagging::Start(edited([](Json& j) {
                 ModelOf(j)["iteration_indptr"] = Json::array();
               })).ok());
}

TEST(XgbBagging, DepthAndSizeAreBounded) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "[";
  EXPECT_EQ(XgbBagging::Start(deep).error().code, Code::kResourceExhausted);
  deep = "";
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_EQ(XgbBagging::Start(deep).error().code, Code::kResourceExhausted);
  const std::string model = Model(2, 1, 1).dump();
  EXPECT_EQ(XgbBagging::Start(model, {.model_bytes = model.size() - 1}).error().code,
            Code::kResourceExhausted);
  EXPECT_EQ(XgbBagging::Start(model, {.values = 20}).error().message,
            "XGBoost model of more than 20 values");
  std::string wide = "{\"learner\": {";
  for (int i = 0; i < 100'000; ++i) wide += fmt::format("\"{}\":0,", i);
  EXPECT_EQ(XgbBagging::Start(wide + "\"x\":0}}").error().message,
            "XGBoost model: no 'gradient_booster'");
  auto bagging = XgbBagging::Start(model, {.model_bytes = model.size()});
  ASSERT_TRUE(bagging.ok());
  ASSERT_TRUE(bagging->Add(model).ok());
  EXPECT_EQ(bagging->Finish().error().code, Code::kResourceExhausted);
}

TEST(XgbBagging, AnyBytesAreRefusedOrRead) {
  const std::string good = Model(2, 1, 1).dump();
  EXPECT_TRUE(rc::check([&](uint64_t seed) {
    std::mt19937_64 engine(seed);
    std::string bytes = good;
    for (uint64_t i = 0; i <= engine() % 4; ++i)
      bytes[engine() % bytes.size()] = static_cast<char>(engine());
    auto bagging = XgbBagging::Start(good);
    if (!bagging->Add(bytes).ok()) RC_ASSERT(bagging->Finish().value() == good);
    RC_ASSERT(Json::accept(bagging->Finish().value()));
  }));
}

TEST(CyclicTurns, EachNodeInTheOrderOfItsComing) {
  CyclicTurns turns;
  const std::vector<uint64_t> first = {30, 10, 20};
  EXPECT_EQ(turns.Pick(first, 1), 30u);
  EXPECT_EQ(turns.Pick(std::vector<uint64_t>{10, 20, 30}, 2), 10u);
  EXPECT_EQ(turns.Pick(first, 3), 20u);
  EXPECT_EQ(turns.Pick(first, 4), 30u);
  // Node 10 is away, 5 is new.
  CyclicTurns restarted(turns.Seen());
  const std::vector<uint64_t> later = {5, 20, 30};
  EXPECT_EQ(restarted.Pick(later, 4), 30u);
  EXPECT_EQ(restarted.Pick(later, 5), 20u);
  EXPECT_EQ(restarted.Pick(later, 6), 5u);
  EXPECT_EQ(restarted.Seen(), (std::vector<uint64_t>{30, 10, 20, 5}));
}

}  // namespace
}  // namespace umbel::aggregation
