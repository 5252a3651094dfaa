// Ports for services on this machine. Functions; any thread.
#pragma once

#include <cstdint>
#include <set>

#include "base/result.h"

namespace umbel::manager {

/// The first from `first` upward that is not in `taken` and that nobody listens on.
/// errors  kResourceExhausted: none of the next thousand is.
Result<uint16_t> ChoosePort(uint16_t first, const std::set<uint16_t>& taken);

}  // namespace umbel::manager
