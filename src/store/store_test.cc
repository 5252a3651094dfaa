// One suite for both stores: what holds on disk holds in memory.
#include "store/store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <future>
#include <limits>
#include <thread>

#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::At;
using testing::BeginRun;
using testing::DigestOf;
using testing::FinishRun;
using testing::SampleMessage;
using testing::SampleNode;
using testing::SampleObject;
using testing::SampleRun;
using testing::SampleTask;
using testing::SubmitAndWait;

using testing::Kind;

class StoreConformance : public testing::ConformanceTest {};
INSTANTIATE_TEST_SUITE_P(All, StoreConformance, testing::AllKinds(), testing::KindName);

TEST_P(StoreConformance, ANewStoreIsEmpty) {
  const Snapshot snapshot = Load();
  EXPECT_EQ(snapshot.alive_at, WallTime{});
  EXPECT_FALSE(snapshot.unclean_machine_stop);
  EXPECT_TRUE(snapshot.nodes.empty());
  EXPECT_TRUE(snapshot.runs.empty());
  EXPECT_EQ(store_->ReadFab(DigestOf(1)).error().code, Code::kNotFound);
  EXPECT_EQ(store_->ReadSeries(SeriesId{1}).error().code, Code::kNotFound);
  EXPECT_EQ(store_->ReadRun(RunId{1}).error().code, Code::kNotFound);
  EXPECT_EQ(store_->ReadInline(RunId{1}, DigestOf(1)).error().code, Code::kNotFound);
  EXPECT_TRUE(store_->ListRuns(10, 0)->empty());
  EXPECT_TRUE(store_->ReadAudit(10)->empty());
}

TEST_P(StoreConformance, EveryFieldComesBack) {
  constexpr uint64_t kRun = 0xfedcba9876543210;  // ids use all 64 bits
  ASSERT_TRUE(Submit(BeginRun(kRun)).ok());
  ASSERT_TRUE(Submit({PutNode{SampleNode(kRun)},
                      PutSeries{{SeriesId{kRun}, std::string("\0ctx", 4), At(7)}},
                      PutMessage{SampleMessage(kRun, 2, 2)}, PutMessage{SampleMessage(kRun, 1, 1)},
                      PutObject{SampleObject(kRun, 5, std::string("\0\xff", 2))},
                      PutObject{{RunId{kRun}, DigestOf(6), uint64_t{5} << 30, 4294967295,
                                 uint64_t{1} << 40, ""}},
                      FlushHeartbeats{{}, {}, At(1234)}})
                  .ok());
  Reopen();
  const Snapshot snapshot = Load();
  EXPECT_EQ(snapshot.alive_at, At(1234));
  ASSERT_EQ(snapshot.nodes.size(), 1u);
  EXPECT_EQ(snapshot.nodes[0], SampleNode(kRun));
  ASSERT_EQ(snapshot.runs.size(), 1u);
  EXPECT_EQ(snapshot.runs[0], SampleRun(kRun));
  ASSERT_EQ(snapshot.tasks.size(), 1u);
  EXPECT_EQ(snapshot.tasks[0], SampleTask(kRun, TaskStatus::kRunning));
  ASSERT_EQ(snapshot.messages.size(), 2u);
  EXPECT_EQ(snapshot.messages[0], SampleMessage(kRun, 1, 1));
  EXPECT_EQ(snapshot.messages[1], SampleMessage(kRun, 2, 2));
  ASSERT_EQ(snapshot.objects.size(), 2u);
  for (const ObjectRow& object : snapshot.objects) {
    EXPECT_EQ(object.content, "");
    if (object.segment == 0) {
      EXPECT_EQ(object.size, 2u);
    } else {
      EXPECT_EQ(object.size, uint64_t{5} << 30);
      EXPECT_EQ(object.segment, 4294967295u);
      EXPECT_EQ(object.offset, uint64_t{1} << 40);
    }
  }
  EXPECT_EQ(*store_->ReadInline(RunId{kRun}, DigestOf(5)), std::string("\0\xff", 2));
  EXPECT_EQ(store_->ReadInline(RunId{kRun}, DigestOf(6)).error().code, Code::kNotFound);
  EXPECT_EQ(store_->ReadSeries(SeriesId{kRun})->context, std::string("\0ctx", 4));
  EXPECT_EQ(*store_->ReadFab(DigestOf(kRun)), fmt::format("fab of {}", kRun));
  EXPECT_EQ(store_->ReadRun(RunId{kRun})->run, SampleRun(kRun));
  EXPECT_EQ(store_->ReadRun(RunId{kRun})->task, SampleTask(kRun, TaskStatus::kRunning));
}

