// Opening a store: who may, what it finds, what it refuses.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/lock_file.h"
#include "store/schema.h"
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
using testing::SubmitAndWait;
using testing::TempDir;

Result<std::unique_ptr<Store>> OpenIn(const std::string& directory,
                                      const std::string& database = "") {
  StoreOptions options;
  options.directory = directory;
  options.database = database;
  return Store::Open(std::move(options));
}

std::unique_ptr<Connection> Peek(const std::string& path) {
  return std::move(*Connection::Open(path, Connection::Mode::kReadWrite));
}

TEST(StoreOpen, ASecondOwnerIsToldTheFirstOnesPid) {
  TempDir directory;
  auto first = OpenIn(directory.path());
  ASSERT_TRUE(first.ok());
  const auto second = OpenIn(directory.path());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  EXPECT_NE(second.error().message.find(fmt::format("process {}", ::getpid())), std::string::npos)
      << second.error().message;
  first->reset();
  EXPECT_TRUE(OpenIn(directory.path()).ok());
}

TEST(StoreOpen, TwoDirectoriesCannotShareADatabase) {
  TempDir directory;
  const std::string database = directory.path() + "/shared.db";
  auto first = OpenIn(directory.path() + "/a", database);
  ASSERT_TRUE(first.ok()) << first.error().ToString();
  const auto second = OpenIn(directory.path() + "/b", database);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
}

TEST(StoreOpen, ALockThatADeadOwnersChildHoldsIsWaitedFor) {
  TempDir directory;
  const std::string path = directory.path() + "/lock";
  int to_child[2];
  int from_child[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(from_child), 0);
  // The child takes the lock, leaves the pid of a process that is gone, and lets go when told.
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(gone, nullptr, 0), gone);
  const pid_t child = ::fork();
  if (child == 0) {
    auto held = LockFile::Take(path, "it");
    if (!held.ok()) ::_exit(1);
    const std::string text = fmt::format("{}\n", gone);
    const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (::ftruncate(file.get(), 0) != 0 || ::write(file.get(), text.data(), text.size()) < 0)
      ::_exit(1);
    char byte = 'x';
    if (::write(from_child[1], &byte, 1) != 1 || ::read(to_child[0], &byte, 1) != 1) ::_exit(1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(from_child[0], &byte, 1), 1);
  std::thread release([&] { EXPECT_EQ(::write(to_child[1], "x", 1), 1); });
  const auto taken = LockFile::Take(path, "it");
  EXPECT_TRUE(taken.ok()) << taken.error().ToString();
  release.join();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (int fd : {to_child[0], to_child[1], from_child[0], from_child[1]}) ::close(fd);
}

TEST(StoreOpen, ANewerSchemaIsRefused) {
  TempDir directory;
  ASSERT_TRUE(OpenIn(directory.path()).ok());
  ASSERT_TRUE(Peek(directory.path() + "/state.db")->Execute("PRAGMA user_version = 1000").ok());
  const auto opened = OpenIn(directory.path());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kFailedPrecondition);
  EXPECT_NE(opened.error().message.find("newer umbel"), std::string::npos);
}

TEST(StoreOpen, AnotherProgramsDatabaseIsRefusedAndLeftAlone) {
  TempDir directory;
  const std::string path = directory.path() + "/upstream.db";
  ASSERT_TRUE(Peek(path)->Execute("CREATE TABLE node (id INTEGER)").ok());
  const std::string before = *ReadFile(path);
  const auto opened = OpenIn(directory.path() + "/state", path);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(*ReadFile(path), before);
}

TEST(StoreOpen, WhatIsNoDatabaseIsRefused) {
  TempDir directory;
  const std::string path = directory.path() + "/state.db";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(5000, 'x')).ok());
  const auto opened = OpenIn(directory.path());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kDataLoss);
}

TEST(StoreOpen, ADatabaseNeedsADirectoryUnlessItIsInMemory) {
  EXPECT_EQ(OpenIn("", "/tmp/x.db").error().code, Code::kInvalidArgument);
  EXPECT_TRUE(OpenIn("", ":memory:").ok());
  TempDir directory;
  auto store = OpenIn(directory.path(), ":memory:");
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/state.db"));
}

