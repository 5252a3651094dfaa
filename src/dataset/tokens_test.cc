#include "dataset/tokens.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/testing.h"

namespace umbel::dataset {
namespace {

TEST(TokensTest, BearersOfAKnownTokenPass) {
  const auto tokens = Tokens::Parse("# of the manager\nabcdefghijklmnop\n\n  0123456789abcdef\r\n");
  ASSERT_TRUE(tokens.ok()) << tokens.error().message;
  EXPECT_TRUE(tokens->Allow("Bearer abcdefghijklmnop"));
  EXPECT_TRUE(tokens->Allow("bearer 0123456789abcdef"));
  for (const std::string_view header :
       {"", "Bearer", "Bearer ", "abcdefghijklmnop", "Basic abcdefghijklmnop",
        "Bearer abcdefghijklmno", "Bearer abcdefghijklmnopq", "Bearer # of the manager"})
    EXPECT_FALSE(tokens->Allow(header)) << header;
}

TEST(TokensTest, BadFilesAreNamedAndTheirTokensAreNot) {
  umbel::testing::TempDir dir;
  const std::string path = dir.path() + "/tokens";
  for (const std::string_view text :
       {"", "# nothing\n", "short", "with a blank in it", "\x01\x02"}) {
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
    const auto tokens = Tokens::ReadFrom(path);
    ASSERT_FALSE(tokens.ok()) << text;
    EXPECT_NE(tokens.error().message.find(path), std::string::npos);
    if (!text.empty()) {
      EXPECT_EQ(tokens.error().message.find(text), std::string::npos);
    }
    EXPECT_FALSE(FirstToken(path).ok());
  }
  ASSERT_TRUE(WriteFileAtomic(path, "#\nabcdefghijklmnop\nsecond-token-here\n").ok());
  EXPECT_EQ(*FirstToken(path), "abcdefghijklmnop");
  EXPECT_EQ(Tokens::ReadFrom(dir.path() + "/none").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace umbel::dataset
