#include "flower/toml.h"

#include <utility>

#include "base/utf8.h"
#include "flower/toml_lexer.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using Extent = TomlValue::Extent;
using Key = std::vector<std::string>;

/// A document from its first line to its last. Tables live in map nodes, so pointers to them stay;
/// those into an array of tables only until its next [[header]].
class Document {
 public:
  explicit Document(std::string_view text) : lexer_(text) {}

  Result<TomlValue> Read() {
    section_ = &root_;
    while (true) {
      UMBEL_TRY(lexer_.SkipSpace());
      if (lexer_.AtEnd()) return std::move(root_);
      if (lexer_.Take('[')) {
        UMBEL_TRY(ReadHeader());
      } else {
        UMBEL_TRY(ReadEntry(*section_, 0));
      }
      UMBEL_TRY(lexer_.FinishLine());
    }
  }

 private:
  Status Count() {
    if (++values_ > kTomlValuesMax)
      return lexer_.Bad(fmt::format("there are more than {} keys and values", kTomlValuesMax));
    return {};
  }

  Result<Key> ReadKey() {
    Key key;
    do {
      UMBEL_TRY(Count());
      if (key.size() == kTomlNestMax)
        return lexer_.Bad(fmt::format("a key has more than {} parts", kTomlNestMax));
      lexer_.SkipBlanks();
      UMBEL_ASSIGN(std::string part, lexer_.TakeKeyPart());
      key.push_back(std::move(part));
      lexer_.SkipBlanks();
    } while (lexer_.Take('.'));
    return key;
  }

  tl::unexpected<Error> Taken(std::string_view part) const {
    return lexer_.Bad(fmt::format("key {} is there twice", tensor::Quote(part)));
  }

  /// [key] or [[key]]; the first bracket is taken.
  Status ReadHeader() {
    // Tables that dotted keys of the last section opened are closed now.
    for (TomlValue* table : opened_)
      if (table->extent == Extent::kOpen) table->extent = Extent::kDefined;
    opened_.clear();

    const bool array = lexer_.Take('[');
    UMBEL_ASSIGN(const Key key, ReadKey());
    if (!lexer_.Take(']') || (array && !lexer_.Take(']')))
      return lexer_.Bad("a header is not closed");
    TomlValue* table = &root_;
    for (size_t i = 0; i + 1 < key.size(); ++i) {
      UMBEL_ASSIGN(table, Enter(*table, key[i]));
    }
    UMBEL_ASSIGN(section_, array ? AddTable(*table, key.back()) : Enter(*table, key.back()));
    if (!array && section_->extent == Extent::kDefined) return Taken(key.back());
    section_->extent = Extent::kDefined;
    return {};
  }

  /// The table that a header means by `part`: a new one, an old one, or the last of an array.
  Result<TomlValue*> Enter(TomlValue& table, const std::string& part) {
    auto& slot = table.entries[part];
    if (slot == nullptr) slot = std::make_unique<TomlValue>();
    TomlValue* entry = slot->tables ? &slot->items.back() : slot.get();
    if (entry->kind != TomlKind::kTable || entry->extent == Extent::kFrozen) return Taken(part);
    return entry;
  }

  Result<TomlValue*> AddTable(TomlValue& table, const std::string& part) {
    auto& slot = table.entries[part];
    if (slot == nullptr) {
      slot = std::make_unique<TomlValue>();
      slot->kind = TomlKind::kArray;
      slot->tables = true;
    }
    if (!slot->tables) return Taken(part);
    return &slot->items.emplace_back();
  }

  /// key = value, into a section or an inline table at bracket depth `depth`.
  Status ReadEntry(TomlValue& into, size_t depth) {
    UMBEL_ASSIGN(const Key key, ReadKey());
    TomlValue* table = &into;
    for (size_t i = 0; i + 1 < key.size(); ++i) {
      auto& slot = table->entries[key[i]];
      if (slot == nullptr) slot = std::make_unique<TomlValue>();
      if (slot->kind != TomlKind::kTable || slot->extent != Extent::kOpen) return Taken(key[i]);
      table = slot.get();
      if (depth == 0) opened_.push_back(table);
    }
    if (!lexer_.Take('=')) return lexer_.Bad("no '=' follows a key");
    UMBEL_ASSIGN(TomlValue value, ReadValue(depth));
    const auto [slot, added] = table->entries.try_emplace(key.back());
    if (!added) return Taken(key.back());
    slot->second = std::make_unique<TomlValue>(std::move(value));
    return {};
  }

  Result<TomlValue> ReadValue(size_t depth) {
    UMBEL_TRY(Count());
    lexer_.SkipBlanks();
    const char c = lexer_.Peek();
    if (c == '[' || c == '{') {
      if (depth == kTomlNestMax)
        return lexer_.Bad(fmt::format("brackets are nested deeper than {}", kTomlNestMax));
      lexer_.Take(c);
      return c == '[' ? ReadArray(depth + 1) : ReadInlineTable(depth + 1);
    }
    if (c != '"' && c != '\'') return lexer_.TakeScalar();
    TomlValue value;
    value.kind = TomlKind::kString;
    UMBEL_ASSIGN(value.text, lexer_.TakeString());
    return value;
  }

  /// After the opening bracket: true at the closing one; otherwise an element follows.
  Result<bool> Closes(char bracket, bool first) {
    UMBEL_TRY(lexer_.SkipSpace());
    if (lexer_.Take(bracket)) return true;
    if (first) return false;
    if (!lexer_.Take(','))
      return lexer_.Bad(fmt::format("no ',' or '{}' follows a value", bracket));
    UMBEL_TRY(lexer_.SkipSpace());
    return lexer_.Take(bracket);
  }

  Result<TomlValue> ReadArray(size_t depth) {
    TomlValue array;
    array.kind = TomlKind::kArray;
    while (true) {
      UMBEL_ASSIGN(const bool closes, Closes(']', array.items.empty()));
      if (closes) return array;
      UMBEL_ASSIGN(TomlValue item, ReadValue(depth));
      array.items.push_back(std::move(item));
    }
  }

  Result<TomlValue> ReadInlineTable(size_t depth) {
    TomlValue table;
    while (true) {
      UMBEL_ASSIGN(const bool closes, Closes('}', table.entries.empty()));
      if (closes) break;
      UMBEL_TRY(ReadEntry(table, depth));
    }
    table.extent = Extent::kFrozen;
    return table;
  }

  TomlLexer lexer_;
  TomlValue root_;
  TomlValue* section_ = nullptr;    // where entries go
  std::vector<TomlValue*> opened_;  // tables that dotted keys of this section went through
  size_t values_ = 0;
};

}  // namespace

const TomlValue* TomlValue::Find(std::string_view key) const {
  const auto entry = entries.find(key);
  return entry == entries.end() ? nullptr : entry->second.get();
}

Result<TomlValue> ParseToml(std::string_view text) {
  if (ValidUtf8(text) != text) return Fail(Code::kInvalidArgument, "line 1: not UTF-8");
  return Document(text).Read();
}

}  // namespace umbel::flower
