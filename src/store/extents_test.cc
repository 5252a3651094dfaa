#include "store/extents.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <vector>

namespace umbel::store {
namespace {

using Place = ExtentMap::Place;
constexpr uint64_t kPage = ExtentMap::kAlignment;

TEST(ExtentMap, WhatIsFreedIsTakenAgain) {
  ExtentMap map;
  EXPECT_FALSE(map.Take(1).has_value());
  map.AddSegment(1, 3 * kPage);
  const Place a = *map.Take(5000);
  EXPECT_EQ(a.offset, 0u);
  const Place b = *map.Take(4096);
  EXPECT_EQ(b.offset, 8192u);
  EXPECT_FALSE(map.Take(1).has_value());
  EXPECT_TRUE(map.Free(a, 5000));
  const Place c = *map.Take(4097);
  EXPECT_EQ(c.offset, 0u) << "b is still live behind it";
  EXPECT_TRUE(map.Free(b, 4096));
  EXPECT_TRUE(map.Free(c, 4097));
  EXPECT_EQ(map.Take(3 * kPage)->offset, 0u) << "what lies side by side is one gap";
}

TEST(ExtentMap, TheTightestEmptySegmentServes) {
  ExtentMap map;
  map.AddSegment(1, 100 * kPage);
  map.AddSegment(2, 10 * kPage);
  EXPECT_EQ(map.Take(9 * kPage)->segment, 2u);
  EXPECT_EQ(map.Take(9 * kPage)->segment, 1u);
}

TEST(ExtentMap, TheTightestGapServes) {
  ExtentMap map;
  map.AddSegment(1, 10 * kPage);
  std::vector<Place> places;
  for (int i = 0; i < 10; ++i) places.push_back(*map.Take(kPage));
  for (const size_t i : {1, 2, 3, 6, 9}) EXPECT_TRUE(map.Free(places[i], kPage));
  EXPECT_EQ(map.Take(kPage)->offset, 6 * kPage);
  EXPECT_EQ(map.Take(2 * kPage)->offset, kPage);
  EXPECT_EQ(map.Take(1)->offset, 3 * kPage);
  EXPECT_EQ(map.Take(1)->offset, 9 * kPage);
  EXPECT_FALSE(map.Take(1).has_value());
}

TEST(ExtentMap, GapsAreFoundAgainAfterARestart) {
  ExtentMap map;
  EXPECT_TRUE(map.TakeAt({1, kPage}, 10));
  EXPECT_TRUE(map.TakeAt({1, 4 * kPage}, kPage + 1));
  map.AddSegment(1, 7 * kPage);
  EXPECT_EQ(map.Take(2 * kPage)->offset, 2 * kPage);
  EXPECT_EQ(map.Take(1)->offset, 0u);
  EXPECT_EQ(map.Take(1)->offset, 6 * kPage);
  EXPECT_FALSE(map.Take(1).has_value());
}

TEST(ExtentMap, ARetiredSegmentTakesNothing) {
  ExtentMap map;
  map.AddSegment(1, 4096);
  map.RetireSegment(1);
  map.RetireSegment(7);
  EXPECT_FALSE(map.Take(1).has_value());
}

TEST(ExtentMap, KnownExtentsMustNotOverlap) {
  ExtentMap map;
  EXPECT_TRUE(map.TakeAt({1, 4096}, 100));
  EXPECT_FALSE(map.TakeAt({1, 4096}, 100));
  EXPECT_FALSE(map.TakeAt({1, 4000}, 97));
  EXPECT_FALSE(map.TakeAt({1, 4195}, 1));
  EXPECT_TRUE(map.TakeAt({1, 0}, 4096));
  EXPECT_TRUE(map.TakeAt({2, 4096}, 100));
}

TEST(ExtentMap, FreeingWhatIsNotLiveChangesNothing) {
  ExtentMap map;
  map.AddSegment(1, 8192);
  const Place place = *map.Take(10);
  EXPECT_FALSE(map.Free(place, 11));
  EXPECT_FALSE(map.Free({1, 4096}, 10));
  EXPECT_FALSE(map.Free({2, 0}, 10));
  EXPECT_TRUE(map.Free(place, 10));
  EXPECT_FALSE(map.Free(place, 10));
}

RC_GTEST_PROP(ExtentMapProperty, LiveExtentsNeverOverlapAndStayInside, ()) {
  struct Live {
    Place place;
    uint64_t size;
  };
  ExtentMap map;
  std::map<uint32_t, uint64_t> capacity;
  std::vector<Live> live;
  const auto steps = *rc::gen::container<std::vector<std::pair<uint8_t, uint16_t>>>(
      rc::gen::pair(rc::gen::inRange<uint8_t>(0, 100), rc::gen::arbitrary<uint16_t>()));
  for (const auto& [what, number] : steps) {
    if (what < 55) {
      const uint64_t size = number % 7 == 0 ? 0 : number % 30'000;
      std::optional<Place> place = map.Take(size);
      if (!place.has_value()) {
        const auto segment = static_cast<uint32_t>(capacity.size() + 1);
        capacity[segment] = std::max<uint64_t>(40'960, size);
        map.AddSegment(segment, capacity[segment]);
        place = map.Take(size);
        RC_ASSERT(place.has_value());
      }
      RC_ASSERT(place->offset % ExtentMap::kAlignment == 0u);
      RC_ASSERT(place->offset + size <= capacity.at(place->segment));
      for (const Live& other : live) {
        if (other.place.segment != place->segment) continue;
        RC_ASSERT(place->offset != other.place.offset);
        RC_ASSERT(place->offset + size <= other.place.offset ||
                  other.place.offset + other.size <= place->offset);
      }
      live.push_back({*place, size});
    } else if (!live.empty()) {
      const size_t victim = number % live.size();
      RC_ASSERT(map.Free(live[victim].place, live[victim].size));
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
    }
  }
  for (const Live& one : live) RC_ASSERT(map.Free(one.place, one.size));
  for (const auto& [segment, bytes] : capacity) RC_ASSERT(map.Take(bytes).has_value());
}

}  // namespace
}  // namespace umbel::store
