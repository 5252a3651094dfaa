// The Runtime door: what ServerApps and SuperExecs ask of a SuperLink.
#include "flwr/runtime.pb.h"

#include <array>
#include <cmath>
#include <unordered_set>

#include "base/log.h"
#include "flwr/control.pb.h"
#include "superlink/door.h"
#include "superlink/wire.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr size_t kControlMessageMax = size_t{16} << 20;
constexpr size_t kContextMax = size_t{64} << 20;

/// The run whose task token the caller shows, as exactly one header.
Result<RunId> RunOfToken(Site& site, const Exchange& exchange) {
  if (exchange.HeaderCount("flwr-task-token") != 1) return WireError(wire::kRuntimeAuth);
  return site.engine.Read([&](State& state, WallTime now) -> Result<RunId> {
    UMBEL_ASSIGN(Run * run, state.FindByToken(exchange.Header("flwr-task-token"), now));
    return run->row.run_id;
  });
}

/// Reads the request, then finds the run: a request that makes no sense is answered as such.
Task<Result<RunId>> ReadFor(Site& site, Exchange& exchange, google::protobuf::MessageLite* message,
                            size_t limit) {
  UMBEL_CO_TRY(co_await ReadMessage(exchange, message, limit));
  co_return RunOfToken(site, exchange);
}

/// For routes whose request has nothing we read: it must be protobuf all the same.
Task<Result<RunId>> ReadFor(Site& site, Exchange& exchange) {
  pb::NoFields request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlMessageMax));
  co_return RunOfToken(site, exchange);
}

tl::unexpected<Error> Gone() { return WireError(wire::kRuntimeAuth); }

constexpr std::array<std::string_view, 4> kSuperExecHeaders = {
    "flwr-superexec-ts", "flwr-superexec-nonce", "flwr-superexec-body-sha256",
    "flwr-superexec-signature"};

/// The four headers, each exactly once, prove that the caller knows the shared secret.
Status CheckSuperExec(Site& site, const Exchange& exchange, std::string_view body) {
  for (const std::string_view name : kSuperExecHeaders)
    if (exchange.HeaderCount(name) != 1) return Gone();
  const auto& [ts, nonce, hash, signature] = kSuperExecHeaders;
  return site.superexec->Check("/flwr.proto.Runtime/AcquireTask", exchange.Header(ts),
                               exchange.Header(nonce), exchange.Header(hash),
                               exchange.Header(signature), body, site.engine.clock().Now());
}

Task<Status> AcquireTask(Site& site, Exchange& exchange) {
  UMBEL_CO_TRY(CheckContentType(exchange));
  UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kControlMessageMax));
  pb::AcquireTaskRequest request;
  if (!request.ParseFromString(body))
    co_return WireError(wire::kBadProtobuf, "the body is not an AcquireTaskRequest");
  if (site.superexec) {
    if (!CheckSuperExec(site, exchange, body).ok()) {
      site.Audit(exchange, "runtime-acquire-task", RunId{}, "", "refused");
      co_return Gone();
    }
  } else if (!site.MayCommand(exchange)) {
    co_return Gone();
  }
  const std::vector<std::string> types(request.supported_task_types().begin(),
                                       request.supported_task_types().end());
  const bool serves = site.options.isolation == Isolation::kProcess && !types.empty();
  const HoldPlan plan = PlanHold(exchange, true);
  while (serves) {
    pb::AcquireTaskResponse response;
    auto [acquired, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
      Run* run = state.AcquireTask(types, now, changes);
      if (!run) {
        state.task_waiters().Add(exchange.waker());
        return false;
      }
      // Described as it was before the claim: that is what Flower's SuperExec gets to see.
      pb::Task* task = response.mutable_task();
      task->set_task_id(run->task.task_id.value);
      task->set_type(run->task.type);
      task->set_run_id(run->row.run_id.value);
      task->set_fab_hash(run->row.fab_hash.Hex());
      task->mutable_status()->set_status(std::string(Name(TaskStatus::kPending)));
      task->set_pending_at(IsoFormat(run->task.pending_at));
      response.set_token(run->task.token);
      return true;
    });
    if (acquired) {
      UMBEL_CO_TRY(co_await Durable(exchange, commit));
      co_return co_await ReplyMessage(exchange, response);
    }
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end != http::HoldEnd::kWoken) break;
  }
  co_return co_await ReplyEmpty(exchange);
}