TEST_P(StoreConformance, HashedDoublesKeepEveryBit) {
  MessageRow row = SampleMessage(1, 1, 1);
  row.created_at = -0.0;
  row.ttl = std::numeric_limits<double>::quiet_NaN();
  std::vector<Write> writes = BeginRun(1);
  writes.push_back(PutMessage{row});
  ASSERT_TRUE(Submit(std::move(writes)).ok());
  const Snapshot snapshot = Load();
  ASSERT_EQ(snapshot.messages.size(), 1u);
  EXPECT_EQ(std::bit_cast<uint64_t>(snapshot.messages[0].created_at),
            std::bit_cast<uint64_t>(row.created_at));
  EXPECT_EQ(std::bit_cast<uint64_t>(snapshot.messages[0].ttl), std::bit_cast<uint64_t>(row.ttl));
}

TEST_P(StoreConformance, PutReplaces) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  NodeRow node = SampleNode(7);
  ASSERT_TRUE(Submit({PutNode{node}}).ok());
  node.status = NodeStatus::kOffline;
  node.name = "";
  RunRow run = SampleRun(1);
  run.clientapp_runtime = 9;
  MessageRow message = SampleMessage(1, 4, 8);
  ASSERT_TRUE(Submit({PutMessage{message}}).ok());
  message.tree = "";
  message.reply_to.reset();
  ASSERT_TRUE(
      Submit({PutNode{node}, PutRun{run}, PutMessage{message}, PutSeries{{SeriesId{1}, "a", At(1)}},
              PutSeries{{SeriesId{1}, "b", At(2)}}, PutObject{SampleObject(1, 1, "old")},
              PutObject{SampleObject(1, 1, "new")}, PutFab{{DigestOf(1), "v2"}}})
          .ok());
  const Snapshot snapshot = Load();
  EXPECT_EQ(snapshot.nodes, std::vector{node});
  EXPECT_EQ(snapshot.runs, std::vector{run});
  EXPECT_EQ(snapshot.messages, std::vector{message});
  EXPECT_EQ(store_->ReadSeries(SeriesId{1})->context, "b");
  EXPECT_EQ(*store_->ReadInline(RunId{1}, DigestOf(1)), "new");
  EXPECT_EQ(*store_->ReadFab(DigestOf(1)), "v2");
}

TEST_P(StoreConformance, TouchDropAndTraffic) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  MessageRow message = SampleMessage(1, 3, 3);
  message.touched = false;
  ASSERT_TRUE(Submit({PutMessage{message}, PutMessage{SampleMessage(1, 4, 4)},
                      PutObject{SampleObject(1, 1, "x")}, PutObject{SampleObject(1, 2, "y")}})
                  .ok());
  ASSERT_TRUE(Submit({TouchMessage{RunId{1}, DigestOf(3)}, DropMessage{RunId{1}, DigestOf(4)},
                      DropObject{RunId{1}, DigestOf(1)}, DropObject{RunId{2}, DigestOf(2)},
                      AddTraffic{RunId{1}, 5, 6, 0.25}, AddTraffic{RunId{99}, 5, 6, 0.25}})
                  .ok());
  const Snapshot snapshot = Load();
  ASSERT_EQ(snapshot.messages.size(), 1u);
  EXPECT_TRUE(snapshot.messages[0].touched);
  ASSERT_EQ(snapshot.objects.size(), 1u);
  EXPECT_EQ(snapshot.objects[0].object_id, DigestOf(2));
  EXPECT_EQ(snapshot.runs[0].bytes_sent, 15u);
  EXPECT_EQ(snapshot.runs[0].bytes_recv, 26u);
  EXPECT_EQ(snapshot.runs[0].clientapp_runtime, 1.5);
}

