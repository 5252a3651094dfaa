#include "orchestrator/local/instance_log.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <optional>

#include "base/testing.h"

namespace umbel::orchestrator {
namespace {

using umbel::testing::TempDir;

std::string All(const std::string& folder, uint64_t offset, uint64_t* next = nullptr) {
  std::string text;
  for (;;) {
    const auto part = ReadLog(folder, offset, 7);
    EXPECT_TRUE(part.ok());
    if (!part.ok() || part->bytes.empty()) {
      if (next) *next = part->next;
      return text;
    }
    text += part->bytes;
    offset = part->next;
  }
}

TEST(InstanceLog, IsReadFromAnyOffset) {
  const TempDir folder;
  LogWriter(folder.path(), 1000).Append("0123456789");
  LogWriter(folder.path(), 1000).Append("abc");  // goes on
  EXPECT_EQ(All(folder.path(), 0), "0123456789abc");
  EXPECT_EQ(All(folder.path(), 9), "9abc");
  uint64_t next = 0;
  EXPECT_EQ(All(folder.path(), 13, &next), "");
  EXPECT_EQ(next, 13u);
  EXPECT_EQ(All(folder.path(), 500, &next), "");
  EXPECT_EQ(next, 13u);
  EXPECT_EQ(ReadLog(folder.path(), 0, 0)->next, 0u);
}

TEST(InstanceLog, NothingWasSaidYet) {
  const TempDir folder;
  const auto part = ReadLog(folder.path(), 0, 100);
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->bytes, "");
  EXPECT_EQ(part->next, 0u);
  EXPECT_EQ(ReadLog(folder.path() + "/nowhere", 0, 100).error().code, Code::kNotFound);
}

TEST(InstanceLog, StrangersBesideItAreNotRead) {
  const TempDir folder;
  for (const char* name : {"log.", "log.x", "log.1x", "logs", "log.99999999999999999999999"})
    ASSERT_TRUE(WriteFileAtomic(folder.path() + "/" + name, "no").ok());
  LogWriter(folder.path(), 100).Append("yes");
  EXPECT_EQ(All(folder.path(), 0), "yes");
}

/// Whatever is written in whatever pieces by however many writers in turn: the last bytes are
/// there, at their offsets, no more than allowed, and at least half of it.
TEST(InstanceLog, KeepsTheNewestBytesAtTheirOffsets) {
  EXPECT_TRUE(rc::check([] {
    const TempDir folder;
    const auto bytes_max = *rc::gen::inRange<uint64_t>(2, 200);
    std::string written;
    std::optional<LogWriter> writer;
    const int count = *rc::gen::inRange(0, 30);
    for (int i = 0; i < count; ++i) {
      if (!writer || *rc::gen::inRange(0, 4) == 0) writer.emplace(folder.path(), bytes_max);
      std::string piece(*rc::gen::inRange<size_t>(0, 150), ' ');
      for (char& c : piece) c = static_cast<char>('a' + (written.size() + i) % 26);
      writer->Append(piece);
      written += piece;
      uint64_t next = 0;
      const std::string kept = All(folder.path(), 0, &next);
      RC_ASSERT(next == written.size());
      RC_ASSERT(written.ends_with(kept));
      RC_ASSERT(kept.size() <= bytes_max);
      RC_ASSERT(kept.size() >= std::min<uint64_t>(written.size(), bytes_max / 2));
      const auto offset = *rc::gen::inRange<uint64_t>(0, written.size() + 10);
      const std::string rest = All(folder.path(), offset);
      RC_ASSERT(kept.ends_with(rest));
      if (offset >= written.size() - kept.size() && offset <= written.size())
        RC_ASSERT(rest == written.substr(offset));
    }
  }));
}

}  // namespace
}  // namespace umbel::orchestrator
