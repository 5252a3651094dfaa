// The Fleet door: what SuperNodes ask.
#include "flwr/fleet.pb.h"

#include <cmath>

#include "base/log.h"
#include "superlink/door.h"
#include "superlink/wire.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr uint64_t kReconnectSeconds = 5;  // Flower's constant in push-messages; nobody reads it

tl::unexpected<Error> BadNode() {
  return Fail(Code::kUnauthenticated, "Invalid SuperNode authentication");
}

/// Checks the three headers: a fresh timestamp, signed by the key that is shown. Returns the key.
Task<Result<std::string>> CheckSignature(Site& site, Exchange& exchange) {
  auto credentials = flower::DecodeNodeHeaders(exchange.Header("flwr-public-key"),
                                               exchange.Header("flwr-timestamp"),
                                               exchange.Header("flwr-signature"));
  if (!credentials.ok() ||
      !flower::CheckTimestamp(credentials->timestamp, site.engine.clock().Now()).ok())
    co_return BadNode();
  std::string pem = credentials->public_key_pem;
  // Named, not a temporary: GCC 12 destroys a closure twice that is made within co_await.
  auto verify = [&site, credentials = std::move(*credentials)]() -> Result<bool> {
    const auto key = site.keys.Get(credentials.public_key_pem);
    return key.ok() && key->Verify(credentials.timestamp, credentials.signature);
  };
  const auto verified = co_await OnPool(site, exchange, std::move(verify));
  if (!verified.ok()) co_return Fail(verified.error());
  if (!*verified) co_return BadNode();
  co_return pem;
}

/// The caller is the registered node it says it is.
Task<Status> CheckNode(Site& site, Exchange& exchange, uint64_t node_id) {
  UMBEL_CO_ASSIGN(const std::string pem, co_await CheckSignature(site, exchange));
  const bool known = site.engine.Read([&](State& state, WallTime) {
    const store::NodeRow* row = state.FindNodeByKey(pem);
    return row && row->node_id.value == node_id && row->status != NodeStatus::kUnregistered;
  });
  if (!known) {
    site.Audit(exchange, "fleet-refused", RunId{}, "", fmt::format("node {}", node_id));
    co_return BadNode();
  }
  co_return Status{};
}

tl::unexpected<Error> NotRunning(RunId run_id) {
  return WireError(wire::kRunNotRunning, fmt::format("run {} is not running", run_id));
}

/// Why a run that is not live may not be seen: it has ended, or `unknown_code` if it never was.
Task<Status> NotLive(Site& site, Exchange& exchange, RunId run_id, int unknown_code) {
  const auto read = [&store = site.engine.store(), run_id] { return store.ReadRun(run_id); };
  const auto stored = co_await OnPool(site, exchange, read);
  if (stored.ok()) co_return NotRunning(run_id);
  if (stored.error().code != Code::kNotFound) co_return Fail(stored.error());
  co_return WireError(unknown_code, fmt::format("run {} is not known", run_id));
}

/// The run, if Fleet operations are allowed on it.
Run* RunningRun(State& state, RunId run_id) {
  Run* run = state.FindRun(run_id);
  return run && run->task.status == TaskStatus::kRunning ? run : nullptr;
}

Task<Status> RegisterNode(Site& site, Exchange& exchange) {
  pb::RegisterNodeFleetRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_ASSIGN(const std::string pem, co_await CheckSignature(site, exchange));
  if (pem != request.public_key()) co_return BadNode();
  if (site.options.supernode_auth) {
    site.Audit(exchange, "fleet-register-node", RunId{}, "", "refused: registration is by CLI");
    co_return WireError(wire::kRegistrationDisabled);
  }
  auto [node_id, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.RegisterNode({pem, "<id:none>", "none", "", ""}, now, changes);
  });
  site.Audit(exchange, "fleet-register-node", RunId{}, "",
             node_id.ok() ? fmt::format("node {}", *node_id) : "refused: key in use");
  if (!node_id.ok()) co_return Fail(node_id.error());
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  pb::RegisterNodeFleetResponse response;
  response.set_node_id(node_id->value);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> ActivateNode(Site& site, Exchange& exchange) {
  pb::ActivateNodeRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_ASSIGN(const std::string pem, co_await CheckSignature(site, exchange));
  if (pem != request.public_key()) co_return BadNode();
  auto [node_id, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.ActivateNode(pem, request.heartbeat_interval(), now, changes);
  });
  if (!node_id.ok()) {
    site.Audit(exchange, "fleet-activate-node", RunId{}, "", node_id.error().message);
    co_return Fail(node_id.error());
  }
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  LogInfo("SuperNode is online", {{"node_id", *node_id}, {"peer", exchange.peer_address()}});
  pb::ActivateNodeResponse response;
  response.set_node_id(node_id->value);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> DeactivateNode(Site& site, Exchange& exchange) {
  pb::NodeIdRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, request.node_id()));
  auto [status, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.DeactivateNode(NodeId{request.node_id()}, now, changes);
  });
  UMBEL_CO_TRY(status);
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  LogInfo("SuperNode has left", {{"node_id", request.node_id()}});
  co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
}

