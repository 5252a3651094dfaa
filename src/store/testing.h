// What the store's tests share: folders that clean up, rows with every field set, and the fixture
// of the suites that every kind of store has to pass.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "base/testing.h"
#include "store/rows.h"
#include "store/store.h"

namespace umbel::store::testing {

using umbel::testing::TempDir;

inline WallTime At(int64_t micros) { return WallTime(Micros(micros)); }

inline Digest DigestOf(uint64_t n) {
  Digest digest;
  SeededRng(n).Fill(digest.bytes);
  return digest;
}

inline NodeRow SampleNode(uint64_t id) {
  return NodeRow{.node_id = NodeId{id},
                 .public_key = fmt::format("-----BEGIN PUBLIC KEY-----\n{}\n", id),
                 .owner_aid = "<id:none>",
                 .owner_name = "none",
                 .name = "site-a",
                 .location = "52.5,13.4",
                 .status = NodeStatus::kOnline,
                 .registered_at = At(1),
                 .last_activated_at = At(2),
                 .last_deactivated_at = At(3),
                 .unregistered_at = At(4),
                 .online_until = At(5),
                 .heartbeat_interval = 30.5};
}

inline RunRow SampleRun(uint64_t id) {
  return RunRow{.run_id = RunId{id},
                .series_id = SeriesId{id + 1},
                .primary_task_id = TaskId{id + 2},
                .primary_task_type = "flwr-serverapp",
                .fab_id = "umbel/toy",
                .fab_version = "1.0.0",
                .fab_hash = DigestOf(id),
                .override_config = std::string("\x00\xff\x01", 3),
                .federation = "@none/default",
                .flwr_aid = "aid",
                .account_name = "none",
                .bytes_sent = 10,
                .bytes_recv = 20,
                .clientapp_runtime = 1.25};
}

/// The primary task of SampleRun(run).
inline TaskRow SampleTask(uint64_t run, TaskStatus status, int64_t finished_at = 0) {
  return TaskRow{.task_id = TaskId{run + 2},
                 .run_id = RunId{run},
                 .type = "flwr-serverapp",
                 .status = status,
                 .sub_status = status == TaskStatus::kFinished ? "completed" : "",
                 .details = "none",
                 .pending_at = At(static_cast<int64_t>(run % 1'000'000)),
                 .starting_at = At(2),
                 .running_at = At(3),
                 .finished_at = At(finished_at),
                 .token = "secret",
                 .token_until = At(6),
                 .pid = 4711,
                 .pid_start_ticks = 1234567,
                 .launches = 2,
                 .output_offset = 99};
}

inline MessageRow SampleMessage(uint64_t run, uint64_t id, uint64_t sequence) {
  return MessageRow{
      .message_id = DigestOf(id),
      .run_id = RunId{run},
      .sequence = sequence,
      .src_node_id = kSuperLinkNode,
      .dst_node_id = NodeId{0xffffffffffffff01},
      .reply_to = id % 2 == 0 ? std::optional<ObjectId>(DigestOf(id + 1)) : std::nullopt,
      .group_id = "3",
      .message_type = "train",
      .created_at = 1800000000.123456,
      .ttl = 43200.1,
      .body = std::string("body\0with zero", 14),
      .tree = "tree",
      .touched = true};
}

inline ObjectRow SampleObject(uint64_t run, uint64_t id, const std::string& content) {
  return ObjectRow{.run_id = RunId{run},
                   .object_id = DigestOf(id),
                   .size = content.size(),
                   .segment = 0,
                   .offset = 0,
                   .content = content};
}

/// A run that has begun.
inline std::vector<Write> BeginRun(uint64_t run) {
  return {PutFab{{DigestOf(run), fmt::format("fab of {}", run)}}, PutRun{SampleRun(run)},
          PutTask{SampleTask(run, TaskStatus::kRunning)}};
}

inline Write FinishRun(uint64_t run, int64_t finished_at = 100) {
  return PutTask{SampleTask(run, TaskStatus::kFinished, finished_at)};
}

/// Submits and waits for the outcome.
inline Status SubmitAndWait(Store& store, std::vector<Write> writes) {
  Status outcome = Fail(Code::kUnknown, "done did not run");
  store.Submit(std::move(writes), [&](Status status) { outcome = std::move(status); });
  UMBEL_TRY(store.Drain());
  return outcome;
}

enum class Kind { kDirectory, kDirectoryPower, kMemory };

inline auto AllKinds() {
  return ::testing::Values(Kind::kDirectory, Kind::kDirectoryPower, Kind::kMemory);
}

inline std::string KindName(const ::testing::TestParamInfo<Kind>& tested) {
  switch (tested.param) {
    case Kind::kDirectory:
      return "Directory";
    case Kind::kDirectoryPower:
      return "DirectoryPower";
    case Kind::kMemory:
      break;
  }
  return "Memory";
}

class ConformanceTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { Open({}); }

  /// Another store, empty.
  void Open(StoreOptions options) {
    store_.reset();
    directory_ = std::make_unique<TempDir>();
    OpenHere(std::move(options));
  }
  /// On disk, closes and opens again; a store in memory goes on.
  void Reopen() {
    if (GetParam() == Kind::kMemory) return;
    store_.reset();
    OpenHere({});
  }
  Status Submit(std::vector<Write> writes) { return SubmitAndWait(*store_, std::move(writes)); }
  Snapshot Load() {
    auto snapshot = store_->Load();
    EXPECT_TRUE(snapshot.ok()) << snapshot.error().ToString();
    return snapshot.ok() ? std::move(*snapshot) : Snapshot{};
  }

  std::unique_ptr<TempDir> directory_;
  std::unique_ptr<Store> store_;

 private:
  void OpenHere(StoreOptions options) {
    if (GetParam() != Kind::kMemory) options.directory = directory_->path() + "/state";
    if (GetParam() == Kind::kDirectoryPower) options.durability = Durability::kPower;
    auto opened = Store::Open(std::move(options));
    ASSERT_TRUE(opened.ok()) << opened.error().ToString();
    store_ = std::move(*opened);
  }
};

}  // namespace umbel::store::testing
