#include "flower/node_config.h"

#include <cstdlib>
#include <optional>
#include <vector>

#include "base/file.h"
#include "flower/toml.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::Quote;

constexpr size_t kTextMax = size_t{64} << 10;
constexpr size_t kFileMax = size_t{1} << 20;
constexpr std::string_view kFlag = "--node-config";
/// What `\s` of a Python pattern takes, as far as it is ASCII.
constexpr std::string_view kSpace = " \t\n\r\f\v\x1c\x1d\x1e\x1f";

tl::unexpected<Error> Bad(std::string message) {
  return Fail(Code::kInvalidArgument, fmt::format("{}: {}", kFlag, message));
}

struct Pair {
  std::string_view key, value;

  std::string Toml() const { return fmt::format("{} = {}\n", key, value); }
};

size_t WordEnd(std::string_view text, size_t from) {
  return std::min(text.find_first_of(kSpace, from), text.size());
}

/// The value that starts at `from`: quoted up to the next such quote, else up to a blank.
std::string_view ValueAt(std::string_view text, size_t from) {
  if (from == text.size()) return {};
  const char quote = text[from];
  const size_t close = quote == '"' || quote == '\'' ? text.find(quote, from + 1) : text.npos;
  const size_t end = close != text.npos ? close + 1 : WordEnd(text, from);
  return text.substr(from, end - from);
}

/// The pair at the front of `text`, which starts with no blank: the key ends at the first '=' that
/// has a value behind it.
std::optional<Pair> PairAt(std::string_view text) {
  const size_t word = WordEnd(text, 0);
  for (size_t at = text.find('=', 1); at < word; at = text.find('=', at + 1)) {
    const std::string_view value = ValueAt(text, at + 1);
    if (!value.empty()) return Pair{text.substr(0, at), value};
  }
  return std::nullopt;
}

Result<std::vector<Pair>> Split(std::string_view text) {
  std::vector<Pair> pairs;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    if (text.empty()) return pairs;
    const auto pair = PairAt(text);
    if (!pair)
      return Bad(fmt::format("{} is not key=value (a value with blanks is written key=\"a b\")",
                             Quote(text.substr(0, WordEnd(text, 0)))));
    pairs.push_back(*pair);
    text.remove_prefix(pair->key.size() + 1 + pair->value.size());
  }
}

/// Which pair is to blame for an error of the whole.
tl::unexpected<Error> Blame(const std::vector<Pair>& pairs, const Error& error) {
  for (const Pair& pair : pairs)
    if (const auto alone = ParseToml(pair.Toml()); !alone.ok())
      return Bad(fmt::format("key {}, value {}: {} (texts need quotes: key=\"text\")",
                             Quote(pair.key), Quote(pair.value), alone.error().message));
  return Bad(error.message);
}

Result<ConfigMap> FromToml(const TomlValue& document, std::string_view where) {
  ConfigMap config;
  UMBEL_TRY(FlattenConfig(document, where, config));
  return config;
}

Result<ConfigMap> FromFile(std::string_view name) {
  std::string path(name);
  const char* home = std::getenv("HOME");
  if (path.starts_with("~/") && home != nullptr) path.replace(0, 1, home);
  const auto text = ReadFile(path, kFileMax);
  if (!text.ok())
    return Fail(text.error().code, fmt::format("{}: {}", kFlag, text.error().message));
  const auto document = ParseToml(*text);
  if (!document.ok()) return Bad(fmt::format("'{}': {}", path, document.error().message));
  return FromToml(*document, fmt::format("{} '{}'", kFlag, path));
}

}  // namespace

Result<ConfigMap> ParseNodeConfig(std::string_view text) {
  if (text.size() > kTextMax)
    return Bad(fmt::format("{} bytes are more than {}", text.size(), kTextMax));
  if (text.ends_with(".toml")) return FromFile(text);
  UMBEL_ASSIGN(const std::vector<Pair> pairs, Split(text));
  // Read as one document, as Flower does: so a dotted key may stand beside its table.
  std::string toml;
  for (const Pair& pair : pairs) toml += pair.Toml();
  const auto document = ParseToml(toml);
  if (!document.ok()) return Blame(pairs, document.error());
  return FromToml(*document, kFlag);
}

std::string ExpandNodeConfig(std::string_view text, uint64_t index, uint64_t count) {
  std::string expanded;
  while (!text.empty()) {
    const bool is_index = text.starts_with("{i}");
    if (is_index || text.starts_with("{n}")) {
      expanded += std::to_string(is_index ? index : count);
      text.remove_prefix(3);
    } else {
      expanded += text[0];
      text.remove_prefix(1);
    }
  }
  return expanded;
}

}  // namespace umbel::flower
