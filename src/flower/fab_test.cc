#include "flower/fab.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <zip.h>

#include "base/file.h"
#include "flower/errors.h"
#include "flower/fab_zip.h"
#include "flower/testing.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using std::string_literals::operator""s;
using testing::Entry;
using testing::GoodEntries;
using testing::kProject;
using testing::MakeZip;

std::string WithEntry(Entry entry) {
  auto entries = GoodEntries();
  entries.push_back(std::move(entry));
  return MakeZip(entries);
}

std::string WithProject(std::string_view project) {
  return MakeZip({{"pyproject.toml", std::string(project)}});
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(Fab, AGoodOneIsRead) {
  const std::string zip = MakeZip(GoodEntries());
  const auto fab = ReadFab(zip);
  ASSERT_TRUE(fab.ok()) << fab.error().message;
  EXPECT_EQ(fab->fab_id, "umbel/toy");
  EXPECT_EQ(fab->version, "1.0.0");
  EXPECT_EQ(fab->hash, tensor::Sha256Of(zip));
  EXPECT_EQ(fab->serverapp, "toy.server_app:app");
  EXPECT_EQ(fab->clientapp, "toy.client_app:app");
  EXPECT_EQ(fab->agentapp, "");
  EXPECT_EQ(
      fab->config,
      (ConfigMap{
          {"a.b.text", "x"}, {"lr", 0.1}, {"num-server-rounds", int64_t{3}}, {"verbose", true}}));
  EXPECT_TRUE(CheckOverrideKey(*fab, "a.b.text").ok());
  const Status unknown = CheckOverrideKey(*fab, "a.b");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().wire_code, wire::kInvalidRunConfig);
  EXPECT_EQ(unknown.error().message,
            "run config: key 'a.b' is not in [tool.flwr.app.config] of umbel/toy");
}

TEST(Fab, WhatFlwrBuildsIsRead) {
  const std::string corpus = UMBEL_SOURCE_DIR "/fuzz/corpus/fab_zip/";
  for (const char* name : {"built-by-flwr", "deflated", "bomb-content"}) {
    const auto fab = ReadFab(ReadFile(corpus + name).value());
    ASSERT_TRUE(fab.ok()) << fab.error().message;
    EXPECT_EQ(fab->fab_id, "umbel/toy");
    EXPECT_EQ(fab->config.size(), 3U);
  }
}

TEST(Fab, FoldersAndUnlistedFilesAreFine) {
  EXPECT_TRUE(ReadFab(WithEntry({"toy/", "", 040755})).ok());
  EXPECT_TRUE(ReadFab(WithEntry({"toy/unlisted.py", "x"})).ok());
  EXPECT_TRUE(ReadFab(WithEntry({"toy/..x", "x", 0})).ok());
  EXPECT_TRUE(ReadFab(WithEntry({"toy/\xc3\xa9.py", "x", 0100644, 0, 0x800})).ok());
}

TEST(Fab, DeflateIsRead) {
  zip_error_t error;
  zip_source_t* target = zip_source_buffer_create(nullptr, 0, 0, &error);
  zip_t* archive = zip_open_from_source(target, ZIP_TRUNCATE, &error);
  ASSERT_NE(archive, nullptr);
  zip_source_keep(target);
  for (const Entry& entry : GoodEntries()) {
    const zip_int64_t index = zip_file_add(
        archive, entry.name.c_str(),
        zip_source_buffer(archive, strdup(entry.content.c_str()), entry.content.size(), 1), 0);
    ASSERT_GE(index, 0);
    zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_DEFLATE, 9);
  }
  ASSERT_EQ(zip_close(archive), 0);
  ASSERT_EQ(zip_source_open(target), 0);
  std::string zip(1 << 20, '\0');
  zip.resize(static_cast<size_t>(zip_source_read(target, zip.data(), zip.size())));
  zip_source_close(target);
  zip_source_free(target);
  const auto fab = ReadFab(zip);
  ASSERT_TRUE(fab.ok()) << fab.error().message;
  EXPECT_EQ(fab->fab_id, "umbel/toy");
}

void ExpectRefused(const std::string& zip, Code code, std::string_view part, int wire_code = 15) {
  const auto fab = ReadFab(zip);
  ASSERT_FALSE(fab.ok()) << part;
  EXPECT_EQ(fab.error().code, code) << fab.error().message;
  EXPECT_EQ(fab.error().wire_code, wire_code) << fab.error().message;
  EXPECT_NE(fab.error().message.find(part), std::string::npos) << fab.error().message;
}

