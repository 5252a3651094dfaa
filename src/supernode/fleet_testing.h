// What the tests of a site share: a SuperLink that says what a test wants said, and a thread that
// runs coroutines. FleetDouble: any thread.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/wake.h"
#include "flower/door.h"
#include "flower/records.h"
#include "flower/testing.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "http/server.h"
#include "tensor/tree.h"

namespace umbel::supernode::testing {

namespace pb = flwr::proto;
using http::Task;

inline constexpr NodeId kSite{77};
inline constexpr std::chrono::seconds kFleetPatience{60};

/// One thread with an io_context, as a node's server is.
class IoThread {
 public:
  IoThread() : guard_(io_.get_executor()), thread_([this] { io_.run(); }) {}
  ~IoThread() { Stop(); }

  boost::asio::io_context& io() { return io_; }
  template <typename T>
  std::future<T> Spawn(Task<T> task) {
    return boost::asio::co_spawn(io_, std::move(task), boost::asio::use_future);
  }
  /// A value of that thread.
  template <typename F>
  auto On(F work) {
    auto task = [](F f) -> Task<decltype(work())> { co_return f(); };
    return Spawn(task(std::move(work))).get();
  }
  /// At once, whatever is under way, as a killed process does.
  void Stop() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> guard_;
  std::thread thread_;
};

/// The result of a call, within the tests' patience.
template <typename T>
T Get(std::future<T> future) {
  if (future.wait_for(kFleetPatience) != std::future_status::ready) {
    ADD_FAILURE() << "it did not end";
    std::abort();  // its coroutine uses what the test is about to destroy
  }
  return future.get();
}

/// The Fleet API of one SuperLink, on its own thread. Unscripted, it does what a SuperLink does;
/// signatures are not checked.
class FleetDouble {
 public:
  struct Call {
    std::string route;
    std::string body;
    std::string key;
    std::string prefer;
  };
  /// nullopt: the connection is closed without an answer.
  using Answer = std::function<std::optional<http::Response>(const Call&)>;
  struct Reply {
    pb::Message message;
    std::map<std::string, std::string> objects;
    double runtime_seconds = 0;
  };

  FleetDouble() { Start(); }
  ~FleetDouble() { Stop(); }

  uint16_t port() const { return port_; }
  /// On the port it had, knowing what it knew.
  void Start() {
    http::ServerOptions options;
    options.port = port_;
    options.threads = 1;
    auto started = http::Server::Start(
        options, [this](http::Exchange& exchange) -> Task<void> { return Handle(exchange); });
    ASSERT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(*started);
    port_ = server_->port();
  }
  void Stop() {
    if (!server_) return;
    server_->Stop(std::chrono::milliseconds(0));
    std::lock_guard lock(mutex_);
    wakers_.clear();
    server_.reset();
  }

  // -- scripts

  /// The next `times` calls of the route are answered by that.
  void Next(const std::string& route, Answer answer, size_t times = 1) {
    std::lock_guard lock(mutex_);
    scripts_[route].insert(scripts_[route].end(), times, std::move(answer));
  }
  /// All calls of the route from now on; nullptr: as a SuperLink would.
  void Always(const std::string& route, Answer answer) {
    std::lock_guard lock(mutex_);
    scripts_.erase(route);
    always_[route] = std::move(answer);
  }
  static Answer Status(int status, std::string body = "", std::string type = "text/plain") {
    return [=](const Call&) { return http::Response(status, type, body); };
  }
  /// Flower's error JSON.
  static Answer Refusal(int status, int code, const std::string& detail) {
    return Status(status, fmt::format(R"({{"code": {}, "detail": "{}"}})", code, detail),
                  "application/json");
  }
  static Answer Hangup() {
    return [](const Call&) { return std::nullopt; };
  }
  static http::Response Protobuf(const google::protobuf::MessageLite& message) {
    return http::Response(200, "application/protobuf", message.SerializeAsString());
  }
  /// Calls of the route wait until Release().
  void Block(const std::string& route) {
    std::lock_guard lock(mutex_);
    blocked_.insert(route);
  }
  void Release() {
    std::lock_guard lock(mutex_);
    blocked_.clear();
    WakeAll();
  }

  // -- what it knows

