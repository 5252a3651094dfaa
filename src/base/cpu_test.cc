#include "base/cpu.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace umbel {
namespace {

constexpr CpuFeatures kAll{.avx2 = true, .avx512 = true, .sha_ni = true};

TEST(Cpu, AChoiceLeavesWhatItNames) {
  EXPECT_EQ(*ChooseCpu("", kAll), kAll);
  EXPECT_EQ(*ChooseCpu("generic", kAll), CpuFeatures{});
  EXPECT_EQ(*ChooseCpu("avx2", kAll), (CpuFeatures{.avx2 = true}));
  EXPECT_EQ(*ChooseCpu("avx512", kAll), (CpuFeatures{.avx2 = true, .avx512 = true}));
  EXPECT_EQ(*ChooseCpu("sha_ni", kAll), kAll);
  const CpuFeatures small{.sha_ni = true};
  EXPECT_EQ(*ChooseCpu("", small), small);
  EXPECT_EQ(*ChooseCpu("sha_ni", small), small);
}

TEST(Cpu, RefusesWhatTheCpuDoesNotExecute) {
  const CpuFeatures without[] = {{.avx512 = true, .sha_ni = true},
                                 {.avx2 = true, .sha_ni = true},
                                 {.avx2 = true, .avx512 = true}};
  const char* const choices[] = {"avx2", "avx512", "sha_ni"};
  for (size_t i = 0; i < 3; ++i) {
    const auto chosen = ChooseCpu(choices[i], without[i]);
    ASSERT_FALSE(chosen.ok()) << choices[i];
    EXPECT_EQ(chosen.error().code, Code::kInvalidArgument);
    EXPECT_NE(chosen.error().message.find(std::string("UMBEL_CPU=") + choices[i]),
              std::string::npos)
        << chosen.error().message;
  }
  EXPECT_TRUE(ChooseCpu("generic", {}).ok());
}

TEST(Cpu, RefusesOtherWords) {
  for (const char* word : {"AVX2", "avx512vl", "sha-ni", " ", "generic "}) {
    const auto chosen = ChooseCpu(word, kAll);
    ASSERT_FALSE(chosen.ok()) << word;
    EXPECT_NE(chosen.error().message.find("generic, avx2, avx512, sha_ni"), std::string::npos);
  }
}

TEST(Cpu, NamesItsFeatures) {
  EXPECT_EQ(CpuName({}), "generic");
  EXPECT_EQ(CpuName(kAll), "avx2 avx512 sha_ni");
}

/// The kernel's own list is the second opinion.
TEST(Cpu, SeesWhatLinuxSees) {
  std::ifstream file("/proc/cpuinfo");
  std::string flags;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("flags")) {
      flags = line + " ";
      break;
    }
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo has no flags";
  const auto has = [&](const std::string& flag) {
    return flags.find(" " + flag + " ") != std::string::npos;
  };
  const CpuFeatures present = PresentCpu();
  EXPECT_EQ(present.avx2, has("avx2"));
  EXPECT_EQ(present.avx512,
            has("avx2") && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl"));
  EXPECT_EQ(present.sha_ni, has("sha_ni") && has("sse4_1"));
}

TEST(CpuDeathTest, ABadVariableEndsTheProgramAtItsStart) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // executes anew: the choice is made only once
  EXPECT_EXIT(
      {
        setenv("UMBEL_CPU", "sse9", 1);
        std::_Exit(CheckCpuPath().ok() ? 0 : 3);
      },
      testing::ExitedWithCode(3), "");
  EXPECT_EXIT(
      {
        setenv("UMBEL_CPU", "sse9", 1);
        CpuPath();
      },
      testing::ExitedWithCode(2), "UMBEL_CPU=sse9 is not one of");
}

}  // namespace
}  // namespace umbel
