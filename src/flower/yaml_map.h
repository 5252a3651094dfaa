// YAML of one shape: a mapping of texts to texts, as people write it by hand. Block or flow style,
// plain or quoted texts, comments, texts folded over indented lines, `|` and `>`. Every document
// that is read is read as PyYAML would, but for blanks at line ends; what is beyond (anchors, tags,
// lists, nested mappings, values that YAML takes for numbers, dates or bools) is an error, as is a
// key that is there twice. Functions; safe from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::flower {

/// errors  kInvalidArgument: "line N: ...".
Result<std::map<std::string, std::string>> ReadYamlMap(std::string_view text);

}  // namespace umbel::flower
