#include "supernode/fleet_client.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/log.h"
#include "flower/errors.h"
#include "flower/node_signer.h"
#include "flower/proto_bytes.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "tensor/object.h"
#include "tensor/wire.h"

namespace umbel::supernode {
namespace asio = boost::asio;
namespace pb = flwr::proto;
namespace wire = flower::wire;
using Steady = std::chrono::steady_clock;

namespace {

constexpr size_t kAnswerMax = size_t{64} << 20;
constexpr size_t kObjectMax = size_t{256} << 20;
constexpr std::chrono::seconds kHeartbeatTimeout{5};
constexpr std::chrono::milliseconds kNotYetMin{50};  // for an object that is only announced
constexpr std::chrono::milliseconds kNotYetMax{5000};
constexpr std::chrono::hours kNotYetLimit{2};

/// What a refusal says, whether it is Flower's JSON or not.
Error ErrorOf(std::string_view route, const http::ClientResponse& response) {
  std::string text;
  int code = 0;
  const auto json = nlohmann::json::parse(response.body, nullptr, false);
  if (json.is_object()) {
    const auto field = [&](const char* name) {
      const auto found = json.find(name);
      return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    if (const auto found = json.find("code"); found != json.end() && found->is_number_integer())
      code = found->get<int>();
    text = field("detail");
    if (const std::string extra = field("extra"); !extra.empty()) text += " " + extra;
  }
  if (text.empty()) text = response.body.substr(0, 200);
  std::string message = fmt::format("{}: {} {}", route, response.status, text);
  if (code != 0) message = fmt::format("{}: {} [code: {}] {}", route, response.status, code, text);
  return Error{flower::CodeOfStatus(response.status), std::move(message), code};
}

/// PullObjectResponse read in place: the content is not copied by a parser.
struct PulledObject {
  bool found = false;
  bool available = false;
  std::string_view content;
};

Result<PulledObject> ReadPulled(std::string_view body) {
  PulledObject out;
  tensor::WireCursor cursor(body);
  while (cursor.at() < body.size()) {
    UMBEL_ASSIGN(const tensor::WireTag tag, cursor.ReadTag(body.size()));
    if (tag.field == 3 && tag.type == tensor::WireType::kBytes) {
      UMBEL_ASSIGN(const size_t size, cursor.ReadLength(body.size()));
      out.content = cursor.Take(size);
      continue;
    }
    const size_t value_at = cursor.at();
    UMBEL_TRY(cursor.Skip(tag, body.size()));
    const bool set = tag.type == tensor::WireType::kVarint && body[value_at] != 0;
    if (tag.field == 1) out.found = set;
    if (tag.field == 2) out.available = set;
  }
  return out;
}

}  // namespace

/// One call, as often as it takes.
struct FleetClient::Call {
  explicit Call(std::string_view r) : route(r) {}

