#include "supernode/runtime/door.h"

#include <algorithm>
#include <array>

#include "base/log.h"
#include "flwr/runtime.pb.h"
#include "http/tasks.h"
#include "supernode/runtime/reply.h"
#include "supernode/runtime/routes.h"
#include "tensor/tree.h"

namespace umbel::supernode {
namespace pb = flwr::proto;
namespace {

constexpr size_t kControlMessageMax = size_t{16} << 20;
constexpr size_t kContextMax = flower::kBodyMax;
constexpr std::string_view kTaskType = "flwr-clientapp";

tl::unexpected<Error> Gone() { return WireError(wire::kRuntimeAuth); }

pb::Scalar Encode(const ConfigScalar& value) {
  pb::Scalar out;
  if (const bool* flag = std::get_if<bool>(&value)) out.set_bool_(*flag);
  if (const int64_t* number = std::get_if<int64_t>(&value)) out.set_sint64(*number);
  if (const uint64_t* number = std::get_if<uint64_t>(&value)) out.set_uint64(*number);
  if (const double* number = std::get_if<double>(&value)) out.set_double_(*number);
  if (const std::string* text = std::get_if<std::string>(&value)) out.set_string(*text);
  return out;
}

/// For routes whose request has nothing we read: it must be protobuf all the same.
Task<Result<AppTaskPtr>> ReadFor(RuntimeDoor& door, Exchange& exchange) {
  pb::NoFields request;
  UMBEL_CO_TRY(co_await flower::ReadMessage(exchange, &request, kControlMessageMax));
  co_return TaskOfToken(door, exchange);
}

/// The four headers, each exactly once, prove that the caller knows the shared secret.
Status CheckSuperExec(RuntimeDoor& door, const Exchange& exchange, std::string_view body) {
  constexpr std::array<std::string_view, 4> kHeaders = {"flwr-superexec-ts", "flwr-superexec-nonce",
                                                        "flwr-superexec-body-sha256",
                                                        "flwr-superexec-signature"};
  if (door.options().superexec == nullptr) return {};
  for (const std::string_view name : kHeaders)
    if (exchange.HeaderCount(name) != 1) return Gone();
  const auto& [ts, nonce, hash, signature] = kHeaders;
  return door.options().superexec->Check(
      "/flwr.proto.Runtime/AcquireTask", exchange.Header(ts), exchange.Header(nonce),
      exchange.Header(hash), exchange.Header(signature), body, door.tasks().clock().Now());
}

Task<Status> AcquireTask(RuntimeDoor& door, Exchange& exchange) {
  UMBEL_CO_TRY(flower::CheckContentType(exchange));
  UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kControlMessageMax));
  pb::AcquireTaskRequest request;
  if (!request.ParseFromString(body))
    co_return WireError(wire::kBadProtobuf, "the body is not an AcquireTaskRequest");
  if (!CheckSuperExec(door, exchange, body).ok()) {
    LogWarn("a SuperExec that does not know the secret was refused",
            {{"peer", exchange.peer_address()}});
    co_return Gone();
  }
  bool serves = false;
  for (const std::string& type : request.supported_task_types())
    serves = serves || type == kTaskType;
  serves = serves && door.options().external;
  const flower::HoldPlan plan = flower::PlanHold(exchange, true);
  while (serves) {
    const AppTaskPtr task = door.tasks().Claim(exchange.waker());
    if (task) {
      // Described as it was before the claim: that is what Flower's SuperExec gets to see.
      const RunInfo& run = *task->job->run;
      pb::AcquireTaskResponse response;
      pb::Task* shown = response.mutable_task();
      shown->set_task_id(task->id.value);
      shown->set_type(std::string(kTaskType));
      shown->set_run_id(run.run_id.value);
      shown->set_fab_hash(run.app->hash.Hex());
      shown->mutable_status()->set_status("pending");
      shown->set_pending_at(IsoFormat(task->pending_at));
      response.set_token(task->token);
      const Status sent = co_await flower::ReplyMessage(exchange, response);
      if (!sent.ok()) door.tasks().Unclaim(*task);
      co_return sent;
    }
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end != http::HoldEnd::kWoken) break;
  }
  co_return co_await flower::ReplyEmpty(exchange);
}

