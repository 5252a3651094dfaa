// The tables of machines.h, and what State does with nodes, runs and tasks.
#include "superlink/state.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "flower/errors.h"
#include "superlink/state_testing.h"

namespace umbel::superlink {
namespace wire = flower::wire;
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Waiter;
using testing::World;

template <typename Status, typename Table>
std::set<Status> Reachable(const Table& table, Status start) {
  std::set<Status> reached{start};
  for (size_t before = 0; before != reached.size();) {
    before = reached.size();
    for (const auto& row : table)
      if (reached.contains(row.from)) reached.insert(row.to);
  }
  return reached;
}

template <typename Table>
void CheckTable(const Table& table) {
  std::set<std::pair<int, int>> rules;
  for (const auto& row : table) {
    EXPECT_TRUE(rules.emplace(static_cast<int>(row.from), static_cast<int>(row.event)).second)
        << Name(row.from) << " has two rules for event " << static_cast<int>(row.event);
    EXPECT_EQ(Next(row.from, row.event), row.to);
  }
}

TEST(Machines, EveryNodeStateIsReachedAndUnregisteredIsFinal) {
  CheckTable(kNodeTransitions);
  const std::set all{NodeStatus::kRegistered, NodeStatus::kOnline, NodeStatus::kOffline,
                     NodeStatus::kUnregistered};
  EXPECT_EQ(Reachable(kNodeTransitions, NodeStatus::kRegistered), all);
  for (const auto& row : kNodeTransitions) {
    EXPECT_NE(row.from, NodeStatus::kUnregistered);
    EXPECT_NE(row.to, NodeStatus::kRegistered);
  }
  for (const NodeStatus from : all) {
    EXPECT_FALSE(Name(from).empty());
    EXPECT_EQ(Next(from, NodeEvent::kUnregister).has_value(), from != NodeStatus::kUnregistered);
  }
}

TEST(Machines, EveryTaskStateIsReachedAndFinishedIsFinal) {
  CheckTable(kTaskTransitions);
  const std::set all{TaskStatus::kPending, TaskStatus::kStarting, TaskStatus::kRunning,
                     TaskStatus::kFinished};
  EXPECT_EQ(Reachable(kTaskTransitions, TaskStatus::kPending), all);
  for (const auto& row : kTaskTransitions) EXPECT_NE(row.from, TaskStatus::kFinished);
  for (const TaskStatus from : all) {
    EXPECT_FALSE(Name(from).empty());
    EXPECT_EQ(Next(from, TaskEvent::kStop).has_value(), from != TaskStatus::kFinished);
  }
}

// --- nodes --------------------------------------------------------------------------------------

TEST(StateNodes, LifeOfANode) {
  World world;
  const NodeId node = world.Register("key");
  const auto status = [&] { return world.state().FindNode(node)->status; };
  EXPECT_EQ(status(), NodeStatus::kRegistered);
  EXPECT_EQ(world.Activate("key").value(), node);
  EXPECT_EQ(status(), NodeStatus::kOnline);
  EXPECT_EQ(world.state().FindNode(node)->online_until, world.now() + seconds(60));

  world.Pass(seconds(60));
  EXPECT_EQ(status(), NodeStatus::kOnline);  // exactly two intervals are allowed
  world.Pass(milliseconds(1));
  EXPECT_EQ(status(), NodeStatus::kOffline);
  EXPECT_EQ(world.rows().nodes.at(node).status, NodeStatus::kOffline);
  EXPECT_TRUE(world.Heartbeat(node));  // a heartbeat brings it back
  EXPECT_EQ(status(), NodeStatus::kOnline);

  EXPECT_TRUE(world.Deactivate(node).ok());
  EXPECT_EQ(status(), NodeStatus::kOffline);
  EXPECT_EQ(world.Deactivate(node).error().wire_code, wire::kDeactivateFailed);
  EXPECT_TRUE(world.Unregister(node).ok());
  EXPECT_EQ(status(), NodeStatus::kUnregistered);
  EXPECT_EQ(world.Unregister(node).error().wire_code, wire::kUnregisterFailed);
  EXPECT_EQ(world.Activate("key").error().wire_code, wire::kActivateFailed);
  EXPECT_FALSE(world.Heartbeat(node));
  const auto again = world.Do([](State& s, WallTime at, Changes& c) {
    return s.RegisterNode({"key", "", "", "", "", 0}, at, c);
  });
  EXPECT_EQ(again.error().wire_code, wire::kPublicKeyInUse);  // its key stays burnt
}

TEST(StateNodes, HeartbeatIntervalsHaveBounds) {
  World world;
  world.Register("key");
  for (const double interval : {9.9, 1800.1, 0.0, -30.0})
    EXPECT_EQ(world.Activate("key", interval).error().wire_code, wire::kHeartbeatInterval);
  for (const double interval : {10.0, 1800.0}) EXPECT_TRUE(world.Activate("key", interval).ok());
  EXPECT_EQ(world.Activate("other").error().wire_code, wire::kActivateFailed);
}

TEST(StateNodes, AHeartbeatOfANodeThatIsOnlineWritesNothing) {
  World world;
  const NodeId node = world.Node("key");
  const auto before = world.rows().nodes;
  world.Pass(seconds(20));
  EXPECT_TRUE(world.Heartbeat(node));
  EXPECT_EQ(world.rows().nodes, before);
  world.Pass(seconds(59));
  EXPECT_EQ(world.state().online_nodes(), 1u);
}

TEST(StateNodes, DowntimeDoesNotCount) {
  World world;
  const NodeId online = world.Node("online");
  const NodeId offline = world.Node("offline");
  ASSERT_TRUE(world.Deactivate(offline).ok());
  world.Restart(std::chrono::hours(5));
  EXPECT_EQ(world.state().FindNode(online)->online_until, world.now() + seconds(60));
  world.Pass(seconds(59));
  EXPECT_EQ(world.state().FindNode(online)->status, NodeStatus::kOnline);
  EXPECT_EQ(world.state().FindNode(offline)->status, NodeStatus::kOffline);
  world.Pass(seconds(2));
  EXPECT_EQ(world.state().online_nodes(), 0u);
  EXPECT_EQ(world.state().FindNodeByKey("online")->node_id, online);
}

// --- runs and tasks -----------------------------------------------------------------------------

TEST(StateTasks, ARunIsItsTask) {
  World world;
  const auto waiter = std::make_shared<Waiter>();
  world.state().task_waiters().Add(waiter);
  const RunId run_id = world.Pending();
  EXPECT_TRUE(waiter->Take());
  EXPECT_EQ(world.Acquire(), run_id);
  EXPECT_EQ(world.Acquire(), RunId{});
  const std::string token = world.run(run_id).task.token;
  EXPECT_EQ(token.size(), 256u);
  EXPECT_TRUE(world.state().FindByToken(token, world.now()).ok());
  EXPECT_TRUE(world.Begin(run_id).ok());
  EXPECT_EQ(world.Begin(run_id).error().wire_code, wire::kTaskStart);
  EXPECT_EQ(world.rows().tasks.at(run_id).status, TaskStatus::kRunning);
  EXPECT_TRUE(world.Finish(run_id, TaskEvent::kComplete));
  EXPECT_EQ(world.state().FindRun(run_id), nullptr);
  EXPECT_FALSE(world.Finish(run_id, TaskEvent::kStop));
  EXPECT_EQ(world.rows().tasks.at(run_id).sub_status, "completed");
  EXPECT_EQ(world.rows().tasks.at(run_id).token, "");
  EXPECT_EQ(world.state().FindByToken(token, world.now()).error().wire_code, wire::kRuntimeAuth);
}

TEST(StateTasks, TheOldestPendingRunOfAKnownTypeGoesFirst) {
  World world;
  const RunId first = world.Pending();
  world.Pass(milliseconds(1));
  const RunId second = world.Pending();
  const auto other = world.Do([](State& s, WallTime at, Changes& c) {
    return s.AcquireTask({"flwr-clientapp"}, at, c) == nullptr;
  });
  EXPECT_TRUE(other);
  EXPECT_EQ(world.Acquire(), first);
  EXPECT_EQ(world.Acquire(), second);
}

TEST(StateTasks, ALostClaimIsGivenOutAgain) {
  World world;
  const RunId run_id = world.Pending();
  world.Acquire();
  const std::string token = world.run(run_id).task.token;
  world.Pass(seconds(30));
  EXPECT_EQ(world.run(run_id).task.status, TaskStatus::kStarting);
  world.Pass(milliseconds(1));
  EXPECT_EQ(world.run(run_id).task.status, TaskStatus::kPending);
  EXPECT_FALSE(world.state().FindByToken(token, world.now()).ok());
  EXPECT_EQ(world.Acquire(), run_id);
  EXPECT_NE(world.run(run_id).task.token, token);
}

TEST(StateTasks, AProcessThatIsWatchedMayStartSlowly) {
  World world;
  const RunId run_id = world.Pending();
  world.Acquire();
  world.Do(
      [&](State& s, WallTime at, Changes& c) { s.TaskLaunched(world.run(run_id), 77, 5, at, c); });
  EXPECT_EQ(world.rows().tasks.at(run_id).pid, 77);
  EXPECT_EQ(world.rows().tasks.at(run_id).launches, 1u);
  world.Pass(seconds(299));
  EXPECT_EQ(world.run(run_id).task.status, TaskStatus::kStarting);
  world.state().TaskHeartbeat(world.run(run_id), world.now() - seconds(200));  // never shortens it
  world.Pass(milliseconds(900));
  EXPECT_EQ(world.run(run_id).task.status, TaskStatus::kStarting);
  world.Pass(seconds(1));
  EXPECT_EQ(world.run(run_id).task.status, TaskStatus::kPending);
  EXPECT_EQ(world.run(run_id).task.pid, 0);  // should it still live, it is nobody's
}

TEST(StateTasks, ATaskWithoutHeartbeatFailsAtTheMomentItsTimeWasOver) {
  World world;
  const RunId run_id = world.Running();
  world.Pass(seconds(50));
  world.state().TaskHeartbeat(world.run(run_id), world.now());
  const WallTime until = world.now() + seconds(60);
  world.Pass(seconds(60));
  EXPECT_NE(world.state().FindRun(run_id), nullptr);
  world.Pass(seconds(7));
  EXPECT_EQ(world.state().FindRun(run_id), nullptr);
  const store::TaskRow& row = world.rows().tasks.at(run_id);
  EXPECT_EQ(row.sub_status, "failed");
  EXPECT_EQ(row.details, "No heartbeat received from the task");
  EXPECT_EQ(row.finished_at, until);
}

TEST(StateTasks, ARunMayBeStoppedAtAnyTimeAndEverythingOfItGoes) {
  for (const int progress : {0, 1, 2}) {
    World world;
    const NodeId node = world.Node("key");
    const RunId run_id = world.Pending();
    if (progress > 0) world.Acquire();
    if (progress > 1) {
      ASSERT_TRUE(world.Begin(run_id).ok());
      world.Ask(run_id, node, 10);
    }
    const auto waiter = std::make_shared<Waiter>();
    world.run(run_id).reply_waiters.Add(waiter);
    EXPECT_TRUE(world.Finish(run_id, TaskEvent::kStop));
    EXPECT_TRUE(waiter->Take());
    EXPECT_FALSE(world.Pull(node).has_value());
    EXPECT_TRUE(world.rows().messages.empty());
    EXPECT_TRUE(world.rows().objects.empty());
    EXPECT_EQ(world.rows().tasks.at(run_id).sub_status, "stopped");
  }
}

TEST(StateTasks, OnlyATaskThatHasNotBegunIsQueuedAgain) {
  World world;
  const auto requeue = [&](RunId run_id) {
    return world.Do(
        [&](State& s, WallTime, Changes& c) { return s.RequeueTask(world.run(run_id), c); });
  };
  const RunId run_id = world.Pending();
  EXPECT_FALSE(requeue(run_id));
  world.Acquire();
  EXPECT_TRUE(requeue(run_id));
  EXPECT_EQ(world.Acquire(), run_id);
  ASSERT_TRUE(world.Begin(run_id).ok());
  EXPECT_FALSE(requeue(run_id));
}

TEST(StateTasks, AfterARestartALostInputIsGivenOnceMore) {
  World world;
  const RunId run_id = world.Running();
  const std::string token = world.run(run_id).task.token;
  world.Restart(seconds(100));
  EXPECT_TRUE(world.state().FindByToken(token, world.now() + seconds(60)).ok());
  const WallTime running_at = world.run(run_id).task.running_at;
  EXPECT_TRUE(world.Begin(run_id).ok());
  EXPECT_EQ(world.run(run_id).task.running_at, running_at);
  EXPECT_FALSE(world.Begin(run_id).ok());
}

TEST(StateTasks, AfterARestartAClaimHasItsTimeAnew) {
  World world;
  const RunId claimed = world.Pending();
  world.Acquire();
  const RunId pending = world.Pending();
  world.Restart(std::chrono::hours(1));
  EXPECT_EQ(world.run(claimed).task.status, TaskStatus::kStarting);
  EXPECT_EQ(world.Acquire(), pending);
  world.Pass(seconds(31));
  EXPECT_EQ(world.run(claimed).task.status, TaskStatus::kPending);
}

TEST(StateTasks, TrafficIsAddedOnce) {
  World world;
  const RunId run_id = world.Running();
  const auto flush = [&] { world.Do([](State& s, WallTime, Changes& c) { s.FlushTraffic(c); }); };
  world.run(run_id).traffic.bytes_sent = 10;
  world.run(run_id).traffic.clientapp_runtime = 0.5;
  flush();
  flush();
  world.run(run_id).traffic.bytes_sent = 1;
  EXPECT_EQ(world.run(run_id).Shown().bytes_sent, 11u);
  world.Finish(run_id, TaskEvent::kComplete);
  EXPECT_EQ(world.rows().runs.at(run_id).bytes_sent, 11u);
  EXPECT_EQ(world.rows().runs.at(run_id).clientapp_runtime, 0.5);
}

}  // namespace
}  // namespace umbel::superlink
