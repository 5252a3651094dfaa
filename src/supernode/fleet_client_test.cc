#include "supernode/fleet_client.h"

#include <unistd.h>

#include "flower/errors.h"
#include "flower/node_signer.h"
#include "supernode/fleet_testing.h"
#include "tensor/object.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr RunId kRun{0xfedcba9876543210};

class FleetClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    http::ClientOptions options;
    options.port = fleet_.port();
    auto made = http::Client::Make(thread_.io(), options);
    ASSERT_TRUE(made.ok()) << made.error().message;
    client_ = std::move(*made);
    rules_.pause_min = milliseconds(1);
    Make();
  }
  void TearDown() override {
    thread_.On([&] {
      fleet_client_.reset();
      client_.reset();
      return true;
    });
    thread_.Stop();
  }
  void Make() {
    fleet_client_ = std::make_unique<FleetClient>(*client_, signer_, clock_, rng_, rules_);
  }
  template <typename T>
  T Call(Task<T> task) {
    return Get(thread_.Spawn(std::move(task)));
  }
  Result<std::string> PullObject(const ObjectId& id) {
    return Call(fleet_client_->PullObject(kSite, kRun, id));
  }
  static FleetDouble::Answer Object(bool found, bool available, const std::string& content = "") {
    pb::PullObjectResponse response;
    response.set_object_found(found);
    response.set_object_available(available);
    response.set_object_content(content);
    return FleetDouble::Status(200, response.SerializeAsString(), "application/protobuf");
  }

  FleetDouble fleet_;
  IoThread thread_;
  const flower::NodeSigner signer_ = flower::NodeSigner::Generate();
  SystemClock clock_;
  SeededRng rng_{1};
  RetryRules rules_;
  std::unique_ptr<http::Client> client_;
  std::unique_ptr<FleetClient> fleet_client_;
};

TEST_F(FleetClientTest, SaysWhoItIs) {
  ASSERT_TRUE(Call(fleet_client_->Register()).ok());
  const auto id = Call(fleet_client_->Activate(30));
  ASSERT_TRUE(id.ok()) << id.error().message;
  EXPECT_EQ(*id, kSite);
  const auto calls = fleet_.Calls("activate-node");
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_FALSE(calls[0].key.empty());
  pb::ActivateNodeRequest request;
  ASSERT_TRUE(request.ParseFromString(calls[0].body));
  EXPECT_EQ(request.public_key(), signer_.PublicPem());
  EXPECT_EQ(request.heartbeat_interval(), 30);
  fleet_.SetNodeId(NodeId{});
  EXPECT_EQ(Call(fleet_client_->Activate(30)).error().code, Code::kDataLoss);
}

TEST_F(FleetClientTest, ABusySuperLinkIsAskedUntilItAnswers) {
  for (const int status : {502, 503, 504})
    fleet_.Next("activate-node", FleetDouble::Status(status, "busy"));
  fleet_.Next("activate-node", FleetDouble::Hangup(), 3);
  const auto id = Call(fleet_client_->Activate(30));
  ASSERT_TRUE(id.ok()) << id.error().message;
  EXPECT_GE(fleet_.Count("activate-node"), 7u);
  EXPECT_EQ(fleet_client_->last_error(), "");
}

TEST_F(FleetClientTest, ASuperLinkThatIsAwayIsWaitedFor) {
  fleet_.Stop();
  auto future = thread_.Spawn(fleet_client_->Activate(30));
  while (thread_.On([&] { return fleet_client_->last_error().empty(); })) std::this_thread::yield();
  fleet_.Start();
  EXPECT_TRUE(Get(std::move(future)).ok());
}

