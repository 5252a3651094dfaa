// Inside the Control door: what its files share.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "store/store.h"
#include "superlink/door.h"

namespace flwr::proto {
class StartRunRequest;
}

namespace umbel::superlink {

/// The one federation of a SuperLink without accounts.
inline constexpr std::string_view kFederation = "@none/default";
inline constexpr size_t kControlRequestMax = size_t{1} << 20;

struct AcceptedRun {
  store::RunRow row;
  std::string token;  // of a native run's task
};
/// What start-run does with its request: checks it, keeps its FAB, makes the run, puts it on
/// record.
///
/// native_plan  a serialized Plan, for a run without a ServerApp.
Task<Result<AcceptedRun>> AcceptRun(Site& site, Exchange& exchange,
                                    std::shared_ptr<flwr::proto::StartRunRequest> request,
                                    std::optional<std::string> native_plan);
inline constexpr size_t kStartRunMax = size_t{64} << 20;

/// The run as it is now, or as the store remembers it.
/// errors  kRunIdNotFound
Task<Result<store::RunListing>> FindListing(Site& site, Exchange& exchange, RunId run_id);

/// Changes with every text logged; nullopt once the run has ended.
std::optional<uint64_t> LogVersion(Site& site, RunId run_id);
/// Waits until something was logged after `version`, or the run has ended. False: time to stop.
Task<Result<bool>> AwaitLog(Site& site, Exchange& exchange, RunId run_id, uint64_t version);

Task<Status> StreamLogs(Site& site, Exchange& exchange);
Task<Status> StreamRunEvents(Site& site, Exchange& exchange);

/// Routes that every SuperLink has and this one answers without doing anything.
std::span<const Route> UnservedRoutes();

}  // namespace umbel::superlink
