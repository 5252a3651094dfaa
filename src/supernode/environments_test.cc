// With a shell script in place of the interpreter, which says what it was asked and does what a
// test wants of uv.
#include "supernode/environments.h"
#include "base/utf8.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/thread_pool.hpp>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/testing.h"
#include "process/cgroup.h"
#include "process/confine_testing.h"
#include "supernode/fleet_testing.h"
#include "tensor/sha256.h"

namespace umbel::supernode {
namespace {

using namespace testing;
namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr RunId kFirst{1};
constexpr RunId kSecond{2};

/// DIR is the test's folder. `plan` is what uv does.
constexpr char kPython[] = R"(#!/bin/sh
if [ "$1" = -VV ]; then exec cat DIR/version; fi
env > DIR/variables
echo "$@" >> DIR/calls
while [ "$1" != --directory ]; do shift; done
app="$2"
echo locked >> "$app/uv.lock" || exit 9
. DIR/plan
)";
constexpr char kMakes[] = R"(mkdir -p "$UV_PROJECT_ENVIRONMENT/lib" && cat "$app/module.py")";

class EnvironmentsTest : public ::testing::Test {
 protected:
  EnvironmentsTest() {
    Write("version", "Python 3.11.2 (main)\n");
    Write("plan", kMakes);
    std::string python = kPython;
    for (size_t at = 0; (at = python.find("DIR", at)) != python.npos;)
      python.replace(at, 3, directory_.path());
    Write("python", python);
    ::chmod(Path("python").c_str(), 0755);
    options_.root = Path("environments");
    options_.python = Path("python");
    options_.variables = {"PATH=/usr/bin:/bin", "UV_OFFLINE=1", "VIRTUAL_ENV=/other"};
    app_ = MakeApp("app", R"(dependencies = ["numpy"])");
  }
  ~EnvironmentsTest() override {
    Close();
    pool_.join();
    thread_.Stop();
  }

  void Open() {
    Close();
    environments_ = thread_.On(
        [&] { return Environments::Open(thread_.io(), pool_, options_, groups_.get()).value(); });
  }
  void Close() {
    if (!environments_) return;
    Spawn(environments_->Stop(milliseconds(0))).get();
    // Nothing is left, not even unreaped.
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    thread_.On([&] {
      environments_.reset();
      return true;
    });
  }
  App MakeApp(const std::string& name, const std::string& project) {
    App app;
    app.fab_id = "umbel/" + name;
    app.version = "1.0.0";
    app.directory = Path(name);
    app.hash = tensor::Sha256Of(app.directory);
    fs::create_directory(app.directory);
    Write(name + "/pyproject.toml", "[project]\n" + project + "\n");
    Write(name + "/module.py", "print('hello')\n");
    return app;
  }
  template <typename T>
  std::future<T> Spawn(Task<T> task) {
    return thread_.Spawn(std::move(task));
  }
  std::future<Result<std::string>> Begin(const App& app, RunId run_id) {
    return Spawn(environments_->Of(app, run_id));
  }
  Result<std::string> Of(const App& app, RunId run_id = kFirst) { return Get(Begin(app, run_id)); }

  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name)) << text;
  }
  std::vector<std::string> Lines(const std::string& name) const {
    std::vector<std::string> lines;
    std::ifstream file(Path(name));
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
  bool Saw(const std::string& variable) const {
    const auto lines = Lines("variables");
    return std::count(lines.begin(), lines.end(), variable) == 1;
  }
  std::vector<std::string> Kept() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(options_.root))
      names.push_back(entry.path().filename().native());
    return names;
  }
  void AwaitCalls(size_t count) const {
    const auto until = std::chrono::steady_clock::now() + kFleetPatience;
    while (Lines("calls").size() < count && std::chrono::steady_clock::now() < until)
      std::this_thread::yield();
  }

  umbel::testing::TempDir directory_;
  EnvironmentOptions options_;
  std::unique_ptr<process::CgroupParent> groups_;  // null: none
  boost::asio::thread_pool pool_{2};
  std::unique_ptr<Environments> environments_;
  App app_;
  IoThread thread_;
};

