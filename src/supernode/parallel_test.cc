// Slots and ForEach: what runs side by side in a node.
#include "supernode/parallel.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <optional>
#include <set>

#include "http/tasks.h"
#include "supernode/slots.h"

namespace umbel::supernode {
namespace {

namespace asio = boost::asio;

/// Runs to where nothing can go on.
void RunOut(asio::io_context& io) {
  io.restart();
  io.poll();
}

struct Jobs {
  explicit Jobs(asio::io_context& io) : go(io.get_executor()) {}

  Task<Status> Work(size_t i) {
    begun.push_back(i);
    most = std::max(most, ++live);
    while (!released.contains(i)) co_await go.Wait();
    --live;
    if (failing == i) co_return Fail(Code::kAborted, "this one");
    co_return Status{};
  }
  void Release(asio::io_context& io, size_t i) {
    released.insert(i);
    go.Ring();
    RunOut(io);
  }

  Bell go;
  std::vector<size_t> begun;
  std::set<size_t> released;
  std::optional<size_t> failing;
  size_t live = 0, most = 0;
};

std::shared_ptr<std::optional<Status>> Begin(asio::io_context& io, Jobs& jobs, size_t count,
                                             size_t width) {
  auto end = std::make_shared<std::optional<Status>>();
  auto work = [&jobs](size_t i) -> Task<Status> { return jobs.Work(i); };
  asio::co_spawn(io, ForEach(count, width, std::move(work)),
                 [end](std::exception_ptr, Status status) { *end = std::move(status); });
  RunOut(io);
  return end;
}

TEST(ForEach, KeepsItsWidthAndItsOrder) {
  asio::io_context io;
  Jobs jobs(io);
  const auto end = Begin(io, jobs, 5, 2);
  EXPECT_EQ(jobs.begun, (std::vector<size_t>{0, 1}));
  jobs.Release(io, 1);
  EXPECT_EQ(jobs.begun, (std::vector<size_t>{0, 1, 2}));
  for (const size_t i : {2u, 3u, 4u}) jobs.Release(io, i);
  EXPECT_FALSE(*end);
  jobs.Release(io, 0);
  ASSERT_TRUE(*end);
  EXPECT_TRUE((*end)->ok());
  EXPECT_EQ(jobs.most, 2u);
}

TEST(ForEach, AnErrorLetsNothingMoreBeginAndIsReturnedLast) {
  asio::io_context io;
  Jobs jobs(io);
  jobs.failing = 1;
  const auto end = Begin(io, jobs, 100, 3);
  jobs.Release(io, 1);
  EXPECT_EQ(jobs.begun.size(), 3u);
  EXPECT_FALSE(*end);
  jobs.Release(io, 0);
  jobs.Release(io, 2);
  ASSERT_TRUE(*end);
  ASSERT_FALSE((*end)->ok());
  EXPECT_EQ((*end)->error().message, "this one");
  EXPECT_EQ(jobs.begun.size(), 3u);
}

TEST(ForEach, OfNothingIsDone) {
  asio::io_context io;
  Jobs jobs(io);
  const auto end = Begin(io, jobs, 0, 3);
  ASSERT_TRUE(*end);
  EXPECT_TRUE((*end)->ok());
}

TEST(ForEach, MayBeLeftInTheMiddle) {
  auto io = std::make_unique<asio::io_context>();
  auto jobs = std::make_unique<Jobs>(*io);
  Begin(*io, *jobs, 5, 2);
  jobs.reset();
  io.reset();  // the frames go with it
}

TEST(Slots, AreGivenInTheOrderTheyWereAskedFor) {
  asio::io_context io;
  Slots slots(io.get_executor(), 2);
  std::vector<int> got;
  const auto take = [&](int who) -> Task<void> {
    co_await slots.Take();
    got.push_back(who);
  };
  for (int who = 0; who < 5; ++who) asio::co_spawn(io, take(who), asio::detached);
  RunOut(io);
  EXPECT_EQ(got, (std::vector{0, 1}));
  EXPECT_EQ(slots.waiting(), 3u);
  slots.Give();
  slots.Give();
  // One that comes now does not get ahead.
  asio::co_spawn(io, take(5), asio::detached);
  RunOut(io);
  EXPECT_EQ(got, (std::vector{0, 1, 2, 3}));
  for (int i = 0; i < 4; ++i) slots.Give();
  RunOut(io);
  EXPECT_EQ(got, (std::vector{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(slots.waiting(), 0u);
  asio::co_spawn(io, take(6), asio::detached);
  asio::co_spawn(io, take(7), asio::detached);
  asio::co_spawn(io, take(8), asio::detached);
  RunOut(io);
  EXPECT_EQ(got.size(), 8u);  // two were free, not more
}

}  // namespace
}  // namespace umbel::supernode
