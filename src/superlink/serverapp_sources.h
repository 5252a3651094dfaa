// umbel.serverapp travels inside the binary, so that the ServerApps it starts can import it.
// Functions; any thread.
#pragma once

#include <span>

#include "flower/python_package.h"

namespace umbel::superlink {

/// Generated at build time from python/umbel/serverapp.
std::span<const flower::SourceFile> ServerAppSources();

}  // namespace umbel::superlink
