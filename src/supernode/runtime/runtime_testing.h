// What the tests of the Runtime door and of its hosts share: a server with the door, jobs, and a
// peer that says exactly what a test wants said.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/testing.h"
#include "flower/door.h"
#include "flwr/runtime.pb.h"
#include "http/server.h"
#include "supernode/runtime/door.h"
#include "supernode/runtime/task_table.h"
#include "tensor/object.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::supernode::testing {

namespace pb = flwr::proto;
using google::protobuf::MessageLite;

inline constexpr NodeId kNode{77};
inline constexpr RunId kRun{0xfedcba9876543210};
inline constexpr SeriesId kSeries{5};

/// A blocking peer with one connection.
class Peer {
 public:
  explicit Peer(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit{60, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }

  struct Answer {
    int status = 0;
    std::string body;
    bool Has(std::string_view text) const { return body.find(text) != std::string::npos; }
  };

  static std::string Request(std::string_view route, std::string_view body, std::string_view token,
                             std::string_view headers = {}) {
    return fmt::format(
        "POST /v1/runtime/{} HTTP/1.1\r\nHost: x\r\nUser-Agent: python-httpx/0.28.1\r\n"
        "Content-Type: application/protobuf\r\nContent-Length: {}\r\n{}{}\r\n{}",
        route, body.size(), token.empty() ? "" : fmt::format("flwr-task-token: {}\r\n", token),
        headers, body);
  }
  Answer Call(std::string_view route, const MessageLite& request, std::string_view token,
              std::string_view headers = {}) {
    Send(Request(route, request.SerializeAsString(), token, headers));
    return Receive();
  }
  template <typename R>
  R Ask(std::string_view route, const MessageLite& request, std::string_view token) {
    const Answer answer = Call(route, request, token);
    EXPECT_EQ(answer.status, 200) << route << ": " << answer.body;
    R response;
    EXPECT_TRUE(response.ParseFromString(answer.body)) << route;
    return response;
  }

  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  Answer Receive() {
    for (;;) {
      size_t end;
      while ((end = pending_.find("\r\n\r\n")) == std::string::npos)
        if (!More()) return {};
      const std::string head = pending_.substr(0, end + 4);
      pending_.erase(0, end + 4);
      Answer answer;
      answer.status = std::atoi(head.c_str() + 9);
      if (answer.status < 200) continue;
      const size_t at = head.find("Content-Length: ");
      const size_t length = std::strtoull(head.c_str() + at + 16, nullptr, 10);
      while (pending_.size() < length)
        if (!More()) return {};
      answer.body = pending_.substr(0, length);
      pending_.erase(0, length);
      return answer;
    }
  }
  void Close() { fd_.Close(); }

 private:
  bool More() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  Fd fd_;
  std::string pending_;
};

/// A server on loopback with the door, all on one thread as in a node.
class DoorTest : public ::testing::Test {
 protected:
  ~DoorTest() override { Close(); }

  void Open(TaskTimes times = {}, RuntimeDoorOptions options = {}) {
    http::ServerOptions server;
    server.port = 0;
    server.threads = 1;
    auto started = http::Server::Start(server, [this](http::Exchange& exchange) -> Task<void> {
      RuntimeDoor* door = door_;
      if (door == nullptr || !RuntimeDoor::Serves(exchange.path())) co_return;
      const Status status = co_await door->Handle(exchange);
      if (!status.ok()) co_await flower::ReplyError(exchange, status.error());
    });
    ASSERT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(*started);
    pool_ = std::make_unique<boost::asio::thread_pool>(2);
    table_ = std::make_unique<TaskTable>(server_->context(), *pool_, clock_, rng_, times);
    made_ = std::make_unique<RuntimeDoor>(*table_, std::move(options));
    door_ = made_.get();
  }
  void Close() {
    if (!server_) return;
    server_->Stop(std::chrono::milliseconds(200));
    pool_->join();
    door_ = nullptr;
    made_.reset();
    table_.reset();
    server_.reset();
  }

  Peer Connect() { return Peer(server_->port()); }

  /// On the server's thread, as everything that touches the table.
  template <typename F>
  auto On(F work) {
    auto task = [](F f) -> Task<decltype(work())> { co_return f(); };
    return boost::asio::co_spawn(server_->context(), task(std::move(work)), boost::asio::use_future)
        .get();
  }
  /// Begins a coroutine there.
  template <typename T>
  std::future<T> Spawn(Task<T> task) {
    return boost::asio::co_spawn(server_->context(), std::move(task), boost::asio::use_future);
  }

