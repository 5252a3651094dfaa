#include "manager/jobs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace umbel::manager {
namespace {

class Bell {
 public:
  void Ring() {
    const std::lock_guard lock(mutex_);
    ++rung_;
    changed_.notify_all();
  }
  void Await(int times) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return rung_ >= times; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int rung_ = 0;
};

TEST(Jobs, AreBegunOnceAndGiveTheirResultOnce) {
  Bell bell;
  std::atomic<int> begun{0};
  Jobs jobs([&] { bell.Ring(); });
  const std::function<Result<int>(std::stop_token)> work = [&](std::stop_token) -> Result<int> {
    return ++begun;
  };
  EXPECT_FALSE(jobs.Run<int>("a", work));
  bell.Await(1);
  const auto first = jobs.Run<int>("a", work);
  ASSERT_TRUE(first && first->ok());
  EXPECT_EQ(**first, 1);
  EXPECT_FALSE(jobs.Has("a"));
  EXPECT_FALSE(jobs.Run<int>("a", work));
  bell.Await(2);
  EXPECT_EQ(**jobs.Run<int>("a", work), 2);
}

TEST(Jobs, FailuresAreResults) {
  Bell bell;
  Jobs jobs([&] { bell.Ring(); });
  const std::function<Result<int>(std::stop_token)> work = [](std::stop_token) -> Result<int> {
    return Fail(Code::kNotFound, "no");
  };
  EXPECT_FALSE(jobs.Run<int>("a", work));
  bell.Await(1);
  EXPECT_EQ(jobs.Run<int>("a", work)->error().message, "no");
}

TEST(Jobs, CancelledOnesAreAskedToEndAndForgotten) {
  Bell bell;
  Jobs jobs([&] { bell.Ring(); });
  std::atomic<int> ended{0};
  const std::function<Result<int>(std::stop_token)> work =
      [&](const std::stop_token& stop) -> Result<int> {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait(lock, stop, [] { return false; });
    ++ended;
    return 1;
  };
  for (const char* name : {"project/1/a", "project/1/b", "project/2/a"})
    EXPECT_FALSE(jobs.Run<int>(name, work));
  jobs.Cancel("project/1/");
  bell.Await(2);
  EXPECT_EQ(ended, 2);
  EXPECT_FALSE(jobs.Has("project/1/a"));
  EXPECT_TRUE(jobs.Has("project/2/a"));
  jobs.Stop();
  EXPECT_EQ(ended, 3);
}

TEST(Jobs, CanBeDoneAtOnce) {
  Jobs jobs([] {}, true);
  const std::function<Result<int>(std::stop_token)> work = [](std::stop_token) -> Result<int> {
    return 7;
  };
  EXPECT_EQ(**jobs.Run<int>("a", work), 7);
}

}  // namespace
}  // namespace umbel::manager
