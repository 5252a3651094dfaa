// What every ground must do, as a suite that each implementation runs. A harness is a ground with
// programs that do what the suite needs; give it to INSTANTIATE_TYPED_TEST_SUITE_P.
//
// A harness has
//   Ground& ground();                  node-0, and node-1 and node-2 with FLOps-learner; nothing on
//   them InstanceSpec Ends(name, text, n);  one_shot: prints the text and a line's end, exits with
//   status n InstanceSpec Stays(name, text);    prints the same and goes on; ends when it is told
//   to InstanceSpec FailsOnce(name);      not one_shot: exits with status 3 at its first start,
//   then stays Status SetUp(node, up);            takes a node down or up std::vector<Node>
//   capacities: see kNodeMemory: each node has that much memory
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "orchestrator/ground.h"

namespace umbel::orchestrator::testing {

inline constexpr std::chrono::seconds kPatience{60};
inline constexpr uint64_t kNodeMemory = uint64_t{1000} << 20;

/// Waits until what a ground shows is what a test wants, woken by the ground.
class Changes final : public Wakeable {
 public:
  void Wake() override {
    std::lock_guard lock(mutex_);
    ++changes_;
    changed_.notify_all();
  }
  /// The ground's events may be missed by contract, but not for long: no more than a second.
  bool Until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() >= deadline) return false;
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(changes_ == seen_ ? 1000 : 0),
                        [&] { return changes_ != seen_; });
      seen_ = changes_;
    }
    return true;
  }
  int count() {
    std::lock_guard lock(mutex_);
    return changes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int changes_ = 0;
  int seen_ = 0;
};

template <typename Harness>
class GroundConformance : public ::testing::Test {
 protected:
  void SetUp() override { ground().Watch(changes_); }

  Ground& ground() { return harness_.ground(); }
  InstanceStatus Find(const std::string& name) {
    const auto status = ground().Find(name);
    EXPECT_TRUE(status) << name << " is not known";
    return status.value_or(InstanceStatus{});
  }
  void Apply(const InstanceSpec& spec) {
    const Status applied = ground().Apply(spec);
    ASSERT_TRUE(applied.ok()) << applied.error().ToString();
  }
  void UntilState(const std::string& name, InstanceState state, uint32_t starts = 0) {
    EXPECT_TRUE(changes_->Until([&] {
      const auto status = ground().Find(name);
      return status && status->state == state && status->starts >= starts;
    })) << name
        << ": " << static_cast<int>(Find(name).state) << " " << Find(name).detail;
  }
  /// All of its log once it holds `text`.
  std::string UntilLog(const std::string& name, const std::string& text) {
    std::string log;
    uint64_t offset = 0;
    changes_->Until([&] {
      for (;;) {
        const auto part = ground().Logs(name, offset, 1000);
        EXPECT_TRUE(part.ok());
        if (!part.ok() || part->bytes.empty()) break;
        log += part->bytes;
        offset = part->next;
      }
      return log.find(text) != std::string::npos;
    });
    EXPECT_NE(log.find(text), std::string::npos) << log;
    return log;
  }
  uint64_t ReservedMemory(const std::string& name) {
    for (const Node& node : ground().Nodes())
      if (node.name == name) return node.reserved.memory_bytes;
    ADD_FAILURE() << "no node " << name;
    return 0;
  }

  Harness harness_;
  const std::shared_ptr<Changes> changes_ = std::make_shared<Changes>();
};

TYPED_TEST_SUITE_P(GroundConformance);

TYPED_TEST_P(GroundConformance, NodesAreAsTheyWereDeclared) {
  const std::vector<Node> nodes = this->ground().Nodes();
  ASSERT_EQ(nodes.size(), 3u);
  EXPECT_EQ(nodes[0].name, "node-0");
  EXPECT_TRUE(nodes[0].addons.empty());
  for (const Node& node : nodes) {
    EXPECT_TRUE(node.up);
    EXPECT_FALSE(node.address.empty());
    EXPECT_EQ(node.reserved, Resources{});
    EXPECT_EQ(node.capacity.memory_bytes, kNodeMemory);
    EXPECT_EQ(node.addons.count("FLOps-learner"), node.name == "node-0" ? 0u : 1u);
  }
}

