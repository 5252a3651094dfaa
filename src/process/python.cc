#include "process/python.h"

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/file.h"

namespace umbel::process {
namespace {

namespace fs = std::filesystem;

/// The installation that a program in `bin` belongs to; "" where there is none, as when somebody
/// keeps an interpreter in a folder of programs of his own.
std::string Installation(const fs::path& bin) {
  const fs::path prefix = bin.parent_path();
  if (prefix.empty() || prefix == "/" || prefix == "/usr") return "";
  std::error_code error;
  for (fs::directory_iterator it(prefix / "lib", error), end; !error && it != end;
       it.increment(error))
    if (it->path().filename().native().starts_with("python3") &&
        fs::exists(it->path() / "os.py", error))
      return prefix.native();
  return "";
}

/// "home = /usr/bin" of a virtual environment's pyvenv.cfg.
std::string HomeOf(const fs::path& environment) {
  std::istringstream lines(ReadFile((environment / "pyvenv.cfg").native(), 1 << 16).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    if (equals == std::string::npos) continue;
    const auto word = [](std::string text) {
      const size_t first = text.find_first_not_of(" \t\r");
      const size_t last = text.find_last_not_of(" \t\r");
      return first == std::string::npos ? "" : text.substr(first, last - first + 1);
    };
    if (word(line.substr(0, equals)) == "home") return word(line.substr(equals + 1));
  }
  return "";
}

}  // namespace

std::vector<std::string> PythonFolders(const std::string& python) {
  std::error_code error;
  const fs::path program = fs::absolute(python, error).lexically_normal();
  std::vector<std::string> folders{program.native()};
  const auto add = [&](const std::string& folder) {
    if (!folder.empty()) folders.push_back(folder);
  };
  const fs::path environment = program.parent_path().parent_path();
  if (fs::exists(environment / "pyvenv.cfg", error)) {
    add(environment.native());
    if (const std::string home = HomeOf(environment); !home.empty()) add(Installation(home));
  } else {
    add(Installation(program.parent_path()));
  }
  char real[PATH_MAX];
  if (::realpath(program.c_str(), real) != nullptr) add(Installation(fs::path(real).parent_path()));
  return folders;
}

}  // namespace umbel::process
