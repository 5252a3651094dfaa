// Prints what a durable message costs. Informational: nothing here fails for being slow.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <future>

#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::BeginRun;
using testing::DigestOf;
using testing::SampleMessage;
using testing::SampleObject;
using testing::SubmitAndWait;
using testing::TempDir;

constexpr uint64_t kMessages = 300;
constexpr uint64_t kObjects = 24;
constexpr size_t kObjectBytes = 1024;

Write Object(uint64_t id) { return PutObject{SampleObject(1, id, std::string(kObjectBytes, 'o'))}; }

std::vector<Write> MessageWithObjects(uint64_t n) {
  std::vector<Write> writes;
  MessageRow message = SampleMessage(1, n * 100, n);
  message.body = std::string(400, 'b');
  message.tree = std::string(70 * kObjects, 't');
  writes.emplace_back(PutMessage{std::move(message)});
  for (uint64_t i = 1; i <= kObjects; ++i) writes.push_back(Object(n * 100 + i));
  return writes;
}

struct Cost {
  double wall_ms;    // per message
  double writer_ms;  // of the writer thread's processor time
};

double ThreadSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// The writer thread's processor time so far: `done` runs there.
double WriterSeconds(Store& store) {
  double seconds = 0;
  store.Submit({}, [&](const Status&) { seconds = ThreadSeconds(); });
  EXPECT_TRUE(store.Drain().ok());
  return seconds;
}

Cost Measure(Store& store, std::vector<std::vector<Write>> messages, bool one_at_a_time) {
  const auto count = static_cast<double>(messages.size());
  const double writer_begin = WriterSeconds(store);
  const auto begin = std::chrono::steady_clock::now();
  for (std::vector<Write>& message : messages) {
    std::promise<void> durable;
    store.Submit(std::move(message), [&](const Status& status) {
      EXPECT_TRUE(status.ok());
      if (one_at_a_time) durable.set_value();
    });
    if (one_at_a_time) durable.get_future().wait();
  }
  EXPECT_TRUE(store.Drain().ok());
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  return {1e3 * wall.count() / count, 1e3 * (WriterSeconds(store) - writer_begin) / count};
}

TEST(StoreSpeed, DurableMessagesWith24Objects) {
  for (const auto& [name, durability] :
       {std::pair{"process", Durability::kProcess}, std::pair{"power", Durability::kPower}}) {
    TempDir directory;
    StoreOptions options;
    options.directory = directory.path();
    options.durability = durability;
    auto opened = Store::Open(std::move(options));
    ASSERT_TRUE(opened.ok()) << opened.error().ToString();
    Store& store = **opened;
    ASSERT_TRUE(SubmitAndWait(store, BeginRun(1)).ok());
    std::vector<std::vector<Write>> first;
    std::vector<std::vector<Write>> second;
    std::vector<std::vector<Write>> objects;
    for (uint64_t i = 1; i <= kMessages; ++i) {
      first.push_back(MessageWithObjects(i));
      second.push_back(MessageWithObjects(kMessages + i));
      objects.push_back({Object(1'000'000 + i)});
    }
    const Cost alone = Measure(store, std::move(first), true);
    const Cost grouped = Measure(store, std::move(second), false);
    const Cost object = Measure(store, std::move(objects), true);
    std::printf(
        "durability %-7s: message + %d objects of %zu bytes: one at a time %.0f/s (%.3f ms, "
        "writer %.3f ms of CPU); many waiting %.0f/s (%.3f ms, writer %.3f ms of CPU); "
        "one object: %.3f ms (writer %.3f ms of CPU)\n",
        name, static_cast<int>(kObjects), kObjectBytes, 1e3 / alone.wall_ms, alone.wall_ms,
        alone.writer_ms, 1e3 / grouped.wall_ms, grouped.wall_ms, grouped.writer_ms, object.wall_ms,
        object.writer_ms);
  }
}

}  // namespace
}  // namespace umbel::store