Task<Status> SendTaskHeartbeat(RuntimeDoor& door, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const AppTaskPtr task, co_await ReadFor(door, exchange));
  door.tasks().Heartbeat(*task);
  std::string reply("\x08\x01", 2);  // SendHeartbeatResponse{success: true}
  http::Response response(200, std::string(flower::kProtobuf), std::move(reply));
  co_return co_await exchange.Reply(std::move(response));
}

Task<Status> PullTaskInput(RuntimeDoor& door, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const AppTaskPtr task, co_await ReadFor(door, exchange));
  const flower::HoldPlan plan = flower::PlanHold(exchange, true);
  task->asked = true;
  while (task->state == TaskState::kWarm) {
    task->changed.Add(exchange.waker());
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (task->state == TaskState::kWarm && end != http::HoldEnd::kWoken)
      co_return Fail(Code::kUnavailable, "there is no work yet; ask again", 503);
  }
  if (task->job == nullptr) co_return Gone();
  const Job& job = *task->job;
  const RunInfo& run = *job.run;
  pb::PullTaskInputResponse response;
  pb::Context* context = response.mutable_context();
  if (!response.mutable_run()->ParseFromString(run.run))
    co_return WireError(wire::kTaskStart, "the run is not a Run");
  if (!context->mutable_state()->ParseFromString(job.state))
    co_return WireError(wire::kTaskStart, "the series' state is not a RecordDict");
  context->set_run_id(run.run_id.value);
  context->set_node_id(job.node_id.value);
  context->set_series_id(run.series_id.value);
  for (const auto& [key, value] : job.node_config)
    (*context->mutable_node_config())[key] = Encode(value);
  for (const auto& [key, value] : run.run_config)
    (*context->mutable_run_config())[key] = Encode(value);
  response.mutable_fab()->set_hash_str(run.app->hash.Hex());
  response.mutable_fab()->set_content(run.app->content);
  response.set_task_id(task->id.value);
  UMBEL_CHECK(door.tasks().Begin(*task));
  co_return co_await flower::ReplyMessage(exchange, response);
}

Task<Status> PushTaskOutput(RuntimeDoor& door, Exchange& exchange) {
  pb::PushTaskOutputRequest request;
  UMBEL_CO_ASSIGN(const AppTaskPtr task, co_await ReadFor(door, exchange, &request, kContextMax));
  const std::string& sub_status = request.sub_status();
  const bool ends = (sub_status == "completed" && task->state == TaskState::kRunning) ||
                    sub_status == "failed" || sub_status == "stopped";
  if (ends) {
    std::optional<std::string> state;
    if (request.has_context()) state = request.context().state().SerializeAsString();
    door.tasks().End(*task, request.details(), std::move(state));
  }
  co_return co_await flower::ReplyEmpty(exchange);  // as Flower does, whatever came of it
}

/// What is wrong with a reply's metadata; "" when nothing is.
std::string Fault(const flower::MessageHead& head, const Job& job) {
  const flower::MessageHead& asked = job.instruction.head;
  if (head.reply_to != asked.message_id)
    return fmt::format("it answers '{}', not {}", head.reply_to.substr(0, 80), asked.message_id);
  if (head.src != job.node_id)
    return fmt::format("it comes from node {}, not {}", head.src, job.node_id);
  if (head.dst != asked.src) return fmt::format("it goes to node {}, not {}", head.dst, asked.src);
  return "";
}

Task<Status> ReplyPushed(Exchange& exchange, const ReplyIntake& reply) {
  pb::RuntimePushMessagesResponse response;
  response.add_message_ids(reply.parcel().head.message_id);
  for (const ObjectId& id : reply.Missing()) response.add_objects_to_push(id.Hex());
  response.set_session_id(reply.session());
  co_return co_await flower::ReplyMessage(exchange, response);
}

