// Which Umbel this is.
#pragma once

#include <string_view>

namespace umbel {

inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace umbel