TEST_P(StoreConformance, HeartbeatsChangeOnlyTheirColumns) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  ASSERT_TRUE(
      Submit({PutNode{SampleNode(1)}, PutNode{SampleNode(2)},
              FlushHeartbeats{
                  {{NodeId{1}, At(500)}, {NodeId{77}, At(1)}}, {{TaskId{3}, At(600)}}, At(700)}})
          .ok());
  const Snapshot snapshot = Load();
  EXPECT_EQ(snapshot.alive_at, At(700));
  NodeRow expected = SampleNode(1);
  expected.online_until = At(500);
  EXPECT_EQ(snapshot.nodes, (std::vector{expected, SampleNode(2)}));
  TaskRow task = SampleTask(1, TaskStatus::kRunning);
  task.token_until = At(600);
  EXPECT_EQ(snapshot.tasks, std::vector{task});
}

TEST_P(StoreConformance, ASnapshotHoldsUnfinishedRunsOnly) {
  for (uint64_t run : {10u, 20u}) {
    std::vector<Write> writes = BeginRun(run);
    writes.push_back(PutMessage{SampleMessage(run, run, run)});
    writes.push_back(PutObject{SampleObject(run, run, "content")});
    TaskRow extra = SampleTask(run, TaskStatus::kFinished);
    extra.task_id = TaskId{run + 5};
    writes.push_back(PutTask{extra});  // a finished task beside the primary one
    ASSERT_TRUE(Submit(std::move(writes)).ok());
  }
  ASSERT_TRUE(Submit({FinishRun(10)}).ok());
  Snapshot snapshot = Load();
  ASSERT_EQ(snapshot.runs.size(), 1u);
  EXPECT_EQ(snapshot.runs[0].run_id, RunId{20});
  EXPECT_EQ(snapshot.tasks.size(), 2u);
  EXPECT_EQ(snapshot.messages.size(), 1u);
  EXPECT_EQ(snapshot.objects.size(), 1u);
  Reopen();
  // What was left of the finished run is gone with the restart; the run itself is still listed.
  const auto content = store_->ReadInline(RunId{10}, DigestOf(10));
  EXPECT_EQ(content.ok(), GetParam() == Kind::kMemory);
  EXPECT_TRUE(store_->ReadRun(RunId{10}).ok());
}

TEST_P(StoreConformance, DropRunDataKeepsWhatOthersNeed) {
  for (uint64_t run : {10u, 20u, 30u}) {
    std::vector<Write> writes = BeginRun(run);
    if (run == 20) {  // runs 10 and 20 come from one FAB
      RunRow row = SampleRun(run);
      row.fab_hash = DigestOf(10);
      writes.push_back(PutRun{row});
    }
    writes.push_back(PutMessage{SampleMessage(run, run, run)});
    writes.push_back(PutObject{SampleObject(run, 1, "content")});
    writes.push_back(AppendLog{{RunId{run}, TaskId{run}, At(1), "line"}});
    ASSERT_TRUE(Submit(std::move(writes)).ok());
  }
  ASSERT_TRUE(Submit({FinishRun(10), DropRunData{RunId{10}}, DropRunData{RunId{10}}}).ok());
  ASSERT_TRUE(Submit({FinishRun(30), DropRunData{RunId{30}}}).ok());
  EXPECT_EQ(store_->ReadInline(RunId{10}, DigestOf(1)).error().code, Code::kNotFound);
  EXPECT_EQ(*store_->ReadInline(RunId{20}, DigestOf(1)), "content");
  EXPECT_TRUE(store_->ReadFab(DigestOf(10)).ok());
  EXPECT_FALSE(store_->ReadFab(DigestOf(30)).ok());
  EXPECT_TRUE(store_->ReadRun(RunId{30}).ok());
  EXPECT_EQ(store_->ReadLogs(RunId{30}, 0, At(0))->text, "line");
  EXPECT_EQ(Load().messages.size(), 1u);

  ASSERT_TRUE(Submit({DropRun{RunId{30}}, DropRun{RunId{30}}, DropRun{RunId{12345}}}).ok());
  EXPECT_FALSE(store_->ReadRun(RunId{30}).ok());
  EXPECT_EQ(store_->ReadLogs(RunId{30}, 0, At(0))->text, "");
  EXPECT_EQ(store_->ListRuns(10, 0)->size(), 2u);
}

TEST_P(StoreConformance, AnUnfinishedRunsDataCannotBeDropped) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  for (const Write& write : {Write(DropRunData{RunId{1}}), Write(DropRun{RunId{1}})}) {
    const Status status = Submit({write});
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::kFailedPrecondition);
  }
  EXPECT_TRUE(store_->ReadFab(DigestOf(1)).ok());
  EXPECT_FALSE(store_->Overloaded());
}

