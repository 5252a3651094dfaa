// Flower App Bundles: the ZIP archive that `flwr run` sends and every site installs.
// Functions; safe from any thread. ReadFab may take seconds for the largest archives.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "flower/fab_config.h"

namespace umbel::flower {

inline constexpr size_t kFabMax = size_t{10} << 20;

struct FabInfo {
  std::string fab_id;  // publisher/name
  std::string version;
  Digest hash;  // of the archive's bytes
  // "module:attribute"; "" when absent.
  std::string serverapp;
  std::string clientapp;
  std::string agentapp;
  ConfigMap config;  // [tool.flwr.app.config], nested keys joined by '.'
};

/// Checks an archive and reads its pyproject.toml. Every entry must be a plain file or folder
/// inside the app's folder; the hashes of .info/CONTENT must hold when it is there.
///
/// cost    unpacks as a stream: 256 MiB at most, holding 4 MiB at most.
/// errors  by code; `wire_code` is 15 (INVALID_RUN_CONFIG, HTTP 412) unless said otherwise:
///   kResourceExhausted, wire_code 0  above kFabMax. Upstream: 200 with an empty reply.
///   kDataLoss           not a ZIP, broken data, ambiguous archive. Upstream 500 without a code
///                       (zipfile.BadZipFile is no ValueError): listed difference.
///   kNotFound           no pyproject.toml. Upstream 500 without a code: listed difference.
///   kInvalidArgument    pyproject.toml misses something or has it in the wrong form (upstream the
///                       same, except that a section that is no table gives 500 there); a
///                       forbidden entry name, a wrong hash in .info/CONTENT (upstream starts the
///                       run, which then fails: listed difference).
///   kResourceExhausted  too many entries or unpacked bytes (upstream unpacks).
Result<FabInfo> ReadFab(std::string_view zip);

/// A run may override only keys that the FAB's configuration has; kinds are not compared.
/// errors  kInvalidArgument, wire_code 15.
Status CheckOverrideKey(const FabInfo& fab, std::string_view key);

}  // namespace umbel::flower
