#include "flower/yaml_map.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/utf8.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::Quote;
using Map = std::map<std::string, std::string>;

/// What no plain text may begin with. Of '-', '?' and ':' YAML allows some.
constexpr std::string_view kIndicators = ",[]{}#&*!|>'\"%@`-?:";

struct Line {
  size_t number;
  size_t indent;
  std::string_view text;  // without indentation and blanks at the end
};

tl::unexpected<Error> Bad(size_t line, std::string_view what) {
  return Fail(Code::kInvalidArgument, fmt::format("line {}: {}", line, what));
}

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

/// Nothing, or a comment.
bool IsRest(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  return trimmed.empty() || (trimmed[0] == '#' && trimmed.data() != text.data());
}

/// Up to a comment, which begins at a '#' after a blank.
std::string_view WithoutComment(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i)
    if (text[i] == '#' && IsBlank(text[i - 1])) return Trim(text.substr(0, i));
  return Trim(text);
}

/// A plain key as YAML reads it is a text, and no number, date, bool or null.
bool IsPlainKey(std::string_view key) {
  constexpr std::array<std::string_view, 7> kWords{"true", "false", "yes", "no",
                                                   "on",   "off",   "null"};
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  if (key.empty() || !letter(key[0])) return false;
  const bool name = std::all_of(key.begin(), key.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
  std::string lower(key);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return name && std::find(kWords.begin(), kWords.end(), lower) == kWords.end();
}

/// A quoted text at the front of `text`, taken off.
Result<std::string> TakeQuoted(std::string_view& text, size_t line) {
  const char quote = text[0];
  std::string out;
  for (size_t i = 1; i < text.size(); ++i) {
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (text[i] == quote && quote == '\'' && next == '\'') {
      out.push_back(text[++i]);
    } else if (text[i] == quote) {
      text.remove_prefix(i + 1);
      return out;
    } else if (text[i] == '\\' && quote == '"') {
      if (next != '"' && next != '\\' && next != '/')
        return Bad(line, "an escape in a text is none of \\\" \\\\ \\/");
      out.push_back(text[++i]);
    } else {
      out.push_back(text[i]);
    }
  }
  return Bad(line, "a quoted text is not closed in its line");
}

/// A text without quotes: no indicator in front, no ": " and no tab inside.
Status CheckPlain(std::string_view text, size_t line) {
  if (text.empty()) return Bad(line, "a key has no value");
  if (kIndicators.find(text[0]) != text.npos)
    return Bad(line, fmt::format("{} is where a text should be", Quote(text.substr(0, 1))));
  if (text.find(": ") != text.npos || text.ends_with(':'))
    return Bad(line, "a value is a mapping, not a text");
  if (text.find('\t') != text.npos) return Bad(line, "a tab is in a text without quotes");
  return {};
}

Status Add(Map& map, std::string key, std::string value, size_t line) {
  if (!map.try_emplace(key, std::move(value)).second)
    return Bad(line, fmt::format("key {} is there twice", Quote(key)));
  return {};
}

Result<std::vector<Line>> Split(std::string_view text) {
  std::vector<Line> lines;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    for (const char c : line)
      if ((static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7f)
        return Bad(number, "there is a control character");
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    lines.push_back({number, indent, Trim(line.substr(indent))});
    if (!lines.back().text.empty() && line[indent] == '\t')
      return Bad(number, "it is indented with a tab; YAML allows blanks only");
  }
  return lines;
}

/// key: value, a line each, and values that go over more lines.
class Block {
 public:
  explicit Block(std::vector<Line> lines) : lines_(std::move(lines)) {}

  Result<Map> Read() {
    Map map;
    size_t indent = 0;
    for (bool first = true; SkipEmpty(); first = false) {
      const Line& line = lines_[at_++];
      if (first) indent = line.indent;
      if (line.indent != indent) return Bad(line.number, "it is indented unlike the first key");
      std::string_view rest = line.text;
      UMBEL_ASSIGN(std::string key, TakeKey(rest, line.number));
      UMBEL_ASSIGN(std::string value, ReadValue(rest, line));
      UMBEL_TRY(Add(map, std::move(key), std::move(value), line.number));
    }
    return map;
  }

 private:
  /// To the next line with more than a comment; false at the end.
  bool SkipEmpty() {
    while (at_ < lines_.size() && (lines_[at_].text.empty() || lines_[at_].text[0] == '#')) ++at_;
    return at_ < lines_.size();
  }

  static Result<std::string> TakeKey(std::string_view& text, size_t line) {
    std::string key;
    if (text[0] == '"' || text[0] == '\'') {
      UMBEL_ASSIGN(key, TakeQuoted(text, line));
      text = Trim(text);
    } else {
      const size_t colon = std::min(text.find(':'), text.size());
      key = Trim(text.substr(0, colon));
      text.remove_prefix(colon);
      if (!IsPlainKey(key))
        return Bad(line, fmt::format("{} is no key id (others need quotes)", Quote(key)));
    }
    if (!text.starts_with(':') || (text.size() > 1 && !IsBlank(text[1])))
      return Bad(line, fmt::format("no ': ' follows the key {}", Quote(key)));
    text.remove_prefix(1);
    return key;
  }

  /// The next line if it belongs to a value of `key`.
  const Line* Continued(const Line& key) {
    if (at_ >= lines_.size() || lines_[at_].text.empty() || lines_[at_].indent <= key.indent)
      return nullptr;
    return &lines_[at_++];
  }

  Result<std::string> ReadValue(std::string_view rest, const Line& key) {
    size_t number = key.number;
    if (IsRest(rest)) {
      SkipEmpty();
      const Line* line = Continued(key);
      if (line == nullptr) return Bad(number, "a key has no value");
      rest = line->text;
      number = line->number;
    }
    std::string_view text = Trim(rest);
    if (text[0] == '"' || text[0] == '\'') {
      UMBEL_ASSIGN(std::string value, TakeQuoted(text, number));
      if (!IsRest(text)) return Bad(number, "something follows a quoted text");
      return value;
    }
    if (text[0] == '|' || text[0] == '>') return ReadLiteral(text, key);
    std::string value(WithoutComment(text));
    UMBEL_TRY(CheckPlain(value, number));
    // A comment ends the text, and so does an empty line here.
    for (bool more = value.size() == text.size(); more;) {
      const Line* line = Continued(key);
      if (line == nullptr || line->text[0] == '#') break;
      const std::string_view part = WithoutComment(line->text);
      more = part.size() == line->text.size();
      UMBEL_TRY(CheckPlain(part, line->number));
      value.append(" ").append(part);
    }
    return value;
  }

  Result<std::string> ReadLiteral(std::string_view header, const Line& key) {
    const char style = header[0];
    header.remove_prefix(1);
    const bool strip = header.starts_with('-');
    if (strip) header.remove_prefix(1);
    if (!IsRest(header)) return Bad(key.number, "'|' and '>' may have a '-' behind them only");
    std::string value;
    size_t indent = 0;
    while (const Line* line = Continued(key)) {
      if (value.empty()) {
        indent = line->indent;
      } else {
        value.push_back(style == '|' ? '\n' : ' ');
      }
      if (line->indent != indent) return Bad(line->number, "a text's lines are indented unlike");
      value.append(line->text);
    }
    if (value.empty()) return Bad(key.number, "a key has no value");
    if (!strip) value.push_back('\n');
    return value;
  }

  std::vector<Line> lines_;
  size_t at_ = 0;
};

/// { key: value, ... } over any number of lines; JSON too.
class Flow {
 public:
  Flow(std::string_view text, size_t line) : text_(text), line_(line) {}

  Result<Map> Read() {
    text_.remove_prefix(1);
    Map map;
    for (bool first = true;; first = false) {
      SkipSpace();
      if (!first && !Take('}')) {
        if (!Take(',')) return Bad(line_, "no ',' or '}' follows a value");
        SkipSpace();
      } else if (!first) {
        break;
      }
      if (Take('}')) break;
      UMBEL_TRY(ReadEntry(map));
    }
    SkipSpace();
    if (!text_.empty()) return Bad(line_, "something follows the mapping");
    return map;
  }

 private:
  bool Take(char c) {
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  void SkipSpace() {
    bool blank = false;  // a comment needs one before it
    while (!text_.empty()) {
      if (text_[0] == '#' && blank) {
        text_.remove_prefix(std::min(text_.find('\n'), text_.size()));
      } else if (IsBlank(text_[0]) || text_[0] == '\r' || text_[0] == '\n') {
        line_ += text_[0] == '\n' ? 1 : 0;
        text_.remove_prefix(1);
        blank = true;
      } else {
        return;
      }
    }
  }

  Status ReadEntry(Map& map) {
    const size_t line = line_;
    const bool quoted = text_.starts_with('"') || text_.starts_with('\'');
    UMBEL_ASSIGN(std::string key, TakeText(":,{}[]\n"));
    if (!quoted && !IsPlainKey(key))
      return Bad(line, fmt::format("{} is no key id (others need quotes)", Quote(key)));
    SkipSpace();
    if (!Take(':') || (!quoted && !text_.starts_with(' ') && !text_.starts_with('\n')))
      return Bad(line, fmt::format("no ': ' follows the key {}", Quote(key)));
    SkipSpace();
    UMBEL_ASSIGN(std::string value, TakeText(",{}[]\n"));
    return Add(map, std::move(key), std::move(value), line);
  }

  /// A text up to one of `ends`, in one line.
  Result<std::string> TakeText(std::string_view ends) {
    const std::string_view line = text_.substr(0, text_.find('\n'));
    if (text_.starts_with('"') || text_.starts_with('\'')) {
      std::string_view rest = line;
      UMBEL_ASSIGN(std::string value, TakeQuoted(rest, line_));
      text_.remove_prefix(line.size() - rest.size());
      return value;
    }
    const std::string_view part = line.substr(0, line.find_first_of(ends));
    std::string_view plain = WithoutComment(part);
    while (plain.ends_with('\r')) plain.remove_suffix(1);
    UMBEL_TRY(CheckPlain(plain, line_));
    text_.remove_prefix(plain.size());
    return std::string(plain);
  }

  std::string_view text_;
  size_t line_;
};

}  // namespace

Result<Map> ReadYamlMap(std::string_view text) {
  if (ValidUtf8(text) != text) return Bad(1, "it is not UTF-8");
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  UMBEL_ASSIGN(std::vector<Line> lines, Split(text));
  const auto next = [&](auto from) {
    return std::find_if(from, lines.end(),
                        [](const Line& line) { return !line.text.empty() && line.text[0] != '#'; });
  };
  auto first = next(lines.begin());
  if (first != lines.end() && first->text == "---") first = next(first + 1);
  if (first == lines.end()) return Map{};
  lines.erase(lines.begin(), first);
  if (!lines.front().text.starts_with('{')) return Block(std::move(lines)).Read();
  const auto offset = static_cast<size_t>(lines.front().text.data() - text.data());
  return Flow(text.substr(offset), lines.front().number).Read();
}

}  // namespace umbel::flower