TEST_F(FleetClientTest, WhatIsRefusedIsNotAskedAgain) {
  const std::map<int, Code> codes = {{400, Code::kInvalidArgument},
                                     {401, Code::kUnauthenticated},
                                     {403, Code::kPermissionDenied},
                                     {404, Code::kNotFound},
                                     {412, Code::kFailedPrecondition},
                                     {415, Code::kInvalidArgument},
                                     {413, Code::kUnknown},
                                     {429, Code::kUnknown},
                                     {500, Code::kUnknown},
                                     {204, Code::kUnknown},
                                     {301, Code::kUnknown}};
  size_t count = 0;
  for (const auto& [status, code] : codes) {
    fleet_.Next("register-node", FleetDouble::Status(status, status == 204 ? "" : "why"));
    const Status done = Call(fleet_client_->Register());
    ASSERT_FALSE(done.ok()) << status;
    EXPECT_EQ(done.error().code, code) << status;
    EXPECT_EQ(done.error().message,
              fmt::format("register-node: {} {}", status, status == 204 ? "" : "why"));
    EXPECT_EQ(fleet_client_->last_error(), done.error().message);
    EXPECT_EQ(fleet_.Count("register-node"), ++count) << status;
  }
  EXPECT_TRUE(Call(fleet_client_->Register()).ok());
  EXPECT_EQ(fleet_client_->last_error(), "");
}

