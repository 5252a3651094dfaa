// Every corpus file through its target, in the ordinary build and its sanitizers.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "targets.h"

namespace umbel::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = fs::path(UMBEL_SOURCE_DIR) / "fuzz" / "corpus";

std::string Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

class FuzzCorpus : public testing::TestWithParam<Target> {};

TEST_P(FuzzCorpus, EveryFileRuns) {
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(kCorpus / GetParam().name)) {
    SCOPED_TRACE(entry.path().string());
    GetParam().run(Read(entry.path()));
    ++files;
  }
  EXPECT_GT(files, 0U);
  GetParam().run("");
}

INSTANTIATE_TEST_SUITE_P(All, FuzzCorpus, testing::ValuesIn(Targets().begin(), Targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

TEST(FuzzCorpusFolder, HasNothingWithoutATarget) {
  std::set<std::string> names;
  for (const Target& target : Targets()) names.emplace(target.name);
  for (const auto& entry : fs::directory_iterator(kCorpus))
    EXPECT_TRUE(names.contains(entry.path().filename())) << entry.path();
}

}  // namespace
}  // namespace umbel::fuzz