TEST_P(StoreConformance, RunsAreListedNewestFirst) {
  for (uint64_t run : {100u, 300u, 200u, 400u}) {
    std::vector<Write> writes = BeginRun(run);
    TaskRow other = SampleTask(run, TaskStatus::kPending);
    other.task_id = TaskId{run + 9};
    writes.push_back(PutTask{other});  // only primary tasks make a listing
    if (run == 200) writes.push_back(FinishRun(run));
    ASSERT_TRUE(Submit(std::move(writes)).ok());
  }
  const auto ids = [](const std::vector<RunListing>& listings) {
    std::vector<uint64_t> out;
    for (const RunListing& listing : listings) {
      EXPECT_EQ(listing.task.run_id, listing.run.run_id);
      out.push_back(listing.run.run_id.value);
    }
    return out;
  };
  EXPECT_EQ(ids(*store_->ListRuns(10, 0)), (std::vector<uint64_t>{400, 300, 200, 100}));
  EXPECT_EQ(ids(*store_->ListRuns(2, 1)), (std::vector<uint64_t>{300, 200}));
  EXPECT_EQ(ids(*store_->ListRuns(std::numeric_limits<uint64_t>::max(), 3)),
            (std::vector<uint64_t>{100}));
  EXPECT_TRUE(store_->ListRuns(0, 0)->empty());
}

TEST_P(StoreConformance, LogsAreReadByCursorAndTime) {
  for (int64_t i = 1; i <= 4; ++i)
    ASSERT_TRUE(Submit({AppendLog{{RunId{1}, TaskId{3}, At(i * 10), fmt::format("line {}\n", i)}},
                        AppendLog{{RunId{2}, TaskId{4}, At(i * 10), "other\n"}}})
                    .ok());
  const LogChunk all = *store_->ReadLogs(RunId{1}, 0, At(0));
  EXPECT_EQ(all.text, "line 1\nline 2\nline 3\nline 4\n");
  EXPECT_EQ(all.latest, At(40));
  const LogChunk none = *store_->ReadLogs(RunId{1}, all.cursor, At(0));
  EXPECT_EQ(none.text, "");
  EXPECT_EQ(none.latest, WallTime{});
  EXPECT_EQ(none.cursor, all.cursor);

  const LogChunk newer = *store_->ReadLogs(RunId{1}, 0, At(20));
  EXPECT_EQ(newer.text, "line 3\nline 4\n");
  EXPECT_EQ(store_->ReadLogs(RunId{1}, 0, At(40))->text, "");

  LogChunk piece = *store_->ReadLogs(RunId{1}, 0, At(0), 1);
  EXPECT_EQ(piece.text, "line 1\n");
  EXPECT_EQ(piece.latest, At(10));
  piece = *store_->ReadLogs(RunId{1}, piece.cursor, At(0), 8);
  EXPECT_EQ(piece.text, "line 2\nline 3\n");
  ASSERT_TRUE(Submit({AppendLog{{RunId{1}, TaskId{3}, At(50), "line 5\n"}}}).ok());
  EXPECT_EQ(store_->ReadLogs(RunId{1}, piece.cursor, At(0))->text, "line 4\nline 5\n");
}

TEST_P(StoreConformance, AuditIsNewestFirst) {
  const auto entry = [](int64_t i) {
    return AuditRow{At(i), "127.0.0.1", "start-run", RunId{~uint64_t{0}}, "ab", "ok"};
  };
  for (int64_t i = 1; i <= 3; ++i) ASSERT_TRUE(Submit({AppendAudit{entry(i)}}).ok());
  EXPECT_EQ(*store_->ReadAudit(2), (std::vector{entry(3), entry(2)}));
}

