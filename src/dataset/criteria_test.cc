#include "dataset/criteria.h"

#include <gtest/gtest.h>

namespace umbel::dataset {
namespace {

using Tags = std::vector<std::string>;

TEST(CriteriaTest, TagsAreSortedAndOnce) {
  const auto tags = ParseCriteria(R"({"data_tags": ["b", "a", "b"], "more": {}})");
  ASSERT_TRUE(tags.ok()) << tags.error().message;
  EXPECT_EQ(*tags, (Tags{"a", "b"}));
}

TEST(CriteriaTest, WhatIsWrongIsSaid) {
  const struct {
    std::string_view json, says;
  } cases[] = {
      {"", "like {\"data_tags\""},
      {"[]", "JSON object"},
      {"{", "JSON object"},
      {"{}", "'data_tags' must be a list"},
      {R"({"data_tags": "a"})", "'data_tags' must be a list"},
      {R"({"data_tags": []})", "empty"},
      {R"({"data_tags": [""]})", "empty tag"},
      {R"({"data_tags": [3]})", "no text"},
      {"\xff\xfe", "JSON object"},
  };
  for (const auto& c : cases) {
    const auto tags = ParseCriteria(c.json);
    ASSERT_FALSE(tags.ok()) << c.json;
    EXPECT_NE(tags.error().message.find(c.says), std::string::npos) << tags.error().message;
  }
  const std::string deep = R"({"data_tags": )" + std::string(60'000, '[');
  EXPECT_FALSE(ParseCriteria(deep).ok());
  EXPECT_FALSE(ParseCriteria(std::string(70'000, ' ')).ok());
}

TEST(CriteriaTest, ClaimsAreRead) {
  const auto claim = ParseClaim(
      R"({"project": "p", "learner": "l", "tags": ["t"], "of": 3, "index": 2, "uid": 1000})");
  ASSERT_TRUE(claim.ok()) << claim.error().message;
  EXPECT_EQ(*claim, (Claim{"p", "l", {"t"}, 3, 2, 1000}));
  const auto plain = ParseClaim(R"({"learner": "l", "tags": ["t"], "of": 1})");
  ASSERT_TRUE(plain.ok()) << plain.error().message;
  EXPECT_EQ(*plain, (Claim{"", "l", {"t"}, 1, std::nullopt, std::nullopt}));
}

TEST(CriteriaTest, ClaimsNameTheKeyThatIsWrong) {
  const struct {
    std::string_view json, says;
  } cases[] = {
      {R"({"tags": ["t"], "of": 1})", "'learner'"},
      {R"({"learner": "", "tags": ["t"], "of": 1})", "'learner'"},
      {R"({"learner": "l", "of": 1})", "'tags'"},
      {R"({"learner": "l", "tags": ["t"]})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": 0})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": 1001})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": 1.5})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": -1})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": 18446744073709551615})", "'of'"},
      {R"({"learner": "l", "tags": ["t"], "of": 2, "index": 2})", "'index'"},
      {R"({"learner": "l", "tags": ["t"], "of": 2, "uid": 4294967295})", "'uid'"},
      {R"({"learner": "l", "project": 1, "tags": ["t"], "of": 2})", "'project'"},
  };
  for (const auto& c : cases) {
    const auto claim = ParseClaim(c.json);
    ASSERT_FALSE(claim.ok()) << c.json;
    EXPECT_NE(claim.error().message.find(c.says), std::string::npos) << claim.error().message;
  }
}

}  // namespace
}  // namespace umbel::dataset
