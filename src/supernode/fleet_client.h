// The Fleet API as a SuperNode calls it: signed by its key, sent again as Flower's retry rules say.
// Coroutines on the io_context's one thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/random.h"
#include "base/result.h"
#include "flower/records.h"
#include "http/client.h"

namespace google::protobuf {
class MessageLite;
}
namespace umbel::flower {
class NodeSigner;
}

namespace umbel::supernode {

using http::Task;

/// Whether and for how long a call that was not answered is sent again.
struct RetryRules {
  std::optional<int64_t> tries_max;   // further attempts of one call
  std::optional<double> seconds_max;  // since its first
  std::chrono::milliseconds pause_min{100};
  std::chrono::seconds pause_max{20};
};

struct FabReply {
  std::string hash;
  std::string content;
  std::vector<std::pair<std::string, std::string>> verifications;
};

struct PushReply {
  std::vector<ObjectId> wanted;
  std::string session_id;
};

/// Errors of all calls: kUnavailable after the last attempt; kCancelled: the client was closed;
/// kUnauthenticated: 401, the SuperLink does not know the key; kPermissionDenied with wire code
/// 2007: the run is not running; else Flower's code in wire_code and its words in the message.
class FleetClient {
 public:
  FleetClient(http::Client& client, const flower::NodeSigner& signer, const Clock& clock, Rng& rng,
              RetryRules rules);
  ~FleetClient();

  /// Lets no call be sent again and ends the pauses before: they return kCancelled. Calls under way
  /// and further ones are sent once.
  void Close();
  /// Waits, no longer than until Close().
  Task<void> Pause(std::chrono::milliseconds time);

  Task<Status> Register();
  Task<Result<NodeId>> Activate(double heartbeat_interval);
  Task<Status> Deactivate(NodeId node);
  Task<Status> Unregister(NodeId node);
  /// Once, within Flower's 5 s. False: the SuperLink does not take it.
  Task<Result<bool>> Heartbeat(NodeId node, double interval);
  /// One instruction without its objects; nullopt: there is none. A SuperLink that can holds the
  /// call for up to `wait`.
  Task<Result<std::optional<flower::Parcel>>> Pull(NodeId node, std::chrono::seconds wait);
  /// A serialized flwr.proto.Run.
  Task<Result<std::string>> GetRun(NodeId node, RunId run_id);
  Task<Result<FabReply>> GetFab(NodeId node, RunId run_id, const std::string& hash);
  /// Waits for an object that is announced but not there yet. The bytes are checked.
  Task<Result<std::string>> PullObject(NodeId node, RunId run_id, const ObjectId& id);
  Task<Status> Confirm(NodeId node, RunId run_id, const ObjectId& message);
  Task<Result<PushReply>> PushReplyMessage(NodeId node, const flower::Parcel& reply,
                                           double runtime_seconds);
  /// False: stored=false.
  Task<Result<bool>> PushObject(NodeId node, RunId run_id, const ObjectId& id,
                                const flower::StoredObject& object, int fd,
                                const std::string& session_id);

  /// Of the last call that failed, for people; "" since one has succeeded.
  const std::string& last_error() const { return last_error_; }

 private:
  struct Call;
  struct Pauses;
  Task<Result<std::string>> Send(Call call);
  Task<Status> Ask(std::string_view route, const google::protobuf::MessageLite& request,
                   google::protobuf::MessageLite* response);

  http::Client& client_;
  const flower::NodeSigner& signer_;
  const Clock& clock_;
  Rng& rng_;
  const RetryRules rules_;
  const std::unique_ptr<Pauses> pauses_;
  std::string last_error_;
};

}  // namespace umbel::supernode
