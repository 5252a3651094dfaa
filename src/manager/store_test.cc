#include "manager/store.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/testing.h"

namespace umbel::manager {
namespace {

const std::string kId = "679cbbaeaf4c1923eb5df1b3";

Project Some() {
  Project p;
  p.id = kId;
  p.customer = "Admin";
  p.sla = "{}";
  p.stage = Stage::kTrain;
  p.run_id = ~uint64_t{0};
  p.best_loss = std::nan("");
  p.waiting = "for room";
  return p;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    store_.reset();
    auto opened = Store::Open(dir_.path() + "/manager.db");
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    store_ = std::move(*opened);
  }
  Status Write(const std::function<Status(Connection&)>& f) { return store_->Write(f); }

  testing::TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, KeepsAProjectOverRestarts) {
  ASSERT_TRUE(Write([](Connection& db) { return InsertProject(db, Some()); }).ok());
  Open();
  const auto found = store_->Read([](Connection& db) { return FindProject(db, kId); });
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->stage, Stage::kTrain);
  EXPECT_EQ((*found)->run_id, ~uint64_t{0});
  EXPECT_TRUE(std::isnan((*found)->best_loss));
  EXPECT_EQ((*found)->waiting, "for room");
  EXPECT_EQ((*found)->sequence, 1u);
}

TEST_F(StoreTest, RefusesWhatBreaksACheck) {
  Project bad = Some();
  bad.id = "short";
  EXPECT_FALSE(Write([&](Connection& db) { return InsertProject(db, bad); }).ok());
  bad = Some();
  bad.sla = "no json";
  EXPECT_FALSE(Write([&](Connection& db) { return InsertProject(db, bad); }).ok());
}

TEST_F(StoreTest, AFailedChangeLeavesNothing) {
  EXPECT_FALSE(Write([](Connection& db) -> Status {
                 UMBEL_TRY(InsertProject(db, Some()));
                 return Fail(Code::kAborted, "no");
               }).ok());
  EXPECT_TRUE(store_->Read([](Connection& db) { return ListProjects(db); })->empty());
}

TEST_F(StoreTest, NamesAndPortsOfLivingServicesAreTheirsAlone) {
  Service one{
      "679cbbaeaf4c1923eb5df1b4", Kind::kTracking, "tracking1", "", "", "A", 7027, {}, false};
  Service two = one;
  two.id.back() = '5';
  ASSERT_TRUE(Write([&](Connection& db) { return PutService(db, one); }).ok());
  const auto taken = Write([&](Connection& db) { return PutService(db, two); });
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.error().code, Code::kAlreadyExists);
  two.name = "tracking2";
  EXPECT_FALSE(Write([&](Connection& db) { return PutService(db, two); }).ok());
  one.gone = true;
  ASSERT_TRUE(Write([&](Connection& db) { return PutService(db, one); }).ok());
  EXPECT_TRUE(Write([&](Connection& db) { return PutService(db, two); }).ok());
  EXPECT_EQ(store_->Read([](Connection& db) { return ListServices(db, false); })->size(), 1u);
  EXPECT_EQ(store_->Read([](Connection& db) { return ListServices(db, true); })->size(), 2u);
}

TEST_F(StoreTest, WordsAreOneText) {
  for (const char* text : {"Grüße\n", "two\n", "three\n"})
    ASSERT_TRUE(Write([&](Connection& db) { return AddWords(db, kId, text); }).ok());
  const std::string all = "Grüße\ntwo\nthree\n";
  for (uint64_t offset = 0; offset <= all.size() + 1; ++offset)
    for (uint64_t limit : {1u, 5u, 100u}) {
      const auto got =
          store_->Read([&](Connection& db) { return ReadWords(db, kId, offset, limit); });
      ASSERT_TRUE(got.ok());
      EXPECT_EQ(*got, offset < all.size() ? all.substr(offset, limit) : "");
    }
}

TEST_F(StoreTest, TheTimelineIsNumberedForEachProject) {
  for (const char* project : {"a", "b"})
    for (int i = 0; i < 3; ++i)
      ASSERT_TRUE(Write([&](Connection& db) {
                    return AddEntry(db, project, {0, {}, Stage::kBuild, Level::kWarn, "x"});
                  }).ok());
  const auto rows = store_->Read([](Connection& db) { return ListEntries(db, "b", 1, 10); });
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].sequence, 2u);
  EXPECT_EQ((*rows)[1].level, Level::kWarn);
}

TEST_F(StoreTest, WhoWatchesIsWokenByTheNextChange) {
  struct Bell : Wakeable {
    void Wake() override { ++rung; }
    int rung = 0;
  };
  const auto bell = std::make_shared<Bell>();
  const uint64_t seen = store_->version();
  store_->Watch(seen, bell);
  EXPECT_EQ(bell->rung, 0);
  ASSERT_TRUE(Write([](Connection& db) { return AddWords(db, kId, "x"); }).ok());
  EXPECT_EQ(bell->rung, 1);
  store_->Watch(seen, bell);
  EXPECT_EQ(bell->rung, 2);
}

}  // namespace
}  // namespace umbel::manager
