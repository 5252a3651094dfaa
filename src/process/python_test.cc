#include "process/python.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/testing.h"

namespace umbel::process {
namespace {

using Folders = std::vector<std::string>;
using umbel::testing::TempDir;

class PythonFoldersTest : public ::testing::Test {
 protected:
  std::string at(const std::string& path) const { return folder_.path() + "/" + path; }
  void Put(const std::string& path, const std::string& text = "") {
    std::filesystem::create_directories(std::filesystem::path(at(path)).parent_path());
    std::ofstream(at(path)) << text;
  }
  void Link(const std::string& path, const std::string& to) {
    std::filesystem::create_directories(std::filesystem::path(at(path)).parent_path());
    std::filesystem::create_symlink(at(to), at(path));
  }

  const TempDir folder_;
};

TEST_F(PythonFoldersTest, OfAnEnvironmentAreItAndWhatItWasMadeFrom) {
  Put("python-3.11.9/bin/python3.11");
  Put("python-3.11.9/lib/python3.11/os.py");
  Link("python-3.11", "python-3.11.9");
  Put("venv/pyvenv.cfg", "home = " + at("python-3.11/bin") + "\nversion = 3.11.9\n");
  Link("venv/bin/python", "python-3.11/bin/python3.11");
  EXPECT_EQ(PythonFolders(at("venv/bin/python")),
            (Folders{at("venv/bin/python"), at("venv"), at("python-3.11"), at("python-3.11.9")}));
}

TEST_F(PythonFoldersTest, OfAnInstallationAreThatAlone) {
  Put("conda/bin/python3");
  Put("conda/lib/python3.12/os.py");
  EXPECT_EQ(PythonFolders(at("conda/bin/python3")),
            (Folders{at("conda/bin/python3"), at("conda"), at("conda")}));
}

TEST_F(PythonFoldersTest, AFolderOfProgramsIsNoInstallation) {
  // ~/bin/python: the home is not to be seen for it.
  Put("home/bin/python");
  Put("home/lib/notes");
  EXPECT_EQ(PythonFolders(at("home/bin/python")), Folders{at("home/bin/python")});
  Put("home/.venv/pyvenv.cfg", "home = " + at("home/bin"));
  Link("home/.venv/bin/python", "home/bin/python");
  EXPECT_EQ(PythonFolders(at("home/.venv/bin/python")),
            (Folders{at("home/.venv/bin/python"), at("home/.venv")}));
}

TEST_F(PythonFoldersTest, TheSystemsAreThereAnyway) {
  Put("venv/pyvenv.cfg", "include-system-site-packages = false\nhome=/usr/bin\n");
  Put("venv/bin/python");
  EXPECT_EQ(PythonFolders(at("venv/bin/python")), (Folders{at("venv/bin/python"), at("venv")}));
  EXPECT_EQ(PythonFolders("/bin/python3"), Folders{"/bin/python3"});
}

}  // namespace
}  // namespace umbel::process