Task<Status> PushMessages(RuntimeDoor& door, Exchange& exchange) {
  pb::RuntimePushMessagesRequest request;
  UMBEL_CO_ASSIGN(const AppTaskPtr task,
                  co_await ReadFor(door, exchange, &request, flower::kBodyMax));
  if (request.messages_list_size() != 1 || request.message_object_trees_size() != 1)
    co_return WireError(
        wire::kMessageCount,
        fmt::format("{} messages and {} object trees, not one of each",
                    request.messages_list_size(), request.message_object_trees_size()));
  const uint64_t run_id = request.messages_list(0).metadata().run_id();
  if (task->job == nullptr || task->job->run->run_id.value != run_id)
    co_return WireError(wire::kMessageRunMismatch, fmt::format("run {} is not the task's", run_id));
  if (task->state != TaskState::kRunning)
    co_return WireError(wire::kTaskStart, "the task has not asked for its input");
  const auto refuse = [&](std::string why) {
    task->refused = why;
    return WireError(wire::kBadProtobuf, std::move(why));
  };
  pb::Message* message = request.mutable_messages_list(0);
  if (message->has_content()) message->mutable_content()->Clear();  // records travel as objects
  auto parcel = flower::ReadParcel(message->SerializeAsString(),
                                   request.message_object_trees(0).SerializeAsString());
  if (!parcel.ok()) co_return refuse(parcel.error().message);
  if (std::string fault = Fault(parcel->head, *task->job); !fault.empty())
    co_return refuse(std::move(fault));
  if (task->reply) {
    // Sent again because the answer was lost; a task has one reply.
    if (task->reply->parcel().head.message_id != parcel->head.message_id)
      co_return refuse("the task has another reply already");
    co_return co_await ReplyPushed(exchange, *task->reply);
  }
  if (task->reply_opening)
    co_return Fail(Code::kUnavailable, "the same message is being taken; send it again", 503);
  auto ids = tensor::ParseTree(parcel->tree);
  if (!ids.ok()) co_return refuse(ids.error().message);
  if (!task->replied) task->replied = AppTask::Steady::now();
  task->reply_opening = true;
  auto create = [path = task->job->spool_path] { return FreshSpool(path); };
  auto spool = co_await http::RunOn(door.tasks().pool(), std::move(create));
  task->reply_opening = false;
  task->changed.WakeAll();
  if (task->state != TaskState::kRunning) co_return Gone();
  if (!spool.ok()) {  // 500: the process is to end now, not to try until the disk has room
    task->refused = spool.error().message;
    co_return Fail(spool.error().code, spool.error().message, 500);
  }
  parcel->objects = std::move(*spool);
  task->refused.clear();
  task->reply = std::make_shared<ReplyIntake>(std::move(*parcel), std::move(ids->ids),
                                              door.tasks().rng().Uuid());
  co_return co_await ReplyPushed(exchange, *task->reply);
}

Task<Status> PullMessages(RuntimeDoor& door, Exchange& exchange) {
  pb::RuntimePullMessagesRequest request;
  UMBEL_CO_ASSIGN(const AppTaskPtr task,
                  co_await ReadFor(door, exchange, &request, kControlMessageMax));
  if (task->job == nullptr) co_return co_await flower::ReplyEmpty(exchange);
  // Again for whoever asks again: a lost answer would end the process.
  const flower::Parcel& instruction = task->job->instruction;
  pb::RuntimePullMessagesResponse response;
  pb::Message* message = response.add_messages_list();
  if (!message->ParseFromString(instruction.message) ||
      !response.add_message_object_trees()->ParseFromString(instruction.tree))
    co_return WireError(wire::kTaskStart, "the instruction is not a Message with its tree");
  if (!message->has_error()) message->mutable_content();
  if (!task->begun) task->begun = AppTask::Steady::now();
  co_return co_await flower::ReplyMessage(exchange, response);
}