TEST_F(FleetClientTest, ARefusalSaysFlowersCodeAndWords) {
  fleet_.Next("get-run",
              FleetDouble::Status(403, R"({"code": 2007, "detail": "No.", "extra": "Run 5."})"));
  const auto run = Call(fleet_client_->GetRun(kSite, kRun));
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(run.error().code, Code::kPermissionDenied);
  EXPECT_EQ(run.error().wire_code, flower::wire::kRunNotRunning);
  EXPECT_EQ(run.error().message, "get-run: 403 [code: 2007] No. Run 5.");
  // Whatever else a body may be.
  const std::vector<std::pair<std::string, std::string>> bodies = {
      {R"({"detail": "Not Found"})", "register-node: 404 Not Found"},
      {R"({"code": "2007", "detail": 7})", R"(register-node: 404 {"code": "2007", "detail": 7})"},
      {R"([1, 2)", "register-node: 404 [1, 2"},
      {"", "register-node: 404 "},
      {R"({"code": 18446744073709551615, "detail": ""})", ""},
      {std::string(1000, 'x'), "register-node: 404 " + std::string(200, 'x')},
      {std::string(100'000, '['), "register-node: 404 " + std::string(200, '[')}};
  for (const auto& [body, text] : bodies) {
    fleet_.Next("register-node", FleetDouble::Status(404, body));
    const Status done = Call(fleet_client_->Register());
    ASSERT_FALSE(done.ok());
    if (!text.empty()) {
      EXPECT_EQ(done.error().message, text);
    }
  }
}

TEST_F(FleetClientTest, RetriesHaveLimits) {
  fleet_.Always("register-node", FleetDouble::Status(503, "busy"));
  for (const int64_t tries : {0, 1, 5}) {
    rules_.tries_max = tries;
    Make();
    const size_t before = fleet_.Count("register-node");
    const Status done = Call(fleet_client_->Register());
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().code, Code::kUnavailable);
    EXPECT_EQ(done.error().message, "register-node: 503 busy");
    EXPECT_EQ(fleet_.Count("register-node") - before, static_cast<size_t>(tries) + 1);
  }
  rules_.tries_max = std::nullopt;
  rules_.seconds_max = 0.05;
  Make();
  EXPECT_EQ(Call(fleet_client_->Register()).error().code, Code::kUnavailable);
}

TEST_F(FleetClientTest, WhatIsToBeDoneOnceIsDoneOnce) {
  for (const char* route : {"send-node-heartbeat", "deactivate-node", "unregister-node"})
    fleet_.Always(route, FleetDouble::Status(503, "busy"));
  EXPECT_FALSE(Call(fleet_client_->Heartbeat(kSite, 30)).ok());
  EXPECT_FALSE(Call(fleet_client_->Deactivate(kSite)).ok());
  EXPECT_FALSE(Call(fleet_client_->Unregister(kSite)).ok());
  for (const char* route : {"send-node-heartbeat", "deactivate-node", "unregister-node"})
    EXPECT_EQ(fleet_.Count(route), 1u) << route;
}

TEST_F(FleetClientTest, AHeartbeatThatIsNotTakenIsNoError) {
  EXPECT_TRUE(Call(fleet_client_->Heartbeat(kSite, 30)).value());
  fleet_.Next("send-node-heartbeat", FleetDouble::Status(200, ""));
  EXPECT_FALSE(Call(fleet_client_->Heartbeat(kSite, 30)).value());
  fleet_.Next("send-node-heartbeat", FleetDouble::Status(200, "garbage"));
  EXPECT_FALSE(Call(fleet_client_->Heartbeat(kSite, 30)).value());
}

TEST_F(FleetClientTest, ClosingEndsThePausesAndNothingElse) {
  rules_.pause_min = seconds(1000);  // whatever the generator says, nobody waits for that
  rules_.pause_max = seconds(100'000);
  Make();
  fleet_.Always("register-node", FleetDouble::Status(503, "busy"));
  auto future = thread_.Spawn(fleet_client_->Register());
  while (thread_.On([&] { return fleet_client_->last_error().empty(); })) std::this_thread::yield();
  thread_.On([&] {
    fleet_client_->Close();
    return true;
  });
  const Status done = Get(std::move(future));
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Code::kCancelled);
  // What is under way and what comes later has its one try.
  EXPECT_EQ(Call(fleet_client_->Register()).error().code, Code::kCancelled);
  EXPECT_TRUE(Call(fleet_client_->Activate(30)).ok());
}

TEST_F(FleetClientTest, AnInstructionComesOrNone) {
  fleet_.Next("pull-messages", FleetDouble::Status(200, ""));
  EXPECT_EQ(Call(fleet_client_->Pull(kSite, seconds(20))).value(), std::nullopt);
  EXPECT_EQ(fleet_.Calls("pull-messages")[0].prefer, "wait=20");
  const std::string id = fleet_.Instruct(kRun);
  const auto parcel = Call(fleet_client_->Pull(kSite, seconds(20))).value();
  ASSERT_TRUE(parcel);
  EXPECT_EQ(parcel->head.message_id, id);
  EXPECT_EQ(parcel->head.run_id, kRun);
}

TEST_F(FleetClientTest, GarbageIsAnErrorAndIsNotAskedForAgain) {
  const std::vector<std::string> garbage = {
      std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11), "\x0a\x7f", "\x1a\x05hi",
      "\x12\xff\xff\xff\xff\x0f", std::string(1000, '\x0b')};
  size_t count = 0;
  for (const std::string& bytes : garbage) {
    ++count;
    for (const char* route : {"activate-node", "pull-messages", "get-run", "get-fab", "pull-object",
                              "push-messages", "push-object"})
      fleet_.Next(route, FleetDouble::Status(200, bytes, "application/protobuf"));
    EXPECT_FALSE(Call(fleet_client_->Activate(30)).ok());
    EXPECT_FALSE(Call(fleet_client_->Pull(kSite, seconds(1))).ok());
    EXPECT_FALSE(Call(fleet_client_->GetRun(kSite, kRun)).ok());
    EXPECT_FALSE(Call(fleet_client_->GetFab(kSite, kRun, "hash")).ok());
    EXPECT_FALSE(PullObject(tensor::ObjectIdOf("x")).ok());
    flower::Parcel parcel;
    EXPECT_FALSE(Call(fleet_client_->PushReplyMessage(kSite, parcel, 1)).ok());
    flower::StoredObject object;
    object.head = "x";
    EXPECT_FALSE(Call(fleet_client_->PushObject(kSite, kRun, ObjectId{}, object, -1, "s")).ok());
    EXPECT_EQ(fleet_.Count("pull-object"), count);
  }
}

TEST_F(FleetClientTest, APullMustHoldTogether) {
  pb::FleetPullMessagesResponse response;
  response.add_messages_list()->mutable_content();
  fleet_.Next("pull-messages", FleetDouble::Status(200, response.SerializeAsString()));
  EXPECT_EQ(Call(fleet_client_->Pull(kSite, seconds(1))).error().code, Code::kDataLoss);
  response.add_message_object_trees();
  fleet_.Next("pull-messages", FleetDouble::Status(200, response.SerializeAsString()));
  EXPECT_FALSE(Call(fleet_client_->Pull(kSite, seconds(1))).ok());
  // Another run than the one asked for.
  pb::GetRunResponse run;
  run.mutable_run()->set_run_id(5);
  fleet_.Next("get-run", FleetDouble::Status(200, run.SerializeAsString()));
  EXPECT_EQ(Call(fleet_client_->GetRun(kSite, kRun)).error().code, Code::kDataLoss);
  // Ids that are none.
  pb::FleetPushMessagesResponse push;
  push.add_objects_to_push("../../etc/passwd");
  fleet_.Next("push-messages", FleetDouble::Status(200, push.SerializeAsString()));
  auto reply = flower::MakeErrorParcel({}, {2, "x"}, flower::Spool::Create("").value()).value();
  EXPECT_EQ(Call(fleet_client_->PushReplyMessage(kSite, reply, 1)).error().code,
            Code::kInvalidArgument);
}

TEST_F(FleetClientTest, AnObjectIsWhatItsNameSays) {
  const std::string bytes =
      tensor::MakeObject(tensor::ObjectType::kArrayChunk, {}, std::string(100'000, 'z'));
  const ObjectId id = tensor::ObjectIdOf(bytes);
  fleet_.PutObject(id.Hex(), bytes);
  EXPECT_EQ(PullObject(id).value(), bytes);

  std::string wrong = bytes;
  wrong.back() = 'y';
  fleet_.Next("pull-object", Object(true, true, wrong));
  EXPECT_EQ(PullObject(id).error().code, Code::kDataLoss);
  fleet_.Next("pull-object", Object(true, true, ""));
  EXPECT_EQ(PullObject(id).error().code, Code::kDataLoss);
  fleet_.Next("pull-object", Object(false, false));
  EXPECT_EQ(PullObject(id).error().code, Code::kNotFound);
  fleet_.Next("pull-object", FleetDouble::Refusal(403, 2007, "Run is not running"));
  EXPECT_EQ(PullObject(id).error().wire_code, flower::wire::kRunNotRunning);
  // Announced, then there; connections may break meanwhile.
  fleet_.Next("pull-object", Object(true, false));
  fleet_.Next("pull-object", FleetDouble::Hangup(), 2);
  fleet_.Next("pull-object", Object(true, false));
  EXPECT_EQ(PullObject(id).value(), bytes);
}

TEST_F(FleetClientTest, AnObjectIsSentFromWhereItLies) {
  char name[] = "/tmp/umbel-fleet-XXXXXX";
  const Fd file(::mkstemp(name));
  ::unlink(name);
  std::string content(300'000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 2654435761U >> 13);
  ASSERT_EQ(::write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  flower::StoredObject object;
  object.head = "ArrayChunk  250000";
  object.head.push_back('\0');
  object.body = {1234, 250'000};
  fleet_.Next("push-object", FleetDouble::Hangup());  // sent again, from its beginning
  const auto stored =
      Call(fleet_client_->PushObject(kSite, kRun, ObjectId{}, object, file.get(), "a session"));
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  EXPECT_FALSE(*stored);  // nothing was announced
  pb::PushObjectRequest request;
  ASSERT_TRUE(request.ParseFromString(fleet_.Calls("push-object").back().body));
  EXPECT_TRUE(request.object_content() == object.head + content.substr(1234, 250'000));
  EXPECT_EQ(request.object_id(), ObjectId{}.Hex());
  EXPECT_EQ(request.run_id(), kRun.value);
  EXPECT_EQ(request.node().node_id(), kSite.value);
  EXPECT_EQ(request.session_id(), "a session");

  object.body = {200'000, 250'000};  // the file has lost its end
  const auto cut =
      Call(fleet_client_->PushObject(kSite, kRun, ObjectId{}, object, file.get(), "a session"));
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, Code::kDataLoss);
}

TEST_F(FleetClientTest, AClosedClientCancels) {
  auto future = thread_.Spawn(fleet_client_->Pull(kSite, seconds(20)));
  fleet_.AwaitCount("pull-messages", 1);
  thread_.On([&] {
    client_->Close();
    return true;
  });
  const auto pulled = Get(std::move(future));
  ASSERT_FALSE(pulled.ok());
  EXPECT_EQ(pulled.error().code, Code::kCancelled);
}

}  // namespace
}  // namespace umbel::supernode
