#include "flower/python_package.h"

#include <sys/stat.h>

#include "base/file.h"
#include "tensor/sha256.h"

namespace umbel::flower {

Result<std::string> WritePackage(std::span<const SourceFile> files, const std::string& root,
                                 const std::string& package) {
  std::string all;
  for (const SourceFile& file : files) {
    all.append(file.name).push_back('\0');
    all.append(file.text).push_back('\0');
  }
  std::string directory = fmt::format("{}/{}", root, tensor::Sha256Of(all).Hex().substr(0, 16));
  const std::string inside = directory + "/" + package;
  UMBEL_TRY(MakeDirectories(inside));
  for (const SourceFile& file : files) {
    const std::string path = fmt::format("{}/{}", inside, file.name);
    const auto there = ReadFile(path);
    if (there.ok() && *there == file.text) continue;
    UMBEL_TRY(WriteFileAtomic(path, file.text));
    ::chmod(path.c_str(), 0644);
  }
  // User code of another user reads them too; the folders above are its way in.
  for (size_t end = inside.size(); end != std::string::npos && end >= directory.size();
       end = inside.rfind('/', end - 1))
    ::chmod(inside.substr(0, end).c_str(), 0755);
  return directory;
}

}  // namespace umbel::flower
