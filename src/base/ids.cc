#include "base/ids.h"

#include <cstring>

#include "base/random.h"

namespace umbel {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool DecodeInto(std::string_view hex, char* out) {
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = HexValue(hex[i]);
    const int low = HexValue(hex[i + 1]);
    if (high < 0 || low < 0) return false;
    out[i / 2] = static_cast<char>(high * 16 + low);
  }
  return true;
}

}  // namespace

size_t HashOf(const Digest& digest) {
  static const std::array<uint64_t, 4> kSecret = [] {
    std::array<uint64_t, 4> secret;
    SystemRng().Fill({reinterpret_cast<uint8_t*>(secret.data()), sizeof secret});
    return secret;
  }();
  std::array<uint64_t, 4> words;
  std::memcpy(words.data(), digest.bytes.data(), sizeof words);
  // Two 128-bit products of secret-masked halves: each bit of the id reaches the result.
  using Wide = unsigned __int128;  // NOLINT
  const Wide a = static_cast<Wide>(words[0] ^ kSecret[0]) * (words[1] ^ kSecret[1]);
  const Wide b = static_cast<Wide>(words[2] ^ kSecret[2]) * (words[3] ^ kSecret[3]);
  const Wide both = a ^ (b << 1);
  return static_cast<size_t>(both) ^ static_cast<size_t>(both >> 64);
}

std::string HexEncode(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

Result<std::string> HexDecode(std::string_view hex) {
  std::string bytes(hex.size() / 2, '\0');
  if (hex.size() % 2 != 0 || !DecodeInto(hex, bytes.data()))
    return Fail(Code::kInvalidArgument, "not lowercase hexadecimal");
  return bytes;
}

std::string Digest::Hex() const {
  return HexEncode({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Result<Digest> Digest::FromHex(std::string_view hex) {
  Digest digest;
  if (hex.size() != 64 || !DecodeInto(hex, reinterpret_cast<char*>(digest.bytes.data())))
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' is not 64 lowercase hexadecimal digits", hex.substr(0, 80)));
  return digest;
}

}  // namespace umbel
