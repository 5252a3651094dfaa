// A federation without Python against a whole SuperLink on disk: many rounds, held polls, peers
// that hang up while they are held. Work that is ready must reach whoever waits for it at once: a
// wake-up that is lost shows as a hold that lasts to its limit of 20 s.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zip.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <random>
#include <thread>

#include "base/file.h"
#include "flwr/control.pb.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "store/testing.h"
#include "superlink/superlink.h"
#include "tensor/object.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::superlink {
namespace {

namespace pb = flwr::proto;
using Steady = std::chrono::steady_clock;
using google::protobuf::MessageLite;
using std::chrono::seconds;

constexpr size_t kNodes = 4;
constexpr seconds kLost{10};  // half a hold; ready work takes milliseconds

int Rounds() {
  const char* asked = std::getenv("UMBEL_ROUNDS");
  return asked ? std::atoi(asked) : 30;
}

std::string Base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(bytes.data()),
                                static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

/// A node's key, which signs the time.
class Signer {
 public:
  Signer() : key_(EVP_EC_gen("P-256")) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, key_);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    pem_.assign(data, static_cast<size_t>(size));
    BIO_free(bio);
  }
  ~Signer() { EVP_PKEY_free(key_); }
  Signer(const Signer&) = delete;
  Signer& operator=(const Signer&) = delete;

  const std::string& pem() const { return pem_; }
  std::string Headers() const {
    const std::string now = IsoFormat(SystemClock().Now());
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    EVP_DigestSignInit(context, nullptr, EVP_sha256(), nullptr, key_);
    std::string signature(256, '\0');
    size_t size = signature.size();
    EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size,
                   reinterpret_cast<const unsigned char*>(now.data()), now.size());
    EVP_MD_CTX_free(context);
    signature.resize(size);
    return fmt::format("flwr-public-key: {}\r\nflwr-timestamp: {}\r\nflwr-signature: {}\r\n",
                       Base64(pem_), now, Base64(signature));
  }

 private:
  EVP_PKEY* key_;
  std::string pem_;
};

using Headers = std::function<std::string()>;  // anew for each attempt
const Headers kNone = [] { return std::string(); };

/// A keep-alive connection as httpx has one.
class Client {
 public:
  /// over  once set, nobody's answer is waited for any more.
  Client(uint16_t port, const std::atomic<bool>& over) : port_(port), over_(over) {}