Task<Status> PushLogs(RuntimeDoor& door, Exchange& exchange) {
  pb::PushLogsRequest request;
  UMBEL_CO_ASSIGN(const AppTaskPtr task,
                  co_await ReadFor(door, exchange, &request, kControlMessageMax));
  if (task->job != nullptr && door.options().output) {
    std::string text;
    for (const std::string& part : request.logs()) text += part;
    std::string_view rest = text;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      door.options().output(task->job->run->run_id, task->job->instruction.head.message_id,
                            rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  co_return co_await flower::ReplyEmpty(exchange);
}

/// Not for ClientApps, or agents only. 0: an empty answer.
template <int kCode>
Task<Status> NotHere(RuntimeDoor& door, Exchange& exchange) {
  UMBEL_CO_ASSIGN(const AppTaskPtr task, co_await ReadFor(door, exchange));
  static_cast<void>(task);
  if (kCode == 0) co_return co_await flower::ReplyEmpty(exchange);
  co_return WireError(kCode, fmt::format("{} is not for ClientApps of this node", exchange.path()));
}

struct Route {
  std::string_view path;
  Task<Status> (*handler)(RuntimeDoor&, Exchange&);
};

constexpr Route kRoutes[] = {
    {"/v1/runtime/acquire-task", AcquireTask},
    {"/v1/runtime/send-task-heartbeat", SendTaskHeartbeat},
    {"/v1/runtime/pull-task-input", PullTaskInput},
    {"/v1/runtime/push-task-output", PushTaskOutput},
    {"/v1/runtime/push-messages", PushMessages},
    {"/v1/runtime/pull-messages", PullMessages},
    {"/v1/runtime/push-object", PushObject},
    {"/v1/runtime/pull-object", PullObject},
    {"/v1/runtime/confirm-message-received", NotHere<0>},  // its objects go with the job
    {"/v1/runtime/push-logs", PushLogs},
    {"/v1/runtime/get-nodes", NotHere<wire::kEndpointUnavailable>},
    {"/v1/runtime/create-task", NotHere<wire::kTaskNotCreated>},
    {"/v1/runtime/push-task-message", NotHere<wire::kTaskMessageRefused>},
    {"/v1/runtime/pull-task-message", NotHere<0>},
    {"/v1/runtime/push-task-events", NotHere<0>},
    {"/v1/runtime/get-run-series-events", NotHere<0>},
    {"/v1/runtime/get-compacted-contexts", NotHere<0>},
    {"/v1/runtime/put-compacted-context", NotHere<wire::kContextRefused>},
    {"/v1/runtime/record-task-usage", NotHere<0>},
    {"/v1/runtime/get-connector", NotHere<wire::kConnectorRefused>},
    {"/v1/runtime/start-automation", NotHere<wire::kAutomationRefused>},
};

}  // namespace

Result<AppTaskPtr> TaskOfToken(RuntimeDoor& door, const Exchange& exchange) {
  if (exchange.HeaderCount("flwr-task-token") != 1) return Gone();
  return door.tasks().FindByToken(exchange.Header("flwr-task-token"));
}

Task<Result<AppTaskPtr>> ReadFor(RuntimeDoor& door, Exchange& exchange,
                                 google::protobuf::MessageLite* message, size_t limit) {
  UMBEL_CO_TRY(co_await flower::ReadMessage(exchange, message, limit));
  co_return TaskOfToken(door, exchange);
}

Task<Status> RuntimeDoor::Handle(Exchange& exchange) {
  for (const Route& route : kRoutes) {
    if (route.path != exchange.path()) continue;
    if (exchange.method() == "POST") co_return co_await route.handler(*this, exchange);
    http::Response refused(405, "application/json", "{\"detail\":\"Method Not Allowed\"}",
                           "Allow: POST\r\n");
    co_return co_await exchange.Reply(std::move(refused));
  }
  http::Response unknown(404, "application/json", "{\"detail\":\"Not Found\"}");
  co_return co_await exchange.Reply(std::move(unknown));
}

}  // namespace umbel::supernode
