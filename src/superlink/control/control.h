// Inside the Control door: what its files share.
#pragma once

#include <span>
#include <string_view>

#include "store/store.h"
#include "superlink/door.h"

namespace umbel::superlink {

/// The one federation of a SuperLink without accounts.
inline constexpr std::string_view kFederation = "@none/default";
inline constexpr size_t kControlRequestMax = size_t{1} << 20;

/// The run as it is now, or as the store remembers it.
/// errors  kRunIdNotFound
Task<Result<store::RunListing>> FindListing(Site& site, Exchange& exchange, RunId run_id);

Task<Status> StreamLogs(Site& site, Exchange& exchange);
Task<Status> StreamRunEvents(Site& site, Exchange& exchange);

/// Routes that every SuperLink has and this one answers without doing anything.
std::span<const Route> UnservedRoutes();

}  // namespace umbel::superlink
