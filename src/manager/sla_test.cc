#include "manager/sla.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace umbel::manager {
namespace {

using nlohmann::json;

json Good() {
  return json::parse(R"({
    "customerID": "Admin", "verbose": true,
    "ml_repo_url": "https://example.org/mnist_sklearn", "ml_model_flavor": "sklearn",
    "training_configuration": {"mode": "classic", "data_tags": ["mnist"], "training_rounds": 3,
      "min_available_clients": 2, "min_fit_clients": 2, "min_evaluate_clients": 2},
    "post_training_steps": ["build_image_for_trained_model", "deploy_trained_model_image"],
    "resource_constraints": {"memory": 100, "vcpus": 1, "storage": 0}})");
}

TEST(Sla, ReadsAllFields) {
  const auto sla = ParseSla(Good().dump());
  ASSERT_TRUE(sla.ok()) << sla.error().message;
  EXPECT_EQ(sla->customer, "Admin");
  EXPECT_TRUE(sla->verbose && sla->serve && sla->build_image);
  EXPECT_EQ(sla->data_tags, std::vector<std::string>{"mnist"});
  EXPECT_EQ(sla->rounds, 3u);
  EXPECT_EQ(sla->min_available, 2u);
  EXPECT_TRUE(sla->unknown.empty());
}

TEST(Sla, HasFlopsDefaults) {
  const auto sla = ParseSla(R"({"customerID":"a","ml_repo_url":"/r","ml_model_flavor":"pytorch"})");
  ASSERT_TRUE(sla.ok()) << sla.error().message;
  EXPECT_EQ(sla->rounds, 3u);
  EXPECT_EQ(sla->cycles, 1u);
  EXPECT_EQ(sla->min_available, 1u);
  EXPECT_EQ(sla->memory_mb, 100u);
  EXPECT_FALSE(sla->serve);
}

TEST(Sla, SurvivesItsOwnJsonWithoutTheToken) {
  json document = Good();
  document["ml_repo_url"] = "git@example.org:a/b.git#feature/x-1";
  document["ml_repo_token"] = "s3cret";
  const auto sla = ParseSla(document.dump());
  ASSERT_TRUE(sla.ok()) << sla.error().message;
  EXPECT_EQ(sla->ref, "feature/x-1");
  EXPECT_EQ(sla->token, "s3cret");
  const std::string again = ToJson(*sla);
  EXPECT_EQ(again.find("s3cret"), std::string::npos);
  const auto second = ParseSla(again);
  ASSERT_TRUE(second.ok()) << second.error().message;
  EXPECT_EQ(ToJson(*second), again);
}

TEST(Sla, TellsWhatItDoesNotKnow) {
  json document = Good();
  document["sla_version"] = 1;
  document["training_configuration"]["training_round"] = 9;
  const auto sla = ParseSla(document.dump());
  ASSERT_TRUE(sla.ok());
  EXPECT_EQ(sla->unknown,
            (std::vector<std::string>{"training_configuration.training_round", "sla_version"}));
}

struct BadCase {
  const char* pointer;
  json value;
  const char* message;
};

TEST(Sla, NamesFieldValueAndRule) {
  const BadCase cases[] = {
      {"/customerID", nullptr, "customerID: is missing"},
      {"/customerID", "", "customerID: is empty"},
      {"/customerID", 7, "customerID: 7 is not text"},
      {"/customerID", "a\nb", "customerID: holds a control character"},
      {"/customerID", std::string(101, 'a'),
       "customerID: is 101 bytes long; at most 100 are taken"},
      {"/verbose", "yes", "verbose: \"yes\" is neither true nor false"},
      {"/ml_repo_url", "ftp://x/y", "ml_repo_url: 'ftp://x/y' is no repository"},
      {"/ml_repo_url", "ext::sh -c id", "ml_repo_url: 'ext::sh -c id' is no repository"},
      {"/ml_repo_url", "--upload-pack=id", "is no repository"},
      {"/ml_repo_url", "https://a:b@x/y", "ml_repo_url: holds a password"},
      {"/ml_repo_url", "/r#--force", "names no branch"},
      {"/ml_repo_url", "/r#a..b", "names no branch"},
      {"/ml_model_flavor", "jax", "ml_model_flavor: 'jax' is not one of sklearn, pytorch"},
      {"/supported_platforms", json::array(), "supported_platforms: is empty"},
      {"/supported_platforms", {"windows"}, "supported_platforms: 'windows' is not one of"},
      {"/training_configuration", 3, "training_configuration: 3 is not an object"},
      {"/training_configuration/mode", "hierarchical", "training_configuration.mode: hierarchical"},
      {"/training_configuration/training_rounds", 0,
       "training_configuration.training_rounds: 0 is not in 1 to 10000"},
      {"/training_configuration/training_rounds", 1e99, "is not in 1 to 10000"},
      {"/training_configuration/training_rounds", 18446744073709551615ull, "is not in 1 to 10000"},
      {"/training_configuration/training_rounds", "3", "\"3\" is not a number"},
      {"/training_configuration/min_fit_clients", 3,
       "training_configuration.min_fit_clients: 3 is more than min_available_clients, 2"},
      {"/training_configuration/min_evaluate_clients", 3, "min_evaluate_clients: 3 is more than"},
      {"/training_configuration/data_tags", {1}, "training_configuration.data_tags[0]: 1 is not"},
      {"/training_configuration/data_tags",
       {""},
       "training_configuration.data_tags[0]: \"\" is not"},
      {"/training_configuration/data_tags", {"../x"}, "training_configuration.data_tags: "},
      {"/training_configuration/data_tags", {"a,b"}, "training_configuration.data_tags: "},
      {"/post_training_steps", {"deploy"}, "post_training_steps: 'deploy' is not one of"},
      {"/resource_constraints/memory", -1, "resource_constraints.memory: -1 is not in 1 to"},
      {"/resource_constraints/vcpus", 0.5, "resource_constraints.vcpus: 0.5 is not in 1 to"},
  };
  for (const BadCase& bad : cases) {
    json document = Good();
    document[json::json_pointer(bad.pointer)] = bad.value;
    const auto sla = ParseSla(document.dump());
    ASSERT_FALSE(sla.ok()) << bad.message;
    EXPECT_EQ(sla.error().code, Code::kInvalidArgument);
    EXPECT_NE(sla.error().message.find(bad.message), std::string::npos)
        << sla.error().message << "\nwanted: " << bad.message;
  }
}

TEST(Sla, RefusesDevelImagesWithOtherPlatforms) {
  json document = Good();
  document["use_devel_base_images"] = true;
  EXPECT_TRUE(ParseSla(document.dump()).ok());
  document["supported_platforms"] = {"linux/amd64", "linux/arm64"};
  EXPECT_FALSE(ParseSla(document.dump()).ok());
}

TEST(Sla, IsNotBrokenByBrokenJson) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("\"a\""),
        std::string("nul"), std::string(100'000, '['), std::string("{\"customerID\":\"\xff\xfe\"}"),
        std::string(kSlaBytesMax + 1, ' ')})
    EXPECT_FALSE(ParseSla(text).ok());
}

}  // namespace
}  // namespace umbel::manager
