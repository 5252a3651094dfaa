#include "orchestrator/fake_ground.h"

#include <gtest/gtest.h>

#include "orchestrator/ground_conformance.h"

namespace umbel::orchestrator {
namespace {

InstanceSpec Spec(const std::string& name) {
  InstanceSpec spec;
  spec.name = name;
  spec.arguments = {"program"};
  return spec;
}

class CountingWaker final : public Wakeable {
 public:
  void Wake() override { ++count; }
  int count = 0;
};

TEST(FakeGround, ItsInstancesDoWhatTheTestSays) {
  const FakeClock clock;
  FakeGround ground(clock);
  ground.set_program([](FakeGround& self, const InstanceSpec& spec) {
    self.Print(spec.name, "hello\n");
    if (spec.one_shot) self.End(spec.name, 0);
  });
  const auto waker = std::make_shared<CountingWaker>();
  ground.Watch(waker);
  InstanceSpec builder = Spec("builder");
  builder.one_shot = true;
  ASSERT_TRUE(ground.Apply(builder).ok());
  EXPECT_EQ(ground.Find("builder")->state, InstanceState::kCompleted);
  EXPECT_EQ(ground.Logs("builder", 0, 100)->bytes, "hello\n");
  EXPECT_TRUE(ground.Logs("builder", 0, 100)->ended);
  EXPECT_GE(waker->count, 2);
  ASSERT_TRUE(ground.Apply(Spec("aggr")).ok());
  EXPECT_EQ(ground.Find("aggr")->state, InstanceState::kRunning);
  ground.End("aggr", 3);
  EXPECT_EQ(ground.Find("aggr")->detail, "exited with status 3");
  ground.Restart("aggr");
  EXPECT_EQ(ground.Find("aggr")->starts, 2u);
  EXPECT_EQ(ground.Started(), (std::vector<std::string>{"builder", "aggr", "aggr"}));
}

TEST(FakeGround, BreaksAndHoldsWhenItIsTold) {
  const FakeClock clock;
  FakeGround ground(clock);
  ground.Break(Fail(Code::kUnavailable, "gone"));
  EXPECT_EQ(ground.Apply(Spec("a")).error().code, Code::kUnavailable);
  EXPECT_FALSE(ground.Find("a"));
  ground.Break({});
  ground.HoldStarts(true);
  ASSERT_TRUE(ground.Apply(Spec("a")).ok());
  EXPECT_EQ(ground.Find("a")->state, InstanceState::kStarting);
  ground.Start("a");
  EXPECT_EQ(ground.Find("a")->state, InstanceState::kRunning);
}

TEST(FakeGround, ANodeThatGoesLosesItsInstances) {
  const FakeClock clock;
  FakeGround ground(clock);
  InstanceSpec learner = Spec("learner");
  learner.addons = {"FLOps-learner"};
  ASSERT_TRUE(ground.Apply(learner).ok());
  EXPECT_EQ(ground.Find("learner")->node, "node-1");
  ground.SetUp("node-1", false);
  EXPECT_EQ(ground.Find("learner")->node, "node-2");
  EXPECT_EQ(ground.Find("learner")->starts, 2u);
  ground.SetUp("node-2", false);
  EXPECT_EQ(ground.Find("learner")->state, InstanceState::kWaiting);
  EXPECT_EQ(ground.Find("learner")->detail,
            "node-0 has no add-on FLOps-learner; node-1 is down; node-2 is down");
  ground.SetUp("node-1", true);
  EXPECT_EQ(ground.Find("learner")->node, "node-1");
}

/// Programs of three words: what they print, how they end, and how often.
class FakeHarness {
 public:
  FakeHarness() : ground_(clock_, Nodes()) {
    ground_.set_program([](FakeGround& ground, const InstanceSpec& spec) {
      ground.Print(spec.name, spec.arguments[1] + "\n");
      const std::string& end = spec.arguments[2];
      if (end == "stays" || (end == "fails-once" && ground.Find(spec.name)->starts > 1)) return;
      ground.End(spec.name, end == "fails-once" ? 3 : std::atoi(end.c_str()));
      if (!spec.one_shot) ground.Restart(spec.name);
    });
  }

  Ground& ground() { return ground_; }
  InstanceSpec Ends(const std::string& name, const std::string& text, int status) {
    InstanceSpec spec = Make(name, text, std::to_string(status));
    spec.one_shot = true;
    return spec;
  }
  InstanceSpec Stays(const std::string& name, const std::string& text) {
    return Make(name, text, "stays");
  }
  InstanceSpec FailsOnce(const std::string& name) { return Make(name, "hello", "fails-once"); }
  void SetUp(const std::string& node, bool up) { ground_.SetUp(node, up); }

 private:
  static std::vector<Node> Nodes() {
    std::vector<Node> nodes = FakeGround::DefaultNodes();
    for (Node& node : nodes) node.capacity.memory_bytes = testing::kNodeMemory;
    return nodes;
  }
  static InstanceSpec Make(const std::string& name, const std::string& text,
                           const std::string& end) {
    InstanceSpec spec = Spec(name);
    spec.arguments = {"program", text, end};
    return spec;
  }

  FakeClock clock_;
  FakeGround ground_;
};

}  // namespace

namespace testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Fake, GroundConformance, FakeHarness);
}  // namespace testing
}  // namespace umbel::orchestrator
