#include "store/segments.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <thread>

#include "base/file.h"
#include "store/testing.h"

namespace umbel::store {
namespace {

namespace fs = std::filesystem;
using testing::DigestOf;
using testing::TempDir;

constexpr uint64_t kSegment = 64 << 10;

ObjectRow RowOf(const Extent& extent, uint64_t id = 1) {
  return ObjectRow{.run_id = extent.run_id,
                   .object_id = DigestOf(id),
                   .size = extent.size,
                   .segment = extent.segment,
                   .offset = extent.offset,
                   .content = ""};
}

size_t FileCount(const std::string& directory) {
  size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    count += entry.is_regular_file();
  return count;
}

/// Named files with and without sync, and files without a name.
class SegmentsTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { Reopen({}); }
  void Reopen(const std::vector<ObjectRow>& known) {
    segments_.reset();
    auto opened = Segments::Open(root(), GetParam() == 1, known, kSegment);
    ASSERT_TRUE(opened.ok()) << opened.error().ToString();
    segments_ = std::move(*opened);
  }
  bool named() const { return GetParam() < 2; }
  std::string root() const { return named() ? directory_.path() + "/objects" : ""; }
  std::string folder(uint64_t run) const { return fmt::format("{}/{:016x}", root(), run); }

  Extent Keep(uint64_t run, const std::string& bytes) {
    auto extent = segments_->Allocate(RunId{run}, bytes.size());
    EXPECT_TRUE(extent.ok()) << extent.error().ToString();
    EXPECT_TRUE(segments_->Write(*extent, 0, bytes).ok());
    EXPECT_TRUE(segments_->Sync(*extent).ok());
    return *extent;
  }

