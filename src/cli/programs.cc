#include "cli/programs.h"

#include <unistd.h>

#include <climits>
#include <filesystem>

#include "base/file.h"

namespace umbel::cli {

Result<std::string> OwnProgram() {
  char path[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) return Fail(SystemError("read", "/proc/self/exe"));
  return std::string(path, static_cast<size_t>(size));
}

std::string DataServerBeside(const std::string& own) {
  const std::filesystem::path folder = std::filesystem::path(own).parent_path();
  for (const auto& path :
       {folder / "umbel-dataserver", folder.parent_path() / "dataserver" / "umbel-dataserver"})
    if (::access(path.c_str(), X_OK) == 0) return path.native();
  return "";
}

}  // namespace umbel::cli
