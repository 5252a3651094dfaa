#include "superlink/rounds/bagging.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "superlink/rounds/rounds_testing.h"

namespace umbel::superlink::rounds {
namespace {

using testing::ArrayOf;
using testing::ModelOf;
using testing::UpdateOf;

/// XGBoost's JSON of one tree, which a number tells from others.
std::string Tree(int number) {
  const nlohmann::json model = {
      {"learner",
       {{"gradient_booster",
         {{"model",
           {{"gbtree_model_param", {{"num_parallel_tree", "1"}, {"num_trees", "1"}}},
            {"iteration_indptr", {0, 1}},
            {"tree_info", {0}},
            {"trees", {{{"id", 0}, {"base_weights", {number}}}}}}}}}}}};
  return model.dump();
}

ModelArray Bytes(const std::string& text) { return ArrayOf("0", "|u1", {text.size()}, text); }

TEST(Bagging, AppendsTreesInTheOrderOfNodes) {
  const Model model = ModelOf({Bytes(Tree(7))});
  const auto bagging = *MakeBagging(model);
  const auto refused =
      *bagging->Add({UpdateOf(9, 1, {Bytes(Tree(3))}), UpdateOf(5, 1, {Bytes("no json")}),
                     UpdateOf(2, 1, {Bytes(Tree(4))})});
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].index, 1u);
  EXPECT_EQ(refused[0].outcome, Outcome::kMalformed);
  const auto next = *bagging->Finish(1);
  ASSERT_EQ(next.arrays.size(), 1u);
  const auto made = nlohmann::json::parse(testing::Filled(next.arrays[0], 1));
  const auto& trees = made["learner"]["gradient_booster"]["model"]["trees"];
  ASSERT_EQ(trees.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(trees[i]["id"], i);
  EXPECT_EQ(trees[0]["base_weights"][0], 7);
  EXPECT_EQ(trees[1]["base_weights"][0], 4);
  EXPECT_EQ(trees[2]["base_weights"][0], 3);
}

TEST(Bagging, BeginsWithNothing) {
  const Model model = ModelOf({Bytes("")});
  const auto bagging = *MakeBagging(model);
  ASSERT_TRUE(bagging->Add({UpdateOf(1, 1, {Bytes(Tree(3))})})->empty());
  EXPECT_EQ(testing::Filled(bagging->Finish(1)->arrays[0], 1), Tree(3));
}

TEST(Bagging, RefusesOtherModelsAndOtherBytes) {
  EXPECT_FALSE(MakeBagging(ModelOf({Bytes(""), Bytes("")})).ok());
  EXPECT_FALSE(MakeBagging(ModelOf({ArrayOf("0", "<f4", {1}, "abcd")})).ok());
  const Model model = ModelOf({Bytes("")});
  const auto bagging = *MakeBagging(model);
  const auto refused = *bagging->Add({UpdateOf(1, 1, {ArrayOf("0", "<f4", {1}, "abcd")})});
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].outcome, Outcome::kWrongDtype);
}

}  // namespace
}  // namespace umbel::superlink::rounds
