// Native rounds from outside: start a run, bring its model, watch it, take the model home.
// Blocking; each call belongs to the thread that owns the client.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/records.h"
#include "flower/spool.h"
#include "rounds_client/superlink_client.h"

namespace umbel::rounds {
class RoundRecord;
class StartNativeRunRequest;
}  // namespace umbel::rounds

namespace umbel::rounds_client {

struct StartedRun {
  RunId run_id;
  std::string token;  // for the initial model
};

/// errors  as the SuperLink's: a plan or a FAB that it does not take.
Result<StartedRun> StartRun(SuperLinkClient& client, const rounds::StartNativeRunRequest& request);

/// The initial model goes to node 1, as a message of a ServerApp would; then the rounds begin. Safe
/// to call again with the same `created_at`, seconds since 1970, which is part of the message's id.
Status SendModel(SuperLinkClient& client, const StartedRun& run, const flower::ArrayRecord& arrays,
                 const std::shared_ptr<flower::Spool>& spool, double created_at);

struct RunState {
  RunId run_id;
  bool finished = false;
  bool well = false;    // finished as it should
  std::string outcome;  // "completed", "failed", "stopped"
  std::string details;
};
/// errors  kNotFound: it does not know the run.
Result<RunState> StateOf(SuperLinkClient& client, RunId run_id);
/// The newest hundred.
Result<std::vector<RunState>> ListRuns(SuperLinkClient& client);
/// Ends the run; one that has ended already is no error.
Status StopRun(SuperLinkClient& client, RunId run_id);

/// Records that come after `after`; none when `hold` is over without any, or with the run's end.
Result<std::vector<rounds::RoundRecord>> WatchRounds(SuperLinkClient& client, RunId run_id,
                                                     uint64_t after, std::chrono::seconds hold);

/// How many nodes are online: at least `online_min`, or `hold` is over.
Result<uint32_t> WatchNodes(SuperLinkClient& client, uint32_t online_min,
                            std::chrono::seconds hold);

/// Writes the model of a round, or the last there is, to an .npz file, or by its suffix to a
/// .safetensors file: as it comes, and `path` is whole or not there.
Status SaveModel(SuperLinkClient& client, RunId run_id, std::optional<uint32_t> round,
                 const std::string& path);

}  // namespace umbel::rounds_client
