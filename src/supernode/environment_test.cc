#include "supernode/environment.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/testing.h"

namespace umbel::supernode {
namespace {

/// Sets variables, and puts back what was there.
class Variables {
 public:
  void Set(const std::string& name, const std::string& value) {
    const char* before = std::getenv(name.c_str());
    former_.emplace_back(name, before ? std::optional<std::string>(before) : std::nullopt);
    ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (auto it = former_.rbegin(); it != former_.rend(); ++it)
      it->second ? ::setenv(it->first.c_str(), it->second->c_str(), 1)
                 : ::unsetenv(it->first.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> former_;
};

TEST(ClientAppEnvironment, HasWhatNumericLibrariesNeedAndNoneOfOurSecrets) {
  Variables variables;
  for (const char* name : {"OMP_NUM_THREADS", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "LC_ALL", "TZ"})
    variables.Set(name, "x=y");
  for (const char* name : {"UMBEL_HOME", "UMBEL_TOKEN", "AWS_SECRET_ACCESS_KEY", "FLWR_AUTH_TOKEN",
                           "TORCH_PASSWORD", "TF_CREDENTIALS", "XOMP_NUM", "LD_PRELOAD"})
    variables.Set(name, "secret");
  variables.Set("FLWR_TELEMETRY_ENABLED", "1");
  variables.Set("FLWR_DISABLE_UPDATE_CHECK", "0");
  const std::vector<std::string> all = ClientAppEnvironment();
  for (const char* entry :
       {"OMP_NUM_THREADS=x=y", "PYTHONPATH=x=y", "CUDA_VISIBLE_DEVICES=x=y", "LC_ALL=x=y", "TZ=x=y",
        "FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"})
    EXPECT_EQ(std::count(all.begin(), all.end(), entry), 1) << entry;
  for (const std::string& entry : all) EXPECT_EQ(entry.find("secret"), std::string::npos) << entry;
  EXPECT_EQ(std::count(all.begin(), all.end(), "FLWR_TELEMETRY_ENABLED=1"), 0);
}

TEST(FindProgram, IsAFileThatMayBeRun) {
  const umbel::testing::TempDir directory;
  const std::string first = directory.path() + "/first", second = directory.path() + "/second";
  std::filesystem::create_directories(first + "/tool");  // a folder is no program
  std::filesystem::create_directory(second);
  std::ofstream(second + "/tool") << "#!/bin/sh\n";
  std::ofstream(second + "/text") << "text";
  ::chmod((second + "/tool").c_str(), 0700);
  Variables variables;
  variables.Set("PATH", ":" + first + "::" + second + ":");
  EXPECT_EQ(FindProgram("tool").value(), second + "/tool");
  EXPECT_EQ(FindProgram(second + "/tool").value(), second + "/tool");
  for (const std::string& name : {std::string("text"), second + "/text", first + "/tool",
                                  std::string("none"), directory.path() + "/none"}) {
    const auto found = FindProgram(name);
    ASSERT_FALSE(found.ok()) << name;
    EXPECT_EQ(found.error().code, Code::kNotFound);
    EXPECT_NE(found.error().message.find(name), std::string::npos) << found.error().message;
  }
}

}  // namespace
}  // namespace umbel::supernode
