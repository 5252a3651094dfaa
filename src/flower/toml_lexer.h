// The words of a TOML document: white space, keys, strings, numbers and times.
// A lexer belongs to one thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "flower/toml.h"

namespace umbel::flower {

class TomlLexer {
 public:
  explicit TomlLexer(std::string_view text) : text_(text) {}

  bool AtEnd() const { return at_ == text_.size(); }
  /// The next character, '\0' at the end (a NUL in the text is valid nowhere).
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  bool Take(char c);
  void SkipBlanks();
  /// Blanks, line ends and comments.
  Status SkipSpace();
  /// Blanks and a comment up to and with the line's end.
  Status FinishLine();

  /// One part of a key: bare or a one-line string.
  Result<std::string> TakeKeyPart();
  Result<std::string> TakeString();
  /// A bool, number or time.
  Result<TomlValue> TakeScalar();

  /// kInvalidArgument, "line N: <what>".
  tl::unexpected<Error> Bad(std::string_view what) const;

 private:
  bool TakeLineEnd();
  Status SkipComment();
  Result<std::string> TakeLine(char quote);
  Result<std::string> TakeLines(char quote);
  Status TakeEscape(std::string& out, bool many_lines);
  Status TakeCodePoint(size_t digits, std::string& out);

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace umbel::flower
