// TOML from strangers. Written by hand because toml++ 3.3.0 (Debian's) is not made for them: it has
// undefined behaviour on `[=` and on most characters beyond ASCII that stand outside strings
// (fuzzing found both within seconds), and frees a document by unbounded recursion. Our own
// settings are read with toml++.
// Accepts what Python's tomli 2.5 accepts, which reads these files at every site: TOML 1.0 and the
// new forms of 1.1. Functions and values; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::flower {

enum class TomlKind { kBool, kInteger, kFloat, kString, kTime, kArray, kTable };

struct TomlValue {
  /// While a document is read: whether more may be added to a table.
  enum class Extent { kOpen, kDefined, kFrozen };

  TomlKind kind = TomlKind::kTable;
  std::string text;               // of a string
  bool boolean = false;           // of a bool
  int64_t integer = 0;            // of an integer
  double real = 0;                // of a float
  std::vector<TomlValue> items;   // of an array
  bool tables = false;            // of an array: made by [[headers]]
  Extent extent = Extent::kOpen;  // of a table
  std::map<std::string, std::unique_ptr<TomlValue>, std::less<>> entries;  // of a table

  /// The entry of a table; nullptr when there is none, or this is no table.
  const TomlValue* Find(std::string_view key) const;
};

/// Brackets may be nested this deep, and keys have this many parts.
inline constexpr size_t kTomlNestMax = 16;

/// Values and parts of keys in one document; a real one has some hundred.
inline constexpr size_t kTomlValuesMax = 100'000;

/// cost    linear but for the search of keys; memory 30 MB at worst, as bounded above.
/// errors  kInvalidArgument: "line N: ..."; also for integers beyond 64 bits.
Result<TomlValue> ParseToml(std::string_view text);

}  // namespace umbel::flower