TYPED_TEST_P(GroundConformance, AOneShotCompletesAndItsLogIsThere) {
  this->Apply(this->harness_.Ends("builder.0", "built it", 0));
  this->UntilState("builder.0", InstanceState::kCompleted);
  const InstanceStatus status = this->Find("builder.0");
  EXPECT_EQ(status.starts, 1u);
  EXPECT_FALSE(status.node.empty());
  const auto all = this->ground().Logs("builder.0", 0, 1000);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->bytes, "built it\n");
  EXPECT_EQ(all->next, 9u);
  EXPECT_TRUE(all->ended);
  const auto part = this->ground().Logs("builder.0", 6, 2);
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->bytes, "it");
  EXPECT_EQ(part->next, 8u);
  EXPECT_FALSE(part->ended);
  const auto beyond = this->ground().Logs("builder.0", 1'000'000, 10);
  ASSERT_TRUE(beyond.ok());
  EXPECT_EQ(beyond->bytes, "");
  EXPECT_EQ(beyond->next, 9u);
  EXPECT_TRUE(beyond->ended);
}

TYPED_TEST_P(GroundConformance, AOneShotThatFailsSaysHowAndIsNotTriedAgain) {
  this->Apply(this->harness_.Ends("builder.0", "oh", 3));
  this->UntilState("builder.0", InstanceState::kFailed);
  EXPECT_NE(this->Find("builder.0").detail.find("status 3"), std::string::npos)
      << this->Find("builder.0").detail;
  EXPECT_TRUE(this->ground().Logs("builder.0", 0, 1000)->ended);
  this->Apply(this->harness_.Ends("builder.0", "oh", 3));  // the same again is nothing new
  EXPECT_EQ(this->Find("builder.0").starts, 1u);
  EXPECT_EQ(this->Find("builder.0").state, InstanceState::kFailed);
}

TYPED_TEST_P(GroundConformance, WhatIsAppliedAgainGoesOn) {
  const InstanceSpec spec = this->harness_.Stays("aggr.0", "here");
  this->Apply(spec);
  this->UntilState("aggr.0", InstanceState::kRunning);
  this->UntilLog("aggr.0", "here\n");
  this->Apply(spec);
  EXPECT_EQ(this->Find("aggr.0").state, InstanceState::kRunning);
  EXPECT_EQ(this->Find("aggr.0").starts, 1u);
  EXPECT_FALSE(this->ground().Logs("aggr.0", 0, 1000)->ended);
  EXPECT_EQ(this->ground().List().size(), 1u);
}

TYPED_TEST_P(GroundConformance, AChangedSpecReplacesIt) {
  this->Apply(this->harness_.Stays("aggr.0", "the first"));
  this->UntilState("aggr.0", InstanceState::kRunning);
  this->UntilLog("aggr.0", "the first\n");
  this->Apply(this->harness_.Stays("aggr.0", "the second"));
  const std::string log = this->UntilLog("aggr.0", "the second\n");
  EXPECT_EQ(log.find("the first"), std::string::npos) << log;
  this->UntilState("aggr.0", InstanceState::kRunning);
  EXPECT_EQ(this->Find("aggr.0").starts, 1u);
  EXPECT_EQ(this->ground().List().size(), 1u);
}

TYPED_TEST_P(GroundConformance, WhatEndsIsStartedAgain) {
  this->Apply(this->harness_.FailsOnce("tracking.0"));
  this->UntilState("tracking.0", InstanceState::kRunning, 2);
  EXPECT_EQ(this->Find("tracking.0").starts, 2u);
}

TYPED_TEST_P(GroundConformance, WhatIsRemovedIsForgotten) {
  EXPECT_TRUE(this->ground().Remove("never-there").ok());
  EXPECT_TRUE(this->ground().Remove("").ok());
  EXPECT_TRUE(this->ground().Remove("../../etc").ok());
  this->Apply(this->harness_.Stays("aggr.0", "here"));
  this->UntilState("aggr.0", InstanceState::kRunning);
  const Status removed = this->ground().Remove("aggr.0");
  ASSERT_TRUE(removed.ok()) << removed.error().ToString();
  EXPECT_FALSE(this->ground().Find("aggr.0"));
  EXPECT_TRUE(this->ground().List().empty());
  EXPECT_EQ(this->ground().Logs("aggr.0", 0, 10).error().code, Code::kNotFound);
  EXPECT_TRUE(this->ground().Remove("aggr.0").ok());
  // And may come again, with nothing of before.
  this->Apply(this->harness_.Ends("aggr.0", "anew", 0));
  this->UntilState("aggr.0", InstanceState::kCompleted);
  EXPECT_EQ(this->ground().Logs("aggr.0", 0, 100)->bytes, "anew\n");
}

