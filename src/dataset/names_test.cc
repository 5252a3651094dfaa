#include "dataset/names.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>

namespace umbel::dataset {
namespace {

constexpr std::string_view kDigest = "0123456789abcdef0123456789abcdef";

TEST(NamesTest, FilesOfClientsPass) {
  for (const std::string_view name :
       {"mnist.0123456789abcdef0123456789abcdef.parquet", "x", "a b", "Größe.parquet", "a..b"})
    EXPECT_TRUE(CheckFileName(name).ok()) << name;
}

TEST(NamesTest, WhatCouldEscapeIsRefusedInWords) {
  const struct {
    std::string name;
    std::string_view says;
  } cases[] = {
      {"", "empty"},
      {"..", "begins with '.'"},
      {".", "begins with '.'"},
      {".umbel", "begins with '.'"},
      {"../x.parquet", "begins with '.'"},
      {"a/../../x", "slash"},
      {"/etc/passwd", "slash"},
      {"a\\b", "slash"},
      {std::string("a\0b", 3), "control"},
      {"a\nb", "control"},
      {"a\x7f", "control"},
      {"a\xff", "UTF-8"},
      {"a\xc0\xaf", "UTF-8"},
      {std::string(201, 'x'), "longer than 200"},
  };
  for (const auto& c : cases) {
    const Status checked = CheckFileName(c.name);
    ASSERT_FALSE(checked.ok()) << c.name;
    EXPECT_EQ(checked.error().code, Code::kInvalidArgument);
    EXPECT_NE(checked.error().message.find(c.says), std::string::npos) << checked.error().message;
  }
}

TEST(NamesTest, NoNameLeavesItsFolder) {
  rc::check("a name that passes is one entry of its folder", [](const std::string& name) {
    if (!CheckFileName(name).ok()) return;
    const std::filesystem::path path = std::filesystem::path("/folder") / name;
    RC_ASSERT(path.lexically_normal().parent_path() == "/folder");
    RC_ASSERT(path.lexically_normal().filename() == name);
  });
}

TEST(NamesTest, TagIsBeforeTheDigestOrBeforeTheFirstDot) {
  EXPECT_EQ(TagOf(FileName("mnist", kDigest)), "mnist");
  EXPECT_EQ(TagOf(FileName("site.a.v2", kDigest)), "site.a.v2");
  EXPECT_EQ(TagOf("mnist.part1.parquet"), "mnist");
  EXPECT_EQ(TagOf("mnist.0123456789ABCDEF0123456789ABCDEF.parquet"), "mnist");
  EXPECT_EQ(TagOf("mnist.parquet"), "mnist");
  EXPECT_EQ(TagOf("mnist"), "");
  EXPECT_EQ(TagOf(""), "");
}

TEST(NamesTest, TagsOfOurFilesAreRead) {
  EXPECT_TRUE(CheckTag("site.a").ok());
  EXPECT_FALSE(CheckTag("").ok());
  EXPECT_FALSE(CheckTag("a,b").ok());
  EXPECT_FALSE(CheckTag("a/b").ok());
  EXPECT_FALSE(CheckTag(std::string(151, 'x')).ok());
  const std::string longest = FileName(std::string(150, 'x'), kDigest);
  EXPECT_TRUE(CheckFileName(longest).ok());
  EXPECT_EQ(TagOf(longest), std::string(150, 'x'));
}

}  // namespace
}  // namespace umbel::dataset
