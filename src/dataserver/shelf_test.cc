#include "dataserver/shelf.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/testing.h"
#include "dataserver/arrow_status.h"
#include "dataserver/incoming.h"

namespace umbel::dataserver {
namespace {

namespace fs = std::filesystem;
using umbel::testing::TempDir;

class ShelfTest : public ::testing::Test {
 protected:
  void Open(const Quotas& quotas = {}) {
    shelf_.reset();
    auto shelf = Shelf::Open(folder(), dir_.path() + "/work", quotas);
    ASSERT_TRUE(shelf.ok()) << shelf.error().message;
    shelf_ = std::move(*shelf);
  }
  std::string folder() const { return dir_.path() + "/files"; }

  static std::shared_ptr<arrow::RecordBatch> Batch(int64_t rows) {
    arrow::Int64Builder builder;
    // Far from each other, so that nothing makes them small.
    for (uint64_t i = 0; i < static_cast<uint64_t>(rows); ++i)
      UMBEL_CHECK(builder.Append(static_cast<int64_t>(i * 0x1234567890abcd)).ok());
    return arrow::RecordBatch::Make(arrow::schema({arrow::field("row", arrow::int64())}), rows,
                                    {*builder.Finish()});
  }
  Status Put(const std::string& name, int64_t rows, bool publish = true) {
    const auto batch = Batch(rows);
    UMBEL_ASSIGN(const auto incoming, shelf_->Begin(name, batch->schema()));
    UMBEL_TRY(incoming->Write(*batch));
    UMBEL_TRY(incoming->Finish());
    return publish ? incoming->Publish() : Status();
  }
  size_t Leftovers() const {
    const fs::directory_iterator files(dir_.path() + "/work");
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  TempDir dir_;
  std::unique_ptr<Shelf> shelf_;
};

TEST_F(ShelfTest, AFileIsThereWhenItIsPublished) {
  Open();
  const auto batch = Batch(10);
  auto incoming = shelf_->Begin("t.x", batch->schema());
  ASSERT_TRUE(incoming.ok());
  ASSERT_TRUE((*incoming)->Write(*batch).ok());
  ASSERT_TRUE((*incoming)->Finish().ok());
  EXPECT_EQ(shelf_->Find("t.x").error().code, Code::kNotFound);
  ASSERT_TRUE((*incoming)->Publish().ok());
  EXPECT_EQ(shelf_->Find("t.x")->summary.rows, 10U);
  incoming->reset();
  EXPECT_EQ(Leftovers(), 0U);
  EXPECT_EQ(shelf_->List({"t"})->size(), 1U);
  EXPECT_TRUE(shelf_->Drop("t.x").ok());
  EXPECT_TRUE(shelf_->List({"t"})->empty());
  EXPECT_EQ(shelf_->Drop("t.x").error().code, Code::kNotFound);
}

TEST_F(ShelfTest, WhatIsNotPublishedLeavesNothing) {
  Open({.bytes_max = 6000});
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Put("t.x", 100, false).ok());
  EXPECT_EQ(Leftovers(), 0U);
  EXPECT_TRUE(shelf_->Tags()->empty());
}

TEST_F(ShelfTest, ARestartSweepsWhatAKilledServerLeft) {
  Open();
  ASSERT_TRUE(WriteFileAtomic(dir_.path() + "/work/7", "half").ok());
  Open();
  EXPECT_EQ(Leftovers(), 0U);
}

TEST_F(ShelfTest, QuotasAreOfAllThatIsPutAtOnce) {
  Open({.bytes_max = 20'000, .files_max = 2, .put_rows_max = 1500, .puts_max = 2});
  const auto schema = Batch(0)->schema();
  const auto one = shelf_->Begin("t.1", schema), two = shelf_->Begin("t.2", schema);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(shelf_->Begin("t.3", schema).error().code, Code::kUnavailable);
  EXPECT_EQ((*one)->Write(*Batch(1501)).error().code, Code::kResourceExhausted);
  ASSERT_TRUE((*two)->Write(*Batch(1500)).ok());
  ASSERT_TRUE((*two)->Finish().ok());
  EXPECT_EQ(Put("t.4", 1).error().code, Code::kUnavailable);
}

TEST_F(ShelfTest, FullIsSaidAndTheFileBeforeStays) {
  Open({.bytes_max = 20'000, .files_max = 2});
  ASSERT_TRUE(Put("t.1", 1000).ok());
  const Status full = Put("t.1", 2000);
  ASSERT_FALSE(full.ok());
  EXPECT_NE(full.error().message.find("quota is 20000 bytes"), std::string::npos)
      << full.error().message;
  EXPECT_EQ(shelf_->Find("t.1")->summary.rows, 1000U);
  ASSERT_TRUE(Put("t.2", 1).ok());
  EXPECT_NE(Put("t.3", 1).error().message.find("quota is 2 files"), std::string::npos);
  ASSERT_TRUE(Put("t.2", 2).ok());
  EXPECT_EQ(Leftovers(), 0U);
}

TEST_F(ShelfTest, FilesOfOthersAreSeenWhenTheyCome) {
  Open();
  ASSERT_TRUE(Put("t.x", 10).ok());
  fs::copy_file(folder() + "/t.x", folder() + "/t.y");
  EXPECT_EQ(shelf_->List({"t"})->size(), 2U);
  ASSERT_TRUE(WriteFileAtomic(folder() + "/t.y", "damaged").ok());
  EXPECT_EQ(shelf_->List({"t"})->size(), 1U);
  EXPECT_EQ(shelf_->Find("t.y").error().code, Code::kDataLoss);
  fs::remove(folder() + "/t.y");
  EXPECT_EQ(shelf_->Find("t.y").error().code, Code::kNotFound);
  EXPECT_EQ((*shelf_->Tags()), (std::map<std::string, uint64_t>{{"t", 1}}));
}

}  // namespace
}  // namespace umbel::dataserver
