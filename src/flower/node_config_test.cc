#include "flower/node_config.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/testing.h"

namespace umbel::flower {
namespace {

using nlohmann::json;

/// [kind, text] of tests/keys/node_config.json; floats as Python's float.hex().
ConfigScalar Scalar(const json& value) {
  const std::string kind = value[0];
  const std::string text = value[1];
  if (kind == "bool") return text == "True";
  if (kind == "int") return int64_t{std::stoll(text)};
  if (kind == "float") return std::strtod(text.c_str(), nullptr);
  return text;
}

ConfigMap Map(const json& values) {
  ConfigMap config;
  for (const auto& [key, value] : values.items()) config[key] = Scalar(value);
  return config;
}

const json& Vectors() {
  static const json kVectors =
      json::parse(ReadFile(UMBEL_SOURCE_DIR "/tests/keys/node_config.json").value());
  return kVectors;
}

std::string ErrorOf(std::string_view text) {
  const auto config = ParseNodeConfig(text);
  return config.ok() ? "" : config.error().message;
}

TEST(NodeConfig, IsReadAsFlowerReadsIt) {
  for (const json& item : Vectors()["cases"]) {
    const std::string text = item["text"];
    const auto config = ParseNodeConfig(text);
    if (item["config"].is_null() || item.contains("stricter")) {
      EXPECT_FALSE(config.ok()) << text;
    } else {
      ASSERT_TRUE(config.ok()) << text << "\n" << config.error().message;
      EXPECT_EQ(*config, Map(item["config"])) << text;
    }
  }
}

TEST(NodeConfig, AFileIsReadInstead) {
  const testing::TempDir dir;
  const std::string path = dir.path() + "/node.toml";
  const json& vectors = Vectors();
  ASSERT_TRUE(WriteFileAtomic(path, vectors["file"].get<std::string>()).ok());
  EXPECT_EQ(ParseNodeConfig(path).value(), Map(vectors["file_config"]));
  ASSERT_TRUE(WriteFileAtomic(path, "a = 1\nb = [1]\n").ok());
  EXPECT_EQ(ErrorOf(path), "'b' in --node-config '" + path +
                               "' is not a bool, int, float, string or table of those");
  ASSERT_TRUE(WriteFileAtomic(path, "a = 1\nb\n").ok());
  EXPECT_TRUE(ErrorOf(path).starts_with("--node-config: '" + path + "': line 2: "))
      << ErrorOf(path);
  EXPECT_EQ(ErrorOf("/nonexistent/node.toml"),
            "--node-config: cannot open '/nonexistent/node.toml': No such file or directory");
}

TEST(NodeConfig, ErrorsNameKeyAndText) {
  EXPECT_EQ(ErrorOf("a=1 b=x"),
            "--node-config: key 'b', value 'x': line 1: 'x' is no value (texts need quotes: "
            "key=\"text\")");
  EXPECT_EQ(ErrorOf("a=1 b c=2"),
            "--node-config: 'b' is not key=value (a value with blanks is written key=\"a b\")");
  EXPECT_EQ(ErrorOf("a=1 a=2"), "--node-config: line 2: key 'a' is there twice");
  EXPECT_EQ(ErrorOf("a=[1]"),
            "'a' in --node-config is not a bool, int, float, string or table of those");
  EXPECT_EQ(ErrorOf(std::string(70'000, 'a')), "--node-config: 70000 bytes are more than 65536");
}

TEST(NodeConfig, PlacesAreFilledIn) {
  EXPECT_EQ(ExpandNodeConfig("partition-id={i} num-partitions={n} name=\"site {i}/{n}\"", 7, 100),
            "partition-id=7 num-partitions=100 name=\"site 7/100\"");
  EXPECT_EQ(ExpandNodeConfig("{ i} {x} {{i}} {i", 1, 2), "{ i} {x} {1} {i");
  EXPECT_EQ(ExpandNodeConfig("", 1, 2), "");
}

RC_GTEST_PROP(NodeConfigProperty, AnyTextIsReadOrRefused, ()) {
  const auto text = *rc::gen::container<std::string>(
      rc::gen::elementOf(std::string("ab=='\"{}[]., \n\t#1\\\xc3\xa9")));
  const auto config = ParseNodeConfig(text);
  if (!config.ok()) RC_ASSERT(config.error().message.find("--node-config") != std::string::npos);
}

}  // namespace
}  // namespace umbel::flower