TEST(Fab, WhatIsNoZipIsRefused) {
  const std::string good = MakeZip(GoodEntries());
  ExpectRefused("", Code::kDataLoss, "0 bytes are too few");
  ExpectRefused(std::string(100, 'x'), Code::kDataLoss, "no end record");
  ExpectRefused(good.substr(0, good.size() - 1), Code::kDataLoss, "no end record");
  ExpectRefused(good + "x", Code::kDataLoss, "no end record");
  ExpectRefused("x" + good, Code::kDataLoss, "does not end at the end record");
  ExpectRefused(good + good, Code::kDataLoss, "does not end at the end record");
  ExpectRefused(std::string(kFabMax + 1, 'x'), Code::kResourceExhausted,
                "10485761 bytes are more than 10485760", 0);
  ExpectRefused(MakeZip({}), Code::kNotFound, "no pyproject.toml");
  ExpectRefused(MakeZip({{"pyproject.toml/", ""}}), Code::kInvalidArgument, "no plain file");
  ExpectRefused(MakeZip({{"toy/pyproject.toml", std::string(kProject)}}), Code::kNotFound,
                "no pyproject.toml");
}

TEST(Fab, NamesThatLeaveTheFolderAreRefused) {
  const auto refused = [](const std::string& name, std::string_view rule) {
    ExpectRefused(WithEntry({name, "x"}), Code::kInvalidArgument, rule);
  };
  refused("../evil.py", "'../evil.py': leaves the app's folder by '..'");
  refused("toy/../../evil.py", "leaves the app's folder");
  refused("toy/..", "leaves the app's folder");
  refused("/etc/cron.d/x", "has an absolute path");
  refused("C:/x", "has an absolute path");
  refused("toy\\..\\x", "has a backslash");
  refused("toy/a\0/../b"s, "has a control character");
  refused("toy/a\nb", "has a control character");
  refused("toy//x", "empty or '.' path component");
  refused("./x", "empty or '.' path component");
  refused("", "has no name");
  refused(std::string(1025, 'a'), "above 1024 bytes");
}

TEST(Fab, EntriesThatAreNoPlainFilesAreRefused) {
  const auto refused = [](const Entry& entry, std::string_view rule,
                          Code code = Code::kInvalidArgument) {
    ExpectRefused(WithEntry(entry), code, rule);
  };
  refused({"link", "/etc/passwd", 0120777}, "mode 120777 is no plain file");
  refused({"device", "", 020666}, "is no plain file");
  refused({"toy/", "x", 040755}, "is a folder with content");
  refused({"toy/server_app.py", "x"}, "is there twice");
  refused({"toy/server_app.py/", "", 040755}, "is there twice");
  refused({"secret", "x", 0100600, 0, 1}, "is encrypted");
  refused({"lzma", "x", 0100600, 14}, "compression method 14");
  refused({"lie", "x", 0100600, 0, 0, 2}, "two different sizes", Code::kDataLoss);
  refused({"big", "x", 0100600, 8, 0, 0xffffffff}, "uses ZIP64");
  refused({"bomb", "x", 0100600, 8, 0, 0x20000000}, "'bomb': declares 536870912 bytes",
          Code::kResourceExhausted);
  refused({"name", "x", 0100600, 0, 0, {}, "other"}, "not a ZIP archive", Code::kDataLoss);
}

