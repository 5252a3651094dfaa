#include "federation.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/file.h"
#include "flwr/control.pb.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "tensor/object.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

constexpr double kHeartbeatInterval = 30;
constexpr std::chrono::seconds kHeartbeatEvery{15};
constexpr std::chrono::seconds kTakeTimeout{60};
constexpr std::chrono::milliseconds kTakePause{50};
constexpr size_t kJoinConnections = 8;
constexpr size_t kFabMax = size_t{10} << 20;

Status Join(const Endpoint& endpoint, Member& member) {
  member.identity = std::make_unique<const Identity>();
  FlowerClient client = FlowerClient::Node(endpoint, *member.identity, 0, 0);
  pb::RegisterNodeFleetRequest enrol;
  enrol.set_public_key(member.identity->pem());
  UMBEL_TRY(client.Call("register-node", enrol));
  pb::ActivateNodeRequest activate;
  activate.set_public_key(member.identity->pem());
  activate.set_heartbeat_interval(kHeartbeatInterval);
  UMBEL_ASSIGN(const auto active, client.Ask<pb::ActivateNodeResponse>("activate-node", activate));
  member.node_id = active.node_id();
  return {};
}

void CollectIds(const pb::ObjectTree& tree, std::vector<ObjectId>& out) {
  for (const pb::ObjectTree& child : tree.children()) CollectIds(child, out);
  if (const auto id = ObjectId::FromHex(tree.object_id()); id.ok()) out.push_back(*id);
}

}  // namespace

std::vector<ObjectId> IdsOf(const pb::ObjectTree& tree) {
  std::vector<ObjectId> ids;
  CollectIds(tree, ids);
  return ids;
}

Parallel RunParallel(size_t count, const std::function<Status(size_t)>& body) {
  using Clock = std::chrono::steady_clock;
  Parallel result;
  std::mutex mutex;
  Clock::time_point begin;
  std::barrier ready(static_cast<std::ptrdiff_t>(count), [&]() noexcept { begin = Clock::now(); });
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < count; ++i)
      threads.emplace_back([&, i] {
        ready.arrive_and_wait();
        Status status = body(i);
        const std::chrono::duration<double> spent = Clock::now() - begin;
        std::lock_guard lock(mutex);
        result.seconds = std::max(result.seconds, spent.count());
        if (!status.ok() && result.status.ok()) result.status = std::move(status);
      });
  }
  return result;
}

Result<std::vector<Member>> JoinNodes(const Endpoint& endpoint, size_t count) {
  std::vector<Member> members(count);
  const size_t lanes = std::clamp<size_t>(count, 1, kJoinConnections);
  const Parallel joined = RunParallel(lanes, [&](size_t lane) -> Status {
    for (size_t i = lane; i < count; i += lanes) UMBEL_TRY(Join(endpoint, members[i]));
    return {};
  });
  if (!joined.status.ok()) return Fail(joined.status.error());
  return members;
}

Result<std::unique_ptr<Federation>> Federation::Start(const Endpoint& endpoint,
                                                      const std::string& fab_path, size_t nodes) {
  std::unique_ptr<Federation> federation(new Federation(endpoint));
  UMBEL_ASSIGN(const std::string fab, ReadFile(fab_path, kFabMax));
  pb::StartRunRequest start;
  start.mutable_fab()->set_hash_str(tensor::ObjectIdOf(fab).Hex());
  start.mutable_fab()->set_content(fab);
  FlowerClient control = FlowerClient::Control(endpoint);
  UMBEL_ASSIGN(const auto started, control.Ask<pb::StartRunResponse>("start-run", start));
  federation->run_id_ = started.run_id();
  pb::AcquireTaskRequest acquire;
  acquire.add_supported_task_types("flwr-serverapp");
  FlowerClient executor = FlowerClient::App(endpoint, "", 0);
  UMBEL_ASSIGN(const auto acquired, executor.Ask<pb::AcquireTaskResponse>("acquire-task", acquire));
  if (acquired.task().run_id() != started.run_id())
    return Fail(Code::kFailedPrecondition, "acquire-task gave another run, or none");
  federation->token_ = acquired.token();
  FlowerClient app = federation->App();
  UMBEL_TRY(app.Call("pull-task-input", pb::ObjectIDs()));  // any empty message
  UMBEL_ASSIGN(federation->members_, JoinNodes(endpoint, nodes));
  federation->keeper_ =
      std::jthread([raw = federation.get()](const std::stop_token& stop) { raw->KeepAlive(stop); });
  return federation;
}

