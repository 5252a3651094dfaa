#include "flower/config.h"

#include <optional>

#include "flower/toml.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

std::optional<ConfigScalar> ScalarOf(const TomlValue& value) {
  switch (value.kind) {
    case TomlKind::kBool:
      return value.boolean;
    case TomlKind::kInteger:
      return value.integer;
    case TomlKind::kFloat:
      return value.real;
    case TomlKind::kString:
      return value.text;
    case TomlKind::kTime:
    case TomlKind::kArray:
    case TomlKind::kTable:
      break;
  }
  return std::nullopt;
}

Status Flatten(const TomlValue& table, const std::string& prefix, std::string_view where,
               ConfigMap& out) {
  const auto bad = [&](std::string_view name, std::string_view rule) {
    return Fail(Code::kInvalidArgument,
                fmt::format("{} in {} {}", tensor::Quote(name), where, rule));
  };
  for (const auto& [key, value] : table.entries) {
    const std::string name = prefix + key;
    if (value->kind == TomlKind::kTable) {
      UMBEL_TRY(Flatten(*value, name + ".", where, out));
      continue;
    }
    auto scalar = ScalarOf(*value);
    if (!scalar) return bad(name, "is not a bool, int, float, string or table of those");
    // "a.b" = 1 beside [a] b = 2.
    if (!out.emplace(name, *std::move(scalar)).second) return bad(name, "is there twice");
  }
  return {};
}

}  // namespace

Status FlattenConfig(const TomlValue& table, std::string_view where, ConfigMap& out) {
  return Flatten(table, "", where, out);
}

}  // namespace umbel::flower
