#include "manager/commands.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace umbel::manager {
namespace {

bool Has(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}
bool HasPair(const std::vector<std::string>& all, const std::string& flag,
             const std::string& value) {
  for (size_t i = 0; i + 1 < all.size(); ++i)
    if (all[i] == flag && all[i + 1].find(value) != std::string::npos) return true;
  return false;
}

class CommandsTest : public ::testing::Test {
 protected:
  CommandsTest() {
    options_.state = "/state";
    options_.program = "/bin/umbel";
    options_.flops = "/flops";
    options_.dataserver = "/bin/umbel-dataserver";
    options_.sockets = "/sockets";
    options_.isolated = true;
    options_.shown = {"/site"};
    project_.id = "p";
    project_.source = "/repositories/1";
    project_.environment = R"({"python": "/environments/1/bin/python"})";
    project_.best_model = "/state/projects/p/best.npz";
    service_.name = "s";
    sla_.data_tags = {"t"};
  }

  Options options_;
  Project project_;
  Service service_;
  Sla sla_;
};

TEST_F(CommandsTest, ALearnersUserCodeSeesItsDataAlone) {
  InstanceSpec spec = LearnerSpec(options_, project_, sla_, service_, 1, "127.0.0.1:1");
  EXPECT_TRUE(Has(spec.arguments, "--isolated"));
  EXPECT_TRUE(HasPair(spec.arguments, "--show", "/site"));
  EXPECT_TRUE(HasPair(spec.arguments, "--show", "/sockets/{node}/"));
  EXPECT_TRUE(HasPair(spec.arguments, "--wait-for", "/data.sock"));
  EXPECT_FALSE(spec.isolated);  // the SuperNode itself is ours, and talks to its SuperLink
  sla_.data_tags.clear();
  spec = LearnerSpec(options_, project_, sla_, service_, 1, "127.0.0.1:1");
  EXPECT_FALSE(HasPair(spec.arguments, "--wait-for", ""));
  options_.isolated = false;
  spec = LearnerSpec(options_, project_, sla_, service_, 1, "127.0.0.1:1");
  EXPECT_FALSE(Has(spec.arguments, "--isolated"));
  EXPECT_FALSE(Has(spec.arguments, "--show"));
}

TEST_F(CommandsTest, StepsWithUserCodeGetWhatTheyNeed) {
  const InstanceSpec initial = InitialSpec(options_, project_, sla_, service_);
  EXPECT_TRUE(initial.isolated);
  EXPECT_FALSE(initial.network);
  EXPECT_TRUE(initial.reached.empty());
  EXPECT_EQ(initial.writable, std::vector<std::string>{"/state/projects/p/steps/initial"});
  EXPECT_TRUE(Has(initial.shown, "/repositories/1"));
  const InstanceSpec log =
      LogSpec(options_, project_, sla_, service_, {"http://127.0.0.1:7027", 7027, "r"});
  EXPECT_TRUE(log.isolated);
  EXPECT_FALSE(log.network);
  EXPECT_EQ(log.reached, std::vector<uint16_t>{7027});
  EXPECT_TRUE(Has(log.shown, project_.best_model));
  EXPECT_FALSE(Has(log.shown, "/site"));
}

TEST_F(CommandsTest, SpecsAreStoredWhole) {
  for (const InstanceSpec& spec :
       {LogSpec(options_, project_, sla_, service_, {"http://127.0.0.1:7027", 7027, "r"}),
        LearnerSpec(options_, project_, sla_, service_, 0, "127.0.0.1:1")}) {
    const auto read = SpecFromJson(ToJson(spec));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(*read, spec);
  }
  // As an earlier version has written it.
  const auto old = SpecFromJson(
      R"({"name": "n", "arguments": ["a"], "environment": [], "directory": "", "memory": 0,
          "cpu": 0, "storage": 0, "addons": [], "node": "", "one_shot": true, "network": true})");
  ASSERT_TRUE(old.ok());
  EXPECT_FALSE(old->isolated);
}

}  // namespace
}  // namespace umbel::manager
