#include "doors/api/views.h"

#include <gtest/gtest.h>

#include <cmath>

namespace umbel::doors {
namespace {

TEST(Problem, NamesTheFieldOfAnSla) {
  const auto problem =
      Problem({Code::kInvalidArgument, "training_configuration.data_tags[0]: 1 is not text", 0});
  EXPECT_EQ(problem["status"], 422);
  EXPECT_EQ(problem["errors"][0]["field"], "training_configuration.data_tags[0]");
  EXPECT_EQ(problem["errors"][0]["detail"], "1 is not text");
}

TEST(Problem, HasNoFieldWhereTheMessageNamesNone) {
  EXPECT_FALSE(Problem({Code::kInvalidArgument, "the SLA is not JSON: x", 0}).contains("errors"));
  EXPECT_FALSE(Problem({Code::kNotFound, "a: b", 0}).contains("errors"));
  EXPECT_EQ(Problem({Code::kInvalidArgument, "no", 405})["title"], "Method Not Allowed");
  EXPECT_EQ(Problem({Code::kInternal, "x", 0})["status"], 500);
}

TEST(Views, WhatIsNoNumberIsNull) {
  manager::ProjectView view;
  view.project.sla = "{}";
  view.project.best_round = 2;
  view.project.best_accuracy = 0.5;
  view.project.best_loss = std::nan("");
  view.rounds.push_back({});
  const auto json = ToJson(view);
  EXPECT_EQ(json["best"]["accuracy"], 0.5);
  EXPECT_TRUE(json["best"]["loss"].is_null());
  EXPECT_TRUE(json["rounds"][0]["accuracy"].is_null());
  EXPECT_TRUE(json["ended_at"].is_null());
  EXPECT_NO_THROW(json.dump());
}

}  // namespace
}  // namespace umbel::doors
