#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/random.h"

namespace umbel {
namespace {

TEST(Iso, RoundTripsWhatPythonWrites) {
  const std::string text = "2026-11-22T02:06:59.298173+00:00";
  const auto time = ParseIso(text);
  ASSERT_TRUE(time.ok());
  EXPECT_EQ(IsoFormat(*time), text);
  EXPECT_EQ(IsoFormat(*ParseIso("2026-11-22T02:06:59+00:00")), "2026-11-22T02:06:59.000000+00:00");
  EXPECT_EQ(*ParseIso("2026-11-22T03:06:59.298173+01:00"), *time);
}

TEST(Iso, RefusesOtherShapes) {
  for (const char* text : {"", "2026-11-22", "2026-13-22T02:06:59+00:00", "2026-02-30T00:00:00Z",
                           "2026-11-22T24:06:59+00:00", "2026-11-22T02:06:59", "x",
                           "2026-11-22T02:06:59.29+00:00", "2026-11-22T02:06:59+00:00 "})
    EXPECT_FALSE(ParseIso(text).ok()) << text;
}

TEST(Iso, TheEpochIsNotYet) { EXPECT_EQ(IsoFormat(WallTime{}), ""); }

TEST(Digest, HexBothWays) {
  const std::string hex(64, 'a');
  EXPECT_EQ(Digest::FromHex(hex)->Hex(), hex);
  EXPECT_FALSE(Digest::FromHex(hex.substr(1)).ok());
  EXPECT_FALSE(Digest::FromHex(std::string(64, 'A')).ok());
  EXPECT_FALSE(HexDecode("abc").ok());
}

TEST(Rng, ASeedReplays) {
  SeededRng a(7);
  SeededRng b(7);
  EXPECT_EQ(a.Hex(128), b.Hex(128));
  const std::string uuid = a.Uuid();
  EXPECT_EQ(uuid.size(), 36u);
  EXPECT_EQ(uuid[14], '4');
}

}  // namespace
}  // namespace umbel
