#include "base/utf8.h"

#include <cstdint>

namespace umbel {
namespace {

/// Bytes a character takes that begins with `lead`; 0 when none begins so.
size_t LengthOf(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

/// Whether `character`, of the length that its first byte asks for, is one.
bool Valid(std::string_view character) {
  for (size_t i = 1; i < character.size(); ++i)
    if ((static_cast<uint8_t>(character[i]) & 0xc0) != 0x80) return false;
  if (character.size() < 3) return true;
  const auto lead = static_cast<uint8_t>(character[0]);
  const auto second = static_cast<uint8_t>(character[1]);
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  return !(lead == 0xe0 && second < 0xa0) && !(lead == 0xed && second >= 0xa0) &&
         !(lead == 0xf0 && second < 0x90) && !(lead == 0xf4 && second >= 0x90);
}

}  // namespace

size_t WholeCharacters(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<uint8_t>(bytes[bytes.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;
    return LengthOf(byte) > back ? bytes.size() - back : bytes.size();
  }
  return bytes.size();
}

bool IsUtf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = LengthOf(static_cast<uint8_t>(bytes[i]));
    if (length == 0 || length > bytes.size() - i || !Valid(bytes.substr(i, length))) return false;
    i += length;
  }
  return true;
}

std::string ValidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = LengthOf(static_cast<uint8_t>(bytes[i]));
    const std::string_view character = bytes.substr(i, length);
    if (length == 0 || character.size() < length || !Valid(character)) {
      text += '?';
      ++i;
    } else {
      text += character;
      i += length;
    }
  }
  return text;
}

}  // namespace umbel