Task<Status> UnregisterNode(Site& site, Exchange& exchange) {
  pb::NodeIdRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, request.node_id()));
  if (site.options.supernode_auth) co_return WireError(wire::kUnregistrationDisabled);
  auto [status, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.UnregisterNode(NodeId{request.node_id()}, now, changes);
  });
  UMBEL_CO_TRY(status);
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  site.Audit(exchange, "fleet-unregister-node", RunId{}, "",
             fmt::format("node {}", request.node_id()));
  co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
}

Task<Status> SendNodeHeartbeat(Site& site, Exchange& exchange) {
  pb::SendNodeHeartbeatRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, request.node().node_id()));
  auto [success, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.NodeHeartbeat(NodeId{request.node().node_id()}, request.heartbeat_interval(), now,
                               changes);
  });
  static_cast<void>(commit);  // a lost status change is made again by the next heartbeat
  if (!success.ok()) co_return Fail(success.error());
  pb::SendHeartbeatResponse response;
  response.set_success(*success);
  co_return co_await ReplyMessage(exchange, response);
}

void CountTraffic(Site& site, RunId run_id, const google::protobuf::MessageLite& received,
                  const google::protobuf::MessageLite& sent) {
  site.engine.Read([&](State& state, WallTime) {
    Run* run = state.FindRun(run_id);
    if (!run) return;
    run->traffic.bytes_recv += received.ByteSizeLong();
    run->traffic.bytes_sent += sent.ByteSizeLong();
  });
}

Task<Status> PullMessages(Site& site, Exchange& exchange) {
  pb::FleetPullMessagesRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  const NodeId node_id{request.node().node_id()};
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, node_id.value));
  const HoldPlan plan = PlanHold(exchange, true);
  const WallTime asked_at = site.engine.clock().Now();
  for (;;) {
    bool registered = true;  // it may be dismissed while it waits
    const auto delivery = site.engine.Read([&](State& state, WallTime now) {
      const store::NodeRow* row = state.FindNode(node_id);
      registered = row && row->status != NodeStatus::kUnregistered;
      return registered ? state.PullInstruction(node_id, exchange.waker(), now) : std::nullopt;
    });
    if (!registered) co_return BadNode();
    if (delivery) {
      pb::FleetPullMessagesResponse response;
      response.add_messages_list()->ParseFromString(delivery->bytes->body);
      response.add_message_object_trees()->ParseFromString(delivery->bytes->tree);
      CountTraffic(site, delivery->run_id, request, response);
      ++site.metrics.messages_delivered;
      site.RecordReadyWait(delivery->ready_at, asked_at);
      co_return co_await ReplyMessage(exchange, response);
    }
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kWoken) continue;
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
  }
}