Task<Status> SendTaskHeartbeat(Site& site, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange));
  const bool alive = site.engine.Read([&](State& state, WallTime now) {
    Run* run = state.FindRun(run_id);
    if (run) state.TaskHeartbeat(*run, now);
    return run != nullptr;
  });
  std::string reply;
  if (alive) reply = std::string("\x08\x01", 2);  // SendHeartbeatResponse{success: true}
  co_return co_await exchange.Reply({200, "application/protobuf", std::move(reply), ""});
}

Task<Status> PullTaskInput(Site& site, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange));
  const auto spec = site.engine.Read([&](State& state, WallTime) -> Result<store::RunRow> {
    Run* run = state.FindRun(run_id);
    if (!run) return Gone();
    return run->row;
  });
  if (!spec.ok()) co_return Fail(spec.error());
  struct Input {
    std::string context;
    std::string fab;
  };
  auto input = co_await OnPool(site, exchange,
                               [&store = site.engine.store(), series = spec->series_id,
                                hash = spec->fab_hash]() -> Result<Input> {
                                 Input out;
                                 UMBEL_ASSIGN(out.fab, store.ReadFab(hash));
                                 auto row = store.ReadSeries(series);
                                 if (row.ok()) out.context = std::move(row->context);
                                 return out;
                               });
  if (!input.ok()) co_return WireError(wire::kTaskStart, input.error().message);
  pb::PullTaskInputResponse response;
  auto [begun, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    Run* run = state.FindRun(run_id);
    if (!run) return Status(Gone());
    EncodeRun(run->Shown(), run->task, response.mutable_run());
    response.mutable_run()->clear_account_name();
    return state.BeginTask(*run, now, changes);
  });
  UMBEL_CO_TRY(begun);
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  pb::Context* context = response.mutable_context();
  // What an earlier run of the series left is its state; its configuration was its own.
  pb::Context left;
  if (left.ParseFromString(input->context)) context->mutable_state()->Swap(left.mutable_state());
  context->set_run_id(run_id.value);
  context->set_node_id(kSuperLinkNode.value);
  context->set_series_id(spec->series_id.value);
  context->mutable_state();
  response.mutable_fab()->set_hash_str(spec->fab_hash.Hex());
  response.mutable_fab()->set_content(std::move(input->fab));
  response.set_task_id(spec->primary_task_id.value);
  LogInfo("ServerApp is running", {{"run_id", run_id}});
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> PushTaskOutput(Site& site, Exchange& exchange) {
  pb::PushTaskOutputRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange, &request, kContextMax));
  const std::string& sub_status = request.sub_status();
  if (sub_status != "completed" && sub_status != "failed" && sub_status != "stopped")
    co_return co_await ReplyEmpty(exchange);  // as Flower does: the task goes on
  const TaskEvent event = sub_status == "completed" ? TaskEvent::kComplete
                          : sub_status == "stopped" ? TaskEvent::kStop
                                                    : TaskEvent::kFail;
  site.output_flush(run_id);  // what the ServerApp has printed comes before its end
  auto [finished, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    Run* run = state.FindRun(run_id);
    if (!run) return false;
    const double seconds = request.clientapp_runtime();
    if (seconds > 0 && std::isfinite(seconds)) run->traffic.clientapp_runtime += seconds;
    if (request.has_context() && Next(run->task.status, event)) {
      store::SeriesRow row;
      row.series_id = run->row.series_id;
      row.context = request.context().SerializeAsString();
      row.created_at = now;
      changes.writes.push_back(store::PutSeries{std::move(row)});
    }
    return state.FinishTask(run_id, event, request.details(), now, changes);
  });
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  if (finished)
    LogInfo("run has ended",
            {{"run_id", run_id}, {"sub_status", sub_status}, {"details", request.details()}});
  co_return co_await ReplyEmpty(exchange);
}

