// What was reported done is there after kill -9. A child process writes and reports; it is killed
// at random moments, again and again, over one state directory.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "base/file.h"
#include "store/segments.h"
#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::BeginRun;
using testing::DigestOf;
using testing::SampleMessage;
using testing::SampleObject;
using testing::SubmitAndWait;
using testing::TempDir;

constexpr uint64_t kRun = 1;
constexpr uint64_t kSegmentBytes = 256 << 10;

// Step n puts message n, a small object and a large one, and every fifth step drops what step n - 3
// put: so the state tells exactly which steps happened.
constexpr uint64_t kLarge = uint64_t{1} << 40;
uint64_t DroppedBy(uint64_t n) { return n % 5 == 0 ? n - 3 : 0; }
std::string SmallContent(uint64_t n) { return fmt::format("small {}", n); }
std::string LargeContent(uint64_t n) {
  return std::string(20'000 + n % 7 * 9'000, static_cast<char>('a' + n % 26));
}

std::unique_ptr<Store> OpenStore(const std::string& directory, Durability durability) {
  StoreOptions options;
  options.directory = directory;
  options.durability = durability;
  auto store = Store::Open(std::move(options));
  UMBEL_CHECK(store.ok());
  return std::move(*store);
}

std::unique_ptr<Segments> OpenSegments(const std::string& directory, Durability durability,
                                       const Snapshot& snapshot) {
  auto segments = Segments::Open(directory + "/objects", durability == Durability::kPower,
                                 snapshot.objects, kSegmentBytes);
  UMBEL_CHECK(segments.ok());
  return std::move(*segments);
}

[[noreturn]] void RunChild(const std::string& directory, Durability durability, int report) {
  const auto store = OpenStore(directory, durability);
  const Snapshot snapshot = *store->Load();
  const auto segments = OpenSegments(directory, durability, snapshot);
  std::map<Digest, Extent> known;
  for (const ObjectRow& row : snapshot.objects)
    known[row.object_id] = {row.run_id, row.segment, row.offset, row.size};
  std::map<uint64_t, Extent> extents;  // of the large objects, by step
  for (const MessageRow& message : snapshot.messages)
    extents[message.sequence] = known.at(DigestOf(kLarge + message.sequence));
  uint64_t n = snapshot.messages.empty() ? 0 : snapshot.messages.back().sequence;
  if (n == 0) UMBEL_CHECK(SubmitAndWait(*store, BeginRun(kRun)).ok());
  for (;;) {
    ++n;
    const std::string large = LargeContent(n);
    const Extent extent = *segments->Allocate(RunId{kRun}, large.size());
    UMBEL_CHECK(segments->Write(extent, 0, large).ok());
    UMBEL_CHECK(segments->Sync(extent).ok());
    extents[n] = extent;
    std::vector<Write> writes{PutMessage{SampleMessage(kRun, n, n)},
                              PutObject{SampleObject(kRun, n, SmallContent(n))},
                              PutObject{{RunId{kRun}, DigestOf(kLarge + n), extent.size,
                                         extent.segment, extent.offset, ""}}};
    const uint64_t dropped = DroppedBy(n);
    if (dropped != 0) {
      writes.emplace_back(DropMessage{RunId{kRun}, DigestOf(dropped)});
      writes.emplace_back(DropObject{RunId{kRun}, DigestOf(dropped)});
      writes.emplace_back(DropObject{RunId{kRun}, DigestOf(kLarge + dropped)});
    }
    const Extent unused = dropped != 0 ? extents.at(dropped) : Extent{};
    store->Submit(std::move(writes), [&segments, report, n, unused](const Status& status) {
      UMBEL_CHECK(status.ok());
      UMBEL_CHECK(::write(report, &n, sizeof n) == sizeof n);
      if (unused.segment != 0) segments->Free(unused);
    });
    // A few in flight at once, so that commits hold several.
    if (n % 4 == 0) UMBEL_CHECK(store->Drain().ok());
  }
}

/// Starts the child, kills it `after` reports and up to a millisecond later.
/// returns the last step it reported as done
uint64_t KillOnce(const std::string& directory, Durability durability, uint64_t after,
                  int64_t extra_nanos) {
  int pipe_fds[2];
  UMBEL_CHECK(::pipe(pipe_fds) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(pipe_fds[0]);
    RunChild(directory, durability, pipe_fds[1]);
  }
  ::close(pipe_fds[1]);
  const Fd reports(pipe_fds[0]);
  uint64_t last = 0;
  for (uint64_t i = 0; i < after; ++i)
    if (::read(reports.get(), &last, sizeof last) != sizeof last) break;
  pollfd nothing{-1, 0, 0};
  const timespec wait{0, extra_nanos};
  ::ppoll(&nothing, 1, &wait, nullptr);  // the random moment itself, not a wait for anything
  ::kill(child, SIGKILL);
  while (::read(reports.get(), &last, sizeof last) == sizeof last) continue;
  int status = 0;
  UMBEL_CHECK(::waitpid(child, &status, 0) == child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child failed by itself";
  return last;
}

/// The state is exactly what the first steps make, `reported` of them at least.
void CheckState(const std::string& directory, Durability durability, uint64_t reported) {
  const auto store = OpenStore(directory, durability);
  const Snapshot snapshot = *store->Load();
  EXPECT_FALSE(snapshot.unclean_machine_stop);
  const auto segments = OpenSegments(directory, durability, snapshot);
  const uint64_t steps = snapshot.messages.empty() ? 0 : snapshot.messages.back().sequence;
  ASSERT_GE(steps, reported);
  std::map<uint64_t, MessageRow> expected;
  for (uint64_t n = 1; n <= steps; ++n) {
    expected[n] = SampleMessage(kRun, n, n);
    expected.erase(DroppedBy(n));
  }
  ASSERT_EQ(snapshot.messages.size(), expected.size());
  std::map<Digest, ObjectRow> objects;
  for (const ObjectRow& row : snapshot.objects) objects[row.object_id] = row;
  EXPECT_EQ(objects.size(), 2 * expected.size());
  for (const MessageRow& message : snapshot.messages) {
    const uint64_t n = message.sequence;
    ASSERT_TRUE(expected.contains(n));
    EXPECT_EQ(message, expected[n]);
    EXPECT_EQ(*store->ReadInline(RunId{kRun}, DigestOf(n)), SmallContent(n));
    const ObjectRow& row = objects[DigestOf(kLarge + n)];
    const auto large = segments->Read({row.run_id, row.segment, row.offset, row.size});
    ASSERT_TRUE(large.ok()) << large.error().ToString();
    EXPECT_EQ(*large, LargeContent(n)) << "step " << n;
  }
}

void KillAgainAndAgain(Durability durability, int kills) {
  const char* given = std::getenv("UMBEL_TEST_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("%d kills, seed %llu (UMBEL_TEST_SEED replays it)\n", kills,
              static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  SeededRng rng(seed);
  TempDir directory;
  uint64_t reported = 0;
  for (int i = 0; i < kills && !::testing::Test::HasFailure(); ++i) {
    const uint64_t last = KillOnce(directory.path(), durability, rng.U64() % 60,
                                   static_cast<int64_t>(rng.U64() % 1'000'000));
    reported = std::max(reported, last);
    CheckState(directory.path(), durability, reported);
  }
}

TEST(StoreKill, WhatWasReportedDoneIsThere) { KillAgainAndAgain(Durability::kProcess, 20); }

TEST(StoreKill, WhatWasReportedDoneIsThereInPowerMode) { KillAgainAndAgain(Durability::kPower, 5); }

}  // namespace
}  // namespace umbel::store