Federation::~Federation() = default;

FlowerClient Federation::App() const { return FlowerClient::App(endpoint_, token_, run_id_); }

FlowerClient Federation::Node(size_t index) const {
  const Member& member = members_[index];
  return FlowerClient::Node(endpoint_, *member.identity, member.node_id, run_id_);
}

Envelope Federation::ToNode(size_t index) const {
  return {run_id_, 1, members_[index].node_id, "", NowSeconds(), 3600};
}

Envelope Federation::ToApp(const pb::Message& instruction) const {
  const pb::Metadata& asked = instruction.metadata();
  const double now = NowSeconds();
  return {run_id_, asked.dst_node_id(),
          1,       asked.message_id(),
          now,     asked.created_at() + asked.ttl() - now};
}

Status Federation::PushInstruction(FlowerClient& app, const Parcel& parcel) const {
  pb::RuntimePushMessagesRequest request;
  *request.add_messages_list() = parcel.message;
  *request.add_message_object_trees() = parcel.tree;
  UMBEL_ASSIGN(const auto pushed,
               app.Ask<pb::RuntimePushMessagesResponse>("push-messages", request));
  if (pushed.message_ids_size() != 1 || pushed.message_ids(0) != parcel.id())
    return Fail(Code::kFailedPrecondition, "push-messages did not take the message");
  for (const Blob& blob : parcel.objects) UMBEL_TRY(app.PushObject(blob, pushed.session_id()));
  return {};
}

Result<pb::Message> Federation::TakeInstruction(FlowerClient& node) const {
  pb::FleetPullMessagesRequest pull;
  pull.mutable_node()->set_node_id(node.node_id());
  const auto deadline = std::chrono::steady_clock::now() + kTakeTimeout;
  pb::FleetPullMessagesResponse pulled;
  while (pulled.messages_list_size() == 0) {
    if (std::chrono::steady_clock::now() > deadline)
      return Fail(Code::kDeadlineExceeded, "no instruction came");
    UMBEL_ASSIGN(pulled, node.Ask<pb::FleetPullMessagesResponse>("pull-messages", pull));
    if (pulled.messages_list_size() == 0) std::this_thread::sleep_for(kTakePause);
  }
  for (const ObjectId& id : IdsOf(pulled.message_object_trees(0))) UMBEL_TRY(node.PullObject(id));
  pb::ConfirmMessageReceivedRequest confirm;
  confirm.mutable_node()->set_node_id(node.node_id());
  confirm.set_run_id(run_id_);
  confirm.set_message_object_id(pulled.messages_list(0).metadata().message_id());
  UMBEL_TRY(node.Call("confirm-message-received", confirm));
  return pulled.messages_list(0);
}

Status Federation::Finish() {
  keeper_.request_stop();
  pb::PushTaskOutputRequest output;
  output.set_sub_status("completed");
  FlowerClient app = App();
  UMBEL_TRY(app.Call("push-task-output", output));
  return {};
}

void Federation::KeepAlive(const std::stop_token& stop) const {
  std::mutex mutex;
  std::condition_variable_any pause;
  std::unique_lock lock(mutex);
  while (!pause.wait_for(lock, stop, kHeartbeatEvery, [&] { return stop.stop_requested(); })) {
    // Failures show where they matter, in the calls that are measured.
    FlowerClient app = App();
    static_cast<void>(app.Call("send-task-heartbeat", pb::ObjectIDs()));
    for (size_t i = 0; i < members_.size(); ++i) {
      FlowerClient node = Node(i);
      pb::SendNodeHeartbeatRequest beat;
      beat.mutable_node()->set_node_id(members_[i].node_id);
      beat.set_heartbeat_interval(kHeartbeatInterval);
      static_cast<void>(node.Call("send-node-heartbeat", beat));
    }
  }
}

}  // namespace umbel::bench