  /// An instruction with a small and a large object; `state` is the series' context.
  Job MakeJob(std::string state = "") {
    auto app = std::make_shared<App>();
    app->fab_id = "umbel/toy";
    app->version = "1.0.0";
    app->content = "the FAB";
    app->hash = tensor::Sha256Of(app->content);
    auto run = std::make_shared<RunInfo>();
    run->run_id = kRun;
    run->series_id = kSeries;
    pb::Run shown;
    shown.set_run_id(kRun.value);
    shown.set_fab_id(app->fab_id);
    shown.set_fab_version(app->version);
    run->run = shown.SerializeAsString();
    run->run_config = {{"rate", 0.5},
                       {"name", "x"},
                       {"rounds", int64_t{-3}},
                       {"big", ~uint64_t{0}},
                       {"flag", true}};
    run->app = app;
    Job job;
    job.run = run;
    job.node_id = kNode;
    job.node_config = {{"site", int64_t{1}}};
    job.state = std::move(state);
    job.spool_path = directory_.path() + "/reply";
    flower::MessageHead head;
    head.run_id = kRun;
    head.src = kSuperLinkNode;
    head.dst = kNode;
    head.type = "train";
    head.ttl = 3600;
    head.created_at = UnixSeconds(clock_.Now());
    auto spool = flower::Spool::Create("");
    EXPECT_TRUE(spool.ok());
    flower::ArrayRef array;
    array.dtype = "uint8";
    array.shape = {200'000};
    array.stype = "numpy.ndarray";
    array.pieces = {(*spool)->Append(std::string(200'000, 'a')).value()};
    const flower::RecordDict records{{"arrays", flower::ArrayRecord{{"w", array}}},
                                     {"config", flower::ConfigRecord{{"round", int64_t{1}}}}};
    auto parcel = flower::MakeParcel(std::move(head), records, *spool);
    EXPECT_TRUE(parcel.ok()) << parcel.error().message;
    job.instruction = std::move(*parcel);
    return job;
  }

  /// A message as a ClientApp sends it, with objects of the given bodies below it.
  struct Sent {
    pb::RuntimePushMessagesRequest request;
    std::map<std::string, std::string> objects;  // by id

    pb::Metadata* metadata() { return request.mutable_messages_list(0)->mutable_metadata(); }
  };
  Sent MakeReply(const Job& job, const std::vector<std::string>& bodies) {
    Sent sent;
    std::vector<ObjectId> children;
    tensor::TreeNode tree;
    for (const std::string& body : bodies) {
      const std::string object = tensor::MakeObject(tensor::ObjectType::kArrayChunk, {}, body);
      children.push_back(tensor::ObjectIdOf(object));
      tree.children.push_back({children.back(), {}});
      sent.objects[children.back().Hex()] = object;
    }
    pb::Message message;
    pb::Metadata* metadata = message.mutable_metadata();
    metadata->set_run_id(kRun.value);
    metadata->set_src_node_id(kNode.value);
    metadata->set_dst_node_id(kSuperLinkNode.value);
    metadata->set_reply_to_message_id(job.instruction.head.message_id);
    metadata->set_message_type("train");
    metadata->set_ttl(3000);
    metadata->set_created_at(UnixSeconds(clock_.Now()));
    const std::string root =
        tensor::MakeObject(tensor::ObjectType::kMessage, children, message.SerializeAsString());
    tree.id = tensor::ObjectIdOf(root);
    sent.objects[tree.id.Hex()] = root;
    metadata->set_message_id(tree.id.Hex());
    message.mutable_content();
    *sent.request.add_messages_list() = message;
    sent.request.add_message_object_trees()->ParseFromString(tensor::EncodeTree(tree));
    return sent;
  }
  static pb::PushObjectRequest PushOf(const std::string& id, const std::string& bytes,
                                      const std::string& session) {
    pb::PushObjectRequest push;
    push.mutable_node()->set_node_id(kNode.value);
    push.set_run_id(kRun.value);
    push.set_object_id(id);
    push.set_object_content(bytes);
    push.set_session_id(session);
    return push;
  }
  /// Announces the reply and pushes what is asked for. False: some object was not taken.
  bool PushAll(Peer& peer, const Sent& sent, std::string_view token) {
    const auto pushed =
        peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", sent.request, token);
    bool all = true;
    for (const std::string& id : pushed.objects_to_push()) {
      const auto push = PushOf(id, sent.objects.at(id), pushed.session_id());
      all = peer.Ask<pb::PushObjectResponse>("push-object", push, token).stored() && all;
    }
    return all;
  }
  static pb::PushTaskOutputRequest Output(std::string sub_status, std::string details = "") {
    pb::PushTaskOutputRequest output;
    output.set_sub_status(std::move(sub_status));
    output.set_details(std::move(details));
    return output;
  }

  umbel::testing::TempDir directory_;
  SystemClock clock_;
  SystemRng rng_;
  std::unique_ptr<boost::asio::thread_pool> pool_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<TaskTable> table_;
  std::unique_ptr<RuntimeDoor> made_;
  std::atomic<RuntimeDoor*> door_{nullptr};
};

}  // namespace umbel::supernode::testing