  void AddRun(RunId run_id, SeriesId series, const std::string& fab) {
    std::lock_guard lock(mutex_);
    pb::Run run;
    run.set_run_id(run_id.value);
    run.set_series_id(series.value);
    run.set_fab_id("umbel/toy");
    run.set_fab_version("1.0.0");
    run.set_fab_hash(tensor::Sha256Of(fab).Hex());
    runs_[run_id.value] = run;
    fabs_[run.fab_hash()] = fab;
  }
  /// An instruction for the node, with all its objects. Returns its id.
  std::string Instruct(RunId run_id, std::string type = "train") {
    std::lock_guard lock(mutex_);
    flower::MessageHead head;
    head.run_id = run_id;
    head.src = kSuperLinkNode;
    head.dst = kSite;
    head.type = std::move(type);
    head.ttl = 3600;
    head.created_at = 1'800'000'000;
    auto spool = flower::Spool::Create("").value();
    flower::ArrayRef array;
    array.dtype = "uint8";
    array.shape = {10'000};
    array.stype = "numpy.ndarray";
    array.pieces = {spool->Append(std::string(10'000, 'a')).value()};
    const flower::RecordDict records{
        {"arrays", flower::ArrayRecord{{"w", array}}},
        {"config", flower::ConfigRecord{{"number", static_cast<int64_t>(++instructed_)}}}};
    flower::Parcel parcel = flower::MakeParcel(std::move(head), records, spool).value();
    for (const auto& [id, object] : spool->objects())
      objects_[id.Hex()] = spool->Read(id, 1 << 20).value();
    const std::string id = parcel.head.message_id;
    parcels_[id] = std::move(parcel);
    last_instruction_ = id;
    HandOut(id);
    return id;
  }
  std::string last_instruction() {
    std::lock_guard lock(mutex_);
    return last_instruction_;
  }
  /// Once more.
  void InstructAgain(const std::string& id) {
    std::lock_guard lock(mutex_);
    HandOut(id);
  }
  void SetNodeId(NodeId id) {
    std::lock_guard lock(mutex_);
    node_id_ = id;
  }
  void PutObject(const std::string& id, std::string bytes) {
    std::lock_guard lock(mutex_);
    objects_[id] = std::move(bytes);
  }

  // -- what came

  std::vector<Call> Calls(const std::string& route) {
    std::lock_guard lock(mutex_);
    std::vector<Call> found;
    for (const Call& call : calls_)
      if (call.route == route) found.push_back(call);
    return found;
  }
  size_t Count(const std::string& route) {
    std::lock_guard lock(mutex_);
    return CountHere(route);
  }
  void AwaitCount(const std::string& route, size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kFleetPatience, [&] { return CountHere(route) >= count; }))
        << route << ": " << CountHere(route);
  }
  /// Whole ones, in the order in which they became so.
  std::vector<Reply> AwaitReplies(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kFleetPatience, [&] { return replies_.size() >= count; }))
        << replies_.size() << " replies";
    return replies_;
  }
  size_t reply_count() {
    std::lock_guard lock(mutex_);
    return replies_.size();
  }

 private:
  struct Push {
    Reply reply;
    std::set<std::string> wanted;
  };

  void HandOut(const std::string& id) {
    waiting_.push_back(id);
    WakeAll();
  }
  void WakeAll() {
    for (const auto& waker : wakers_) waker->Wake();
    wakers_.clear();
  }
  size_t CountHere(const std::string& route) const {
    return static_cast<size_t>(std::count_if(
        calls_.begin(), calls_.end(), [&](const Call& call) { return call.route == route; }));
  }
  /// True when the call is to wait for a wake.
  bool Waits(bool condition, http::Exchange& exchange) {
    if (condition) wakers_.push_back(exchange.waker());
    return condition;
  }

  Task<void> Handle(http::Exchange& exchange) {
    Call call;
    call.route = std::string(exchange.path().substr(std::string_view("/v1/fleet/").size()));
    call.key = std::string(exchange.Header("flwr-public-key"));
    call.prefer = std::string(exchange.Header("Prefer"));
    auto body = co_await exchange.ReadBody(size_t{64} << 20);
    if (!body.ok()) co_return;
    call.body = std::move(*body);
    Answer answer = Record(call);
    const auto until = std::chrono::steady_clock::now() + kFleetPatience;
    while (Blocked(call.route, exchange)) {
      const auto end = co_await exchange.Hold(until, false);
      if (end != http::HoldEnd::kWoken) co_return;
    }
    if (!answer && call.route == "pull-messages") {
      while (Idle(exchange)) {
        const auto end = co_await exchange.Hold(until, false);
        if (end != http::HoldEnd::kWoken) co_return;
      }
    }
    std::optional<http::Response> response;
    if (answer) {
      response = answer(call);
    } else {
      std::lock_guard lock(mutex_);
      response = Own(call);
      changed_.notify_all();
    }
    if (response) static_cast<void>(co_await exchange.Reply(std::move(*response)));
  }
  Answer Record(const Call& call) {
    std::lock_guard lock(mutex_);
    calls_.push_back(call);
    changed_.notify_all();
    auto& next = scripts_[call.route];
    if (next.empty()) return always_[call.route];
    Answer answer = std::move(next.front());
    next.pop_front();
    return answer;
  }
  bool Blocked(const std::string& route, http::Exchange& exchange) {
    std::lock_guard lock(mutex_);
    return Waits(blocked_.contains(route), exchange);
  }
  bool Idle(http::Exchange& exchange) {
    std::lock_guard lock(mutex_);
    return Waits(waiting_.empty(), exchange);
  }