TYPED_TEST_P(GroundConformance, SpecsThatCannotBeAreRefused) {
  const auto refused = [&](const std::function<void(InstanceSpec&)>& spoil) {
    InstanceSpec spec = this->harness_.Ends("good", "x", 0);
    spoil(spec);
    const Status applied = this->ground().Apply(spec);
    EXPECT_EQ(applied.ok() ? Code::kUnknown : applied.error().code, Code::kInvalidArgument);
  };
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
        std::string("a b"), std::string("a\n"), std::string("a\0b", 3), std::string("-rf"),
        std::string(".hidden"), std::string("\xc3\xa4"), std::string(121, 'x')})
    refused([&](InstanceSpec& spec) { spec.name = name; });
  refused([](InstanceSpec& spec) { spec.arguments.clear(); });
  refused([](InstanceSpec& spec) { spec.arguments[0] = ""; });
  refused([](InstanceSpec& spec) { spec.arguments.emplace_back("a\0b", 3); });
  refused([](InstanceSpec& spec) { spec.environment = {"NOVALUE"}; });
  refused([](InstanceSpec& spec) { spec.environment = {"=x"}; });
  refused([](InstanceSpec& spec) { spec.environment = {"A=1", "A=2"}; });
  refused([](InstanceSpec& spec) { spec.environment = {std::string("A=\0", 3)}; });
  refused([](InstanceSpec& spec) { spec.directory = "relative"; });
  refused([](InstanceSpec& spec) { spec.node = "node-9"; });
  EXPECT_TRUE(this->ground().List().empty());
  this->Apply(this->harness_.Ends(std::string(120, 'x'), "x", 0));
  this->UntilState(std::string(120, 'x'), InstanceState::kCompleted);
}

TYPED_TEST_P(GroundConformance, LearnersGoOnlyWhereTheAddonIs) {
  std::set<std::string> nodes;
  for (int i = 0; i < 4; ++i) {
    InstanceSpec spec = this->harness_.Stays("flearner." + std::to_string(i), "here");
    spec.addons = {"FLOps-learner"};
    this->Apply(spec);
    this->UntilState(spec.name, InstanceState::kRunning);
    nodes.insert(this->Find(spec.name).node);
  }
  EXPECT_EQ(nodes, (std::set<std::string>{"node-1", "node-2"}));
  InstanceSpec spec = this->harness_.Stays("aggr.0", "here");
  spec.node = "node-2";
  this->Apply(spec);
  EXPECT_EQ(this->Find("aggr.0").node, "node-2");
}

TYPED_TEST_P(GroundConformance, WithoutAPlaceItWaitsAndSaysWhyForEachNode) {
  InstanceSpec spec = this->harness_.Stays("flearner.0", "here");
  spec.addons = {"TPU"};
  this->Apply(spec);
  const InstanceStatus status = this->Find("flearner.0");
  EXPECT_EQ(status.state, InstanceState::kWaiting);
  EXPECT_EQ(status.node, "");
  EXPECT_EQ(status.starts, 0u);
  for (const char* node : {"node-0", "node-1", "node-2"})
    EXPECT_NE(status.detail.find(std::string(node) + " has no add-on TPU"), std::string::npos)
        << status.detail;
  EXPECT_TRUE(this->ground().Remove("flearner.0").ok());
}

