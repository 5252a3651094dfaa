#include "manager/names.h"

#include <gtest/gtest.h>

#include <set>

namespace umbel::manager {
namespace {

TEST(ShortHash, IsWhatFlopsMakes) {
  EXPECT_EQ(ShortHash("Admin"), "e3afed0047b0");
  EXPECT_EQ(ShortHash("679cbbaeaf4c1923eb5df1b3"), "11e3c5ca7c4c");
}

TEST(ObjectIds, AreOakestrasAndNeverTheSame) {
  const FakeClock clock(WallTime(std::chrono::seconds(0x679cbbae)));
  SeededRng rng(1);
  ObjectIds ids(clock, rng);
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = ids.Next();
    EXPECT_TRUE(IsObjectId(id)) << id;
    EXPECT_TRUE(id.starts_with("679cbbae"));
    EXPECT_TRUE(seen.insert(id).second);
  }
  EXPECT_FALSE(IsObjectId("679cbbaeaf4c1923eb5df1b"));
  EXPECT_FALSE(IsObjectId("679CBBAEAF4C1923EB5DF1B3"));
}

}  // namespace
}  // namespace umbel::manager
