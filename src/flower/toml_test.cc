#include "flower/toml.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/ids.h"

namespace umbel::flower {
namespace {

using std::string_literals::operator""s;

/// A document as one line: {a=i1,b="x",c=[b,f,t,],}
std::string Print(const TomlValue& value) {
  switch (value.kind) {
    case TomlKind::kBool:
      return value.boolean ? "true" : "false";
    case TomlKind::kInteger:
      return fmt::format("i{}", value.integer);
    case TomlKind::kFloat:
      return fmt::format("f{}", value.real);
    case TomlKind::kTime:
      return "t";
    case TomlKind::kString:
      return "\"" + value.text + "\"";
    case TomlKind::kArray: {
      std::string text = "[";
      for (const TomlValue& item : value.items) text += Print(item) + ",";
      return text + "]";
    }
    case TomlKind::kTable: {
      std::string text = "{";
      for (const auto& [key, entry] : value.entries) text += key + "=" + Print(*entry) + ",";
      return text + "}";
    }
  }
  return "";
}

std::string Read(const std::string& text) {
  const auto document = ParseToml(text);
  return document.ok() ? Print(*document) : document.error().message;
}

bool Refused(const std::string& text) {
  const auto document = ParseToml(text);
  return !document.ok() && document.error().code == Code::kInvalidArgument &&
         document.error().message.starts_with("line ");
}

TEST(Toml, KeysTablesAndArraysOfTables) {
  EXPECT_EQ(Read(""), "{}");
  EXPECT_EQ(Read("a = 1\n\"b c\" = 2\n'd.e'.f-_1 . g = 3 # x\r\n"),
            "{a=i1,b c=i2,d.e={f-_1={g=i3,},},}");
  EXPECT_EQ(Read("[a.b]\nc = 1\n[a]\nd = 2\n[ a . 'e' ]\n"), "{a={b={c=i1,},d=i2,e={},},}");
  EXPECT_EQ(Read("[[a]]\nb = 1\n[a.c]\nd = 2\n[[a]]\n[[a.e]]\n[a.e.f]\n"),
            "{a=[{b=i1,c={d=i2,},},{e=[{f={},},],},],}");
  EXPECT_EQ(Read("a.b = 1\na.c = 2\n[a.d]\ne = 3\n"), "{a={b=i1,c=i2,d={e=i3,},},}");
  EXPECT_EQ(Read("x = {a.b = 1, a.c = {}, d = [1, # y\n 'z',\n],\n}\n"),
            "{x={a={b=i1,c={},},d=[i1,\"z\",],},}");
}

TEST(Toml, NothingIsDefinedTwice) {
  for (const std::string& text :
       {"a = 1\na = 2"s, "a = 1\na.b = 2"s, "a.b = 1\n[a]"s, "[a]\n[a]"s, "[a]\n[[a]]"s,
        "[[a]]\n[a]"s, "a = []\n[[a]]"s, "a = [{}]\n[a.b]"s, "a = {}\n[a.b]"s, "a = {}\na.b = 1"s,
        "[a.b]\n[a]\nb.c = 1"s, "[[a.b]]\n[a]\nb.c = 1"s, "x = {a = 1, a = 2}"s,
        "x = {a = {}, a.b = 1}"s, "x = {a = 1, a.b = 1}"s, "a.b.c = 1\n[a]\nb.d = 2"s})
    EXPECT_TRUE(Refused(text)) << text << "\n" << Read(text);
  EXPECT_EQ(Read("a = 1\na = 2\n"), "line 2: key 'a' is there twice");
}

TEST(Toml, Strings) {
  EXPECT_EQ(Read(R"(a = "\b\t\n\f\r\e\"\\\x41\u00e9\U0001F600")"),
            "{a=\"\b\t\n\f\r\x1b\"\\A\xc3\xa9\xf0\x9f\x98\x80\",}");
  EXPECT_EQ(Read("a = '\\n\"'"), "{a=\"\\n\"\",}");
  EXPECT_EQ(Read("a = \"\"\"\r\nx\r\n \"\" y\\ \t\n \n z\"\"\"\"\""), "{a=\"x\n \"\" yz\"\"\",}");
  EXPECT_EQ(Read("a = '''\n'x'\\''''"), "{a=\"'x'\\'\",}");
  EXPECT_EQ(Read("a = \"\"\nb = ''''''\nc = \"\"\"\"\"\""), "{a=\"\",b=\"\",c=\"\",}");
  for (const std::string& text :
       {"a = \"x"s, "a = \"x\ny\""s, "a = '\n'"s, "a = '''x''"s, "a = \"\"\"x\"\"\"\"\"\""s,
        "a = \"\\q\""s, "a = \"\\u12\""s, "a = \"\\ud800\""s, "a = \"\\U00110000\""s, "a = \"\\"s,
        "a = \"\1\""s, "a = \"\0\""s, "a = \"\"\"\\ x\"\"\""s, "a = \"\xff\""s,
        "a = \"\"\"\r\"\"\""s, "\"\"\"a\"\"\" = 1"s})
    EXPECT_TRUE(Refused(text)) << text << "\n" << Read(text);
}

TEST(Toml, NumbersBoolsAndTimes) {
  EXPECT_EQ(Read("a = [0, -0, +1_000, 0xdead_BEEF, 0o17, 0b1_0, 9223372036854775807,"
                 "-9223372036854775808]"),
            "{a=[i0,i0,i1000,i3735928559,i15,i2,i9223372036854775807,i-9223372036854775808,],}");
  EXPECT_EQ(Read("a = [0.0, 1e5, -1.5E-3, 1_0.0_1, inf, -inf, +nan, true, false]"),
            "{a=[f0,f100000,f-0.0015,f10.01,finf,f-inf,fnan,true,false,],}");
  EXPECT_EQ(Read("a = [1e400, -1e400, 1e-400, 0.1, -0.0, 1E+2, -nan, 2.2250738585072011e-308]"),
            "{a=[finf,f-inf,f0,f0.1,f-0,f100,f-nan,f2.225073858507201e-308,],}");
  EXPECT_EQ(Read("a = [2026-11-22T02:06:59.298173+00:00, 2024-02-29 07:32:00z, 2026-01-01,"
                 "07:32:00.999, 07:32, 1979-05-27t07:32]"),
            "{a=[t,t,t,t,t,t,],}");
  for (const std::string value : {"",
                                  "01",
                                  "-01",
                                  "1_",
                                  "_1",
                                  "1__0",
                                  "0x",
                                  "0xg",
                                  "-0x1",
                                  "1.",
                                  ".5",
                                  "1.e5",
                                  "1e",
                                  "00.5",
                                  "9223372036854775808",
                                  "True",
                                  "infx",
                                  "+true",
                                  "2023-02-29",
                                  "0000-01-01",
                                  "2026-13-01",
                                  "2026-01-01T",
                                  "2026-01-01T24:00:00",
                                  "2026-01-01T00:00:60",
                                  "07:32:00.",
                                  "07:32:00Z",
                                  "2026-01-01 x",
                                  "2026-01-01T00:00:00+24:00",
                                  "2026-01-01T00:00:00+0000",
                                  "1 2",
                                  "x"})
    EXPECT_TRUE(Refused("a = " + value)) << value;
}

TEST(Toml, BrokenStructureIsRefused) {
  for (const std::string& text : {"[=]"s,
                                  "["s,
                                  "[]"s,
                                  "[["s,
                                  "[[a]"s,
                                  "[a]]"s,
                                  "[a"s,
                                  "[a] b"s,
                                  "[ [a] ]"s,
                                  "a"s,
                                  "a ="s,
                                  "a 1"s,
                                  "= 1"s,
                                  "a. = 1"s,
                                  ".a = 1"s,
                                  "a..b = 1"s,
                                  "a = [1"s,
                                  "a = [1 2]"s,
                                  "a = [,]"s,
                                  "a = {b}"s,
                                  "a = {,}"s,
                                  "a = {b = 1"s,
                                  "a = {b = 1 c = 2}"s,
                                  "a = 1 b = 2"s,
                                  "a = ]"s,
                                  "\xc3\xa9 = 1"s,
                                  "a = \xc2\xa0"s,
                                  "\xef\xbb\xbf"s + "a = 1",
                                  "a = 1\r"s,
                                  "# \x01"s,
                                  "a\0 = 1"s,
                                  "\0"s})
    EXPECT_TRUE(Refused(text)) << text << "\n" << Read(text);
}

std::string Repeat(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Toml, DepthAndSizeAreLimited) {
  const std::string dots = "a" + Repeat(".a", 15);
  EXPECT_FALSE(Refused("x = [{" + dots + " = 1.5}]\n[" + dots + "]\n"));
  EXPECT_EQ(Read(dots + ".a = 1"), "line 1: a key has more than 16 parts");
  EXPECT_TRUE(Refused("[" + Repeat("a.", 1'000'000) + "a]"));
  EXPECT_FALSE(Refused("x = " + Repeat("[", 16) + Repeat("]", 16)));
  EXPECT_EQ(Read("x = " + Repeat("[", 1'000'000)), "line 1: brackets are nested deeper than 16");
  EXPECT_TRUE(Refused("x = " + Repeat("{ a = ", 100'000)));
  EXPECT_EQ(Read("x = [\n" + Repeat("1,", 100'000) + "]"),
            "line 2: there are more than 100000 keys and values");
}

RC_GTEST_PROP(TomlProperty, AnyTextIsAStringsContent, ()) {
  const std::string text = *rc::gen::string<std::string>();
  std::string escaped;
  for (const char c : text)
    escaped += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<uint8_t>(c) & 0x7f));
  const auto document = ParseToml("a = \"" + escaped + "\"");
  RC_ASSERT(document.ok());
  std::string expected = text;
  for (char& c : expected) c = static_cast<char>(c & 0x7f);
  RC_ASSERT(document->Find("a")->text == expected);
}

RC_GTEST_PROP(TomlProperty, MutatedTextIsRefusedOrRead, ()) {
  std::string text =
      "[a.b]\nc = 'd' # e\nf.\"g\" = [1, 2.5, {h = true}]\n[[i]]\nj = 2026-01-01 07:32:00Z\n";
  for (int i = *rc::gen::inRange(1, 6); i > 0; --i)
    text[*rc::gen::inRange<size_t>(0, text.size())] =
        *rc::gen::elementOf("[]{}=.,\"'#\n\\ a1\xc3\xa9"s);
  const auto document = ParseToml(text);
  if (!document.ok()) RC_ASSERT(document.error().message.starts_with("line "));
}

}  // namespace
}  // namespace umbel::flower
