#include "supernode/runtime/machine.h"

#include <gtest/gtest.h>

#include <set>

namespace umbel::supernode {
namespace {

TEST(TaskMachine, EveryStateIsReachedAndOnlyTheLastHasNoExit) {
  const std::set<TaskState> all{TaskState::kWarm, TaskState::kPending, TaskState::kStarting,
                                TaskState::kRunning, TaskState::kFinished};
  std::set<TaskState> reached{TaskState::kWarm, TaskState::kPending};  // where tasks are born
  std::set<TaskState> left;
  for (size_t pass = 0; pass < all.size(); ++pass)
    for (const TaskTransition& row : kTaskTransitions)
      if (reached.contains(row.from)) reached.insert(row.to);
  for (const TaskTransition& row : kTaskTransitions) left.insert(row.from);
  EXPECT_EQ(reached, all);
  EXPECT_FALSE(left.contains(TaskState::kFinished));
  EXPECT_EQ(left.size(), all.size() - 1);
}

TEST(TaskMachine, OneAnswerForEachStateAndEvent) {
  std::set<std::pair<TaskState, TaskEvent>> seen;
  for (const TaskTransition& row : kTaskTransitions)
    EXPECT_TRUE(seen.emplace(row.from, row.event).second);
}

TEST(TaskMachine, WhateverIsAliveCanEnd) {
  for (const TaskTransition& row : kTaskTransitions)
    EXPECT_EQ(Next(row.from, TaskEvent::kEnd), TaskState::kFinished);
}

}  // namespace
}  // namespace umbel::supernode
