#include "flower/fab_install.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "base/testing.h"
#include "flower/testing.h"

namespace umbel::flower {
namespace {

namespace fs = std::filesystem;
using testing::Entry;
using testing::GoodEntries;
using testing::MakeZip;

class FabInstall : public ::testing::Test {
 protected:
  FabInstall() : root_(dir_.path() + "/apps"), zip_(MakeZip(Entries())) {}

  static std::vector<Entry> Entries() {
    auto entries = GoodEntries();
    entries.push_back({"toy/data/", "", 040755});
    entries.push_back({"toy/data/large.bin", std::string(100'000, 'x')});
    return entries;
  }
  Result<std::string> Install(const std::string& zip) {
    return InstallFab(zip, ReadFab(zip).value(), {.root = root_, .readable_by = {}});
  }
  static mode_t Mode(const std::string& path) {
    struct stat found {};
    EXPECT_EQ(::lstat(path.c_str(), &found), 0) << path;
    return found.st_mode & 07777;
  }
  size_t Count() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(root_), {}));
  }

  umbel::testing::TempDir dir_;
  std::string root_;
  std::string zip_;
};

TEST_F(FabInstall, UnpacksWhatTheArchiveHolds) {
  const std::string folder = Install(zip_).value();
  const FabInfo fab = ReadFab(zip_).value();
  EXPECT_EQ(folder, root_ + "/umbel.toy.1.0.0." + fab.hash.Hex().substr(0, 8));
  for (const Entry& entry : Entries()) {
    if (entry.name.ends_with('/')) continue;
    EXPECT_EQ(ReadFile(folder + "/" + entry.name).value(), entry.content) << entry.name;
  }
  EXPECT_EQ(Mode(root_), 0700U);
  EXPECT_EQ(Mode(folder), 0700U);
  EXPECT_EQ(Mode(folder + "/toy/data"), 0700U);
  EXPECT_EQ(Mode(folder + "/pyproject.toml"), 0600U);
  EXPECT_EQ(Count(), 1U);
}

TEST_F(FabInstall, AWholeFolderIsUsedAgain) {
  const std::string folder = Install(zip_).value();
  const auto made = fs::last_write_time(folder + "/pyproject.toml");
  std::ofstream(folder + "/toy/cache.pyc") << "x";
  EXPECT_EQ(Install(zip_).value(), folder);
  EXPECT_TRUE(fs::exists(folder + "/toy/cache.pyc"));
  EXPECT_EQ(fs::last_write_time(folder + "/pyproject.toml"), made);
}

TEST_F(FabInstall, ADamagedFolderIsReplaced) {
  const std::string folder = Install(zip_).value();
  const std::string file = folder + "/toy/server_app.py";
  const std::string content = ReadFile(file).value();
  const auto repaired = [&] {
    EXPECT_EQ(Install(zip_).value(), folder);
    EXPECT_EQ(ReadFile(file).value(), content);
    EXPECT_EQ(Count(), 1U);
  };
  std::ofstream(file) << "app = 2\n";
  repaired();
  fs::resize_file(file, 0);
  repaired();
  fs::remove(file);
  repaired();
  fs::remove(file);
  fs::create_symlink("/etc/passwd", file);
  repaired();
  EXPECT_FALSE(fs::is_symlink(file));
  fs::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  repaired();
  fs::remove_all(folder + "/toy/data");
  repaired();
}

TEST_F(FabInstall, WhatIsNotOursIsLeftAlone) {
  const std::string folder = InstallPath(root_, ReadFab(zip_).value());
  fs::create_directories(folder);
  std::ofstream(folder + "/precious") << "x";
  const auto refused = Install(zip_);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(refused.error().message, "'" + folder + "' was not made from FAB " +
                                         ReadFab(zip_)->hash.Hex() +
                                         "; move it away to run that app");
  // Another FAB whose hash begins alike.
  std::ofstream(folder + "/.umbel-fab") << std::string(64, '0');
  EXPECT_FALSE(Install(zip_).ok());
  EXPECT_EQ(ReadFile(folder + "/precious").value(), "x");
  EXPECT_EQ(Count(), 1U);
}

TEST_F(FabInstall, EntriesInEachOthersWayLeaveNothingBehind) {
  for (const auto& [first, second] :
       {std::pair("toy/a", "toy/a/b"), std::pair("toy/a/b", "toy/a"), std::pair("x", ".umbel-fab"),
        std::pair("x", ".umbel-fab/y")}) {
    auto entries = GoodEntries();
    entries.push_back({first, "x"});
    entries.push_back({second, "y"});
    const auto refused = Install(MakeZip(entries));
    ASSERT_FALSE(refused.ok()) << second;
    EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
    EXPECT_EQ(refused.error().message,
              fmt::format("FAB entry '{}': is in the place of another", second));
    EXPECT_EQ(Count(), 0U);
  }
}

TEST_F(FabInstall, ABrokenArchiveLeavesNothingBehind) {
  auto entries = Entries();
  entries.back().crc = 1;
  const auto refused = Install(MakeZip(entries));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kDataLoss);
  EXPECT_EQ(Count(), 0U);
}

TEST_F(FabInstall, ManyAtOnceMakeOne) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      const auto folder = Install(zip_);
      EXPECT_TRUE(folder.ok()) << folder.error().message;
    });
  threads.clear();
  EXPECT_EQ(Count(), 1U);
}

TEST_F(FabInstall, AGroupMayReadWhenAsked) {
  const std::string folder = Install(zip_).value();
  const gid_t group = ::geteuid() == 0 ? 65534 : ::getegid();
  const InstallOptions options{.root = root_, .readable_by = group};
  // The private one that is there is no use to the group.
  ASSERT_EQ(InstallFab(zip_, ReadFab(zip_).value(), options).value(), folder);
  EXPECT_EQ(Mode(root_), 0710U);
  EXPECT_EQ(Mode(folder), 0750U);
  EXPECT_EQ(Mode(folder + "/toy/data"), 0750U);
  EXPECT_EQ(Mode(folder + "/toy/data/large.bin"), 0640U);
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    struct stat found {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &found), 0);
    EXPECT_EQ(found.st_gid, group) << entry.path();
  }
  EXPECT_EQ(Count(), 1U);
}

TEST_F(FabInstall, WhatKilledProcessesLeftIsRemoved) {
  EXPECT_TRUE(CleanInstalls(root_).ok());
  const std::string folder = Install(zip_).value();
  fs::create_directories(root_ + "/.part-12345678-1-0/toy");
  std::ofstream(root_ + "/.part-12345678-1-0/toy/x") << "x";
  EXPECT_TRUE(CleanInstalls(root_).ok());
  EXPECT_EQ(Count(), 1U);
  EXPECT_TRUE(fs::exists(folder));
}

}  // namespace
}  // namespace umbel::flower
