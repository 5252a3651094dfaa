// A peer's bytes made safe for an error message or a log line. Safe from any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace umbel::tensor {

/// `bytes` in single quotes, everything but printable ASCII as \xNN, cut after `max` bytes (then
/// followed by "..." and the full length).
std::string Quote(std::string_view bytes, size_t max = 48);

}  // namespace umbel::tensor
