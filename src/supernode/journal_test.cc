#include "supernode/journal.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/testing.h"
#include "store/sqlite.h"
#include "tensor/sha256.h"

namespace umbel::supernode {
namespace {

using std::chrono::seconds;
using umbel::testing::TempDir;

constexpr WallTime kNow{seconds(1'800'000'000)};
constexpr SeriesId kSeries{0xfedcba9876543210};

ObjectId IdOf(std::string_view name) { return tensor::Sha256Of(name); }

InstructionRow Row(std::string_view name, int64_t site = 0) {
  InstructionRow row;
  row.site = site;
  row.message_id = IdOf(name);
  row.run_id = RunId{~uint64_t{0}};
  row.series_id = kSeries;
  row.expires_at = kNow + seconds(10);
  // Bytes, not text.
  row.instruction = {std::string("m\0\xff", 3) + std::string(name), std::string("\0", 1), "index"};
  return row;
}

ParcelRow ReplyTo(std::string_view name) {
  return {"reply to " + std::string(name), std::string("\xfe\0", 2), "its index"};
}

bool operator==(const ParcelRow& a, const ParcelRow& b) {
  return a.message == b.message && a.tree == b.tree && a.index == b.index;
}

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() { Open(); }

  /// As the next process does.
  void Open() {
    journal_.reset();
    auto opened = Journal::Open(path_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    journal_ = std::move(*opened);
  }
  void Take(std::string_view name, int64_t site = 0) {
    const Status taken = journal_->Take(Row(name, site));
    EXPECT_TRUE(taken.ok()) << taken.error().message;
  }
  Status Answer(std::string_view name, const std::optional<std::string>& state, int64_t site = 0) {
    return journal_->Answer(site, IdOf(name), ReplyTo(name), 1.5, kSeries, state);
  }
  std::optional<Progress> Find(std::string_view name, int64_t site = 0) {
    const auto found = journal_->Find(site, IdOf(name));
    EXPECT_TRUE(found.ok());
    return found.value();
  }
  std::string Context(int64_t site = 0, SeriesId series = kSeries) {
    return journal_->ReadContext(site, series).value();
  }
  std::vector<ObjectId> Unfinished(int64_t site = 0) {
    std::vector<ObjectId> ids;
    const auto rows = journal_->Unfinished(site);
    for (const InstructionRow& row : rows.value()) ids.push_back(row.message_id);
    return ids;
  }

  TempDir directory_;
  const std::string path_ = directory_.path() + "/journal.db";
  std::unique_ptr<Journal> journal_;
};

TEST_F(JournalTest, ASiteIsWhatWasPutLast) {
  EXPECT_FALSE(journal_->ReadSite(0).value());
  ASSERT_TRUE(journal_->PutSite(0, {"a key", NodeId{}}).ok());
  ASSERT_TRUE(journal_->PutSite(0, {"another", NodeId{~uint64_t{0}}}).ok());
  ASSERT_TRUE(journal_->PutSite(1, {"", NodeId{7}}).ok());
  for (int i = 0; i < 2; ++i) {
    const auto site = journal_->ReadSite(0).value();
    ASSERT_TRUE(site);
    EXPECT_EQ(site->key_pem, "another");
    EXPECT_EQ(site->node_id, NodeId{~uint64_t{0}});
    EXPECT_EQ(journal_->ReadSite(1).value()->node_id, NodeId{7});
    Open();
  }
}

TEST_F(JournalTest, AnInstructionLivesThroughRestarts) {
  EXPECT_EQ(Find("a"), std::nullopt);
  EXPECT_FALSE(journal_->Read(0, IdOf("a")).value());
  Take("a");
  Open();
  EXPECT_EQ(Find("a"), Progress::kTaken);
  auto row = journal_->Read(0, IdOf("a")).value();
  ASSERT_TRUE(row);
  const InstructionRow taken = Row("a");
  EXPECT_EQ(row->site, 0);
  EXPECT_EQ(row->message_id, taken.message_id);
  EXPECT_EQ(row->run_id, taken.run_id);
  EXPECT_EQ(row->series_id, taken.series_id);
  EXPECT_EQ(row->expires_at, taken.expires_at);
  EXPECT_TRUE(row->instruction == taken.instruction);
  EXPECT_TRUE(row->reply == ParcelRow{});

  ASSERT_TRUE(Answer("a", "learnt").ok());
  Open();
  EXPECT_EQ(Find("a"), Progress::kAnswered);
  row = journal_->Read(0, IdOf("a")).value();
  ASSERT_TRUE(row);
  EXPECT_TRUE(row->reply == ReplyTo("a"));
  EXPECT_EQ(row->runtime_seconds, 1.5);
  EXPECT_EQ(Context(), "learnt");
  EXPECT_EQ(Unfinished(), std::vector{IdOf("a")});

  ASSERT_TRUE(journal_->Sent(0, IdOf("a")).ok());
  Open();
  EXPECT_EQ(Find("a"), Progress::kSent);
  row = journal_->Read(0, IdOf("a")).value();
  ASSERT_TRUE(row);
  EXPECT_TRUE(row->instruction == ParcelRow{}) << "a model is kept for nobody";
  EXPECT_TRUE(row->reply == ParcelRow{});
  EXPECT_TRUE(Unfinished().empty());
  EXPECT_EQ(Context(), "learnt");
}

TEST_F(JournalTest, TheSameInstructionIsTakenOnce) {
  Take("a");
  const Status again = journal_->Take(Row("a"));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, Code::kAlreadyExists);
  ASSERT_TRUE(Answer("a", std::nullopt).ok());
  EXPECT_EQ(journal_->Take(Row("a")).error().code, Code::kAlreadyExists);
  EXPECT_EQ(Find("a"), Progress::kAnswered);
  ASSERT_TRUE(journal_->Forget(0, IdOf("a")).ok());
  EXPECT_EQ(Find("a"), std::nullopt);
  Take("a");
}

TEST_F(JournalTest, AnAnswerAndItsContextAreBothThereOrNeither) {
  // Nobody asked for it.
  const Status unknown = Answer("a", "of an unknown one");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, Code::kNotFound);
  EXPECT_EQ(Context(), "");
  // Answered already: what was pushed is what counts.
  Take("a");
  ASSERT_TRUE(Answer("a", "first").ok());
  EXPECT_EQ(Answer("a", "second").error().code, Code::kNotFound);
  EXPECT_EQ(Context(), "first");
  ASSERT_TRUE(journal_->Sent(0, IdOf("a")).ok());
  EXPECT_EQ(Answer("a", "third").error().code, Code::kNotFound);
  EXPECT_EQ(Context(), "first");
  EXPECT_EQ(Find("a"), Progress::kSent);
  // What failed in the middle leaves nothing, and does not stand in the way of the next.
  Take("b");
  {
    auto file = store::Connection::Open(path_, store::Connection::Mode::kReadWrite).value();
    ASSERT_TRUE(file->Execute("CREATE TRIGGER no BEFORE UPDATE ON context BEGIN "
                              "SELECT RAISE(ABORT, 'the disk is full'); END")
                    .ok());
    EXPECT_FALSE(Answer("b", "lost").ok());
    EXPECT_EQ(Find("b"), Progress::kTaken);
    EXPECT_EQ(Context(), "first");
    ASSERT_TRUE(file->Execute("DROP TRIGGER no").ok());
  }
  ASSERT_TRUE(Answer("b", "kept").ok());
  EXPECT_EQ(Context(), "kept");
}

TEST_F(JournalTest, AStateThatIsNotKnownChangesNothing) {
  Take("a");
  ASSERT_TRUE(Answer("a", "first").ok());
  Take("b");
  ASSERT_TRUE(Answer("b", std::nullopt).ok());
  EXPECT_EQ(Context(), "first");
  Take("c");
  ASSERT_TRUE(Answer("c", "").ok());  // an empty one is known
  EXPECT_EQ(Context(), "");
  EXPECT_EQ(Context(0, SeriesId{1}), "");
}

TEST_F(JournalTest, IdsThatNobodyKnowsHarmNothing) {
  Take("a");
  EXPECT_TRUE(journal_->Sent(0, IdOf("b")).ok());
  EXPECT_TRUE(journal_->Forget(0, IdOf("b")).ok());
  EXPECT_EQ(Find("b"), std::nullopt);
  EXPECT_EQ(Find("a"), Progress::kTaken);
}

TEST_F(JournalTest, WhatIsUnfinishedComesInTheOrderItWasTaken) {
  for (const char* name : {"c", "a", "d", "b"}) Take(name);
  ASSERT_TRUE(Answer("a", std::nullopt).ok());
  ASSERT_TRUE(journal_->Sent(0, IdOf("d")).ok());
  Open();
  EXPECT_EQ(Unfinished(), (std::vector{IdOf("c"), IdOf("a"), IdOf("b")}));
}

TEST_F(JournalTest, OnlyWhatWasSentAndHasExpiredIsSwept) {
  for (const char* name : {"taken", "answered", "sent"}) Take(name);
  ASSERT_TRUE(Answer("answered", std::nullopt).ok());
  ASSERT_TRUE(journal_->Sent(0, IdOf("sent")).ok());
  ASSERT_TRUE(journal_->Sweep(kNow + seconds(10)).ok());  // its last moment
  EXPECT_EQ(Find("sent"), Progress::kSent);
  ASSERT_TRUE(journal_->Sweep(kNow + seconds(11)).ok());
  EXPECT_EQ(Find("sent"), std::nullopt);
  EXPECT_EQ(Find("taken"), Progress::kTaken);
  EXPECT_EQ(Find("answered"), Progress::kAnswered);
}

TEST_F(JournalTest, SitesKnowNothingOfEachOther) {
  Take("a", 0);
  Take("a", 1);
  ASSERT_TRUE(Answer("a", "of site 1", 1).ok());
  EXPECT_EQ(Find("a", 0), Progress::kTaken);
  EXPECT_EQ(Context(0), "");
  EXPECT_EQ(Context(1), "of site 1");
  ASSERT_TRUE(journal_->Sent(1, IdOf("a")).ok());
  EXPECT_EQ(Unfinished(0), std::vector{IdOf("a")});
  EXPECT_TRUE(Unfinished(1).empty());
  ASSERT_TRUE(journal_->Forget(0, IdOf("a")).ok());
  EXPECT_EQ(Find("a", 1), Progress::kSent);
}

TEST_F(JournalTest, AKilledProcessLosesNothingThatReturned) {
  Take("a");
  ASSERT_TRUE(Answer("a", "learnt").ok());
  // The files as they are while the first still has them open: no close, no checkpoint.
  const TempDir other;
  std::filesystem::copy(directory_.path(), other.path());
  const auto after = Journal::Open(other.path() + "/journal.db");
  ASSERT_TRUE(after.ok()) << after.error().message;
  EXPECT_EQ((*after)->Find(0, IdOf("a")).value(), Progress::kAnswered);
  EXPECT_EQ((*after)->ReadContext(0, kSeries).value(), "learnt");
}

TEST(Journal, InMemoryKeepsNothing) {
  for (int i = 0; i < 2; ++i) {
    const auto journal = Journal::Open(":memory:");
    ASSERT_TRUE(journal.ok()) << journal.error().message;
    EXPECT_TRUE((*journal)->Take(Row("a")).ok());
  }
}

TEST(Journal, AnotherProgramsFileIsRefusedAndLeftAlone) {
  const TempDir directory;
  const std::string path = directory.path() + "/other.db";
  {
    auto other = store::Connection::Open(path, store::Connection::Mode::kReadWrite).value();
    ASSERT_TRUE(other->Execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (42)").ok());
  }
  const auto opened = Journal::Open(path);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kFailedPrecondition);
  EXPECT_NE(opened.error().message.find(path), std::string::npos) << opened.error().message;
  auto other = store::Connection::Open(path, store::Connection::Mode::kReadWrite).value();
  EXPECT_EQ(other->Integer("SELECT x FROM theirs").value(), 42);

  const std::string text = directory.path() + "/text";
  std::ofstream(text) << std::string(10'000, 'x');
  const auto broken = Journal::Open(text);
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, Code::kDataLoss) << broken.error().message;
}

TEST(Journal, ANewerUmbelsFileIsRefused) {
  const TempDir directory;
  const std::string path = directory.path() + "/journal.db";
  ASSERT_TRUE(Journal::Open(path).ok());
  {
    auto file = store::Connection::Open(path, store::Connection::Mode::kReadWrite).value();
    ASSERT_TRUE(file->Execute("PRAGMA user_version = 1000").ok());
  }
  const auto opened = Journal::Open(path);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kFailedPrecondition);
}

}  // namespace
}  // namespace umbel::supernode