TEST(NeedsEnvironment, WhatIsNotFlower) {
  for (const char* none :
       {"", "[project]", "[project]\ndependencies = []", "[project]\ndependencies = ['flwr']",
        "[project]\ndependencies = [' Flwr[simulation] >= 1.41', 'flwr==1.41.0', 'flwr;x', "
        "'flwr@y']",
        "[tool.flwr.app]\nx = 1", "[project]\ndynamic = ['version']"})
    EXPECT_EQ(NeedsEnvironment(none).value(), false) << none;
  for (const char* some :
       {"[project]\ndependencies = ['flwr', 'numpy']",
        "[project]\ndependencies = ['flwr-datasets']", "[project]\ndependencies = ['flwrx>1']",
        "[project]\ndynamic = ['dependencies']", "[dependency-groups]\ndev = ['pytest']",
        "[tool.uv]\ndev-dependencies = ['pytest']"})
    EXPECT_EQ(NeedsEnvironment(some).value(), true) << some;
  EXPECT_EQ(NeedsEnvironment("[").error().code, Code::kInvalidArgument);
}

TEST_F(EnvironmentsTest, AnAppThatNeedsNothingPaysNothing) {
  Open();
  EXPECT_EQ(Of(MakeApp("plain", R"(dependencies = ["flwr>=1.41"])")).value(), "");
  App bare = app_;
  bare.directory = Path("none");
  EXPECT_EQ(Of(bare).value(), "");
  EXPECT_TRUE(Lines("calls").empty());
  EXPECT_TRUE(Kept().empty());
}

TEST_F(EnvironmentsTest, IsMadeOnceForAllRunsAndStays) {
  Write("plan", "until [ -e " + Path("gate") + " ]; do sleep 0.01; done\n" + kMakes);
  Open();
  std::vector<std::future<Result<std::string>>> asked;
  for (const RunId run_id : {kFirst, kFirst, kSecond}) asked.push_back(Begin(app_, run_id));
  App same = MakeApp("same", R"(dependencies = ["numpy"])");  // of another FAB
  asked.push_back(Begin(same, kSecond));
  AwaitCalls(1);
  Write("gate", "");
  std::set<std::string> folders;
  for (auto& one : asked) folders.insert(Get(std::move(one)).value());
  ASSERT_EQ(folders.size(), 1u);
  const std::string folder = *folders.begin();
  EXPECT_TRUE(folder.starts_with(options_.root + "/") && folder.ends_with("/venv")) << folder;
  EXPECT_TRUE(fs::is_directory(folder + "/lib"));
  ASSERT_EQ(Lines("calls").size(), 1u);
  EXPECT_EQ(Lines("calls")[0],
            fmt::format("-m uv sync --directory {} --python {} --no-install-project "
                        "--no-install-package flwr --inexact",
                        fs::path(folder).parent_path().native() + "/app", options_.python));
  EXPECT_TRUE(Saw("UV_PROJECT_ENVIRONMENT=" + folder));
  EXPECT_TRUE(Saw("UV_OFFLINE=1"));
  EXPECT_TRUE(Saw("VIRTUAL_ENV=" + folder));
  // The app is as it was, and the copy that uv worked in is gone.
  EXPECT_FALSE(fs::exists(app_.directory + "/uv.lock"));
  EXPECT_FALSE(fs::exists(fs::path(folder).parent_path() / "app"));

  Open();  // as another process does
  EXPECT_EQ(Of(app_).value(), folder);
  EXPECT_EQ(Lines("calls").size(), 1u);

  // Another lock, other files where they count, another interpreter: another environment.
  Write("app/uv.lock", "version = 1\n");
  EXPECT_NE(Of(app_).value(), folder);
  const App open = MakeApp("open", "dependencies = ['x']\n[tool.uv.sources]\nx = {path = 'x'}");
  App other = open;
  other.hash = tensor::Sha256Of("other");
  EXPECT_NE(Of(open).value(), Of(other).value());
  Write("version", "Python 3.11.3 (main)\n");
  Open();
  EXPECT_NE(Of(same).value(), folder);
  EXPECT_EQ(Lines("calls").size(), 5u);
}

