#include "flower/base64.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace umbel::flower {
namespace {

TEST(Base64, AsRfc4648Says) {
  EXPECT_EQ(Base64Encode(""), "");
  EXPECT_EQ(Base64Encode("f"), "Zg==");
  EXPECT_EQ(Base64Encode("fo"), "Zm8=");
  EXPECT_EQ(Base64Encode("foobar"), "Zm9vYmFy");
  EXPECT_EQ(Base64Encode("\xfb\xff"), "+/8=");
  EXPECT_EQ(Base64Decode("Zm8="), "fo");
  EXPECT_EQ(Base64UrlDecode("-_8"), "\xfb\xff");
  EXPECT_EQ(Base64UrlDecode("+/8="), "\xfb\xff");
  EXPECT_EQ(Base64UrlDecode(""), "");
  for (const char* text :
       {"Zm8", "Zm8=Zm8=", "Zm9=", "Z===", "=", "====", "Zm\n8=", "-_8=", "Zg=a"})
    EXPECT_EQ(Base64Decode(text), std::nullopt) << text;
  for (const char* text : {"Z", "Zm8===", "Z m8", "Zm9", "\xc3\xa9"})
    EXPECT_EQ(Base64UrlDecode(text), std::nullopt) << text;
}

RC_GTEST_PROP(Base64Property, AnyBytesComeBack, ()) {
  const auto bytes = *rc::gen::container<std::string>(rc::gen::arbitrary<char>());
  std::string text = Base64Encode(bytes);
  RC_ASSERT(Base64Decode(text) == bytes);
  for (char& c : text) {
    if (c == '+') c = '-';
    if (c == '/') c = '_';
  }
  RC_ASSERT(Base64UrlDecode(text) == bytes);
  while (text.ends_with('=')) text.pop_back();
  RC_ASSERT(Base64UrlDecode(text) == bytes);
}

RC_GTEST_PROP(Base64Property, OneTextForEachValue, ()) {
  const auto text = *rc::gen::container<std::string>(rc::gen::elementOf(std::string("ABz09+/=")));
  const auto bytes = Base64Decode(text);
  if (bytes) RC_ASSERT(Base64Encode(*bytes) == text);
}

}  // namespace
}  // namespace umbel::flower