  /// Tries again while nobody answers, or answers 503, as stock programs do. False: any other
  /// answer than 200, or none for a minute.
  bool Post(std::string_view path, const MessageLite& request, MessageLite* response,
            const Headers& headers) {
    const auto deadline = Steady::now() + seconds(60);
    std::string body;
    int status = 0;
    while (status == 0 || status == 503) {
      if (over_ || Steady::now() >= deadline) return false;
      status = Send(path, request, headers()) ? Receive(&body) : 0;
      if (status == 0) std::this_thread::yield();
    }
    return status == 200 && (response == nullptr || response->ParseFromString(body));
  }
  bool Send(std::string_view path, const MessageLite& request, const std::string& headers) {
    if (!fd_.valid() && !Connect()) return false;
    const std::string body = request.SerializeAsString();
    const std::string all = fmt::format(
        "POST {} HTTP/1.1\r\nHost: x\r\nUser-Agent: python-httpx/0.28.1\r\n"
        "Content-Type: application/protobuf\r\nContent-Length: {}\r\n{}\r\n{}",
        path, body.size(), headers, body);
    for (size_t sent = 0; sent < all.size();) {
      const ssize_t n = ::send(fd_.get(), all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return HangUp();
      sent += static_cast<size_t>(n);
    }
    return true;
  }
  bool HangUp() {
    fd_.Close();
    pending_.clear();
    return false;
  }

 private:
  bool Connect() {
    fd_ = Fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval limit{60, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0)
      return true;
    return HangUp();
  }
  int Receive(std::string* body) {
    for (;;) {
      size_t end;
      while ((end = pending_.find("\r\n\r\n")) == std::string::npos)
        if (!More()) return 0;
      const std::string head = pending_.substr(0, end + 4);
      pending_.erase(0, end + 4);
      const int status = std::atoi(head.c_str() + 9);
      if (status < 200) continue;  // 102: still working
      const size_t at = head.find("Content-Length: ");
      const size_t length = std::strtoull(head.c_str() + at + 16, nullptr, 10);
      while (pending_.size() < length)
        if (!More()) return 0;
      *body = pending_.substr(0, length);
      pending_.erase(0, length);
      return status;
    }
  }
  bool More() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return HangUp();
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  const uint16_t port_;
  const std::atomic<bool>& over_;
  Fd fd_;
  std::string pending_;
};

/// The smallest app there can be.
std::string MakeFab() {
  const std::string project =
      "[project]\nname = \"wake\"\nversion = \"1.0.0\"\n[tool.flwr.app]\npublisher = \"umbel\"\n"
      "[tool.flwr.app.components]\nserverapp = \"a:app\"\nclientapp = \"b:app\"\n"
      "[tool.flwr.app.config]\n";
  const std::string content =
      fmt::format("pyproject.toml,{},{}", tensor::Sha256Of(project).Hex(), project.size() * 8);
  zip_source_t* source = zip_source_buffer_create(nullptr, 0, 0, nullptr);
  zip_source_keep(source);
  zip_t* zip = zip_open_from_source(source, ZIP_TRUNCATE, nullptr);
  const auto add = [&](const char* name, const std::string& text) {
    zip_file_add(zip, name, zip_source_buffer(zip, text.data(), text.size(), 0), ZIP_FL_ENC_UTF_8);
  };
  add("pyproject.toml", project);
  add(".info/CONTENT", content);
  zip_close(zip);
  zip_source_open(source);
  zip_stat_t stat;
  zip_source_stat(source, &stat);
  std::string fab(static_cast<size_t>(stat.size), '\0');
  zip_source_read(source, fab.data(), stat.size);
  zip_source_close(source);
  zip_source_free(source);
  return fab;
}

/// A message and the objects it consists of.
struct Parcel {
  pb::Message message;
  pb::ObjectTree tree;
  std::map<std::string, std::string> objects;  // by id
};

Parcel MakeParcel(uint64_t run_id, uint64_t src, uint64_t dst, const std::string& reply_to,
                  double created_at, const std::vector<std::string>& bodies) {
  Parcel parcel;
  tensor::TreeNode tree;
  std::vector<ObjectId> children;
  for (const std::string& body : bodies) {
    const std::string object = tensor::MakeObject(tensor::ObjectType::kArrayChunk, {}, body);
    children.push_back(tensor::ObjectIdOf(object));
    tree.children.push_back({children.back(), {}});
    parcel.objects[children.back().Hex()] = object;
  }
  pb::Metadata* metadata = parcel.message.mutable_metadata();
  metadata->set_run_id(run_id);
  metadata->set_src_node_id(src);
  metadata->set_dst_node_id(dst);
  metadata->set_reply_to_message_id(reply_to);
  metadata->set_ttl(3600);
  metadata->set_message_type("train");
  metadata->set_created_at(created_at);
  const std::string root = tensor::MakeObject(tensor::ObjectType::kMessage, children,
                                              parcel.message.SerializeAsString());
  tree.id = tensor::ObjectIdOf(root);
  parcel.objects[tree.id.Hex()] = root;
  metadata->set_message_id(tree.id.Hex());
  parcel.message.mutable_content();
  parcel.tree.ParseFromString(tensor::EncodeTree(tree));
  return parcel;
}

class WakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.port = 0;
    options_.insecure = true;
    options_.isolation = Isolation::kProcess;  // the ServerApp is ours
    options_.state_directory = directory_.path();
    options_.shutdown_grace = seconds(2);
    Open();
    options_.port = port_ = server_->port();
  }
  void Open() {
    auto server = SuperLink::Start(options_);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
  }

  double Now() const { return UnixSeconds(SystemClock().Now()); }

  /// A held poll. Fails the test when work that must be there was not handed out in time.
  bool Held(Client& client, std::string_view path, const MessageLite& request,
            MessageLite* response, const Headers& headers) {
    const auto begin = Steady::now();
    const bool ok = client.Post(path, request, response, headers);
    const auto took = Steady::now() - begin;
    if (took >= kLost && !over_) {
      ADD_FAILURE() << path << " was held for "
                    << std::chrono::duration_cast<std::chrono::milliseconds>(took).count()
                    << " ms: its wake-up was lost";
    }
    return ok;
  }

  /// What must hold until the run is over: then a node may be left with work nobody waits for.
  void Until(bool holds) { EXPECT_TRUE(holds || over_); }

  /// Pushes over two connections at once, as stock programs do.
  void PushObjects(Client& one, Client& two, std::string_view path, const Parcel& parcel,
                   const google::protobuf::RepeatedPtrField<std::string>& wanted,
                   const std::string& session, uint64_t node, uint64_t run_id,
                   const Headers& headers) {
    const auto push = [&](Client& client, int from) {
      for (int i = from; i < wanted.size(); i += 2) {
        const auto object = parcel.objects.find(wanted[i]);
        if (object == parcel.objects.end()) continue;  // another message's
        pb::PushObjectRequest request;
        request.mutable_node()->set_node_id(node);
        request.set_run_id(run_id);
        request.set_object_id(object->first);
        request.set_object_content(object->second);
        request.set_session_id(session);
        pb::PushObjectResponse response;
        Until(client.Post(path, request, &response, headers));
        Until(response.stored());
      }
    };
    auto other = std::async(std::launch::async, [&] { push(two, 1); });
    push(one, 0);
    other.get();
  }

  /// Pulls a message's objects, which must be what their names say.
  void Fetch(Client& client, std::string_view path, const pb::ObjectTree& tree, uint64_t node,
             uint64_t run_id, const Headers& headers) {
    std::vector<std::string> ids{tree.object_id()};
    for (const auto& child : tree.children()) ids.push_back(child.object_id());
    for (const std::string& id : ids) {
      pb::PullObjectRequest request;
      request.mutable_node()->set_node_id(node);
      request.set_run_id(run_id);
      request.set_object_id(id);
      pb::PullObjectResponse response;
      Until(client.Post(path, request, &response, headers));
      Until(response.object_available());
      Until(tensor::ObjectIdOf(response.object_content()).Hex() == id);
    }
  }

  void RunNode(size_t index) {
    std::mt19937 random(static_cast<unsigned>(index));
    const Signer signer;
    const auto headers = [&] { return signer.Headers(); };
    Client client(port_, over_), second(port_, over_);
    pb::RegisterNodeFleetRequest registration;
    registration.set_public_key(signer.pem());
    ASSERT_TRUE(client.Post("/v1/fleet/register-node", registration, nullptr, headers));
    pb::ActivateNodeRequest activation;
    activation.set_public_key(signer.pem());
    activation.set_heartbeat_interval(1800);
    pb::ActivateNodeResponse activated;
    ASSERT_TRUE(client.Post("/v1/fleet/activate-node", activation, &activated, headers));
    const uint64_t node = activated.node_id();
    ids_[index] = node;
    ++online_;
    while (!over_) {
      pb::FleetPullMessagesRequest pull;
      pull.mutable_node()->set_node_id(node);
      if (random() % 8 == 0) {  // hangs up, held or half answered: nothing may be lost
        client.Send("/v1/fleet/pull-messages", pull, headers());
        if (random() % 2 == 0) std::this_thread::yield();
        client.HangUp();
      }
      pb::FleetPullMessagesResponse pulled;
      if (!Held(client, "/v1/fleet/pull-messages", pull, &pulled, headers)) continue;
      if (pulled.messages_list_size() == 0) continue;
      const pb::Metadata& asked = pulled.messages_list(0).metadata();
      Fetch(client, "/v1/fleet/pull-object", pulled.message_object_trees(0), node, asked.run_id(),
            headers);
      pb::ConfirmMessageReceivedRequest confirm;
      confirm.mutable_node()->set_node_id(node);
      confirm.set_run_id(asked.run_id());
      confirm.set_message_object_id(asked.message_id());
      Until(client.Post("/v1/fleet/confirm-message-received", confirm, nullptr, headers));
      // One object that all nodes send, and one of its own, of either kind of spool.
      const double created_at = Now();
      Parcel reply = MakeParcel(
          asked.run_id(), node, 1, asked.message_id(), created_at,
          {std::string(70'000, 's') + asked.group_id(), fmt::format("{} {}", node, created_at)});
      reply.message.mutable_metadata()->set_ttl(asked.created_at() + asked.ttl() - created_at);
      pb::FleetPushMessagesRequest push;
      push.mutable_node()->set_node_id(node);
      *push.add_messages_list() = reply.message;
      *push.add_message_object_trees() = reply.tree;
      pb::FleetPushMessagesResponse pushed;
      Until(client.Post("/v1/fleet/push-messages", push, &pushed, headers));
      if (!restarts_ && !over_) {
        EXPECT_EQ(pushed.objects_to_push_size(), 3);
      }
      PushObjects(client, second, "/v1/fleet/push-object", reply, pushed.objects_to_push(),
                  pushed.session_id(), node, asked.run_id(), headers);
    }
  }

  /// Its claim, then round after round. Returns the slowest round's length.
  Steady::duration RunServerApp(int rounds) {
    std::mt19937 random(99);
    Client client(port_, over_), second(port_, over_);
    pb::AcquireTaskRequest acquire;
    acquire.add_supported_task_types("flwr-serverapp");
    pb::AcquireTaskResponse acquired;
    EXPECT_TRUE(Held(client, "/v1/runtime/acquire-task", acquire, &acquired, kNone));
    const Headers token = [line = fmt::format("flwr-task-token: {}\r\n", acquired.token())] {
      return line;
    };
    const uint64_t run_id = acquired.task().run_id();
    const pb::AcquireTaskRequest nothing;  // an empty body
    EXPECT_TRUE(client.Post("/v1/runtime/pull-task-input", nothing, nullptr, token));
    Steady::duration slowest{};
    for (int round = 1; round <= rounds && !HasFailure(); ++round) {
      const auto begin = Steady::now();
      EXPECT_TRUE(client.Post("/v1/runtime/send-task-heartbeat", nothing, nullptr, token));
      pb::RuntimePushMessagesRequest push;
      std::vector<Parcel> parcels;
      for (const uint64_t node : ids_) {
        parcels.push_back(MakeParcel(run_id, 1, node, "", Now(),
                                     {std::string(100'000, 'm') + std::to_string(round)}));
        *push.add_messages_list() = parcels.back().message;
        *push.add_message_object_trees() = parcels.back().tree;
      }
      pb::RuntimePushMessagesResponse pushed;
      EXPECT_TRUE(client.Post("/v1/runtime/push-messages", push, &pushed, token));
      if (!restarts_) {
        EXPECT_EQ(pushed.objects_to_push_size(), static_cast<int>(kNodes) + 1);
      }
      Parcel all;  // the model is in each of them and travels once
      for (const Parcel& parcel : parcels)
        all.objects.insert(parcel.objects.begin(), parcel.objects.end());
      PushObjects(client, second, "/v1/runtime/push-object", all, pushed.objects_to_push(),
                  pushed.session_id(), 1, run_id, token);
      pb::RuntimePullMessagesRequest pull;
      for (const std::string& id : pushed.message_ids()) pull.add_message_ids(id);
      if (random() % 4 == 0) {
        client.Send("/v1/runtime/pull-messages", pull, token());
        client.HangUp();
      }
      pb::RuntimePullMessagesResponse pulled;
      do {  // one that stops answers what it holds with the replies that are there
        EXPECT_TRUE(Held(client, "/v1/runtime/pull-messages", pull, &pulled, token));
      } while (restarts_ && pulled.messages_list_size() < static_cast<int>(kNodes) &&
               !HasFailure());
      EXPECT_EQ(pulled.messages_list_size(), static_cast<int>(kNodes)) << "round " << round;
      int count = 0;
      for (const pb::Message& reply : pulled.messages_list()) {
        EXPECT_FALSE(reply.has_error()) << reply.error().reason();
        const auto& tree = pulled.message_object_trees(count++);
        Fetch(client, "/v1/runtime/pull-object", tree, 1, run_id, token);
        pb::ConfirmMessageReceivedRequest confirm;
        confirm.mutable_node()->set_node_id(1);
        confirm.set_run_id(run_id);
        confirm.set_message_object_id(reply.metadata().message_id());
        EXPECT_TRUE(client.Post("/v1/runtime/confirm-message-received", confirm, nullptr, token));
      }
      slowest = std::max(slowest, Steady::now() - begin);
      ++rounds_done_;
    }
    over_ = true;
    return slowest;
  }

  /// A run of so many rounds; with restarts_, the SuperLink goes away and comes back all the while.
  void Train(int rounds) {
    std::vector<std::jthread> nodes;
    for (size_t i = 0; i < kNodes; ++i) nodes.emplace_back([this, i] { RunNode(i); });
    while (online_ < kNodes) std::this_thread::yield();
    auto app = std::async(std::launch::async, [&] { return RunServerApp(rounds); });
    Client control(port_, over_);
    pb::StartRunRequest start;
    start.mutable_fab()->set_content(MakeFab());
    pb::StartRunResponse started;
    EXPECT_TRUE(control.Post("/v1/control/start-run", start, &started, kNone));
    EXPECT_NE(started.run_id(), 0u);
    std::mt19937 random(7);
    for (int next = 2; restarts_ && next < rounds; next += 1 + static_cast<int>(random() % 4)) {
      while (rounds_done_ < next && !HasFailure()) std::this_thread::yield();
      for (auto i = random() % 30'000; i > 0; --i) std::this_thread::yield();
      server_->Stop();
      server_.reset();
      Open();
    }
    const auto slowest = app.get();
    over_ = true;
    server_->Stop();  // answers what is held
    nodes.clear();
    std::cout << rounds << " rounds of " << kNodes << " nodes, the slowest took "
              << std::chrono::duration_cast<std::chrono::milliseconds>(slowest).count() << " ms\n";
  }

  store::testing::TempDir directory_;
  Options options_;
  std::unique_ptr<SuperLink> server_;
  std::array<std::atomic<uint64_t>, kNodes> ids_{};
  std::atomic<size_t> online_{0};
  std::atomic<int> rounds_done_{0};
  uint16_t port_ = 0;
  bool restarts_ = false;
  std::atomic<bool> over_{false};
};

TEST_F(WakeTest, NoHeldPollMissesWhatItWaitsFor) { Train(Rounds()); }

TEST_F(WakeTest, NorDoesOneThatComesBackAfterARestart) {
  restarts_ = true;
  Train(Rounds());
}

}  // namespace
}  // namespace umbel::superlink