TYPED_TEST_P(GroundConformance, RoomIsSetAsideAndGivenBack) {
  InstanceSpec spec = this->harness_.Stays("large.0", "here");
  spec.addons = {"FLOps-learner"};
  spec.resources.memory_bytes = kNodeMemory / 4 * 3;
  this->Apply(spec);
  this->UntilState("large.0", InstanceState::kRunning);
  EXPECT_EQ(this->ReservedMemory(this->Find("large.0").node), spec.resources.memory_bytes);
  spec.name = "large.1";
  this->Apply(spec);
  this->UntilState("large.1", InstanceState::kRunning);
  EXPECT_NE(this->Find("large.0").node, this->Find("large.1").node);
  spec.name = "large.2";
  this->Apply(spec);
  EXPECT_EQ(this->Find("large.2").state, InstanceState::kWaiting);
  EXPECT_NE(this->Find("large.2").detail.find("memory"), std::string::npos);
  ASSERT_TRUE(this->ground().Remove("large.0").ok());
  this->UntilState("large.2", InstanceState::kRunning);
  for (const char* name : {"large.1", "large.2"}) ASSERT_TRUE(this->ground().Remove(name).ok());
  for (const Node& node : this->ground().Nodes()) EXPECT_EQ(node.reserved, Resources{});
}

TYPED_TEST_P(GroundConformance, WhatHasEndedTakesNoRoom) {
  InstanceSpec spec = this->harness_.Ends("large.0", "x", 0);
  spec.resources.memory_bytes = kNodeMemory;
  this->Apply(spec);
  this->UntilState("large.0", InstanceState::kCompleted);
  for (const Node& node : this->ground().Nodes()) EXPECT_EQ(node.reserved, Resources{});
}

TYPED_TEST_P(GroundConformance, ANodeThatGoesGivesItsInstancesToOthers) {
  InstanceSpec spec = this->harness_.Stays("flearner.0", "here");
  spec.addons = {"FLOps-learner"};
  this->Apply(spec);
  this->UntilState("flearner.0", InstanceState::kRunning);
  const std::string first = this->Find("flearner.0").node;
  const std::string second = first == "node-1" ? "node-2" : "node-1";
  this->harness_.SetUp(first, false);
  this->UntilState("flearner.0", InstanceState::kRunning, 2);
  EXPECT_EQ(this->Find("flearner.0").node, second);
  EXPECT_EQ(this->Find("flearner.0").starts, 2u);
  this->harness_.SetUp(second, false);
  this->UntilState("flearner.0", InstanceState::kWaiting);
  EXPECT_TRUE(this->changes_->Until([&] {
    return this->Find("flearner.0").detail.find(second + " is down") != std::string::npos;
  })) << this->Find("flearner.0").detail;
  this->harness_.SetUp(first, true);
  this->UntilState("flearner.0", InstanceState::kRunning, 3);
  this->harness_.SetUp(second, true);
}

TYPED_TEST_P(GroundConformance, WhoWatchesIsWokenAndWhoLeavesIsNot) {
  auto leaving = std::make_shared<Changes>();
  this->ground().Watch(leaving);
  this->Apply(this->harness_.Ends("builder.0", "x", 0));
  this->UntilState("builder.0", InstanceState::kCompleted);
  EXPECT_GE(this->changes_->count(), 2);
  EXPECT_GE(leaving->count(), 2);
  const std::weak_ptr<Changes> gone = leaving;
  leaving.reset();
  // The ground does not keep it; at most it is just waking it.
  EXPECT_TRUE(this->changes_->Until([&] { return gone.expired(); }));
  EXPECT_TRUE(this->ground().Remove("builder.0").ok());
}

REGISTER_TYPED_TEST_SUITE_P(GroundConformance, NodesAreAsTheyWereDeclared,
                            AOneShotCompletesAndItsLogIsThere,
                            AOneShotThatFailsSaysHowAndIsNotTriedAgain, WhatIsAppliedAgainGoesOn,
                            AChangedSpecReplacesIt, WhatEndsIsStartedAgain,
                            WhatIsRemovedIsForgotten, SpecsThatCannotBeAreRefused,
                            LearnersGoOnlyWhereTheAddonIs,
                            WithoutAPlaceItWaitsAndSaysWhyForEachNode, RoomIsSetAsideAndGivenBack,
                            WhatHasEndedTakesNoRoom, ANodeThatGoesGivesItsInstancesToOthers,
                            WhoWatchesIsWokenAndWhoLeavesIsNot);

}  // namespace umbel::orchestrator::testing