  std::string_view route;  // "pull-messages"
  std::string body;
  std::vector<http::FilePart> file;
  std::string headers;
  size_t answer_max = kAnswerMax;
  std::chrono::seconds timeout{30};
  bool once = false;
};

struct FleetClient::Pauses {
  std::set<asio::steady_timer*> running;
  bool closed = false;
};

FleetClient::FleetClient(http::Client& client, const flower::NodeSigner& signer, const Clock& clock,
                         Rng& rng, RetryRules rules)
    : client_(client),
      signer_(signer),
      clock_(clock),
      rng_(rng),
      rules_(rules),
      pauses_(std::make_unique<Pauses>()) {}
FleetClient::~FleetClient() = default;

void FleetClient::Close() {
  pauses_->closed = true;
  for (asio::steady_timer* timer : pauses_->running) timer->cancel();
}

Task<void> FleetClient::Pause(std::chrono::milliseconds time) {
  if (pauses_->closed) co_return;
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  pauses_->running.insert(&timer);
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  pauses_->running.erase(&timer);
}

Task<Result<std::string>> FleetClient::Send(Call call) {
  const auto begin = Steady::now();
  for (int64_t attempt = 0;; ++attempt) {
    http::ClientRequest request("POST", fmt::format("/v1/fleet/{}", call.route));
    request.content_type = "application/protobuf";
    request.extra_headers = signer_.Headers(clock_.Now()) + call.headers;
    request.body = call.body;
    request.file = call.file;
    request.timeout = call.timeout;
    Result<http::ClientResponse> answer = co_await client_.Send(request, call.answer_max);
    if (answer.ok() && answer->status == 200) {
      last_error_.clear();
      co_return std::move(answer->body);
    }
    Error error = answer.ok() ? ErrorOf(call.route, *answer) : std::move(answer).error();
    if (error.code == Code::kCancelled) co_return Fail(std::move(error));
    last_error_ = error.message;
    if (call.once || error.code != Code::kUnavailable) co_return Fail(std::move(error));
    const std::chrono::duration<double> spent = Steady::now() - begin;
    if ((rules_.tries_max && attempt >= *rules_.tries_max) ||
        (rules_.seconds_max && spent.count() >= *rules_.seconds_max))
      co_return Fail(std::move(error));
    // The first failure of many is worth a line, and then each that comes after a long pause.
    const auto ceiling = std::min<std::chrono::milliseconds>(
        rules_.pause_max, rules_.pause_min * (int64_t{1} << std::min<int64_t>(attempt, 12)));
    if (attempt == 0 || ceiling == rules_.pause_max)
      LogWarn("the SuperLink does not answer; trying again",
              {{"call", call.route}, {"error", error.message}, {"attempts", attempt + 1}});
    const auto pause = std::chrono::milliseconds(
        static_cast<int64_t>(rng_.U64() % static_cast<uint64_t>(ceiling.count() + 1)));
    co_await Pause(pause);
    if (pauses_->closed) co_return Fail(Code::kCancelled, std::move(error.message));
  }
}

Task<Status> FleetClient::Ask(std::string_view route, const google::protobuf::MessageLite& request,
                              google::protobuf::MessageLite* response) {
  Call call(route);
  call.body = request.SerializeAsString();
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  if (response != nullptr && !response->ParseFromString(body))
    co_return Fail(Code::kDataLoss, fmt::format("{}: the answer's {} bytes are not a {}", route,
                                                body.size(), response->GetTypeName()));
  co_return Status{};
}

Task<Status> FleetClient::Register() {
  pb::RegisterNodeFleetRequest request;
  request.set_public_key(signer_.PublicPem());
  co_return co_await Ask("register-node", request, nullptr);
}

Task<Result<NodeId>> FleetClient::Activate(double heartbeat_interval) {
  pb::ActivateNodeRequest request;
  request.set_public_key(signer_.PublicPem());
  request.set_heartbeat_interval(heartbeat_interval);
  pb::ActivateNodeResponse response;
  UMBEL_CO_TRY(co_await Ask("activate-node", request, &response));
  if (response.node_id() == 0) co_return Fail(Code::kDataLoss, "activate-node: node id 0");
  co_return NodeId{response.node_id()};
}

Task<Status> FleetClient::Deactivate(NodeId node) {
  pb::NodeIdRequest request;
  request.set_node_id(node.value);
  Call call("deactivate-node");
  call.body = request.SerializeAsString();
  call.once = true;
  call.timeout = kHeartbeatTimeout;
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  co_return Status{};
}

Task<Status> FleetClient::Unregister(NodeId node) {
  pb::NodeIdRequest request;
  request.set_node_id(node.value);
  Call call("unregister-node");
  call.body = request.SerializeAsString();
  call.once = true;
  call.timeout = kHeartbeatTimeout;
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  co_return Status{};
}

Task<Result<bool>> FleetClient::Heartbeat(NodeId node, double interval) {
  pb::SendNodeHeartbeatRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_heartbeat_interval(interval);
  Call call("send-node-heartbeat");
  call.body = request.SerializeAsString();
  call.once = true;
  call.timeout = kHeartbeatTimeout;
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  pb::SendHeartbeatResponse response;
  co_return response.ParseFromString(body) && response.success();
}

Task<Result<std::optional<flower::Parcel>>> FleetClient::Pull(NodeId node,
                                                              std::chrono::seconds wait) {
  pb::FleetPullMessagesRequest request;
  request.mutable_node()->set_node_id(node.value);
  Call call("pull-messages");
  call.body = request.SerializeAsString();
  call.headers = fmt::format("Prefer: wait={}\r\n", wait.count());
  call.timeout = wait + std::chrono::seconds(15);
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  pb::FleetPullMessagesResponse response;
  if (!response.ParseFromString(body))
    co_return Fail(Code::kDataLoss, "pull-messages: the answer cannot be read");
  if (response.messages_list_size() == 0) co_return std::optional<flower::Parcel>();
  if (response.message_object_trees_size() == 0)
    co_return Fail(Code::kDataLoss, "pull-messages: a message without its object tree");
  UMBEL_CO_ASSIGN(flower::Parcel parcel,
                  flower::ReadParcel(response.messages_list(0).SerializeAsString(),
                                     response.message_object_trees(0).SerializeAsString()));
  co_return std::optional<flower::Parcel>(std::move(parcel));
}

Task<Result<std::string>> FleetClient::GetRun(NodeId node, RunId run_id) {
  pb::GetRunRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_run_id(run_id.value);
  pb::GetRunResponse response;
  UMBEL_CO_TRY(co_await Ask("get-run", request, &response));
  if (response.run().run_id() != run_id.value)
    co_return Fail(Code::kDataLoss, fmt::format("get-run: asked for run {}, got {}", run_id,
                                                response.run().run_id()));
  co_return response.run().SerializeAsString();
}

Task<Result<FabReply>> FleetClient::GetFab(NodeId node, RunId run_id, const std::string& hash) {
  pb::GetFabRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_run_id(run_id.value);
  request.set_hash_str(hash);
  pb::GetFabResponse response;
  UMBEL_CO_TRY(co_await Ask("get-fab", request, &response));
  FabReply fab;
  fab.hash = response.fab().hash_str();
  fab.content = std::move(*response.mutable_fab()->mutable_content());
  for (const auto& [key, value] : response.fab().verifications())
    fab.verifications.emplace_back(key, value);
  co_return fab;
}

Task<Result<std::string>> FleetClient::PullObject(NodeId node, RunId run_id, const ObjectId& id) {
  pb::PullObjectRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_run_id(run_id.value);
  request.set_object_id(id.Hex());
  const auto begin = Steady::now();
  for (auto pause = kNotYetMin;; pause = std::min(2 * pause, kNotYetMax)) {
    Call call("pull-object");
    call.body = request.SerializeAsString();
    call.answer_max = kObjectMax;
    UMBEL_CO_ASSIGN(std::string body, co_await Send(std::move(call)));
    UMBEL_CO_ASSIGN(const PulledObject pulled, ReadPulled(body));
    if (!pulled.found)
      co_return Fail(Code::kNotFound, fmt::format("pull-object: no object {}", id.Hex()));
    if (pulled.available) {
      if (tensor::ObjectIdOf(pulled.content) != id)
        co_return Fail(Code::kDataLoss, fmt::format("pull-object: {} bytes that do not hash to {}",
                                                    pulled.content.size(), id.Hex()));
      const size_t at = static_cast<size_t>(pulled.content.data() - body.data());
      const size_t size = pulled.content.size();
      body.resize(at + size);
      body.erase(0, at);
      co_return std::move(body);
    }
    if (Steady::now() - begin > kNotYetLimit)
      co_return Fail(Code::kDeadlineExceeded,
                     fmt::format("pull-object: {} was announced but never came", id.Hex()));
    co_await Pause(pause);
    if (pauses_->closed)
      co_return Fail(Code::kCancelled, fmt::format("pull-object: {} was not there yet", id.Hex()));
  }
}

Task<Status> FleetClient::Confirm(NodeId node, RunId run_id, const ObjectId& message) {
  pb::ConfirmMessageReceivedRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_run_id(run_id.value);
  request.set_message_object_id(message.Hex());
  co_return co_await Ask("confirm-message-received", request, nullptr);
}

Task<Result<PushReply>> FleetClient::PushReplyMessage(NodeId node, const flower::Parcel& reply,
                                                      double runtime_seconds) {
  pb::FleetPushMessagesRequest request;
  request.mutable_node()->set_node_id(node.value);
  if (!request.add_messages_list()->ParseFromString(reply.message) ||
      !request.add_message_object_trees()->ParseFromString(reply.tree))
    co_return Fail(Code::kInternal, "push-messages: the reply cannot be read back");
  request.add_clientapp_runtime_list(runtime_seconds);
  pb::FleetPushMessagesResponse response;
  UMBEL_CO_TRY(co_await Ask("push-messages", request, &response));
  PushReply out;
  out.session_id = response.session_id();
  for (const std::string& hex : response.objects_to_push()) {
    UMBEL_CO_ASSIGN(const ObjectId id, ObjectId::FromHex(hex));
    out.wanted.push_back(id);
  }
  co_return out;
}

Task<Result<bool>> FleetClient::PushObject(NodeId node, RunId run_id, const ObjectId& id,
                                           const flower::StoredObject& object, int fd,
                                           const std::string& session_id) {
  pb::PushObjectRequest request;
  request.mutable_node()->set_node_id(node.value);
  request.set_run_id(run_id.value);
  request.set_object_id(id.Hex());
  request.set_session_id(session_id);
  Call call("push-object");
  call.body = flower::PushObjectHead(request, object);
  if (object.body.size > 0)
    call.file.push_back(http::FilePart{fd, object.body.offset, object.body.size});
  UMBEL_CO_ASSIGN(const std::string body, co_await Send(std::move(call)));
  pb::PushObjectResponse response;
  if (!response.ParseFromString(body))
    co_return Fail(Code::kDataLoss, "push-object: the answer cannot be read");
  co_return response.stored();
}

}  // namespace umbel::supernode
