// Ids and names as Oakestra and FLOps make them. Functions, and one generator; any thread.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/random.h"

namespace umbel::manager {

/// The first twelve hexadecimal digits of the MD5: what FLOps puts behind its names.
std::string ShortHash(std::string_view text);

/// 24 hexadecimal digits: seconds, five random bytes of this process, a counter.
class ObjectIds {
 public:
  ObjectIds(const Clock& clock, Rng& rng);
  std::string Next();

 private:
  const Clock& clock_;
  std::string process_;
  std::mutex mutex_;
  uint32_t counter_;
};

bool IsObjectId(std::string_view text);

}  // namespace umbel::manager