TEST_F(EnvironmentsTest, AFailureIsToldAtOnceToItsRunAndTriedAgainForAnother) {
  std::string long_line;
  for (int i = 0; i < 2000; ++i) long_line += "\xc3\xa9";
  Write("plan",
        "echo first; echo '" + long_line + "'; printf 'no \\377 such-package\\n\\n'; exit 3");
  Open();
  auto together = Begin(app_, kSecond);
  const auto failed = Of(app_);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, Code::kFailedPrecondition);
  const std::string& reason = failed.error().message;
  EXPECT_TRUE(
      reason.starts_with("The app's dependencies could not be installed: uv sync exited "
                         "with status 3. Its last words: \xc3\xa9"))
      << reason;
  EXPECT_TRUE(reason.ends_with("\xc3\xa9\nno ? such-package")) << reason;
  EXPECT_LT(reason.size(), 1400u);
  EXPECT_TRUE(IsUtf8(reason));
  EXPECT_EQ(Get(std::move(together)).error().message, reason);
  EXPECT_TRUE(Kept().empty());

  EXPECT_EQ(Of(app_).error().message, reason);
  EXPECT_EQ(Of(app_, kSecond).error().message, reason);
  EXPECT_EQ(Lines("calls").size(), 1u);

  const RunId third{3};
  EXPECT_EQ(Of(app_, third).error().message, reason);
  EXPECT_EQ(Lines("calls").size(), 2u);
  Write("plan", kMakes);
  EXPECT_EQ(Of(app_, third).error().message, reason);
  EXPECT_TRUE(Of(app_, RunId{4}).ok());
  EXPECT_TRUE(Of(app_, third).ok());
  EXPECT_EQ(Lines("calls").size(), 3u);
}

TEST_F(EnvironmentsTest, ARunThatIsOverIsForgotten) {
  Write("plan", "exit 1");
  Open();
  EXPECT_FALSE(Of(app_).ok());
  thread_.On([&] {
    environments_->Drop(kFirst);
    return true;
  });
  EXPECT_FALSE(Of(app_).ok());
  EXPECT_EQ(Lines("calls").size(), 2u);
}

TEST_F(EnvironmentsTest, WhatIsMissingIsNamed) {
  Write("plan", "echo $0: No module named uv; exit 1");
  Open();
  const std::string reason = Of(app_).error().message;
  EXPECT_NE(reason.find(fmt::format("the Python '{}' has no uv", options_.python)), reason.npos)
      << reason;

  Write("plan", "rmdir \"$UV_PROJECT_ENVIRONMENT\"");
  EXPECT_NE(Of(app_, kSecond).error().message.find("uv has made no environment"), reason.npos);

  options_.python = Path("nothing");
  Open();
  const std::string without = Of(app_).error().message;
  EXPECT_NE(without.find(options_.python), reason.npos) << without;
  EXPECT_NE(without.find("could not be started"), reason.npos) << without;
}

TEST_F(EnvironmentsTest, ABuildHasItsTimeAndEndsWithTheNode) {
  Write("plan", "echo hanging; trap '' TERM; while :; do sleep 0.05; done");
  options_.build_limit = seconds(1);
  Open();
  const auto late = Of(app_);
  ASSERT_FALSE(late.ok());
  EXPECT_NE(late.error().message.find("uv sync was not done after 1 s. Its last words: hanging"),
            std::string::npos)
      << late.error().message;

  options_.build_limit = seconds(1000);
  Open();
  auto first = Begin(app_, kFirst), second = Begin(app_, kSecond);
  AwaitCalls(2);
  Get(Spawn(environments_->Stop(milliseconds(0))));
  EXPECT_EQ(Get(std::move(first)).error().code, Code::kCancelled);
  EXPECT_EQ(Get(std::move(second)).error().code, Code::kCancelled);
  EXPECT_EQ(Of(app_).error().code, Code::kCancelled);
  EXPECT_FALSE(Kept().empty());  // the next start's to clear away

  Write("plan", kMakes);
  Open();
  EXPECT_TRUE(Kept().empty());
  EXPECT_TRUE(Of(app_).ok());
}

