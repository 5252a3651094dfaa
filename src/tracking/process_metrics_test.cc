#include "tracking/process_metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <map>

namespace umbel::tracking {
namespace {

constexpr WallTime kNow{std::chrono::seconds(1'800'000'000)};

std::map<std::string, double> ByKey(const std::vector<Metric>& metrics) {
  std::map<std::string, double> values;
  for (const Metric& metric : metrics) {
    EXPECT_EQ(metric.at, kNow);
    EXPECT_EQ(metric.step, 7);
    values[metric.key] = metric.value;
  }
  return values;
}

/// A child that touches `bytes`, has a child of its own burn CPU, says so, and stays.
class Burner {
 public:
  explicit Burner(size_t bytes) {
    int ready[2];
    UMBEL_CHECK(::pipe(ready) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setpgid(0, 0);
      std::vector<char> memory(bytes);
      std::memset(memory.data(), 1, memory.size());
      if (::fork() == 0)
        for (volatile uint64_t n = 0;;) n = n + 1;
      static_cast<void>(!::write(ready[1], "r", 1));
      for (;;) ::pause();
    }
    ::setpgid(pid_, pid_);
    char word = 0;
    UMBEL_CHECK(::read(ready[0], &word, 1) == 1);
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Burner() {
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST(ProcessMetrics, TheTreesCpuAndMemory) {
  const Burner burner(size_t{80} << 20);
  ProcessMetrics metrics({burner.pid()}, "/");
  std::map<std::string, double> values;
  // The grandchild runs as soon as it is let; a sample without any of its time says 0.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  do values = ByKey(metrics.Sample(kNow, 7));
  while (values.at("system/cpu_utilization_percentage") == 0 &&
         std::chrono::steady_clock::now() < until);
  EXPECT_GT(values.at("system/cpu_utilization_percentage"), 0);
  EXPECT_LE(values.at("system/cpu_utilization_percentage"), 100);
  EXPECT_GT(values.at("system/system_memory_usage_megabytes"), 80 * 1.048);
  EXPECT_LT(values.at("system/system_memory_usage_megabytes"), 2000);
  EXPECT_GT(values.at("system/system_memory_usage_percentage"), 0);
  EXPECT_LT(values.at("system/system_memory_usage_percentage"), 100);
  EXPECT_GT(values.at("system/disk_usage_megabytes"), 0);
  EXPECT_GT(values.at("system/disk_available_megabytes"), 0);
  EXPECT_LE(values.at("system/disk_usage_percentage"), 100);
  EXPECT_EQ(values.size(), 6U);
}

TEST(ProcessMetrics, WhatIsGoneIsLeftOut) {
  pid_t gone = 0;
  {
    const Burner burner(1);
    gone = burner.pid();
  }
  ProcessMetrics metrics({gone}, "/no/such/folder");
  EXPECT_TRUE(metrics.Sample(kNow, 7).empty());
}

TEST(ProcessMetrics, AProcessesLine) {
  const std::string line =
      "42 (a) b (c)) R 1 42 42 0 -1 4194304 100 200 0 0 11 22 33 44 20 0 1 0 555 1000000 77 "
      "18446744073709551615 1 1 0\n";
  const auto use = ReadProcessUse(line);
  ASSERT_TRUE(use.has_value());
  EXPECT_EQ(use->ticks, 110U);
  EXPECT_EQ(use->pages, 77U);
  for (size_t size = 0; size < line.find(" 77 "); ++size)
    EXPECT_FALSE(ReadProcessUse(line.substr(0, size)).has_value()) << size;
  EXPECT_FALSE(
      ReadProcessUse("42 (a) R 1 42 42 0 -1 0 0 0 0 0 x 0 0 0 20 0 1 0 5 1 7").has_value());
}

}  // namespace
}  // namespace umbel::tracking
