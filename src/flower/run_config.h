// The configuration a run's apps see. Functions; safe from any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "flower/config.h"
#include "flower/fab.h"

namespace umbel::flower {

/// The FAB's configuration, overlaid with the run's own values; kinds are not compared.
///
/// run     serialized flwr.proto.Run.
/// errors  kInvalidArgument: not a Run, a key that the FAB's configuration lacks (wire_code 15), or
///         a value that is missing or bytes.
Result<ConfigMap> FuseRunConfig(const FabInfo& fab, std::string_view run);

}  // namespace umbel::flower
