// Base64 of headers, keys and signatures. Functions; safe from any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace umbel::flower {

/// Standard alphabet, padded, without line breaks.
std::string Base64Encode(std::string_view bytes);

/// Standard alphabet, padded, nothing else in between; one text for each value.
std::optional<std::string> Base64Decode(std::string_view text);

/// Either alphabet, with or without padding: what Python's urlsafe_b64decode takes, but for
/// characters that are in no alphabet.
std::optional<std::string> Base64UrlDecode(std::string_view text);

}  // namespace umbel::flower