TEST(StoreOpen, FilesAreTheirOwnersOnly) {
  TempDir directory;
  auto store = OpenIn(directory.path() + "/state");
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE(SubmitAndWait(**store, {PutNode{SampleNode(1)}}).ok());
  for (const char* name : {"", "/state.db", "/state.db-wal", "/lock"}) {
    struct stat info {};
    ASSERT_EQ(::stat((directory.path() + "/state" + name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_mode & 077, 0u) << name;
  }
}

TEST(StoreOpen, AMachineThatWentDownIsNoticedUntilObjectsAreVerified) {
  TempDir directory;
  const auto machine_went_down = [&] {
    ASSERT_TRUE(Peek(directory.path() + "/state.db")
                    ->Execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot_id'; "
                              "UPDATE meta SET value = 0 WHERE key = 'closed'")
                    .ok());
  };
  const auto unclean = [&] {
    auto store = OpenIn(directory.path());
    EXPECT_TRUE(store.ok());
    return (*store)->Load()->unclean_machine_stop;
  };
  EXPECT_FALSE(unclean());
  EXPECT_FALSE(unclean());
  machine_went_down();
  EXPECT_TRUE(unclean());
  EXPECT_TRUE(unclean()) << "a second restart before the check must not forget";
  {
    auto store = OpenIn(directory.path());
    ASSERT_TRUE(SubmitAndWait(**store, {ObjectsVerified{}}).ok());
    EXPECT_FALSE((*store)->Load()->unclean_machine_stop);
  }
  EXPECT_FALSE(unclean());
  // Another boot after a clean close is nothing to worry about.
  ASSERT_TRUE(Peek(directory.path() + "/state.db")
                  ->Execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot_id'")
                  .ok());
  EXPECT_FALSE(unclean());
}

TEST(StoreOpen, WhatAFinishedRunLeftIsSweptAway) {
  TempDir directory;
  {
    auto store = OpenIn(directory.path());
    std::vector<Write> writes = BeginRun(1);
    writes.push_back(PutMessage{SampleMessage(1, 1, 1)});
    writes.push_back(PutObject{SampleObject(1, 1, "x")});
    writes.push_back(FinishRun(1));
    ASSERT_TRUE(SubmitAndWait(**store, std::move(writes)).ok());
  }
  auto store = OpenIn(directory.path());
  const auto db = Peek(directory.path() + "/state.db");
  EXPECT_EQ(*db->Integer("SELECT count(*) FROM messages"), 0);
  EXPECT_EQ(*db->Integer("SELECT count(*) FROM objects"), 0);
  EXPECT_TRUE((*store)->ReadRun(RunId{1}).ok());
}

Status PrepareAndMigrate(Connection& db, std::span<const Migration> migrations = Migrations()) {
  UMBEL_TRY(PrepareDatabase(db, "test", migrations));
  return Migrate(db, "test", migrations);
}

TEST(Schema, MigrationsRunOnceAndInOrder) {
  auto db = Peek(":memory:");
  const Migration both[] = {{"one", "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)"},
                            {"two", "INSERT INTO t SELECT a + 1 FROM t"}};
  ASSERT_TRUE(PrepareAndMigrate(*db, std::span(both).first(1)).ok());
  ASSERT_TRUE(PrepareAndMigrate(*db, both).ok());
  ASSERT_TRUE(PrepareAndMigrate(*db, both).ok());
  EXPECT_EQ(*db->Integer("SELECT count(*) FROM t"), 2);
  EXPECT_EQ(*db->Integer("PRAGMA user_version"), 2);
  EXPECT_EQ(PrepareAndMigrate(*db, std::span(both).first(1)).error().code,
            Code::kFailedPrecondition);
}

TEST(Schema, AFailedStepLeavesTheVersionBefore) {
  auto db = Peek(":memory:");
  const Migration steps[] = {{"one", "CREATE TABLE t (a INTEGER)"},
                             {"two", "INSERT INTO t VALUES (1); INSERT INTO nowhere VALUES (1)"}};
  const Status status = PrepareAndMigrate(*db, steps);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("version 2 (two)"), std::string::npos);
  EXPECT_EQ(*db->Integer("PRAGMA user_version"), 1);
  EXPECT_EQ(*db->Integer("SELECT count(*) FROM t"), 0);
}

TEST(Schema, StatesAreChecked) {
  auto db = Peek(":memory:");
  ASSERT_TRUE(PrepareAndMigrate(*db).ok());
  EXPECT_EQ(*db->Integer("PRAGMA auto_vacuum"), 2);
  const Status status =
      db->Execute("INSERT INTO tasks VALUES (1,1,'t',4,'','',0,0,0,0,'',0,0,0,0,0)");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kInvalidArgument);
}

/// Reads that happen often must not walk a table.
TEST(Schema, FrequentQueriesUseAnIndex) {
  auto db = Peek(":memory:");
  ASSERT_TRUE(PrepareAndMigrate(*db).ok());
  const char* listing =
      "SELECT r.*, t.* FROM tasks AS t CROSS JOIN runs AS r ON r.run_id = t.run_id "
      "ORDER BY t.pending_at DESC, t.task_id DESC LIMIT 1";
  for (const char* sql :
       {"SELECT run_id FROM unfinished",
        "SELECT content FROM objects WHERE run_id=1 AND object_id=x''",
        "SELECT * FROM messages WHERE run_id IN (SELECT run_id FROM unfinished)",
        "SELECT id FROM logs WHERE run_id = 1 AND id > 5 AND timestamp > 6 ORDER BY id", listing}) {
    const std::string explain = fmt::format("EXPLAIN QUERY PLAN {}", sql);
    Query plan(*db, explain);
    while (*plan.Next()) {
      const std::string step = plan.Bytes(3);
      EXPECT_TRUE(step.find("SCAN") == std::string::npos || step.find("INDEX") != std::string::npos)
          << sql << "\n"
          << step;
      EXPECT_EQ(step.find("TEMP B-TREE FOR ORDER"), std::string::npos) << sql << "\n" << step;
    }
  }
}

}  // namespace
}  // namespace umbel::store