TEST_F(EnvironmentsTest, TheOnesUsedLastStay) {
  Open();
  std::vector<std::string> folders;
  for (size_t i = 0; i < Environments::kKept + 2; ++i) {
    const App app = MakeApp(fmt::format("app{}", i), fmt::format("dependencies = ['x{}']", i));
    folders.push_back(fs::path(Of(app).value()).parent_path());
    const auto then = fs::file_time_type::clock::now() - std::chrono::hours(100 - i);
    fs::last_write_time(folders.back() + ".complete", then);
  }
  EXPECT_TRUE(Of(App{.fab_id = "umbel/app1",
                     .version = "",
                     .hash = {},
                     .content = "",
                     .directory = Path("app1"),
                     .clientapp = ""})
                  .ok());  // used again
  EXPECT_EQ(Kept().size(), 2 * (Environments::kKept + 2));
  fs::remove(folders[5] + ".complete");  // as if it had not been finished
  fs::remove_all(folders[6]);
  Open();
  for (size_t i = 0; i < folders.size(); ++i) {
    const bool stays = i != 5 && i != 6;
    EXPECT_EQ(fs::exists(folders[i]), stays) << i;
    EXPECT_EQ(fs::exists(folders[i] + ".complete"), stays) << i;
  }
  const App one = MakeApp("one-more", "dependencies = ['y']");
  EXPECT_TRUE(Of(one).ok());
  Open();
  EXPECT_FALSE(fs::exists(folders[0]));
  EXPECT_TRUE(fs::exists(folders[1]));
  EXPECT_EQ(Kept().size(), 2 * Environments::kKept);
}

TEST_F(EnvironmentsTest, WithoutANetworkForAppsNothingIsBuilt) {
  options_.limits.network = false;
  Open();
  EXPECT_TRUE(Of(app_).ok());
  EXPECT_TRUE(Lines("calls").at(0).ends_with(" --no-build"));
}

TEST_F(EnvironmentsTest, IsMadeByTheUserOfUserCodeWithinItsLimits) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root";
  constexpr uint32_t kUser = 54321;
  ::chmod(directory_.path().c_str(), 0711);
  for (const char* name : {"calls", "variables"}) {
    Write(name, "");
    ASSERT_EQ(::chown(Path(name).c_str(), kUser, kUser), 0);
  }
  options_.limits.uid = kUser;
  options_.limits.open_files = 100;
  options_.variables.emplace_back("HOME=/root");
  Write("plan", std::string("ulimit -n > \"$HOME/limit\"; touch ") + options_.root +
                    "/x 2> /dev/null && exit 7\n" + kMakes);
  groups_ = process::CgroupParent::Open();
  if (!groups_->memory() || !groups_->processes() || !groups_->kill()) groups_.reset();
  Open();
  const auto folder = Of(app_);
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  struct stat found {};
  ASSERT_EQ(::stat((*folder + "/lib").c_str(), &found), 0);
  EXPECT_EQ(found.st_uid, kUser);
  ASSERT_EQ(::stat((fs::path(*folder).parent_path().native() + ".complete").c_str(), &found), 0);
  EXPECT_EQ(found.st_uid, 0u);
  EXPECT_TRUE(Saw("HOME=" + options_.root + "/home"));
  EXPECT_TRUE(Saw("UV_CACHE_DIR=" + options_.root + "/home/cache"));
  EXPECT_EQ(Lines("environments/home/limit"), std::vector<std::string>{"100"});
  Open();
  EXPECT_EQ(Of(app_).value(), *folder);
}

}  // namespace
}  // namespace umbel::supernode
