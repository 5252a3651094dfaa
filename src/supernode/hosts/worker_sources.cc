#include "supernode/hosts/worker_sources.h"

#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "tensor/sha256.h"

namespace umbel::supernode {

Result<std::string> WriteWorkerSources(const std::string& root) {
  std::string all;
  for (const SourceFile& file : WorkerSources()) {
    all.append(file.name).push_back('\0');
    all.append(file.text).push_back('\0');
  }
  const std::string directory =
      fmt::format("{}/{}", root, tensor::Sha256Of(all).Hex().substr(0, 16));
  const std::string package = directory + "/_umbel_worker";
  UMBEL_TRY(MakeDirectories(package));
  for (const SourceFile& file : WorkerSources()) {
    const std::string path = fmt::format("{}/{}", package, file.name);
    const auto there = ReadFile(path);
    if (there.ok() && *there == file.text) continue;
    UMBEL_TRY(WriteFileAtomic(path, file.text));
    ::chmod(path.c_str(), 0644);
  }
  // User code of another user reads them too; the folders above are its way in.
  ::chmod(package.c_str(), 0755);
  ::chmod(directory.c_str(), 0755);
  return directory;
}

}  // namespace umbel::supernode
