#include "flower/run_config.h"

#include <gtest/gtest.h>

#include "flower/errors.h"
#include "flwr/common.pb.h"

namespace umbel::flower {
namespace {

FabInfo Fab() {
  FabInfo fab;
  fab.fab_id = "umbel/toy";
  fab.config = {{"rounds", int64_t{3}}, {"lr", 0.1}, {"a.text", "x"}, {"verbose", false}};
  return fab;
}

TEST(RunConfig, TheRunsValuesLieOverTheFabs) {
  flwr::proto::Run run;
  EXPECT_EQ(FuseRunConfig(Fab(), run.SerializeAsString()).value(), Fab().config);
  auto& values = *run.mutable_override_config();
  values["rounds"].set_sint64(-5);
  values["lr"].set_double_(0.25);
  values["a.text"].set_string("y");
  EXPECT_EQ(
      FuseRunConfig(Fab(), run.SerializeAsString()).value(),
      (ConfigMap{{"rounds", int64_t{-5}}, {"lr", 0.25}, {"a.text", "y"}, {"verbose", false}}));
  // Another kind is as good.
  values["rounds"].set_uint64(uint64_t{1} << 63);
  values["lr"].set_bool_(true);
  EXPECT_EQ(FuseRunConfig(Fab(), run.SerializeAsString()).value(),
            (ConfigMap{
                {"rounds", uint64_t{1} << 63}, {"lr", true}, {"a.text", "y"}, {"verbose", false}}));
}

TEST(RunConfig, WhatDoesNotFitIsRefused) {
  flwr::proto::Run run;
  (*run.mutable_override_config())["a"].set_string("y");
  const auto unknown = FuseRunConfig(Fab(), run.SerializeAsString());
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, Code::kInvalidArgument);
  EXPECT_EQ(unknown.error().wire_code, wire::kInvalidRunConfig);
  EXPECT_EQ(unknown.error().message,
            "run config: key 'a' is not in [tool.flwr.app.config] of umbel/toy");

  run.clear_override_config();
  (*run.mutable_override_config())["lr"].set_bytes("x");
  EXPECT_EQ(FuseRunConfig(Fab(), run.SerializeAsString()).error().message,
            "run config: the value of 'lr' is not a bool, int, float or string");
  (*run.mutable_override_config())["lr"].clear_scalar();
  EXPECT_FALSE(FuseRunConfig(Fab(), run.SerializeAsString()).ok());
  EXPECT_EQ(FuseRunConfig(Fab(), "\xff").error().message, "run: 1 bytes are no flwr.proto.Run");
}

}  // namespace
}  // namespace umbel::flower
