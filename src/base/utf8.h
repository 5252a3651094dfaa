// Text of programs we do not control. Functions; any thread.
#pragma once

#include <string>
#include <string_view>

namespace umbel {

/// Length of the longest front of `bytes` that does not end inside a character.
size_t WholeCharacters(std::string_view bytes);
bool IsUtf8(std::string_view bytes);
/// The bytes with everything that is not UTF-8 replaced by '?'.
std::string ValidUtf8(std::string_view bytes);

}  // namespace umbel
