#include "flower/fab.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "flower/errors.h"
#include "flower/fab_zip.h"
#include "tensor/quote.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using tensor::Quote;

constexpr std::string_view kProjectFile = "pyproject.toml";
constexpr std::string_view kContentFile = ".info/CONTENT";
constexpr uint64_t kProjectMax = uint64_t{1} << 20;
constexpr uint64_t kContentMax = uint64_t{4} << 20;

/// One line of .info/CONTENT: path, SHA-256, size in bits.
struct Listed {
  std::string_view path;
  Digest hash;
};

Result<Listed> ReadLine(std::string_view line) {
  const auto broken = [&] {
    return Fail(Code::kInvalidArgument,
                fmt::format("FAB entry '{}': line {} is not path,sha256,bits", kContentFile,
                            Quote(line, 160)));
  };
  const size_t first = line.find(',');
  const size_t last = line.rfind(',');
  if (first == std::string_view::npos || line.find(',', first + 1) != last) return broken();
  const auto hash = Digest::FromHex(line.substr(first + 1, last - first - 1));
  uint64_t bits = 0;
  const std::string_view number = line.substr(last + 1);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), bits);
  if (!hash.has_value() || error != std::errc() || end != number.data() + number.size())
    return broken();
  return Listed{line.substr(0, first), *hash};
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// Which entry each name is: a manifest of thousands of lines must not search thousands of times.
std::map<std::string_view, size_t> FilesByName(const FabZip& zip) {
  std::map<std::string_view, size_t> files;
  for (size_t i = 0; i < zip.entries().size(); ++i)
    if (!zip.entries()[i].folder) files.emplace(zip.entries()[i].name, i);
  return files;
}

/// Every listed file is there and has its hash. Files that are not listed are no error: sites
/// accept them too.
Status CheckContent(const FabZip& zip, std::string_view manifest) {
  auto files = FilesByName(zip);
  tensor::Sha256 hasher;
  std::string_view rest = Trim(manifest);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    UMBEL_ASSIGN(const Listed listed, ReadLine(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto file = files.find(listed.path);
    if (file == files.end())
      return Fail(Code::kInvalidArgument,
                  fmt::format("FAB entry '{}': {} is listed twice or not in the archive",
                              kContentFile, Quote(listed.path, 160)));
    UMBEL_TRY(zip.Stream(file->second, [&](std::span<const char> bytes) { hasher.Update(bytes); }));
    if (hasher.Finish() != listed.hash)
      return Fail(Code::kInvalidArgument,
                  fmt::format("FAB entry {}: its content is not what '{}' says",
                              Quote(listed.path, 160), kContentFile));
    files.erase(file);  // listed once: the work is bounded by the archive's declared size
  }
  return {};
}

Result<FabInfo> ReadChecked(std::string_view bytes) {
  UMBEL_ASSIGN(const FabZip zip, FabZip::Open(bytes));
  const auto project = zip.Find(kProjectFile);
  if (!project) return Fail(Code::kNotFound, fmt::format("FAB: it has no {}", kProjectFile));
  UMBEL_ASSIGN(const std::string toml, zip.Read(*project, kProjectMax));
  UMBEL_ASSIGN(FabConfig config, ParseFabConfig(toml));
  if (const auto content = zip.Find(kContentFile)) {
    UMBEL_ASSIGN(const std::string manifest, zip.Read(*content, kContentMax));
    UMBEL_TRY(CheckContent(zip, manifest));
  }
  return FabInfo{.fab_id = config.publisher + "/" + config.name,
                 .version = std::move(config.version),
                 .hash = tensor::Sha256Of(bytes),
                 .serverapp = std::move(config.serverapp),
                 .clientapp = std::move(config.clientapp),
                 .agentapp = std::move(config.agentapp),
                 .config = std::move(config.config)};
}

}  // namespace

Result<FabInfo> ReadFab(std::string_view zip) {
  if (zip.size() > kFabMax)
    return Fail(Code::kResourceExhausted,
                fmt::format("FAB: {} bytes are more than {}", zip.size(), kFabMax));
  auto fab = ReadChecked(zip);
  if (!fab.has_value()) fab.error().wire_code = wire::kInvalidRunConfig;
  return fab;
}

Status CheckOverrideKey(const FabInfo& fab, std::string_view key) {
  if (fab.config.contains(std::string(key))) return {};
  return Fail(Code::kInvalidArgument,
              fmt::format("run config: key {} is not in [tool.flwr.app.config] of {}", Quote(key),
                          fab.fab_id),
              wire::kInvalidRunConfig);
}

}  // namespace umbel::flower
