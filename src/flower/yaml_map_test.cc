#include "flower/yaml_map.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace umbel::flower {
namespace {

using Map = std::map<std::string, std::string>;

// What PyYAML reads of whole files is in tests/keys/fab_trust.json, and compared in
// fab_trust_test.cc.

std::string ErrorOf(std::string_view text) {
  const auto map = ReadYamlMap(text);
  return map.ok() ? "" : map.error().message;
}

TEST(YamlMap, BlocksAndFlows) {
  EXPECT_EQ(ReadYamlMap("").value(), Map{});
  EXPECT_EQ(ReadYamlMap("a: b c\n'd e': 'f''g' # h\n").value(),
            (Map{{"a", "b c"}, {"d e", "f'g"}}));
  EXPECT_EQ(ReadYamlMap("a: >\n  b\n  c\nd: |-\n  e\n  f\n").value(),
            (Map{{"a", "b c\n"}, {"d", "e\nf"}}));
  EXPECT_EQ(ReadYamlMap("a:\n  b\n  c # x\n").value(), (Map{{"a", "b c"}}));
  EXPECT_EQ(ReadYamlMap("{a: b c, \"d\":'e',}").value(), (Map{{"a", "b c"}, {"d", "e"}}));
  EXPECT_EQ(ReadYamlMap("# x\n---\n{ }\n").value(), Map{});
}

TEST(YamlMap, ErrorsNameLineAndRule) {
  EXPECT_EQ(ErrorOf("a: b\n\na: c\n"), "line 3: key 'a' is there twice");
  EXPECT_EQ(ErrorOf("a: b\n\tc: d\n"),
            "line 2: it is indented with a tab; YAML allows blanks only");
  EXPECT_EQ(ErrorOf("a: b\n c: d\n"), "line 2: a value is a mapping, not a text");
  EXPECT_EQ(ErrorOf("a: 'b'\n c: d\n"), "line 2: it is indented unlike the first key");
  EXPECT_EQ(ErrorOf("a:b\n"), "line 1: no ': ' follows the key 'a'");
  EXPECT_EQ(ErrorOf("No: b\n"), "line 1: 'No' is no key id (others need quotes)");
  EXPECT_EQ(ErrorOf("a: 'b\n"), "line 1: a quoted text is not closed in its line");
  EXPECT_EQ(ErrorOf("a: \"\\n\"\n"), "line 1: an escape in a text is none of \\\" \\\\ \\/");
  EXPECT_EQ(ErrorOf("{a: b\n\n c: d}"), "line 3: no ',' or '}' follows a value");
  EXPECT_EQ(ErrorOf("{a: b} c"), "line 1: something follows the mapping");
  EXPECT_EQ(ErrorOf("a: \xff"), "line 1: it is not UTF-8");
}

TEST(YamlMap, ManyLinesAreReadInTime) {
  std::string text = "a: b\n";
  for (int i = 0; i < 200'000; ++i) text += " c\n";
  EXPECT_EQ(ReadYamlMap(text).value().at("a").size(), 400'001U);
}

RC_GTEST_PROP(YamlMapProperty, AnyTextCanBeQuoted, ()) {
  const auto value =
      *rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab'\"\\:#{}[],&*!|>- ")));
  std::string single = "'";
  std::string escaped = "\"";
  for (const char c : value) {
    single += c == '\'' ? std::string("''") : std::string(1, c);
    escaped += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  }
  single += "'";
  escaped += "\"";
  for (const std::string& text :
       {"k: " + single, "k:\n  " + escaped, "{k: " + single + "}", "{" + escaped + " : x}"}) {
    const auto map = ReadYamlMap(text);
    RC_ASSERT(map.ok());
    RC_ASSERT(map->begin()->second == value || map->begin()->first == value);
  }
}

RC_GTEST_PROP(YamlMapProperty, AnyTextIsReadOrRefused, ()) {
  const auto text = *rc::gen::container<std::string>(
      rc::gen::elementOf(std::string("ab:: \n\n  {},'\"#|>-\t\r\\")));
  const auto map = ReadYamlMap(text);
  if (!map.ok()) RC_ASSERT(map.error().message.starts_with("line "));
}

}  // namespace
}  // namespace umbel::flower
