#include "dataset/deal.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <set>

namespace umbel::dataset {
namespace {

using Row = std::pair<std::string, uint64_t>;

std::vector<DealtFile> FilesOf(const std::vector<uint16_t>& rows) {
  std::vector<DealtFile> files;
  for (size_t i = 0; i < rows.size(); ++i) files.push_back({fmt::format("f{}", i), rows[i] % 40U});
  return files;
}

TEST(DealTest, EveryRowHasExactlyOneLearner) {
  rc::check("disjoint, complete, nobody empty", [](const std::vector<uint16_t>& sizes) {
    const auto learners = *rc::gen::inRange<size_t>(1, 12);
    const std::vector<DealtFile> files = FilesOf(sizes);
    std::set<Row> all;
    for (const DealtFile& file : files)
      for (uint64_t row = 0; row < file.rows; ++row) all.emplace(file.name, row);
    const auto shares = Deal(files, learners);
    RC_ASSERT(shares.ok() == (all.size() >= learners));
    if (!shares.ok()) return;
    RC_ASSERT(shares->size() == learners);
    std::set<Row> dealt;
    for (const Share& share : *shares) {
      RC_ASSERT(!share.empty());
      for (const Piece& piece : share) {
        RC_ASSERT(piece.rows > 0U);
        for (uint64_t i = 0; i < piece.rows; ++i) {
          const Row row(piece.name, piece.first + i * piece.step);
          RC_ASSERT(all.contains(row));
          RC_ASSERT(dealt.insert(row).second);
        }
      }
    }
    RC_ASSERT(dealt == all);
  });
}

TEST(DealTest, TheOrderOfFilesDoesNotShow) {
  rc::check("same files, same deal", [](const std::vector<uint16_t>& sizes) {
    const auto learners = *rc::gen::inRange<size_t>(1, 12);
    std::vector<DealtFile> files = FilesOf(sizes);
    const auto one = Deal(files, learners);
    std::reverse(files.begin(), files.end());
    const auto other = Deal(files, learners);
    RC_ASSERT(one.ok() == other.ok());
    if (one.ok()) RC_ASSERT(*one == *other);
  });
}

TEST(DealTest, WholeFilesWhenThereAreEnough) {
  const auto shares = Deal({{"a", 10}, {"b", 30}, {"c", 15}, {"d", 5}, {"empty", 0}}, 2);
  ASSERT_TRUE(shares.ok());
  EXPECT_EQ((*shares)[0], (Share{{"b", 0, 1, 30}}));
  EXPECT_EQ((*shares)[1], (Share{{"a", 0, 1, 10}, {"c", 0, 1, 15}, {"d", 0, 1, 5}}));
}

TEST(DealTest, RowsLikeCardsWhenThereAreNot) {
  const auto shares = Deal({{"a", 4}, {"b", 3}}, 3);
  ASSERT_TRUE(shares.ok());
  EXPECT_EQ((*shares)[0], (Share{{"a", 0, 3, 2}, {"b", 2, 3, 1}}));
  EXPECT_EQ((*shares)[1], (Share{{"a", 1, 3, 1}, {"b", 0, 3, 1}}));
  EXPECT_EQ((*shares)[2], (Share{{"a", 2, 3, 1}, {"b", 1, 3, 1}}));
}

TEST(DealTest, TooFewRowsAreSaid) {
  const auto shares = Deal({{"a", 2}, {"b", 0}}, 3);
  ASSERT_FALSE(shares.ok());
  EXPECT_EQ(shares.error().message, "2 rows cannot be shared out among 3 learners");
}

}  // namespace
}  // namespace umbel::dataset
