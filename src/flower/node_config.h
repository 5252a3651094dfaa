// --node-config: what a site tells its ClientApps about itself, in Flower's syntax.
// Functions; safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "flower/config.h"

namespace umbel::flower {

/// Reads `partition-id=0 name="site a"`: keys and TOML values, separated by blanks; or, when the
/// text ends in ".toml", the file of that name ("~/" is the home folder). As Flower does, but for
/// text that is no key=value pair, which Flower drops without a word.
///
/// errors  kInvalidArgument: "--node-config: key 'k', value 'v': ...", or the text between pairs;
///         for a file what ReadFile says, or the file's name and line.
Result<ConfigMap> ParseNodeConfig(std::string_view text);

/// For many sites in one process: every "{i}" becomes `index`, every "{n}" `count`.
std::string ExpandNodeConfig(std::string_view text, uint64_t index, uint64_t count);

}  // namespace umbel::flower