TEST(Fab, ManyEntriesAreRefused) {
  std::vector<Entry> entries = GoodEntries();
  for (int i = 0; i < 10'000; ++i) entries.push_back({fmt::format("f{}", i), ""});
  ExpectRefused(MakeZip(entries), Code::kResourceExhausted, "10003 entries are more than 10000");
}

TEST(Fab, BrokenContentIsRefused) {
  auto entries = GoodEntries();
  entries[0].crc = 1;
  ExpectRefused(MakeZip(entries), Code::kDataLoss, "'pyproject.toml': CRC error");
  entries = GoodEntries();
  entries[0].method = 8;
  ExpectRefused(MakeZip(entries), Code::kDataLoss, "'pyproject.toml'");
  entries = GoodEntries();
  entries[0].content.resize((1 << 20) + 1, ' ');
  ExpectRefused(MakeZip(entries), Code::kResourceExhausted, "declares 1048577 bytes");
}

TEST(Fab, HashesOfContentMustHold) {
  const auto with = [](const std::string& manifest) {
    auto entries = GoodEntries();
    entries[2].content = manifest;
    return MakeZip(entries);
  };
  const std::string good = GoodEntries()[2].content;
  const std::string hash(64, 'a');
  EXPECT_TRUE(ReadFab(with(good + "\n")).ok());
  EXPECT_TRUE(ReadFab(with("")).ok());
  ExpectRefused(with(good + "\ntoy/none.py," + hash + ",8"), Code::kInvalidArgument,
                "'toy/none.py' is listed twice or not in the archive");
  ExpectRefused(with(good + "\n" + good), Code::kInvalidArgument, "is listed twice");
  ExpectRefused(with("toy/server_app.py," + hash + ",64"), Code::kInvalidArgument,
                "'toy/server_app.py': its content is not what '.info/CONTENT' says");
  for (const std::string& line : {"x"s, "a,b"s, "a," + hash, "a," + hash + ",", "a,b,c,d"s,
                                  "a," + hash + ",8x", "a," + hash + ",99999999999999999999"})
    ExpectRefused(with(line), Code::kInvalidArgument, "is not path,sha256,bits");
}

TEST(FabConfig, WhatMustBeThereIsThere) {
  const std::string good(kProject);
  const auto refused = [&](std::string_view from, std::string_view to, std::string_view part) {
    ExpectRefused(WithProject(Replaced(good, from, to)), Code::kInvalidArgument, part);
  };
  refused("[project]", "[other]", "there is no [project]");
  refused("[project]\nname", "project = 1\n[x]\nname", "there is no [project]");
  refused("name = \"toy\"", "", "[project] has no name");
  refused("name = \"toy\"", "name = [1]", "name in [project] is not a string");
  refused("name = \"toy\"", "name = \"../toy\"", "is not a name of 1 to 128");
  refused("name = \"toy\"", "name = \"\"", "is not a name of 1 to 128");
  refused("version = \"1.0.0\"", "", "[project] has no version");
  refused("publisher = \"umbel\"", "", "[tool.flwr.app] has no publisher");
  refused("[tool.flwr.app]", "[tool.flower.app]", "has no publisher");
  refused("[tool.flwr.app.components]", "[tool.flwr.app.parts]",
          "there is no [tool.flwr.app.components]");
  refused("clientapp", "x", "has no clientapp");
  refused("toy.server_app:app", "toy.server_app", "is not \"module:attribute\"");
  refused("toy.server_app:app", ":app", "is not \"module:attribute\"");
  refused("lr = 0.1", "lr = [0.1]", "'lr' in [tool.flwr.app.config] is not a bool");
  refused("lr = 0.1", "lr = 2026-01-01", "'lr' in [tool.flwr.app.config] is not a bool");
  refused("lr = 0.1", "a.b.x = [1]", "'a.b.x'");
  refused("lr = 0.1", "'a.b'.text = 1", "'a.b.text' in [tool.flwr.app.config] is there twice");
  refused("publisher", "fab-include = []\npublisher", "fab-include in [tool.flwr.app]");
  refused("publisher", "fab-format-version = 2\npublisher", "is not 0 or 1");
  refused("lr = 0.1", "lr = ", "line 15");
  refused("lr = 0.1", "lr = 1\nlr = 2", "line 16");
  refused("toy", "\xff", "pyproject.toml: line");
}

TEST(FabConfig, AnAgentNeedsNoOtherApp) {
  const std::string agent =
      Replaced(Replaced(std::string(kProject), "serverapp", "agentapp"), "clientapp", "x");
  const auto fab = ReadFab(WithProject(agent));
  ASSERT_TRUE(fab.ok()) << fab.error().message;
  EXPECT_EQ(fab->agentapp, "toy.server_app:app");
  EXPECT_EQ(fab->serverapp, "");
}

TEST(FabConfig, WhatHurtsTheParserDoesNotReachIt) {
  std::string dots = "a";
  for (int i = 0; i < 100'000; ++i) dots += ".a";
  for (const std::string& toml :
       {dots + " = 1\n", "[" + dots + "]\n", "x = " + std::string(100'000, '[') + "\n", "[=]"s,
        "\xef\xbb\xbf[a]"s, "a = \xc2\xa1"s}) {
    const auto config = ParseFabConfig(toml);
    ASSERT_FALSE(config.ok());
    EXPECT_EQ(config.error().wire_code, wire::kInvalidRunConfig);
  }
}

RC_GTEST_PROP(FabProperty, MutatedArchivesAreRefusedOrRead, ()) {
  std::string zip = MakeZip(GoodEntries());
  for (int i = *rc::gen::inRange(1, 6); i > 0; --i)
    zip[*rc::gen::inRange<size_t>(0, zip.size())] = *rc::gen::arbitrary<char>();
  const auto fab = ReadFab(zip);
  if (!fab.ok()) RC_ASSERT(!fab.error().message.empty());
}

RC_GTEST_PROP(FabProperty, MutatedProjectsAreRefusedOrRead, ()) {
  std::string toml(kProject);
  for (int i = *rc::gen::inRange(1, 6); i > 0; --i)
    toml[*rc::gen::inRange<size_t>(0, toml.size())] = *rc::gen::elementOf("[]{}=.,\"'#\n\\ a1"s);
  const auto config = ParseFabConfig(toml);
  if (!config.ok()) RC_ASSERT(config.error().message.starts_with("pyproject.toml: "));
}

}  // namespace
}  // namespace umbel::flower
