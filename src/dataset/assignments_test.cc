#include "dataset/assignments.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/testing.h"
#include "dataset/names.h"

namespace umbel::dataset {
namespace {

namespace fs = std::filesystem;
using umbel::testing::TempDir;

/// Files whose rows are their bytes.
class AssignmentsTest : public ::testing::Test {
 protected:
  AssignmentsTest() {
    fs::create_directories(Files().folder);
    Reopen();
  }
  void Reopen() {
    book_.reset();
    auto opened = Assignments::Open(dir_.path() + "/book");
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    book_ = std::move(*opened);
  }
  Assignments::Files Files() const {
    const std::string folder = dir_.path() + "/files";
    return {folder,
            [folder](const std::vector<std::string>& tags) -> Result<std::vector<std::string>> {
              std::vector<std::string> names;
              for (const auto& entry : fs::directory_iterator(folder)) {
                const std::string name = entry.path().filename();
                if (std::find(tags.begin(), tags.end(), TagOf(name)) != tags.end())
                  names.push_back(name);
              }
              if (names.empty()) return Fail(Code::kNotFound, "no files");
              return names;
            },
            [](const std::string& path) -> Result<uint64_t> { return fs::file_size(path); }};
  }
  void Put(const std::string& name, size_t rows) {
    const std::string path = Files().folder + "/" + name;
    ASSERT_TRUE(WriteFileAtomic(path, std::string(rows, 'x')).ok());
  }
  Result<Assignment> Assign(const std::string& learner, uint32_t of,
                            std::optional<uint32_t> index = std::nullopt,
                            std::vector<std::string> tags = {"t"}) {
    return book_->Assign({"p", learner, std::move(tags), of, index, std::nullopt}, Files());
  }
  size_t Folders() const {
    const fs::directory_iterator folders(dir_.path() + "/book/projects");
    return static_cast<size_t>(std::distance(begin(folders), end(folders)));
  }

  TempDir dir_;
  std::unique_ptr<Assignments> book_;
};

TEST_F(AssignmentsTest, ALearnerKeepsItsPartOverRestarts) {
  Put("t.1", 10);
  Put("t.2", 20);
  Put("u.3", 30);
  const auto one = Assign("one", 2), two = Assign("two", 2);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(one->share, (Share{{"t.2", 0, 1, 20}}));
  EXPECT_EQ(two->share, (Share{{"t.1", 0, 1, 10}}));
  EXPECT_EQ(*Assign("two", 2), *two);
  Reopen();
  EXPECT_EQ(*Assign("one", 2), *one);
  EXPECT_EQ(book_->All(), (std::vector{*one, *two}));
}

TEST_F(AssignmentsTest, PutsAndDropsAreForTheNextDeal) {
  Put("t.1", 10);
  const auto one = Assign("one", 2);
  ASSERT_TRUE(one.ok());
  Put("t.1", 3);
  Put("t.2", 50);
  const auto two = Assign("two", 2);
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(one->rows() + two->rows(), 10U);
  EXPECT_EQ(fs::file_size(two->folder + "/t.1"), 10U);
  fs::remove(Files().folder + "/t.1");
  EXPECT_EQ(fs::file_size(two->folder + "/t.1"), 10U);

  EXPECT_TRUE(*book_->Release("p", "one"));
  EXPECT_TRUE(*book_->Release("p", "two"));
  EXPECT_EQ(Folders(), 0U);
  EXPECT_EQ(Assign("one", 2)->share, (Share{{"t.2", 0, 2, 25}}));
}

TEST_F(AssignmentsTest, AReplacementGetsTheFreePart) {
  Put("t.1", 9);
  const auto one = Assign("one", 3), two = Assign("two", 3), three = Assign("three", 3);
  ASSERT_TRUE(three.ok());
  EXPECT_EQ(Assign("four", 3).error().code, Code::kResourceExhausted);
  EXPECT_TRUE(*book_->Release("p", "two"));
  EXPECT_FALSE(*book_->Release("p", "two"));
  EXPECT_EQ(Assign("four", 3)->share, two->share);
}

TEST_F(AssignmentsTest, PartsCanBeChosen) {
  Put("t.1", 9);
  EXPECT_EQ(Assign("one", 3, 2)->index, 2U);
  EXPECT_EQ(Assign("two", 3, 2).error().code, Code::kAlreadyExists);
  EXPECT_EQ(Assign("one", 3, 1).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(Assign("one", 3, 2)->index, 2U);
  EXPECT_EQ(Assign("two", 3)->index, 0U);
  EXPECT_EQ(Assign("three", 3)->index, 1U);
}

TEST_F(AssignmentsTest, AnotherDealOfALiveProjectIsRefused) {
  Put("t.1", 9);
  ASSERT_TRUE(Assign("one", 2).ok());
  EXPECT_NE(Assign("two", 3).error().message.find("release its learners first"), std::string::npos);
  EXPECT_EQ(Assign("two", 2, std::nullopt, {"t", "u"}).error().code, Code::kFailedPrecondition);
}

TEST_F(AssignmentsTest, WhatFailsLeavesNothing) {
  EXPECT_EQ(Assign("one", 1).error().code, Code::kNotFound);
  Put("t.1", 1);
  EXPECT_EQ(Assign("one", 2).error().message,
            "tags [t]: 1 rows cannot be shared out among 2 learners");
  EXPECT_EQ(Folders(), 0U);
  EXPECT_TRUE(book_->All().empty());
}

TEST_F(AssignmentsTest, WhatAKilledOwnerLeftIsSwept) {
  Put("t.1", 9);
  ASSERT_TRUE(Assign("one", 1).ok());
  fs::create_directories(dir_.path() + "/book/projects/half-made");
  Reopen();
  EXPECT_EQ(Folders(), 1U);
  EXPECT_TRUE(Assign("one", 1).ok());
}

TEST_F(AssignmentsTest, ARecordThatIsNotOursIsNotTakenForEmpty) {
  for (const std::string_view record :
       {"", "{", "[]", R"({"version": 2, "projects": []})",
        R"({"version": 1, "projects": [{"project": "p", "tags": [], "of": 1, "learners": [],
            "files": [{"name": "../x", "rows": 1}]}]})",
        R"({"version": 1, "projects": [{"project": "p", "tags": [], "of": 0, "learners": [],
            "files": []}]})"}) {
    ASSERT_TRUE(WriteFileAtomic(dir_.path() + "/book/assignments.json", record).ok());
    const auto opened = Assignments::Open(dir_.path() + "/book");
    ASSERT_FALSE(opened.ok()) << record;
    EXPECT_EQ(opened.error().code, Code::kDataLoss);
    EXPECT_NE(opened.error().message.find("assignments.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace umbel::dataset
