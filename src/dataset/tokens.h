// Bearer tokens of a data server: who may use it. Values; safe from any thread once read.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace umbel::dataset {

class Tokens {
 public:
  /// One token a line; empty lines and those that begin with '#' are skipped.
  /// errors  kInvalidArgument: no token, one shorter than 16 characters, or with a blank or
  /// anything
  ///         but printable ASCII in it; names the line, never the token.
  static Result<Tokens> Parse(std::string_view text);
  /// errors  also those of reading; the message names the file.
  static Result<Tokens> ReadFrom(const std::string& path);

  /// Of an `authorization` header: "Bearer TOKEN". Takes as long for any token.
  bool Allow(std::string_view header) const;

 private:
  std::vector<Digest> digests_;
};

/// The first token of a file: what a client sends.
Result<std::string> FirstToken(const std::string& path);

}  // namespace umbel::dataset
