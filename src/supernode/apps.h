// Runs as a site needs them: what the SuperLink says of a run, and its FAB, checked against every
// rule of this site, unpacked once. Belongs to the io_context's one thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/fab_trust.h"
#include "supernode/fleet_client.h"
#include "supernode/host.h"

namespace boost::asio {
class thread_pool;
}

namespace umbel::supernode {

class Apps {
 public:
  struct Rules {
    std::optional<flower::TrustedEntities> trusted;
    flower::AllowRules allow;
  };

  /// root  where FABs are unpacked.
  /// readable_by  the group user code runs as, when it is not ours.
  Apps(std::string root, std::optional<gid_t> readable_by, Rules rules,
       boost::asio::thread_pool& pool);

  /// What is known of the run; asks the SuperLink once, whichever site is first.
  /// errors  kPermissionDenied with wire code kRefusedFab: a rule of this site; the message is the
  ///         sentence for the reply; kInvalidArgument: the FAB is broken; else FleetClient's.
  Task<Result<std::shared_ptr<const RunInfo>>> RunOf(FleetClient& fleet, NodeId node, RunId run_id);
  /// The FAB in a file of this site's, held to the same rules.
  Task<Result<std::shared_ptr<const App>>> FromFile(const std::string& path);
  void Drop(RunId run_id) { runs_.erase(run_id); }
  const std::map<RunId, std::shared_ptr<const RunInfo>>& runs() const { return runs_; }

  /// Not one of Flower's API codes: an instruction of this run is answered with error 7.
  static constexpr int kRefusedFab = 90'007;

 private:
  Task<Result<std::shared_ptr<const RunInfo>>> Ask(FleetClient& fleet, NodeId node, RunId run_id);
  /// hash  of its content.
  Result<std::shared_ptr<const App>> Install(FabReply fab, const Digest& hash) const;

  const std::string root_;
  const std::optional<gid_t> readable_by_;
  const Rules rules_;
  boost::asio::thread_pool& pool_;
  std::map<RunId, std::shared_ptr<const RunInfo>> runs_;
};

}  // namespace umbel::supernode
