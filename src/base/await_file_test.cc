#include "base/await_file.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <filesystem>
#include <fstream>
#include <future>

#include "base/file.h"
#include "base/testing.h"

namespace umbel {
namespace {

TEST(AwaitFile, ReturnsWhenItIsThereHoweverItCame) {
  const testing::TempDir folder;
  const std::string path = folder.path() + "/a/b/c";
  auto waiting = std::async(std::launch::async, [&] { return AwaitFile(path, -1); });
  std::filesystem::create_directory(folder.path() + "/a");
  std::filesystem::create_directory(folder.path() + "/other");
  std::filesystem::create_directory(folder.path() + "/other/b");
  std::filesystem::rename(folder.path() + "/other/b", folder.path() + "/a/b");
  std::ofstream(folder.path() + "/a/b/d") << "another";
  EXPECT_NE(waiting.wait_for(std::chrono::milliseconds(50)), std::future_status::ready);
  std::ofstream(path) << "x";
  const auto there = waiting.get();
  ASSERT_TRUE(there.ok());
  EXPECT_TRUE(*there);
  EXPECT_TRUE(AwaitFile(path, -1).value());
}

TEST(AwaitFile, CanBeStopped) {
  const testing::TempDir folder;
  const Fd stop(::eventfd(0, EFD_CLOEXEC));
  auto waiting = std::async(std::launch::async,
                            [&] { return AwaitFile(folder.path() + "/never", stop.get()); });
  // A folder that goes away is not the end of it.
  std::filesystem::create_directory(folder.path() + "/x");
  std::filesystem::remove(folder.path() + "/x");
  const uint64_t one = 1;
  ASSERT_EQ(::write(stop.get(), &one, sizeof one), ssize_t{sizeof one});
  const auto there = waiting.get();
  ASSERT_TRUE(there.ok());
  EXPECT_FALSE(*there);
}

}  // namespace
}  // namespace umbel
