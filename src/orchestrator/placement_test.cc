#include "orchestrator/placement.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <deque>

namespace umbel::orchestrator {
namespace {

constexpr uint64_t kMega = 1'000'000;

NodeLoad MakeNode(const std::string& name, uint64_t memory, uint64_t cpu,
                  std::set<std::string> addons = {}) {
  NodeLoad load;
  load.node.name = name;
  load.node.capacity = {memory * kMega, cpu, 0};
  load.node.addons = std::move(addons);
  return load;
}

InstanceSpec Needs(const std::string& name, uint64_t memory, uint64_t cpu = 0,
                   std::set<std::string> addons = {}) {
  InstanceSpec spec;
  spec.name = name;
  spec.resources = {memory * kMega, cpu, 0};
  spec.addons = std::move(addons);
  return spec;
}

std::vector<Seat> PlaceAll(std::vector<NodeLoad>& loads, const std::vector<InstanceSpec>& specs) {
  std::vector<const InstanceSpec*> pointers;
  for (const InstanceSpec& spec : specs) pointers.push_back(&spec);
  return Place(loads, pointers);
}

std::vector<NodeLoad> ThreeNodes() {
  return {MakeNode("node-0", 1000, 2000), MakeNode("node-1", 1000, 2000, {"FLOps-learner"}),
          MakeNode("node-2", 500, 2000, {"FLOps-learner", "GPU"})};
}

struct Case {
  const char* what;
  std::vector<InstanceSpec> specs;
  std::vector<std::string> nodes;  // of each; "" when it waits
  std::string why;                 // of the last, when it waits
};

TEST(Placement, AsATable) {
  const std::set<std::string> learner{"FLOps-learner"};
  InstanceSpec there = Needs("there", 1);
  there.node = "node-2";
  const Case cases[] = {
      {"nobody needs anything: spread by number",
       {Needs("a", 0), Needs("b", 0), Needs("c", 0), Needs("d", 0)},
       {"node-0", "node-1", "node-2", "node-0"},
       ""},
      {"the least loaded share, not the least loaded number",
       {Needs("a", 100), Needs("b", 100), Needs("c", 100), Needs("d", 100), Needs("e", 100),
        Needs("f", 100)},
       {"node-0", "node-1", "node-2", "node-0", "node-1", "node-0"},
       ""},
      {"only with the add-on",
       {Needs("a", 100, 0, learner), Needs("b", 100, 0, learner), Needs("c", 100, 0, learner)},
       {"node-1", "node-2", "node-1"},
       ""},
      {"all add-ons, not one of them",
       {Needs("a", 1, 0, {"FLOps-learner", "GPU"})},
       {"node-2"},
       ""},
      {"there and nowhere else", {there, there}, {"node-2", "node-2"}, ""},
      {"the dimension that is short decides",
       {Needs("a", 10, 1500), Needs("b", 10, 1500), Needs("c", 10, 1500), Needs("d", 10, 1500)},
       {"node-0", "node-1", "node-2", ""},
       "node-0 has 500 m of cpu free of 2000 m and 1500 m are needed; node-1 has 500 m of cpu free "
       "of 2000 m and 1500 m are needed; node-2 has 500 m of cpu free of 2000 m and 1500 m are "
       "needed"},
      {"never to fit is another reason than not now",
       {Needs("a", 800, 0, learner), Needs("b", 700, 0, learner)},
       {"node-1", ""},
       "node-0 has no add-on FLOps-learner; node-1 has 200 MB of memory free of 1 GB and 700 MB "
       "are "
       "needed; node-2 has only 500 MB of memory in all and 700 MB are needed"},
      {"what came later does not take the room of who waits",
       {Needs("a", 800, 0, learner), Needs("b", 700, 0, learner), Needs("c", 100, 0, learner),
        Needs("d", 450, 0, learner)},
       {"node-1", "", "node-2", ""},
       "node-0 has no add-on FLOps-learner; node-1 is kept for b, which has waited longer; node-2 "
       "has 400 MB of memory free of 500 MB and 450 MB are needed"},
      {"but what takes no room is in nobody's way",
       {Needs("a", 800, 0, learner), Needs("b", 700, 0, learner), Needs("c", 0, 0, learner)},
       {"node-1", "", "node-2"},
       ""},
      {"it is no add-on that anybody has",
       {Needs("a", 1, 0, {"TPU"})},
       {""},
       "node-0 has no add-on TPU; node-1 has no add-on TPU; node-2 has no add-on TPU"},
  };
  for (const Case& each : cases) {
    std::vector<NodeLoad> loads = ThreeNodes();
    const std::vector<Seat> seats = PlaceAll(loads, each.specs);
    ASSERT_EQ(seats.size(), each.nodes.size()) << each.what;
    for (size_t i = 0; i < seats.size(); ++i)
      EXPECT_EQ(seats[i].node, each.nodes[i]) << each.what << ", " << i;
    EXPECT_EQ(seats.back().why, each.why) << each.what;
  }
}

TEST(Placement, DownNodesAndNoNodes) {
  std::vector<NodeLoad> loads = ThreeNodes();
  for (NodeLoad& load : loads) load.node.up = false;
  EXPECT_EQ(PlaceAll(loads, {Needs("a", 1)})[0].why,
            "node-0 is down; node-1 is down; node-2 is down");
  loads.clear();
  EXPECT_EQ(PlaceAll(loads, {Needs("a", 1)})[0].why, "there are no nodes");
}

TEST(Placement, AmountsThatAreNoAmounts) {
  std::vector<NodeLoad> loads = ThreeNodes();
  loads[0].node.capacity = {};  // not held to anything
  InstanceSpec huge = Needs("huge", 0);
  huge.resources = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
  const auto seats = PlaceAll(loads, {huge, huge});
  EXPECT_EQ(seats[0].node, "node-0");
  EXPECT_EQ(seats[1].node, "node-0");
  EXPECT_EQ(loads[0].node.reserved.memory_bytes, UINT64_MAX);
  loads.erase(loads.begin());
  EXPECT_EQ(PlaceAll(loads, {huge})[0].node, "");
}

TEST(BytesText, IsAsPeopleSayIt) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(100'000'000), "100 MB");
  EXPECT_EQ(BytesText(999'600'000), "1 GB");
  EXPECT_EQ(BytesText(1'500'000'000), "1.5 GB");
  EXPECT_EQ(BytesText(UINT64_MAX), "18447 PB");
}

const std::vector<std::string> kAddons{"learner", "gpu", "big"};

std::set<std::string> SomeAddons(unsigned bits) {
  std::set<std::string> addons;
  for (size_t i = 0; i < kAddons.size(); ++i)
    if ((bits >> i & 1) != 0) addons.insert(kAddons[i]);
  return addons;
}

std::vector<NodeLoad> SomeNodes() {
  std::vector<NodeLoad> loads;
  const auto count = *rc::gen::inRange(1, 6);
  for (int i = 0; i < count; ++i) {
    loads.push_back(MakeNode("node-" + std::to_string(i), *rc::gen::inRange<uint64_t>(1, 1000),
                             *rc::gen::inRange<uint64_t>(1, 4000),
                             SomeAddons(*rc::gen::inRange(0u, 8u))));
    loads.back().node.up = *rc::gen::inRange(0, 5) != 0;
  }
  return loads;
}

InstanceSpec SomeSpec(int i) {
  return Needs("i." + std::to_string(i), *rc::gen::inRange<uint64_t>(0, 600),
               *rc::gen::inRange<uint64_t>(0, 3000), SomeAddons(*rc::gen::inRange(0u, 8u) & 3));
}

TEST(Placement, NeverAboveCapacityAndNeverWithoutAddons) {
  EXPECT_TRUE(rc::check([] {
    std::vector<NodeLoad> loads = SomeNodes();
    std::vector<InstanceSpec> specs;
    const int count = *rc::gen::inRange(0, 30);
    for (int i = 0; i < count; ++i) specs.push_back(SomeSpec(i));
    const std::vector<Seat> seats = PlaceAll(loads, specs);
    RC_ASSERT(seats.size() == specs.size());
    for (size_t i = 0; i < seats.size(); ++i) {
      RC_ASSERT(seats[i].node.empty() == !seats[i].why.empty());
      if (seats[i].node.empty()) {
        for (const NodeLoad& load : loads)
          RC_ASSERT(seats[i].why.find(load.node.name + " ") != std::string::npos);
        continue;
      }
      const auto load = std::find_if(loads.begin(), loads.end(), [&](const NodeLoad& each) {
        return each.node.name == seats[i].node;
      });
      RC_ASSERT(load != loads.end());
      RC_ASSERT(load->node.up);
      RC_ASSERT(std::includes(load->node.addons.begin(), load->node.addons.end(),
                              specs[i].addons.begin(), specs[i].addons.end()));
    }
    for (const NodeLoad& load : loads) {
      Resources sum;
      for (size_t i = 0; i < seats.size(); ++i) {
        if (seats[i].node != load.node.name) continue;
        sum.memory_bytes += specs[i].resources.memory_bytes;
        sum.cpu_millicores += specs[i].resources.cpu_millicores;
      }
      RC_ASSERT(sum == load.node.reserved);
      RC_ASSERT(sum.memory_bytes <= load.node.capacity.memory_bytes);
      RC_ASSERT(sum.cpu_millicores <= load.node.capacity.cpu_millicores);
    }
  }));
}

TEST(Placement, TheFirstThatFitsSomewhereIsPlaced) {
  EXPECT_TRUE(rc::check([] {
    std::vector<NodeLoad> loads = SomeNodes();
    const InstanceSpec spec = SomeSpec(0);
    const bool fits = std::any_of(loads.begin(), loads.end(), [&](const NodeLoad& load) {
      return load.node.up && spec.resources.memory_bytes <= load.node.capacity.memory_bytes &&
             spec.resources.cpu_millicores <= load.node.capacity.cpu_millicores &&
             std::includes(load.node.addons.begin(), load.node.addons.end(), spec.addons.begin(),
                           spec.addons.end());
    });
    RC_ASSERT(PlaceAll(loads, {spec})[0].node.empty() != fits);
  }));
}

/// A stream of small ones that never ends, and one large one: it gets its place.
TEST(Placement, NobodyStarves) {
  EXPECT_TRUE(rc::check([] {
    const std::vector<NodeLoad> empty = SomeNodes();
    struct Running {
      InstanceSpec spec;
      std::string node;
      int until = 0;
    };
    std::vector<Running> running;
    std::deque<InstanceSpec> waiting;
    uint64_t room = 0;
    for (const NodeLoad& load : empty)
      if (load.node.up) room = std::max(room, load.node.capacity.memory_bytes / kMega);
    RC_PRE(room > 0u);
    const InstanceSpec large = Needs("large", *rc::gen::inRange<uint64_t>(1, room + 1));
    int next = 0;
    // At most 10 stand before it, each of which may take 10 ticks of a node, and wait as long for
    // it.
    for (int tick = 0; tick < 250; ++tick) {
      if (tick == 5) waiting.push_back(large);
      for (int i = 0; i < 2; ++i) {
        InstanceSpec small = Needs("small." + std::to_string(next++), *rc::gen::inRange(1, 300));
        waiting.push_back(std::move(small));
      }
      std::erase_if(running, [&](const Running& each) { return each.until <= tick; });
      std::vector<NodeLoad> loads = empty;
      for (NodeLoad& load : loads)
        for (const Running& each : running)
          if (each.node == load.node.name) Reserve(load, each.spec.resources);
      const std::vector<InstanceSpec> specs(waiting.begin(), waiting.end());
      const std::vector<Seat> seats = PlaceAll(loads, specs);
      waiting.clear();
      for (size_t i = 0; i < specs.size(); ++i) {
        if (seats[i].node.empty()) {
          waiting.push_back(specs[i]);
        } else if (specs[i].name == "large") {
          return;
        } else {
          running.push_back({specs[i], seats[i].node, tick + *rc::gen::inRange(1, 10)});
        }
      }
      while (waiting.size() > 20) waiting.pop_back();
    }
    RC_FAIL("the large one was never placed");
  }));
}

}  // namespace
}  // namespace umbel::orchestrator
