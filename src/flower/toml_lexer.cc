#include "flower/toml_lexer.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "tensor/quote.h"

namespace umbel::flower {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsBareKey(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}
bool IsControl(char c) { return (static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7f; }

bool TakeOne(std::string_view& text, std::string_view choices) {
  if (text.empty() || choices.find(text[0]) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

/// Digits of a base with single underscores between them, at the front of `text`, appended to `out`
/// without those.
bool TakeDigits(std::string_view& text, int base, std::string& out) {
  const auto fits = [base](char c) {
    return base == 16 ? IsHexDigit(c) : c >= '0' && c < '0' + base;
  };
  if (text.empty() || !fits(text[0])) return false;
  while (!text.empty()) {
    const bool joined = text[0] == '_' && text.size() > 1 && fits(text[1]);
    if (!joined && !fits(text[0])) break;
    text.remove_prefix(joined ? 1 : 0);
    out.push_back(text[0]);
    text.remove_prefix(1);
  }
  return true;
}

bool ToInteger(std::string_view digits, int base, int64_t& value) {
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  return error == std::errc() && end == digits.data() + digits.size();
}

/// Rounded as Python's float() does: what is too large is infinite, what is too small zero.
double ToReal(const std::string& digits) {
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  // from_chars does not say which of the two it was.
  return error == std::errc::result_out_of_range ? std::strtod(digits.c_str(), nullptr) : value;
}

/// False if `word` is no number; the value keeps its kind.
bool ReadNumber(std::string_view word, TomlValue& value) {
  value.kind = TomlKind::kInteger;
  std::string digits;
  for (const auto& [prefix, base] : {std::pair("0x", 16), std::pair("0o", 8), std::pair("0b", 2)}) {
    if (!word.starts_with(prefix)) continue;
    word.remove_prefix(2);
    return TakeDigits(word, base, digits) && word.empty() && ToInteger(digits, base, value.integer);
  }
  if (!word.empty() && word[0] == '-') digits = "-";
  TakeOne(word, "+-");
  if (word == "inf" || word == "nan") {
    value.kind = TomlKind::kFloat;
    value.real = word == "inf" ? std::numeric_limits<double>::infinity()
                               : std::numeric_limits<double>::quiet_NaN();
    value.real = std::copysign(value.real, digits.empty() ? 1.0 : -1.0);
    return true;
  }
  const bool zero = !word.empty() && word[0] == '0';
  const size_t sign = digits.size();
  if (!TakeDigits(word, 10, digits) || (zero && digits.size() > sign + 1)) return false;
  if (word.empty()) return ToInteger(digits, 10, value.integer);
  value.kind = TomlKind::kFloat;
  if (TakeOne(word, ".")) {
    digits.push_back('.');
    if (!TakeDigits(word, 10, digits)) return false;
  }
  if (TakeOne(word, "eE")) {
    digits.push_back('e');
    if (word.starts_with('-')) digits.push_back('-');
    TakeOne(word, "+-");
    if (!TakeDigits(word, 10, digits)) return false;
  }
  value.real = ToReal(digits);
  return word.empty();
}

/// Takes two digits with a value of at most `max`.
bool TakePair(std::string_view& text, int max) {
  if (text.size() < 2 || !IsDigit(text[0]) || !IsDigit(text[1])) return false;
  const int value = (text[0] - '0') * 10 + (text[1] - '0');
  text.remove_prefix(2);
  return value <= max;
}

bool IsDate(std::string_view text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  int fields[3] = {};
  size_t at = 0;
  for (const auto& [field, width] : {std::pair(0, 4), std::pair(1, 2), std::pair(2, 2)}) {
    for (int i = 0; i < width; ++i, ++at) {
      if (!IsDigit(text[at])) return false;
      fields[field] = fields[field] * 10 + (text[at] - '0');
    }
    ++at;
  }
  const std::chrono::year_month_day date{std::chrono::year(fields[0]),
                                         std::chrono::month(static_cast<unsigned>(fields[1])),
                                         std::chrono::day(static_cast<unsigned>(fields[2]))};
  return fields[0] > 0 && date.ok();
}

/// HH:MM, then perhaps :SS and a fraction; leaves what follows.
bool TakeTime(std::string_view& text) {
  if (!TakePair(text, 23) || !TakeOne(text, ":") || !TakePair(text, 59)) return false;
  if (!TakeOne(text, ":")) return true;
  if (!TakePair(text, 59)) return false;
  if (!TakeOne(text, ".")) return true;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  text.remove_prefix(digits);
  return digits > 0;
}

/// A date, a time, or both with or without an offset.
bool IsTime(std::string_view word) {
  if (TakeTime(word)) return word.empty();
  return false;
}

bool IsDateTime(std::string_view word) {
  if (!IsDate(word.substr(0, 10))) return false;
  word.remove_prefix(10);
  if (word.empty()) return true;
  if (!TakeOne(word, "Tt ") || !TakeTime(word)) return false;
  if (word.empty()) return true;
  if (TakeOne(word, "Zz")) return word.empty();
  return TakeOne(word, "+-") && TakePair(word, 23) && TakeOne(word, ":") && TakePair(word, 59) &&
         word.empty();
}

void AppendUtf8(uint32_t point, std::string& out) {
  const auto tail = [&](unsigned shift) {
    out.push_back(static_cast<char>(0x80 | (point >> shift & 0x3f)));
  };
  if (point < 0x80) {
    out.push_back(static_cast<char>(point));
  } else if (point < 0x800) {
    out.push_back(static_cast<char>(0xc0 | point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    out.push_back(static_cast<char>(0xe0 | point >> 12));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xf0 | point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

tl::unexpected<Error> TomlLexer::Bad(std::string_view what) const {
  const auto line =
      1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n');
  return Fail(Code::kInvalidArgument, fmt::format("line {}: {}", line, what));
}

bool TomlLexer::Take(char c) {
  if (AtEnd() || text_[at_] != c) return false;
  ++at_;
  return true;
}

bool TomlLexer::TakeLineEnd() {
  if (Peek() == '\r' && Peek(1) == '\n') ++at_;
  return Take('\n');
}

void TomlLexer::SkipBlanks() {
  while (Peek() == ' ' || Peek() == '\t') ++at_;
}

Status TomlLexer::SkipComment() {
  if (!Take('#')) return {};
  while (!AtEnd() && Peek() != '\n' && !(Peek() == '\r' && Peek(1) == '\n')) {
    if (IsControl(Peek())) return Bad("a control character is in a comment");
    ++at_;
  }
  return {};
}

Status TomlLexer::SkipSpace() {
  do {
    SkipBlanks();
    UMBEL_TRY(SkipComment());
  } while (TakeLineEnd());
  return {};
}

Status TomlLexer::FinishLine() {
  SkipBlanks();
  UMBEL_TRY(SkipComment());
  if (!AtEnd() && !TakeLineEnd())
    return Bad(fmt::format("{} follows a statement", tensor::Quote(text_.substr(at_, 1))));
  return {};
}

Result<std::string> TomlLexer::TakeKeyPart() {
  if (Peek() == '"' || Peek() == '\'') return TakeLine(Peek());
  const size_t start = at_;
  while (IsBareKey(Peek())) ++at_;
  if (at_ == start)
    return Bad(fmt::format("{} is where a key should be", tensor::Quote(text_.substr(at_, 1))));
  return std::string(text_.substr(start, at_ - start));
}

Result<std::string> TomlLexer::TakeString() {
  const char quote = Peek();
  return Peek(1) == quote && Peek(2) == quote ? TakeLines(quote) : TakeLine(quote);
}

Result<std::string> TomlLexer::TakeLine(char quote) {
  Take(quote);
  std::string out;
  while (!Take(quote)) {
    if (AtEnd() || IsControl(Peek()))
      return Bad("a string is not closed, or holds a control character");
    if (quote == '"' && Peek() == '\\') {
      UMBEL_TRY(TakeEscape(out, false));
    } else {
      out.push_back(text_[at_++]);
    }
  }
  return out;
}

Result<std::string> TomlLexer::TakeLines(char quote) {
  at_ += 3;
  TakeLineEnd();
  std::string out;
  while (true) {
    size_t quotes = 0;
    while (quotes < 5 && Peek(quotes) == quote) ++quotes;
    at_ += quotes;
    // Up to two quotes may stand before the closing three: """a"""""
    out.append(quotes >= 3 ? quotes - 3 : quotes, quote);
    if (quotes >= 3) return out;
    if (quotes > 0) continue;
    if (TakeLineEnd()) {
      out.push_back('\n');
    } else if (AtEnd() || IsControl(Peek())) {
      return Bad("a string of many lines is not closed, or holds a control character");
    } else if (quote == '"' && Peek() == '\\') {
      UMBEL_TRY(TakeEscape(out, true));
    } else {
      out.push_back(text_[at_++]);
    }
  }
}

Status TomlLexer::TakeEscape(std::string& out, bool many_lines) {
  Take('\\');
  const char c = Peek();
  if (many_lines && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
    SkipBlanks();
    if (!TakeLineEnd()) return Bad("a backslash before blanks does not end its line");
    do SkipBlanks();
    while (TakeLineEnd());
    return {};
  }
  constexpr std::string_view kNames = "btnfre\"\\";
  constexpr std::string_view kValues = "\b\t\n\f\r\x1b\"\\";
  const size_t simple = AtEnd() ? std::string_view::npos : kNames.find(c);
  if (!AtEnd()) ++at_;
  if (simple != std::string_view::npos) {
    out.push_back(kValues[simple]);
    return {};
  }
  if (c == 'x') return TakeCodePoint(2, out);
  if (c == 'u') return TakeCodePoint(4, out);
  if (c == 'U') return TakeCodePoint(8, out);
  return Bad("an escape in a string is unknown");
}

Status TomlLexer::TakeCodePoint(size_t digits, std::string& out) {
  const std::string_view hex = text_.substr(at_, digits);
  uint32_t point = 0;
  if (hex.size() < digits || !std::all_of(hex.begin(), hex.end(), IsHexDigit))
    return Bad(fmt::format("an escape in a string is not {} hexadecimal digits", digits));
  std::from_chars(hex.data(), hex.data() + hex.size(), point, 16);
  if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
    return Bad("an escape in a string is no Unicode character");
  at_ += digits;
  AppendUtf8(point, out);
  return {};
}

Result<TomlValue> TomlLexer::TakeScalar() {
  const auto word_size = [this](size_t from) {
    const auto* const end = std::find_if_not(text_.begin() + from, text_.end(), [](char c) {
      return IsBareKey(c) || c == '+' || c == '.' || c == ':';
    });
    return static_cast<size_t>(end - text_.begin()) - from;
  };
  size_t size = word_size(at_);
  // Only between a date and a time does a blank belong to a value.
  if (Peek(size) == ' ' && IsDigit(Peek(size + 1)) && IsDate(text_.substr(at_, size)))
    size += 1 + word_size(at_ + size + 1);
  const std::string_view word = text_.substr(at_, size);
  TomlValue value;
  if (word == "true" || word == "false") {
    value.kind = TomlKind::kBool;
    value.boolean = word == "true";
  } else if (IsTime(word) || IsDateTime(word)) {
    value.kind = TomlKind::kTime;
  } else if (!ReadNumber(word, value)) {
    return Bad(
        fmt::format("{} is no value", tensor::Quote(text_.substr(at_, std::max<size_t>(size, 1)))));
  }
  at_ += size;
  return value;
}

}  // namespace umbel::flower
