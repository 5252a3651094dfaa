// Bad times: a disk that fails, a queue that grows, and the space that comes back afterwards.
#include "store/writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::BeginRun;
using testing::FinishRun;
using testing::SampleNode;
using testing::SampleObject;
using testing::SubmitAndWait;
using testing::TempDir;

/// False when it has not come true within a generous while.
bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

class WriterTest : public ::testing::Test {
 protected:
  WriterTest() {
    StoreOptions options;
    options.directory = directory_.path();
    options.queue_bytes_max = 1 << 20;
    auto opened = Store::Open(std::move(options));
    EXPECT_TRUE(opened.ok()) << opened.error().ToString();
    store_ = std::move(*opened);
  }
  std::string database() const { return directory_.path() + "/state.db"; }
  uint64_t DatabaseBytes() const { return std::filesystem::file_size(database()); }

  TempDir directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(WriterTest, WhatCannotBeWrittenNowIsWrittenLater) {
  auto blocker = std::move(*Connection::Open(database(), Connection::Mode::kReadWrite));
  ASSERT_TRUE(blocker->Execute("BEGIN IMMEDIATE").ok());
  std::atomic<int> done{0};
  for (uint64_t i = 1; i <= 3; ++i)
    store_->Submit({PutNode{SampleNode(i)}}, [&](const Status& status) { done += status.ok(); });
  ASSERT_TRUE(Eventually([&] { return store_->Overloaded(); }));
  EXPECT_EQ(done, 0);
  EXPECT_TRUE(store_->Load()->nodes.empty());
  ASSERT_TRUE(blocker->Execute("ROLLBACK").ok());
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(done, 3);
  EXPECT_FALSE(store_->Overloaded());
  EXPECT_EQ(store_->Load()->nodes.size(), 3u);
}

TEST_F(WriterTest, AFullDiskIsWaitedFor) {
  // Files may not grow past this point: as on a full disk, writes fail in the middle of a commit.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 64 << 10;
  ASSERT_TRUE(SubmitAndWait(*store_, BeginRun(1)).ok());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  std::atomic<int> done{0};
  for (uint64_t i = 1; i <= 20; ++i)
    store_->Submit({PutObject{SampleObject(1, i, std::string(40'000, 'x'))}},
                   [&](const Status& status) { done += status.ok(); });
  const bool overloaded = Eventually([&] { return store_->Overloaded(); });
  EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_TRUE(overloaded);
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(done, 20);
  EXPECT_FALSE(store_->Overloaded());
  EXPECT_EQ(store_->Load()->objects.size(), 20u);
}

TEST_F(WriterTest, ClosingInAnOutageAnswersCancelled) {
  auto blocker = std::move(*Connection::Open(database(), Connection::Mode::kReadWrite));
  ASSERT_TRUE(blocker->Execute("BEGIN IMMEDIATE").ok());
  std::vector<Code> outcomes;
  for (uint64_t i = 1; i <= 3; ++i)
    store_->Submit({PutNode{SampleNode(i)}}, [&](const Status& status) {
      outcomes.push_back(status.ok() ? Code{0} : status.error().code);
    });
  ASSERT_TRUE(Eventually([&] { return store_->Overloaded(); }));
  store_.reset();
  EXPECT_EQ(outcomes, std::vector(3, Code::kCancelled));
}

TEST_F(WriterTest, AQueueThatGrowsSaysSo) {
  ASSERT_TRUE(SubmitAndWait(*store_, BeginRun(1)).ok());
  std::promise<void> go;
  store_->Submit({}, [&](const Status&) { go.get_future().wait(); });
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(store_->Overloaded());
    store_->Submit({PutObject{SampleObject(1, i, std::string(400'000, 'x'))}});
  }
  EXPECT_TRUE(store_->Overloaded());
  go.set_value();
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_FALSE(store_->Overloaded());
}

TEST_F(WriterTest, TheWriteAheadLogStaysBounded) {
  ASSERT_TRUE(SubmitAndWait(*store_, BeginRun(1)).ok());
  const std::string content(60'000, 'x');
  uint64_t largest = 0;
  for (uint64_t i = 0; i < 2500; ++i) {
    store_->Submit({PutObject{SampleObject(1, i, content)}});
    if (i % 50 != 0) continue;
    ASSERT_TRUE(store_->Drain().ok());
    largest = std::max(largest, std::filesystem::file_size(database() + "-wal"));
  }
  EXPECT_GT(largest, 4'000'000u);
  EXPECT_LT(largest, 64'000'000u);
}

TEST_F(WriterTest, SpaceOfADroppedRunGoesBackToTheFileSystem) {
  ASSERT_TRUE(SubmitAndWait(*store_, BeginRun(1)).ok());
  for (uint64_t i = 0; i < 500; ++i)
    store_->Submit({PutObject{SampleObject(1, i, std::string(60'000, 'x'))}});
  ASSERT_TRUE(store_->Drain().ok());
  // Idle, the write-ahead log is copied into the database.
  ASSERT_TRUE(Eventually([&] { return DatabaseBytes() > 25'000'000; }));
  ASSERT_TRUE(SubmitAndWait(*store_, {FinishRun(1), DropRunData{RunId{1}}}).ok());
  EXPECT_TRUE(Eventually([&] { return DatabaseBytes() < 6'000'000; })) << DatabaseBytes();
}

}  // namespace
}  // namespace umbel::store