  template <typename T>
  static T Read(const Call& call) {
    T request;
    EXPECT_TRUE(request.ParseFromString(call.body)) << call.route;
    return request;
  }
  /// What a SuperLink answers.
  http::Response Own(const Call& call) {
    if (call.route == "activate-node") {
      pb::ActivateNodeResponse response;
      response.set_node_id(node_id_.value);
      return Protobuf(response);
    }
    if (call.route == "send-node-heartbeat") {
      pb::SendHeartbeatResponse response;
      response.set_success(true);
      return Protobuf(response);
    }
    if (call.route == "pull-messages") return PullMessages();
    if (call.route == "get-run") {
      pb::GetRunResponse response;
      *response.mutable_run() = runs_[Read<pb::GetRunRequest>(call).run_id()];
      return Protobuf(response);
    }
    if (call.route == "get-fab") {
      const std::string hash = Read<pb::GetFabRequest>(call).hash_str();
      pb::GetFabResponse response;
      response.mutable_fab()->set_hash_str(hash);
      response.mutable_fab()->set_content(fabs_[hash]);
      return Protobuf(response);
    }
    if (call.route == "pull-object") {
      const auto object = objects_.find(Read<pb::PullObjectRequest>(call).object_id());
      pb::PullObjectResponse response;
      response.set_object_found(object != objects_.end());
      response.set_object_available(object != objects_.end());
      if (object != objects_.end()) response.set_object_content(object->second);
      return Protobuf(response);
    }
    if (call.route == "push-messages") return PushMessages(call);
    if (call.route == "push-object") {
      const auto request = Read<pb::PushObjectRequest>(call);
      const auto push = pushes_.find(request.session_id());
      pb::PushObjectResponse response;
      if (push != pushes_.end()) {
        response.set_stored(true);
        push->second.reply.objects[request.object_id()] = request.object_content();
        push->second.wanted.erase(request.object_id());
        Complete(push);
      }
      return Protobuf(response);
    }
    return http::Response(200, "application/protobuf", "");
  }
  http::Response PullMessages() {
    pb::FleetPullMessagesResponse response;
    const flower::Parcel& parcel = parcels_[waiting_.front()];
    waiting_.pop_front();
    response.add_messages_list()->ParseFromString(parcel.message);
    response.add_message_object_trees()->ParseFromString(parcel.tree);
    return Protobuf(response);
  }
  http::Response PushMessages(const Call& call) {
    const auto request = Read<pb::FleetPushMessagesRequest>(call);
    Push push;
    push.reply.message = request.messages_list(0);
    push.reply.runtime_seconds = request.clientapp_runtime_list(0);
    pb::FleetPushMessagesResponse response;
    response.set_session_id(fmt::format("session {}", ++sessions_));
    const auto tree =
        tensor::ParseTree(request.message_object_trees(0).SerializeAsString()).value();
    for (const ObjectId& id : tree.ids) {
      push.wanted.insert(id.Hex());
      response.add_objects_to_push(id.Hex());
    }
    pushes_[response.session_id()] = std::move(push);
    return Protobuf(response);
  }
  void Complete(std::map<std::string, Push>::iterator push) {
    if (!push->second.wanted.empty()) return;
    replies_.push_back(std::move(push->second.reply));
    pushes_.erase(push);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::deque<Answer>> scripts_;
  std::map<std::string, Answer> always_;
  std::set<std::string> blocked_;
  std::vector<std::shared_ptr<Wakeable>> wakers_;
  std::vector<Call> calls_;
  NodeId node_id_ = kSite;
  std::map<uint64_t, pb::Run> runs_;
  std::map<std::string, std::string> fabs_;
  std::map<std::string, flower::Parcel> parcels_;
  std::map<std::string, std::string> objects_;
  std::deque<std::string> waiting_;
  size_t instructed_ = 0;
  std::string last_instruction_;
  size_t sessions_ = 0;
  std::map<std::string, Push> pushes_;
  std::vector<Reply> replies_;
  uint16_t port_ = 0;
  std::unique_ptr<http::Server> server_;  // last: its thread uses the rest
};

}  // namespace umbel::supernode::testing