Task<Status> PushMessages(Site& site, Exchange& exchange) {
  pb::FleetPushMessagesRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  const NodeId node_id{request.node().node_id()};
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, node_id.value));
  if (request.messages_list_size() != 1 || request.message_object_trees_size() != 1)
    co_return WireError(
        wire::kBadProtobuf,
        fmt::format("{} messages with {} object trees; one of each is taken",
                    request.messages_list_size(), request.message_object_trees_size()));
  const RunId run_id{request.messages_list(0).metadata().run_id()};
  UMBEL_CO_ASSIGN(NewMessage fresh,
                  DecodeMessage(request.messages_list(0), request.message_object_trees(0)));
  const double runtime =
      request.clientapp_runtime_list_size() > 0 ? request.clientapp_runtime_list(0) : 0.0;
  auto [outcome, commit] =
      site.engine.Apply([&](State& state, WallTime now, Changes& changes) -> Result<PushOutcome> {
        Run* run = RunningRun(state, run_id);
        if (!run) return NotRunning(run_id);
        PushOutcome result = state.PushReply(*run, node_id, std::move(fresh), now, changes);
        // Once: a push whose answer was lost comes again.
        if (result.accepted && !result.repeated && runtime > 0 && std::isfinite(runtime))
          run->traffic.clientapp_runtime += runtime;
        return result;
      });
  if (!outcome.ok()) co_return Fail(outcome.error());
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  pb::FleetPushMessagesResponse response;
  response.mutable_reconnect()->set_reconnect(kReconnectSeconds);
  const std::string& id = request.messages_list(0).metadata().message_id();
  (*response.mutable_results())[id] = 0;
  for (const ObjectId& object : outcome->objects_to_push)
    response.add_objects_to_push(object.Hex());
  response.set_session_id(outcome->session_id);
  CountTraffic(site, run_id, request, response);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> GetRun(Site& site, Exchange& exchange) {
  pb::GetRunRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, request.node().node_id()));
  const RunId run_id{request.run_id()};
  pb::GetRunResponse response;
  const bool live = site.engine.Read([&](State& state, WallTime) {
    Run* run = state.FindRun(run_id);
    if (run && run->task.status == TaskStatus::kRunning) {
      EncodeRun(run->Shown(), run->task, response.mutable_run());
      response.mutable_run()->clear_account_name();
    }
    return run != nullptr;
  });
  if (!live) co_return co_await NotLive(site, exchange, run_id, wire::kGetRunFailed);
  if (!response.has_run()) co_return NotRunning(run_id);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> GetFab(Site& site, Exchange& exchange) {
  pb::GetFabRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, request.node().node_id()));
  const RunId run_id{request.run_id()};
  bool live = true;
  const auto hash = site.engine.Read([&](State& state, WallTime) -> Result<Digest> {
    Run* run = state.FindRun(run_id);
    live = run != nullptr;
    if (!live) return NotRunning(run_id);
    if (run->task.status != TaskStatus::kRunning) return NotRunning(run_id);
    if (run->row.fab_hash.Hex() != request.hash_str())
      return WireError(wire::kGetFabFailed, fmt::format("'{}' is not the FAB of run {}",
                                                        request.hash_str().substr(0, 80), run_id));
    return run->row.fab_hash;
  });
  if (!live) co_return co_await NotLive(site, exchange, run_id, wire::kGetFabFailed);
  if (!hash.ok()) co_return Fail(hash.error());
  const auto read = [&store = site.engine.store(), digest = *hash] {
    return store.ReadFab(digest);
  };
  auto content = co_await OnPool(site, exchange, read);
  if (!content.ok()) co_return Fail(content.error());
  pb::GetFabResponse response;
  response.mutable_fab()->set_hash_str(hash->Hex());
  response.mutable_fab()->set_content(std::move(*content));
  co_return co_await ReplyMessage(exchange, response);
}

/// For the object routes: the node, then the run.
Task<Result<ObjectCaller>> Authorized(Site& site, Exchange& exchange, uint64_t node_id,
                                      uint64_t run_id) {
  UMBEL_CO_TRY(co_await CheckNode(site, exchange, node_id));
  const bool running = site.engine.Read(
      [&](State& state, WallTime) { return RunningRun(state, RunId{run_id}) != nullptr; });
  if (!running) co_return NotRunning(RunId{run_id});
  co_return ObjectCaller{RunId{run_id}, NodeId{node_id}};
}

Task<Status> PushObject(Site& site, Exchange& exchange) {
  Authorize authorize = [&](uint64_t node_id, uint64_t run_id) {
    return Authorized(site, exchange, node_id, run_id);
  };
  co_return co_await ReceiveObject(site, exchange, std::move(authorize));
}

Task<Status> PullObject(Site& site, Exchange& exchange) {
  pb::PullObjectRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_ASSIGN(const ObjectCaller caller,
                  co_await Authorized(site, exchange, request.node().node_id(), request.run_id()));
  co_return co_await SendObject(site, exchange, caller, request.object_id());
}

Task<Status> ConfirmMessageReceived(Site& site, Exchange& exchange) {
  pb::ConfirmMessageReceivedRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request));
  UMBEL_CO_ASSIGN(const ObjectCaller caller,
                  co_await Authorized(site, exchange, request.node().node_id(), request.run_id()));
  const auto id = ObjectId::FromHex(request.message_object_id());
  if (id.ok())
    site.engine.Apply([&](State& state, WallTime, Changes& changes) {
      if (Run* run = state.FindRun(caller.run_id))
        state.TouchInstruction(*run, caller.owner, *id, changes);
    });
  co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
}

constexpr Route kRoutes[] = {
    {"/v1/fleet/register-node", RegisterNode},
    {"/v1/fleet/activate-node", ActivateNode},
    {"/v1/fleet/deactivate-node", DeactivateNode},
    {"/v1/fleet/unregister-node", UnregisterNode},
    {"/v1/fleet/send-node-heartbeat", SendNodeHeartbeat},
    {"/v1/fleet/pull-messages", PullMessages},
    {"/v1/fleet/push-messages", PushMessages},
    {"/v1/fleet/get-run", GetRun},
    {"/v1/fleet/get-fab", GetFab},
    {"/v1/fleet/push-object", PushObject},
    {"/v1/fleet/pull-object", PullObject},
    {"/v1/fleet/confirm-message-received", ConfirmMessageReceived},
};

}  // namespace

std::span<const Route> FleetRoutes() { return kRoutes; }

}  // namespace umbel::superlink
