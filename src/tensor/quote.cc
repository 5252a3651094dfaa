#include "tensor/quote.h"

#include <fmt/format.h>

#include <cstdint>
#include <iterator>

namespace umbel::tensor {

std::string Quote(std::string_view bytes, size_t max) {
  std::string text = "'";
  for (const char c : bytes.substr(0, max)) {
    if (c >= 0x20 && c < 0x7f && c != '\'' && c != '\\') {
      text.push_back(c);
    } else {
      fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  text.push_back('\'');
  if (bytes.size() > max) fmt::format_to(std::back_inserter(text), "... ({} bytes)", bytes.size());
  return text;
}

}  // namespace umbel::tensor