  TempDir directory_;
  std::unique_ptr<Segments> segments_;
};
INSTANTIATE_TEST_SUITE_P(All, SegmentsTest, ::testing::Values(0, 1, 2), [](const auto& tested) {
  return tested.param == 0 ? "Named" : tested.param == 1 ? "NamedSync" : "Temporary";
});

TEST_P(SegmentsTest, WhatIsWrittenIsRead) {
  const std::string small(100, 'a');
  const std::string large(3 * kSegment + 17, 'b');  // gets a segment of its own
  const Extent a = Keep(1, small);
  const Extent b = Keep(1, large);
  const Extent c = Keep(2, small);
  EXPECT_NE(a.segment, b.segment);
  EXPECT_EQ(*segments_->Read(a), small);
  EXPECT_EQ(*segments_->Read(b), large);
  EXPECT_EQ(*segments_->Read(c), small);

  ASSERT_TRUE(segments_->Write(a, 50, std::string(50, 'z')).ok());
  EXPECT_EQ(*segments_->Read(a), std::string(50, 'a') + std::string(50, 'z'));
  EXPECT_EQ(segments_->Write(a, 51, std::string(50, 'z')).error().code, Code::kOutOfRange);
  EXPECT_EQ(segments_->Write(a, ~uint64_t{0}, std::string(2, 'z')).error().code, Code::kOutOfRange);

  const auto file = *segments_->File(b);
  std::string bytes(10, '\0');
  ASSERT_EQ(::pread(file->fd(), bytes.data(), bytes.size(), static_cast<off_t>(b.offset)), 10);
  EXPECT_EQ(bytes, std::string(10, 'b'));
}

TEST_P(SegmentsTest, AnEmptySegmentIsUsedAgain) {
  const Extent a = Keep(1, std::string(kSegment, 'a'));
  const uint64_t bytes = segments_->bytes_on_disk();
  EXPECT_EQ(bytes, kSegment);
  segments_->Free(a);
  const Extent b = Keep(1, std::string(10, 'b'));
  EXPECT_EQ(b.segment, a.segment);
  EXPECT_EQ(b.offset, 0u);
  EXPECT_EQ(segments_->bytes_on_disk(), bytes);
}

TEST_P(SegmentsTest, WhatIsBeingReadIsNotUsedAgain) {
  const Extent a = Keep(1, std::string(kSegment, 'a'));
  auto first = *segments_->File(a);
  auto second = *segments_->File(a);
  segments_->Free(a);
  const Extent b = Keep(1, std::string(kSegment, 'b'));
  EXPECT_NE(b.segment, a.segment);
  first.reset();
  const Extent c = Keep(1, std::string(kSegment, 'c'));
  EXPECT_NE(c.segment, a.segment);
  EXPECT_EQ(*segments_->Read(a), std::string(kSegment, 'a'));
  second.reset();
  const Extent d = Keep(1, std::string(kSegment, 'd'));
  EXPECT_EQ(d.segment, a.segment);
}

TEST_P(SegmentsTest, ADroppedRunsFilesGoWithTheLastReader) {
  const Extent a = Keep(1, std::string(100, 'a'));
  const Extent b = Keep(2, std::string(100, 'b'));
  auto file = *segments_->File(a);
  segments_->DropRun(RunId{1});
  segments_->DropRun(RunId{1});
  segments_->DropRun(RunId{77});
  EXPECT_EQ(segments_->Read(a).error().code, Code::kNotFound);
  EXPECT_EQ(segments_->Write(a, 0, std::string("x")).error().code, Code::kNotFound);
  segments_->Free(a);
  EXPECT_FALSE(named() && fs::exists(folder(1)));
  EXPECT_EQ(segments_->bytes_on_disk(), 2 * kSegment);
  char byte = 0;
  EXPECT_EQ(::pread(file->fd(), &byte, 1, static_cast<off_t>(a.offset)), 1);
  EXPECT_EQ(byte, 'a');
  file.reset();
  EXPECT_EQ(segments_->bytes_on_disk(), kSegment);
  EXPECT_EQ(*segments_->Read(b), std::string(100, 'b'));
  // The same run may come back, in a new file.
  const Extent again = Keep(1, std::string(5, 'n'));
  EXPECT_NE(again.segment, a.segment);
  EXPECT_EQ(*segments_->Read(again), std::string(5, 'n'));
}

TEST_P(SegmentsTest, AReaderMayOutliveTheSegments) {
  const Extent a = Keep(1, std::string(100, 'a'));
  auto file = *segments_->File(a);
  segments_->Free(a);
  segments_.reset();
  char byte = 0;
  EXPECT_EQ(::pread(file->fd(), &byte, 1, static_cast<off_t>(a.offset)), 1);
}

TEST_P(SegmentsTest, ReopeningKeepsWhatIsKnownAndRemovesTheRest) {
  if (!named()) return;
  const Extent a = Keep(1, std::string(100, 'a'));
  const Extent gap = Keep(1, std::string(100, 'g'));
  const Extent b = Keep(1, std::string(5000, 'b'));
  const Extent emptied = Keep(1, std::string(kSegment, 'e'));
  Keep(2, std::string(100, 'x'));
  ASSERT_TRUE(WriteFileAtomic(root() + "/README", "not ours").ok());
  ASSERT_TRUE(WriteFileAtomic(folder(2) + "/note.txt", "not ours").ok());
  Reopen({RowOf(a, 1), RowOf(b, 2)});
  EXPECT_EQ(*segments_->Read(a), std::string(100, 'a'));
  EXPECT_EQ(*segments_->Read(b), std::string(5000, 'b'));
  EXPECT_FALSE(fs::exists(folder(2) + "/1.seg"));
  EXPECT_TRUE(fs::exists(folder(2) + "/note.txt"));
  EXPECT_TRUE(fs::exists(root() + "/README"));
  EXPECT_EQ(segments_->bytes_on_disk(), 2 * kSegment);
  // New objects go behind the known ones or into the empty segment, never over them.
  for (int i = 0; i < 40; ++i) Keep(1, std::string(4000, 'n'));
  EXPECT_EQ(*segments_->Read(a), std::string(100, 'a'));
  EXPECT_EQ(*segments_->Read(b), std::string(5000, 'b'));
  EXPECT_TRUE(fs::exists(fmt::format("{}/{}.seg", folder(1), emptied.segment)));
  EXPECT_NE(gap.offset, 0u);
}

TEST_P(SegmentsTest, ALostFileIsToldWhenItIsRead) {
  if (!named()) return;
  const Extent a = Keep(1, std::string(100, 'a'));
  const Extent b = Keep(1, std::string(kSegment, 'b'));
  segments_.reset();
  fs::remove(fmt::format("{}/{}.seg", folder(1), a.segment));
  fs::resize_file(fmt::format("{}/{}.seg", folder(1), b.segment), 10);
  Reopen({RowOf(a, 1), RowOf(b, 2)});
  EXPECT_EQ(segments_->Read(a).error().code, Code::kNotFound);
  EXPECT_EQ(segments_->Read(b).error().code, Code::kDataLoss);
  const Extent c = Keep(1, std::string(100, 'c'));
  EXPECT_GT(c.segment, std::max(a.segment, b.segment));
}

TEST_P(SegmentsTest, KnownObjectsThatOverlapAreRefused) {
  if (!named()) return;
  const Extent a = Keep(1, std::string(100, 'a'));
  segments_.reset();
  const auto opened = Segments::Open(root(), false, {RowOf(a, 1), RowOf(a, 2)}, kSegment);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kDataLoss);
}

TEST_P(SegmentsTest, TooLargeIsResourceExhausted) {
  EXPECT_EQ(segments_->Allocate(RunId{1}, ~uint64_t{0}).error().code, Code::kResourceExhausted);
}

