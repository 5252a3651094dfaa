#include <gtest/gtest.h>

#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::At;
using testing::BeginRun;
using testing::FinishRun;

constexpr uint64_t kRow = 1040;  // what a row of 1000 letters counts for

class LogConformance : public testing::ConformanceTest {
 protected:
  /// 10 rows of about 1 KB, each a run of its own letter.
  void Append(uint64_t run, char letter, int rows = 10) {
    for (int i = 0; i < rows; ++i)
      ASSERT_TRUE(
          Submit({AppendLog{{RunId{run}, TaskId{run + 2}, At(1), std::string(1000, letter)}}})
              .ok());
  }
  std::string Text(uint64_t run) { return store_->ReadLogs(RunId{run}, 0, At(0))->text; }
};
INSTANTIATE_TEST_SUITE_P(All, LogConformance, testing::AllKinds(), testing::KindName);

TEST_P(LogConformance, ARunKeepsItsNewestText) {
  StoreOptions options;
  options.run_log_bytes_max = 8 * kRow;
  Open(options);
  Append(1, 'a');
  Append(2, 'b', 3);
  ASSERT_TRUE(Submit({AppendLog{{RunId{1}, TaskId{3}, At(1), "the end"}}}).ok());
  const std::string text = Text(1);
  EXPECT_LE(text.size(), 8007u);
  EXPECT_GE(text.size(), 6007u);
  EXPECT_TRUE(text.ends_with("the end"));
  EXPECT_EQ(Text(2).size(), 3000u);
}

TEST_P(LogConformance, ACursorGoesOnPastWhatWasDropped) {
  StoreOptions options;
  options.run_log_bytes_max = 4 * kRow;
  Open(options);
  Append(1, 'a', 2);
  const int64_t cursor = store_->ReadLogs(RunId{1}, 0, At(0))->cursor;
  Append(1, 'b', 10);
  const LogChunk chunk = *store_->ReadLogs(RunId{1}, cursor, At(0));
  EXPECT_EQ(chunk.text.find('a'), std::string::npos);
  EXPECT_GT(chunk.cursor, cursor);
}

TEST_P(LogConformance, ARowLargerThanTheCapStaysAlone) {
  StoreOptions options;
  options.run_log_bytes_max = 1000;
  options.total_log_bytes_max = 1000;
  Open(options);
  Append(1, 'a', 1);
  ASSERT_TRUE(Submit({AppendLog{{RunId{1}, TaskId{3}, At(1), std::string(5000, 'z')}}}).ok());
  EXPECT_EQ(Text(1), std::string(5000, 'z'));
  ASSERT_TRUE(Submit({AppendLog{{RunId{1}, TaskId{3}, At(1), "x"}}}).ok());
  EXPECT_EQ(Text(1), "x");
}

TEST_P(LogConformance, InTotalTheFirstFinishedRunsGoFirst) {
  StoreOptions options;
  options.total_log_bytes_max = 40 * kRow;
  Open(options);
  for (uint64_t run : {10u, 20u, 30u, 40u}) {
    ASSERT_TRUE(Submit(BeginRun(run)).ok());
    Append(run, static_cast<char>('a' + run / 10));
  }
  // 20 finished before 10; 30 and 40 go on.
  ASSERT_TRUE(Submit({FinishRun(20, 100), FinishRun(10, 200)}).ok());
  Append(40, 'e', 6);
  EXPECT_EQ(Text(10).size(), 10000u);
  EXPECT_LT(Text(20).size(), 10000u);
  Append(40, 'e', 5);
  EXPECT_EQ(Text(20), "");
  Append(40, 'e', 8);
  EXPECT_EQ(Text(10), "");
  EXPECT_EQ(Text(30).size(), 10000u);
  EXPECT_EQ(Text(40).size(), 29000u);
  // No finished run has any left: the oldest text of all goes.
  Append(40, 'e', 8);
  EXPECT_LT(Text(30).size(), 10000u);
  EXPECT_EQ(Text(40).size(), 37000u);
}

TEST_P(LogConformance, ADroppedRunGivesItsShareBack) {
  StoreOptions options;
  options.total_log_bytes_max = 20 * kRow;
  Open(options);
  for (uint64_t run : {10u, 20u}) ASSERT_TRUE(Submit(BeginRun(run)).ok());
  for (int i = 0; i < 5; ++i) {
    Append(10, 'a', 9);
    ASSERT_TRUE(Submit({FinishRun(10), DropRun{RunId{10}}}).ok());
  }
  Append(20, 'b', 20);
  EXPECT_EQ(Text(20).size(), 20000u);
}

TEST_P(LogConformance, TheAuditIsBounded) {
  StoreOptions options;
  options.audit_rows_max = 5;
  Open(options);
  for (int64_t i = 1; i <= 12; ++i)
    ASSERT_TRUE(Submit({AppendAudit{{At(i), "p", "a", RunId{1}, "", "ok"}}}).ok());
  const std::vector<AuditRow> rows = *store_->ReadAudit(100);
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows.front().timestamp, At(12));
}

}  // namespace
}  // namespace umbel::store
