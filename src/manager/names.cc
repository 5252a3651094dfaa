#include "manager/names.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "base/ids.h"
#include "base/result.h"

namespace umbel::manager {

std::string ShortHash(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  UMBEL_CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_md5(), nullptr) == 1);
  std::string hex;
  for (int i = 0; i < 6; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

ObjectIds::ObjectIds(const Clock& clock, Rng& rng)
    : clock_(clock), process_(rng.Hex(5)), counter_(static_cast<uint32_t>(rng.U64() & 0xffffff)) {}

std::string ObjectIds::Next() {
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(clock_.Now().time_since_epoch());
  const std::lock_guard lock(mutex_);
  counter_ = (counter_ + 1) & 0xffffff;
  return fmt::format("{:08x}{}{:06x}", static_cast<uint32_t>(seconds.count()), process_, counter_);
}

bool IsObjectId(std::string_view text) {
  return text.size() == 24 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace umbel::manager