Task<Status> PushMessages(Site& site, Exchange& exchange) {
  pb::RuntimePushMessagesRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange, &request, kBodyMax));
  if (request.messages_list_size() == 0 ||
      request.messages_list_size() != request.message_object_trees_size())
    co_return WireError(
        wire::kBadProtobuf,
        fmt::format("{} messages with {} object trees; at least one, and one tree "
                    "for each, is needed",
                    request.messages_list_size(), request.message_object_trees_size()));
  std::vector<NewMessage> messages;
  const WallTime now = site.engine.clock().Now();
  for (int i = 0; i < request.messages_list_size(); ++i) {
    const pb::Message& message = request.messages_list(i);
    UMBEL_CO_ASSIGN(NewMessage fresh, DecodeMessage(message, request.message_object_trees(i)));
    const std::string fault =
        State::InstructionFault(fresh.message, RunId{message.metadata().run_id()}, run_id, now);
    if (!fault.empty())
      co_return WireError(wire::kBadProtobuf, fmt::format("message {}: {}", i, fault));
    messages.push_back(std::move(fresh));
  }
  auto [outcome, commit] =
      site.engine.Apply([&](State& state, WallTime at, Changes& changes) -> Result<PushOutcome> {
        Run* run = state.FindRun(run_id);
        if (!run) return Gone();
        return state.PushInstructions(*run, std::move(messages), at, changes);
      });
  if (!outcome.ok()) co_return Fail(outcome.error());
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  if (!outcome->publish.empty())
    site.engine.Read(
        [&](State& state, WallTime at) { state.Publish(run_id, outcome->publish, at); });
  pb::RuntimePushMessagesResponse response;
  for (std::string& id : outcome->message_ids) response.add_message_ids(std::move(id));
  for (const ObjectId& id : outcome->objects_to_push) response.add_objects_to_push(id.Hex());
  response.set_session_id(outcome->session_id);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> PullMessages(Site& site, Exchange& exchange) {
  pb::RuntimePullMessagesRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange, &request, kBodyMax));
  std::vector<std::string> asked;  // each once, in the order they came
  std::unordered_set<std::string_view> seen;
  for (const std::string& id : request.message_ids())
    if (seen.insert(id).second) asked.push_back(id);
  // Without interim lines even for httpx: the grid looks at its own timeout only between polls.
  const HoldPlan plan = PlanHold(exchange, false);
  const WallTime asked_at = site.engine.clock().Now();
  Collected collected;
  for (bool last = false;;) {
    auto found = site.engine.Read([&](State& state, WallTime now) -> Result<Collected> {
      Run* run = state.FindRun(run_id);
      if (!run) return Gone();
      return state.CollectReplies(*run, asked, last ? nullptr : exchange.waker(), now);
    });
    if (!found.ok()) co_return Fail(found.error());
    collected = std::move(*found);
    if (collected.all || last) break;
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    last = end != http::HoldEnd::kWoken;
  }
  pb::RuntimePullMessagesResponse response;
  for (const auto& bytes : collected.messages) {
    response.add_messages_list()->ParseFromString(bytes->body);
    response.add_message_object_trees()->ParseFromString(bytes->tree);
  }
  site.metrics.replies_delivered += collected.messages.size();
  site.RecordReadyWait(collected.ready_at, asked_at);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> GetNodes(Site& site, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange));
  static_cast<void>(run_id);
  pb::GetNodesResponse response;
  for (const store::NodeRow& row :
       site.engine.Read([](State&state, WallTime) { return state.ListNodes(true); }))
    EncodeNode(row, response.add_nodes());
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> PushLogs(Site& site, Exchange& exchange) {
  pb::PushLogsRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id,
                  co_await ReadFor(site, exchange, &request, kControlMessageMax));
  std::string text;
  for (const std::string& line : request.logs()) text += line;
  // A ServerApp of ours writes to a file that is read already: its own copy would double it.
  const TaskId task_id = site.engine.Read([&](State& state, WallTime) {
    Run* run = state.FindRun(run_id);
    return run && run->task.pid == 0 ? run->task.task_id : TaskId{};
  });
  if (task_id && !text.empty())
    UMBEL_CO_TRY(
        co_await Durable(exchange, site.engine.AppendLog(run_id, task_id, std::move(text))));
  co_return co_await ReplyEmpty(exchange);
}

