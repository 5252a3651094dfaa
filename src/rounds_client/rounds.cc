#include "rounds_client/rounds.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "flower/proto_bytes.h"
#include "flower/record_bytes.h"
#include "flwr/control.pb.h"
#include "flwr/runtime.pb.h"
#include "rounds_client/initial_model.h"
#include "tensor/frame.h"
#include "umbel/rounds.pb.h"

namespace umbel::rounds_client {
namespace {

namespace pb = ::umbel::rounds;

constexpr double kStartTtl = 3600;  // seconds for the initial model to be taken in
constexpr std::chrono::seconds kBeyondHold{15};
constexpr std::chrono::seconds kModelWait{600};  // a SuperLink may have to rewrite it first
constexpr size_t kFrameMax = size_t{64} << 20;
constexpr uint64_t kRunsListed = 100;

template <typename Response>
Result<Response> Read(const SuperLinkClient& client, const std::string& path,
                      const std::string& body) {
  Response response;
  if (!response.ParseFromString(body))
    return Fail(Code::kDataLoss,
                fmt::format("{} answers {} in other words than Flower's", client.address(), path));
  return response;
}

template <typename Response>
Result<Response> Ask(SuperLinkClient& client, const std::string& path,
                     const google::protobuf::MessageLite& request,
                     const std::string& headers = "") {
  SuperLinkClient::Call call;
  call.path = path;
  call.body = request.SerializeAsString();
  call.headers = headers;
  UMBEL_ASSIGN(const std::string body, client.Post(call));
  return Read<Response>(client, path, body);
}

SuperLinkClient::Call HeldCall(const std::string& path,
                               const google::protobuf::MessageLite& request,
                               std::chrono::seconds hold) {
  SuperLinkClient::Call call;
  call.path = path;
  call.body = request.SerializeAsString();
  call.headers = fmt::format("Prefer: wait={}\r\n", hold.count());
  call.timeout = hold + kBeyondHold;
  return call;
}

RunState ToState(const flwr::proto::Run& run) {
  RunState state;
  state.run_id = RunId{run.run_id()};
  state.finished = run.status().status() == "finished";
  state.outcome = run.status().sub_status();
  state.well = state.finished && state.outcome == "completed";
  state.details = run.status().details();
  return state;
}

Status PushObject(SuperLinkClient& client, const StartedRun& run, const std::string& token,
                  const flower::Spool& spool, const std::string& hex, const std::string& session) {
  UMBEL_ASSIGN(const ObjectId id, ObjectId::FromHex(hex));
  const flower::StoredObject* object = spool.Find(id);
  if (object == nullptr) return Fail(Code::kDataLoss, fmt::format("unknown object {}", hex));
  flwr::proto::PushObjectRequest request;
  request.mutable_node()->set_node_id(kSuperLinkNode.value);
  request.set_run_id(run.run_id.value);
  request.set_object_id(hex);
  request.set_session_id(session);
  SuperLinkClient::Call call;
  call.path = "/v1/runtime/push-object";
  call.headers = token;
  call.body = flower::PushObjectHead(request, *object);
  if (object->body.size > 0)
    call.file.push_back({spool.fd(), object->body.offset, object->body.size});
  UMBEL_ASSIGN(const std::string body, client.Post(call));
  flwr::proto::PushObjectResponse stored;
  if (!stored.ParseFromString(body) || !stored.stored())
    return Fail(Code::kDataLoss, fmt::format("{} did not store object {}", client.address(), hex));
  return {};
}

}  // namespace

Result<StartedRun> StartRun(SuperLinkClient& client, const pb::StartNativeRunRequest& request) {
  UMBEL_ASSIGN(const auto run,
               Ask<pb::StartNativeRunResponse>(client, "/v1/umbel/start-native-run", request));
  return StartedRun{RunId{run.run_id()}, run.token()};
}

Status SendModel(SuperLinkClient& client, const StartedRun& run, const flower::ArrayRecord& arrays,
                 const std::shared_ptr<flower::Spool>& spool, double created_at) {
  flower::MessageHead head;
  head.run_id = run.run_id;
  head.src = head.dst = kSuperLinkNode;
  head.type = "query.umbel_start";
  head.ttl = kStartTtl;
  head.created_at = created_at;
  UMBEL_ASSIGN(const flower::Parcel parcel,
               flower::MakeParcel(std::move(head), {{"arrays", arrays}}, spool));
  const std::string token = fmt::format("flwr-task-token: {}\r\n", run.token);
  flwr::proto::RuntimePushMessagesRequest push;
  push.add_messages_list()->ParseFromString(parcel.message);
  push.add_message_object_trees()->ParseFromString(parcel.tree);
  UMBEL_ASSIGN(const auto pushed, Ask<flwr::proto::RuntimePushMessagesResponse>(
                                      client, "/v1/runtime/push-messages", push, token));
  for (const std::string& hex : pushed.objects_to_push())
    UMBEL_TRY(PushObject(client, run, token, *spool, hex, pushed.session_id()));
  return {};
}

Result<RunState> StateOf(SuperLinkClient& client, RunId run_id) {
  flwr::proto::ListRunsRequest request;
  request.set_run_id(run_id.value);
  UMBEL_ASSIGN(const auto listed,
               Ask<flwr::proto::ListRunsResponse>(client, "/v1/control/list-runs", request));
  const auto found = listed.run_dict().find(run_id.value);
  if (found == listed.run_dict().end())
    return Fail(Code::kNotFound, fmt::format("{} does not know run {}", client.address(), run_id));
  return ToState(found->second);
}

Result<std::vector<RunState>> ListRuns(SuperLinkClient& client) {
  flwr::proto::ListRunsRequest request;
  request.set_limit(kRunsListed);
  UMBEL_ASSIGN(const auto listed,
               Ask<flwr::proto::ListRunsResponse>(client, "/v1/control/list-runs", request));
  std::vector<RunState> runs;
  for (const auto& [id, run] : listed.run_dict()) runs.push_back(ToState(run));
  return runs;
}

Status StopRun(SuperLinkClient& client, RunId run_id) {
  flwr::proto::StopRunRequest request;
  request.set_run_id(run_id.value);
  const auto stopped = Ask<flwr::proto::StopRunResponse>(client, "/v1/control/stop-run", request);
  if (stopped.ok()) return {};
  const auto state = StateOf(client, run_id);
  if (state.ok() && state->finished) return {};
  return Fail(stopped.error());
}

Result<std::vector<pb::RoundRecord>> WatchRounds(SuperLinkClient& client, RunId run_id,
                                                 uint64_t after, std::chrono::seconds hold) {
  pb::WatchRoundsRequest request;
  request.set_run_id(run_id.value);
  request.set_after(after);
  request.set_once(true);
  UMBEL_ASSIGN(const std::string body,
               client.Post(HeldCall("/v1/umbel/watch-rounds", request, hold)));
  tensor::FrameDecoder frames(kFrameMax);
  frames.Feed(body);
  std::vector<pb::RoundRecord> records;
  for (;;) {
    UMBEL_ASSIGN(const std::optional<std::string> frame, frames.Next());
    if (!frame) return records;
    if (!records.emplace_back().ParseFromString(*frame))
      return Fail(Code::kDataLoss, "a round record cannot be read");
  }
}

Result<uint32_t> WatchNodes(SuperLinkClient& client, uint32_t online_min,
                            std::chrono::seconds hold) {
  pb::WatchNodesRequest request;
  request.set_online_min(online_min);
  constexpr const char* kPath = "/v1/umbel/watch-nodes";
  UMBEL_ASSIGN(const std::string body, client.Post(HeldCall(kPath, request, hold)));
  UMBEL_ASSIGN(const auto response, Read<pb::WatchNodesResponse>(client, kPath, body));
  return response.online();
}

Status SaveModel(SuperLinkClient& client, RunId run_id, std::optional<uint32_t> round,
                 const std::string& path) {
  pb::GetModelRequest request;
  request.set_run_id(run_id.value);
  if (round) request.set_round(*round);
  if (IsSafetensors(path)) request.set_format(pb::GetModelRequest::SAFETENSORS);
  const std::string fresh = path + ".new";
  const Fd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return Fail(SystemError("create", fresh));
  SuperLinkClient::Call call;
  call.path = "/v1/umbel/get-model";
  call.body = request.SerializeAsString();
  call.timeout = kModelWait;
  call.answer_max = size_t{1} << 40;
  call.answer_file = file.get();
  Status saved;
  if (const auto answer = client.Post(call); !answer.ok()) {
    saved = Fail(answer.error());
  } else if (::fsync(file.get()) != 0) {
    saved = Fail(SystemError("sync", fresh));
  } else if (::rename(fresh.c_str(), path.c_str()) != 0) {
    saved = Fail(SystemError("rename", fresh));
  }
  if (!saved.ok()) ::unlink(fresh.c_str());
  return saved;
}

}  // namespace umbel::rounds_client
