// Values of a run's and a node's configuration. Values and functions; safe from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"

namespace umbel::flower {

struct TomlValue;

using ConfigScalar = std::variant<bool, int64_t, uint64_t, double, std::string>;
using ConfigMap = std::map<std::string, ConfigScalar>;

/// Adds what a table holds, nested keys joined by '.'.
/// errors  kInvalidArgument: "'a.b' in <where> ...": a value that is no bool, int, float or string,
///         or two that get the same key.
Status FlattenConfig(const TomlValue& table, std::string_view where, ConfigMap& out);

}  // namespace umbel::flower