tl::unexpected<Error> WrongNode(uint64_t node_id) {
  return WireError(wire::kNodeIdMismatch,
                   fmt::format("node id {} is not the SuperLink's own, 1", node_id));
}

Task<Status> PushObject(Site& site, Exchange& exchange) {
  Authorize authorize = [&](uint64_t node_id, uint64_t) -> Task<Result<ObjectCaller>> {
    UMBEL_CO_ASSIGN(const RunId run_id, RunOfToken(site, exchange));
    if (node_id != kSuperLinkNode.value) co_return WrongNode(node_id);
    co_return ObjectCaller{run_id, kSuperLinkNode};
  };
  co_return co_await ReceiveObject(site, exchange, std::move(authorize));
}

Task<Status> PullObject(Site& site, Exchange& exchange) {
  pb::PullObjectRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id,
                  co_await ReadFor(site, exchange, &request, kControlMessageMax));
  if (request.node().node_id() != kSuperLinkNode.value)
    co_return WrongNode(request.node().node_id());
  co_return co_await SendObject(site, exchange, {run_id, kSuperLinkNode}, request.object_id());
}

Task<Status> ConfirmMessageReceived(Site& site, Exchange& exchange) {
  pb::ConfirmMessageReceivedRequest request;
  UMBEL_CO_ASSIGN(const RunId run_id,
                  co_await ReadFor(site, exchange, &request, kControlMessageMax));
  const auto id = ObjectId::FromHex(request.message_object_id());
  if (id.ok()) {
    CommitPtr commit = site.engine.Apply([&](State& state, WallTime, Changes& changes) {
      if (Run* run = state.FindRun(run_id)) state.ConfirmReply(*run, *id, changes);
    });
    UMBEL_CO_TRY(co_await Durable(exchange, commit));
  }
  co_return co_await ReplyEmpty(exchange);
}

/// Agents only: nothing in federated learning asks for these. 0: an empty answer.
template <int kCode>
Task<Status> AgentOnly(Site& site, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const RunId run_id, co_await ReadFor(site, exchange));
  static_cast<void>(run_id);
  if (kCode == 0) co_return co_await ReplyEmpty(exchange);
  co_return WireError(
      kCode, fmt::format("{} serves agents, which this SuperLink does not run", exchange.path()));
}

constexpr Route kRoutes[] = {
    {"/v1/runtime/acquire-task", AcquireTask},
    {"/v1/runtime/send-task-heartbeat", SendTaskHeartbeat},
    {"/v1/runtime/pull-task-input", PullTaskInput},
    {"/v1/runtime/push-task-output", PushTaskOutput},
    {"/v1/runtime/push-messages", PushMessages},
    {"/v1/runtime/pull-messages", PullMessages},
    {"/v1/runtime/push-object", PushObject},
    {"/v1/runtime/pull-object", PullObject},
    {"/v1/runtime/confirm-message-received", ConfirmMessageReceived},
    {"/v1/runtime/get-nodes", GetNodes},
    {"/v1/runtime/push-logs", PushLogs},
    {"/v1/runtime/create-task", AgentOnly<wire::kTaskNotCreated>},
    {"/v1/runtime/push-task-message", AgentOnly<wire::kTaskMessageRefused>},
    {"/v1/runtime/pull-task-message", AgentOnly<0>},
    {"/v1/runtime/push-task-events", AgentOnly<0>},
    {"/v1/runtime/get-run-series-events", AgentOnly<0>},
    {"/v1/runtime/get-compacted-contexts", AgentOnly<0>},
    {"/v1/runtime/put-compacted-context", AgentOnly<wire::kContextRefused>},
    {"/v1/runtime/record-task-usage", AgentOnly<0>},
    {"/v1/runtime/get-connector", AgentOnly<wire::kConnectorRefused>},
    {"/v1/runtime/start-automation", AgentOnly<wire::kInvalidAutomation>},
};

}  // namespace

std::span<const Route> RuntimeRoutes() { return kRoutes; }

}  // namespace umbel::superlink
