#include "supernode/hosts/worker_fields.h"

#include <limits>

namespace umbel::supernode {

tl::unexpected<Error> BadField(std::string_view where, std::string_view key,
                               std::string_view rule) {
  return Fail(Code::kInvalidArgument, fmt::format("{}: '{}' {}", where, key, rule));
}

Result<Fields> Fields::Of(Value value, std::string where) {
  auto* map = value.As<Value::Map>();
  if (map == nullptr)
    return Fail(Code::kInvalidArgument,
                fmt::format("{}: is {}, not a map", where, value.TypeName()));
  return Fields(std::move(*map), std::move(where));
}

Result<Value> Fields::Take(std::string_view key) {
  for (auto& [name, value] : map_)
    if (name == key) return std::exchange(value, Value());
  return BadField(where_, key, "is missing");
}

Result<std::string> Fields::TakeText(std::string_view key) {
  UMBEL_ASSIGN(Value value, Take(key));
  if (auto* text = value.As<std::string>()) return std::move(*text);
  return BadField(where_, key, fmt::format("is {}, not text", value.TypeName()));
}

Result<bool> Fields::TakeBool(std::string_view key) {
  UMBEL_ASSIGN(const Value value, Take(key));
  if (const auto* yes = value.As<bool>()) return *yes;
  return BadField(where_, key, fmt::format("is {}, not a bool", value.TypeName()));
}

Result<int64_t> Fields::TakeInteger(std::string_view key) {
  UMBEL_ASSIGN(const Value value, Take(key));
  if (const auto* number = value.As<int64_t>()) return *number;
  return BadField(where_, key, fmt::format("is {}, not a 64-bit integer", value.TypeName()));
}

Result<uint64_t> Fields::TakeUnsigned(std::string_view key) {
  UMBEL_ASSIGN(const Value value, Take(key));
  if (const auto* number = value.As<uint64_t>()) return *number;
  const auto* number = value.As<int64_t>();
  if (number != nullptr && *number >= 0) return static_cast<uint64_t>(*number);
  return BadField(
      where_, key,
      fmt::format("is {}, not an integer from 0 up",
                  number != nullptr ? fmt::format("{}", *number) : std::string(value.TypeName())));
}

Result<int> Fields::TakeInt(std::string_view key, int64_t min) {
  UMBEL_ASSIGN(const int64_t number, TakeInteger(key));
  constexpr int64_t kMax = std::numeric_limits<int>::max();
  if (number >= min && number <= kMax) return static_cast<int>(number);
  return BadField(where_, key, fmt::format("is {}, not in [{}, {}]", number, min, kMax));
}

Result<double> Fields::TakeNumber(std::string_view key) {
  UMBEL_ASSIGN(const Value value, Take(key));
  if (const auto* number = value.As<double>()) return *number;
  if (const auto* number = value.As<int64_t>()) return static_cast<double>(*number);
  return BadField(where_, key, fmt::format("is {}, not a number", value.TypeName()));
}

}  // namespace umbel::supernode