TEST_P(SegmentsTest, ANearlyFullDiskStillTakesWhatFits) {
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = kSegment / 2;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto fits = segments_->Allocate(RunId{1}, kSegment / 4);
  const auto full = segments_->Allocate(RunId{2}, kSegment);
  EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_TRUE(fits.ok()) << fits.error().ToString();
  EXPECT_TRUE(segments_->Write(*fits, 0, std::string(kSegment / 4, 'x')).ok());
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, Code::kResourceExhausted);
  EXPECT_NE(full.error().message.find(std::to_string(kSegment)), std::string::npos);
  EXPECT_TRUE(segments_->Allocate(RunId{2}, kSegment).ok());
}

TEST_P(SegmentsTest, ManyThreads) {
  std::atomic<bool> failed{false};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      SeededRng rng(t);
      std::vector<std::pair<Extent, std::string>> mine;
      for (int i = 0; i < 120 && !failed; ++i) {
        const std::string bytes(rng.U64() % 30'000, static_cast<char>('a' + rng.U64() % 26));
        const Extent extent = Keep(1 + t % 2, bytes);
        mine.emplace_back(extent, bytes);
        if (mine.size() > 6) {
          const auto& [old, expected] = mine.front();
          if (*segments_->Read(old) != expected) failed = true;
          segments_->Free(old);
          mine.erase(mine.begin());
        }
        if (t == 3 && i % 20 == 0) segments_->DropRun(RunId{99});
      }
      for (const auto& [extent, expected] : mine)
        if (*segments_->Read(extent) != expected) failed = true;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(failed);
}

TEST_P(SegmentsTest, DroppingWhileOthersAllocateIsSafe) {
  std::atomic<bool> stop{false};
  std::thread dropper([&] {
    while (!stop) segments_->DropRun(RunId{1});
  });
  for (int i = 0; i < 200; ++i) {
    // The run may vanish at any step: only a crash or a foreign byte would be wrong.
    const auto extent = segments_->Allocate(RunId{1}, 100);
    if (!extent.ok()) {
      EXPECT_EQ(extent.error().code, Code::kNotFound) << extent.error().ToString();
      continue;
    }
    if (!segments_->Write(*extent, 0, std::string(100, 'q')).ok()) continue;
    const auto bytes = segments_->Read(*extent);
    EXPECT_EQ(bytes.value_or(std::string(100, 'q')), std::string(100, 'q'));
  }
  stop = true;
  dropper.join();
  segments_->DropRun(RunId{1});
  EXPECT_EQ(segments_->bytes_on_disk(), 0u);
  EXPECT_EQ(named() ? FileCount(root()) : 0u, 0u);
}

// Random histories against a model that remembers every live object's bytes.
RC_GTEST_PROP(SegmentsProperty, LiveObjectsKeepTheirBytes, ()) {
  struct Object {
    Extent extent;
    std::string bytes;
  };
  constexpr uint64_t kSmall = 16 << 10;
  TempDir directory;
  auto segments = std::move(*Segments::Open(directory.path(), false, {}, kSmall));
  std::vector<Object> live;
  uint64_t counter = 0;
  const auto check = [&] {
    for (const Object& object : live) RC_ASSERT(*segments->Read(object.extent) == object.bytes);
  };
  const auto steps = *rc::gen::container<std::vector<std::pair<uint8_t, uint16_t>>>(
      rc::gen::pair(rc::gen::inRange<uint8_t>(0, 100), rc::gen::arbitrary<uint16_t>()));
  for (const auto& [what, number] : steps) {
    if (what < 60) {
      const RunId run{1 + uint64_t{number} % 3};
      std::string bytes(number % 5 == 0 ? number % 40'000 : number % 9000, '\0');
      SeededRng rng(++counter);
      for (size_t i = 0; i < bytes.size(); i += 97) bytes[i] = static_cast<char>(counter + i);
      const auto extent = segments->Allocate(run, bytes.size());
      RC_ASSERT(extent.ok());
      RC_ASSERT(segments->Write(*extent, 0, bytes).ok());
      live.push_back({*extent, std::move(bytes)});
    } else if (what < 90) {
      if (live.empty()) continue;
      const size_t victim = number % live.size();
      segments->Free(live[victim].extent);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
    } else if (what < 94) {
      const RunId run{1 + uint64_t{number} % 3};
      segments->DropRun(run);
      std::erase_if(live, [&](const Object& object) { return object.extent.run_id == run; });
    } else {
      std::vector<ObjectRow> known;
      for (size_t i = 0; i < live.size(); ++i) known.push_back(RowOf(live[i].extent, i));
      segments.reset();
      auto opened = Segments::Open(directory.path(), false, known, kSmall);
      RC_ASSERT(opened.ok());
      segments = std::move(*opened);
    }
  }
  check();
}

}  // namespace
}  // namespace umbel::store
