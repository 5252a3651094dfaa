#include "base/random.h"

#include <openssl/rand.h>

#include <cstring>

#include "base/ids.h"
#include "base/result.h"

namespace umbel {

uint64_t Rng::U64() {
  uint8_t bytes[8];
  Fill(bytes);
  uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

std::string Rng::Hex(size_t bytes) {
  std::string raw(bytes, '\0');
  Fill({reinterpret_cast<uint8_t*>(raw.data()), raw.size()});
  return HexEncode(raw);
}

std::string Rng::Uuid() {
  std::string hex = Hex(16);
  hex[12] = '4';
  hex[16] = "89ab"[(hex[16] >= 'a' ? hex[16] - 'a' + 10 : hex[16] - '0') & 3];
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" +
         hex.substr(16, 4) + "-" + hex.substr(20);
}

void SystemRng::Fill(std::span<uint8_t> out) {
  UMBEL_CHECK(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1);
}

void SeededRng::Fill(std::span<uint8_t> out) {
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(engine_());
}

}  // namespace umbel