TEST_P(StoreConformance, AWriteAtFaultFailsAloneAndWhole) {
  ASSERT_TRUE(Submit({PutNode{SampleNode(1)}}).ok());
  NodeRow twin = SampleNode(2);
  twin.public_key = SampleNode(1).public_key;
  std::vector<Status> outcomes(40, Fail(Code::kUnknown, "done did not run"));
  std::atomic<int> calls{0};
  for (size_t i = 0; i < outcomes.size(); ++i) {
    std::vector<Write> writes{PutNode{SampleNode(100 + i)}};
    if (i == 11 || i == 12) writes.push_back(PutNode{twin});
    if (i == 30) {
      NodeRow bad = SampleNode(3);
      bad.heartbeat_interval = std::numeric_limits<double>::quiet_NaN();
      writes.push_back(PutNode{bad});
    }
    store_->Submit(std::move(writes), [&, i](Status status) {
      outcomes[i] = std::move(status);
      ++calls;
    });
  }
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(calls, 40);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (i == 11 || i == 12)
      EXPECT_EQ(outcomes[i].error().code, Code::kAlreadyExists);
    else if (i == 30)
      EXPECT_EQ(outcomes[i].error().code, Code::kInvalidArgument);
    else
      EXPECT_TRUE(outcomes[i].ok()) << i << ": " << outcomes[i].error().ToString();
  }
  const Snapshot snapshot = Load();
  EXPECT_EQ(snapshot.nodes.size(), 38u);
  EXPECT_TRUE(std::none_of(snapshot.nodes.begin(), snapshot.nodes.end(), [](const NodeRow& node) {
    return node.node_id == NodeId{111} || node.node_id == NodeId{130};
  })) << "half of a failed Submit was kept";
  EXPECT_FALSE(store_->Overloaded());
}

TEST_P(StoreConformance, DoneRunsInOrderOnOneThreadAfterTheCommit) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  std::vector<int> order;
  std::vector<bool> visible;
  std::thread::id writer;
  for (int i = 0; i < 50; ++i) {
    const auto id = static_cast<uint64_t>(i);
    store_->Submit({PutObject{SampleObject(1, id, "x")}}, [&, i, id](const Status& status) {
      EXPECT_TRUE(status.ok());
      if (i == 0) writer = std::this_thread::get_id();
      EXPECT_EQ(std::this_thread::get_id(), writer);
      order.push_back(i);
      visible.push_back(store_->ReadInline(RunId{1}, DigestOf(id)).ok());
    });
  }
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_NE(writer, std::this_thread::get_id());
  EXPECT_EQ(order.size(), 50u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_TRUE(std::all_of(visible.begin(), visible.end(), [](bool v) { return v; }));
}

TEST_P(StoreConformance, ManyThreadsReadWhileOthersWrite) {
  ASSERT_TRUE(Submit(BeginRun(1)).ok());
  constexpr uint64_t kEach = 60;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> reads{0};
  std::vector<std::thread> readers;
  readers.reserve(4);
  for (int r = 0; r < 4; ++r)
    readers.emplace_back([&] {
      while (!stop) {
        const auto snapshot = store_->Load();
        ASSERT_TRUE(snapshot.ok()) << snapshot.error().ToString();
        // Message and object are submitted together: never one without the other.
        ASSERT_EQ(snapshot->messages.size(), snapshot->objects.size());
        ASSERT_TRUE(store_->ListRuns(5, 0).ok());
        ++reads;
      }
    });
  std::vector<std::thread> writers;
  for (uint64_t w = 0; w < 3; ++w)
    writers.emplace_back([&, w] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t id = 1000 * (w + 1) + i;
        store_->Submit({PutMessage{SampleMessage(1, id, id)}, PutObject{SampleObject(1, id, "c")}});
      }
    });
  for (std::thread& thread : writers) thread.join();
  ASSERT_TRUE(store_->Drain().ok());
  while (reads < 8) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : readers) thread.join();
  EXPECT_EQ(Load().messages.size(), 3 * kEach);
}

TEST_P(StoreConformance, SubmitFromDoneWorks) {
  std::promise<void> second;
  store_->Submit({PutNode{SampleNode(1)}}, [&](const Status&) {
    store_->Submit({PutNode{SampleNode(2)}}, [&](const Status&) { second.set_value(); });
  });
  second.get_future().wait();
  EXPECT_EQ(Load().nodes.size(), 2u);
}

TEST_P(StoreConformance, ClosingWritesWhatWaits) {
  std::atomic<int> done{0};
  for (uint64_t i = 1; i <= 200; ++i)
    store_->Submit({PutNode{SampleNode(i)}}, [&](const Status& status) { done += status.ok(); });
  if (GetParam() == Kind::kMemory) {
    store_.reset();
    EXPECT_EQ(done, 200);
    return;
  }
  Reopen();
  EXPECT_EQ(done, 200);
  EXPECT_EQ(Load().nodes.size(), 200u);
}

}  // namespace
}  // namespace umbel::store
