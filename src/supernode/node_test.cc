#include "supernode/node.h"

#include <boost/asio/thread_pool.hpp>
#include <filesystem>

#include "base/testing.h"
#include "flower/errors.h"
#include "flower/testing.h"
#include "http/tasks.h"
#include "store/sqlite.h"
#include "supernode/fleet_testing.h"
#include "supernode/slots.h"
#include "tensor/object.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr RunId kRun{0xfedcba9876543210};
constexpr RunId kOtherRun{6};
constexpr SeriesId kSeries{5};
constexpr SeriesId kOtherSeries{8};

/// A Host that does what the test says.
class HostDouble final : public Host {
 public:
  explicit HostDouble(const boost::asio::any_io_executor& executor) : changed_(executor) {}

  // The test's side; any thread.
  void Block() {
    std::lock_guard lock(mutex_);
    blocked_ = true;
  }
  /// As many jobs fail as the host's own fault, the next ones first.
  void Fail(int count, Error error) {
    std::lock_guard lock(mutex_);
    failures_ = count;
    error_ = std::move(error);
  }
  std::vector<std::string> AwaitBegun(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(known_.wait_for(lock, kFleetPatience, [&] { return begun_.size() >= count; }));
    return begun_;
  }
  size_t most_at_once() {
    std::lock_guard lock(mutex_);
    return most_;
  }

  // On the host's thread.
  void Release(const std::string& message_id) {
    released_.insert(message_id);
    changed_.Ring();
  }
  void ReleaseAll() {
    {
      std::lock_guard lock(mutex_);
      blocked_ = false;
    }
    changed_.Ring();
  }

  std::string_view name() const override { return "double"; }
  void Prepare(std::shared_ptr<const RunInfo> run) override { EXPECT_TRUE(run->app); }
  Task<Result<Outcome>> Run(const Job& job) override {
    const std::string id = job.instruction.head.message_id;
    bool fails = false;
    Error error;
    {
      std::lock_guard lock(mutex_);
      begun_.push_back(id);
      most_ = std::max(most_, ++live_);
      fails = failures_ > 0 && failures_-- > 0;
      error = error_;
      known_.notify_all();
    }
    while (Waits(id)) co_await changed_.Wait();
    {
      std::lock_guard lock(mutex_);
      --live_;
    }
    if (stopping_) co_return umbel::Fail(Code::kCancelled, "stopping");
    if (fails) co_return umbel::Fail(std::move(error));
    auto spool = flower::Spool::Create(job.spool_path);
    if (!spool.ok()) co_return umbel::Fail(std::move(spool).error());
    flower::ArrayRef array;
    array.dtype = "uint8";
    array.shape = {20'000};
    array.stype = "numpy.ndarray";
    array.pieces = {(*spool)->Append(std::string(20'000, 'b')).value()};
    const flower::RecordDict records{
        {"arrays", flower::ArrayRecord{{"w", array}}},
        {"config", flower::ConfigRecord{{"state", flower::Bytes{job.state}}}}};
    Outcome outcome;
    auto parcel =
        flower::MakeParcel(flower::ReplyHead(job.instruction.head, 1'800'000'000), records, *spool);
    if (!parcel.ok()) co_return umbel::Fail(std::move(parcel).error());
    outcome.reply = std::move(*parcel);
    outcome.state = job.state + "x";
    outcome.runtime_seconds = 0.25;
    co_return outcome;
  }
  void Drop(RunId) override {}
  Task<void> Stop(milliseconds) override {
    stopping_ = true;
    changed_.Ring();
    co_return;
  }
  std::string Describe() const override { return ""; }

 private:
  bool Waits(const std::string& id) {
    std::lock_guard lock(mutex_);
    return blocked_ && !stopping_ && !released_.contains(id);
  }

  http::Bell changed_;
  std::set<std::string> released_;
  bool stopping_ = false;
  std::mutex mutex_;
  std::condition_variable known_;
  bool blocked_ = false;
  int failures_ = 0;
  Error error_;
  std::vector<std::string> begun_;
  size_t live_ = 0;
  size_t most_ = 0;
};

/// A process with one site.
class Process {
 public:
  struct Options {
    size_t max_parallel = 1;
    RetryRules retry;
    Apps::Rules rules;
    bool block = false;
    int failures = 0;
    Error error;
  };

  Process(const FleetDouble& fleet, const std::string& directory, const Options& options)
      : pool_(2) {
    http::ClientOptions client;
    client.port = fleet.port();
    client_ = http::Client::Make(thread_.io(), client).value();
    auto journal = Journal::Open(directory + "/journal.db");
    UMBEL_CHECK(journal.ok());
    journal_ = std::move(*journal);
    UMBEL_CHECK(MakeDirectories(directory + "/spool").ok());
    UMBEL_CHECK(MakeDirectories(directory + "/apps").ok());
    const boost::asio::any_io_executor executor = thread_.io().get_executor();
    apps_ = std::make_unique<Apps>(directory + "/apps", std::nullopt, options.rules, pool_);
    host_ = std::make_unique<HostDouble>(executor);
    if (options.block) host_->Block();
    host_->Fail(options.failures, options.error);
    slots_ = std::make_unique<Slots>(executor, options.max_parallel);
    RetryRules retry = options.retry;
    retry.pause_min = milliseconds(1);
    shared_ = std::unique_ptr<Shared>(new Shared{*client_, *journal_, *apps_, *host_, *slots_,
                                                 pool_, clock_, rng_, retry, directory + "/spool"});
    node_ = Node::Make(*shared_, 0, "", {}, executor).value();
    ended_ = thread_.Spawn(node_->Run());
  }
  ~Process() {
    if (!dead_) static_cast<void>(Stop());
  }

  HostDouble& host() { return *host_; }
  Journal& journal() { return *journal_; }
  NodeCounters counters() {
    return thread_.On([this] { return node_->counters(); });
  }
  template <typename F>
  auto On(F work) {
    return thread_.On(std::move(work));
  }
  std::string Describe() {
    return thread_.On([this] { return node_->Describe(); });
  }
  void AwaitDescribed(const std::string& text) {
    const auto until = std::chrono::steady_clock::now() + kFleetPatience;
    while (Describe().find(text) == std::string::npos) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "still " << Describe();
      std::this_thread::yield();
    }
  }
  /// Only the node itself.
  void SignOff() { Get(thread_.Spawn(node_->Stop())); }
  /// Ends by itself.
  Status Await() { return Get(std::move(ended_)); }

  /// As SuperNode does.
  Status Stop() {
    const auto leave = [this]() -> Task<void> {
      co_await node_->Stop();
      co_await host_->Stop(milliseconds(0));
      client_->Close();
    };
    Get(thread_.Spawn(leave()));
    const Status end = ended_.valid() ? Get(std::move(ended_)) : Status();
    pool_.join();
    Kill();
    return end;
  }
  /// As SIGKILL: whatever is under way, nobody hears of it any more.
  void Kill() {
    dead_ = true;
    thread_.Stop();
    pool_.join();
    node_.reset();
    journal_.reset();
  }

 private:
  IoThread thread_;  // its io_context goes last, as that of a node's server does
  SystemClock clock_;
  SystemRng rng_;
  boost::asio::thread_pool pool_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<http::Client> client_;
  std::unique_ptr<Apps> apps_;
  std::unique_ptr<HostDouble> host_;
  std::unique_ptr<Slots> slots_;
  std::unique_ptr<Shared> shared_;
  std::unique_ptr<Node> node_;
  std::future<Status> ended_;
  bool dead_ = false;
};

class NodeTest : public ::testing::Test {
 protected:
  NodeTest() {
    const std::string fab = flower::testing::MakeZip(flower::testing::GoodEntries());
    fleet_.AddRun(kRun, kSeries, fab);
    fleet_.AddRun(kOtherRun, kOtherSeries, fab);
  }

  void Begin(const Process::Options& options = {}) {
    process_ = std::make_unique<Process>(fleet_, directory_.path(), options);
  }
  Status Stop() { return std::exchange(process_, nullptr)->Stop(); }
  void Kill() { std::exchange(process_, nullptr)->Kill(); }

  std::vector<std::string> Spools() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path() + "/spool"))
      names.push_back(entry.path().filename());
    return names;
  }
  /// What the next process would find.
  std::optional<Progress> Kept(const std::string& id) {
    auto journal = Journal::Open(directory_.path() + "/journal.db").value();
    return journal->Find(0, ObjectId::FromHex(id).value()).value();
  }
  std::string Context() {
    auto journal = Journal::Open(directory_.path() + "/journal.db").value();
    return journal->ReadContext(0, kSeries).value();
  }
  void AwaitKept(const std::string& id, Progress progress) {
    const ObjectId digest = ObjectId::FromHex(id).value();
    const auto until = std::chrono::steady_clock::now() + kFleetPatience;
    while (process_->journal().Find(0, digest).value() != progress) {
      ASSERT_LT(std::chrono::steady_clock::now(), until);
      std::this_thread::yield();
    }
  }
  static flower::AllowRules OnlyOf(std::string publisher) {
    const std::vector<std::string> publishers{std::move(publisher)};
    return flower::AllowRules::Parse({}, publishers).value();
  }
  static void IsError(const FleetDouble::Reply& reply, ReplyError code, const std::string& text) {
    ASSERT_TRUE(reply.message.has_error());
    EXPECT_EQ(reply.message.error().code(), static_cast<int64_t>(code));
    EXPECT_NE(reply.message.error().reason().find(text), std::string::npos)
        << reply.message.error().reason();
  }
  void Release(const std::string& id) {
    process_->On([&] {
      process_->host().Release(id);
      return true;
    });
  }

  FleetDouble fleet_;
  umbel::testing::TempDir directory_;
  std::unique_ptr<Process> process_;
};

TEST_F(NodeTest, AnInstructionBecomesAReply) {
  Begin();
  const std::string id = fleet_.Instruct(kRun);
  const auto reply = fleet_.AwaitReplies(1)[0];
  EXPECT_EQ(reply.message.metadata().reply_to_message_id(), id);
  EXPECT_EQ(reply.message.metadata().src_node_id(), kSite.value);
  EXPECT_EQ(reply.message.metadata().dst_node_id(), kSuperLinkNode.value);
  EXPECT_EQ(reply.message.metadata().run_id(), kRun.value);
  EXPECT_TRUE(reply.message.has_content());
  EXPECT_EQ(reply.runtime_seconds, 0.25);
  for (const auto& [hex, bytes] : reply.objects) EXPECT_EQ(tensor::ObjectIdOf(bytes).Hex(), hex);
  EXPECT_EQ(fleet_.Count("confirm-message-received"), 1u);
  AwaitKept(id, Progress::kSent);
  const NodeCounters counters = process_->counters();
  EXPECT_EQ(counters.instructions, 1u);
  EXPECT_EQ(counters.replies, 1u);
  EXPECT_EQ(counters.error_replies, 0u);
  EXPECT_GT(counters.bytes_in, 10'000u);
  EXPECT_GT(counters.bytes_out, 20'000u);
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(fleet_.Count("deactivate-node"), 1u);
  EXPECT_EQ(Context(), "x");
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, SmallObjectsAreSentBeforeChunks) {
  Begin();
  fleet_.Instruct(kRun);
  fleet_.AwaitReplies(1);
  bool chunks = false;
  for (const auto& call : fleet_.Calls("push-object")) {
    pb::PushObjectRequest request;
    ASSERT_TRUE(request.ParseFromString(call.body));
    const bool chunk = request.object_content().starts_with("ArrayChunk ");
    EXPECT_FALSE(chunks && !chunk);
    chunks = chunk;
  }
  EXPECT_TRUE(chunks);
}

TEST_F(NodeTest, AnInstructionHandedOutTwiceIsCarriedOutOnce) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  process_->host().AwaitBegun(1);
  fleet_.InstructAgain(id);
  fleet_.AwaitCount("confirm-message-received", 2);
  Release(id);
  fleet_.AwaitReplies(1);
  fleet_.AwaitCount("pull-messages", 3);
  EXPECT_EQ(process_->host().AwaitBegun(1).size(), 1u);
  EXPECT_EQ(process_->counters().instructions, 1u);
  // The SuperLink has lost the reply that it took.
  AwaitKept(id, Progress::kSent);
  process_->AwaitDescribed(R"("working_on":[])");
  process_->On([&] {
    process_->host().ReleaseAll();
    return true;
  });
  fleet_.InstructAgain(id);
  EXPECT_EQ(fleet_.AwaitReplies(2)[1].message.metadata().reply_to_message_id(), id);
}

TEST_F(NodeTest, AReplyOutlivesItsProcess) {
  fleet_.Block("push-messages");
  Begin();
  const std::string id = fleet_.Instruct(kRun);
  fleet_.AwaitCount("push-messages", 1);
  Kill();
  EXPECT_EQ(Kept(id), Progress::kAnswered);
  EXPECT_EQ(Context(), "x");
  fleet_.Stop();
  fleet_.Start();
  fleet_.Release();
  Begin();
  const auto reply = fleet_.AwaitReplies(1)[0];
  EXPECT_EQ(reply.message.metadata().reply_to_message_id(), id);
  EXPECT_EQ(reply.runtime_seconds, 0.25);
  AwaitKept(id, Progress::kSent);
  EXPECT_TRUE(process_->host().AwaitBegun(0).empty());
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(fleet_.Count("register-node"), 1u);
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, AnInstructionOutlivesItsProcess) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string first = fleet_.Instruct(kRun);
  const std::string second = fleet_.Instruct(kRun);
  fleet_.AwaitCount("confirm-message-received", 2);
  Kill();
  EXPECT_EQ(Kept(first), Progress::kTaken);
  EXPECT_EQ(Kept(second), Progress::kTaken);
  Begin();
  const auto replies = fleet_.AwaitReplies(2);
  EXPECT_EQ(replies[0].message.metadata().reply_to_message_id(), first);
  EXPECT_EQ(replies[1].message.metadata().reply_to_message_id(), second);
  AwaitKept(second, Progress::kSent);
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(Context(), "xx");
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, AnInstructionThatIsNotHereAnyMoreIsAnsweredWithAnError) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  process_->host().AwaitBegun(1);
  Kill();
  for (const std::string& name : Spools())
    std::filesystem::remove(directory_.path() + "/spool/" + name);
  Begin();
  const auto reply = fleet_.AwaitReplies(1)[0];
  EXPECT_EQ(reply.message.metadata().reply_to_message_id(), id);
  IsError(reply, ReplyError::kUnknown, "could not receive");
}

TEST_F(NodeTest, WhatThisSiteRefusesSinceItsRestartIsAnsweredSo) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  process_->host().AwaitBegun(1);
  Kill();
  options.rules.allow = OnlyOf("somebody");
  Begin(options);
  IsError(fleet_.AwaitReplies(1)[0], ReplyError::kInvalidFab, "");
  AwaitKept(id, Progress::kSent);
}

TEST_F(NodeTest, WhatThisSiteRefusesIsAnsweredAtOnce) {
  Process::Options options;
  options.rules.allow = OnlyOf("somebody");
  Begin(options);
  for (int i = 0; i < 3; ++i) fleet_.Instruct(kRun);
  for (const auto& reply : fleet_.AwaitReplies(3)) IsError(reply, ReplyError::kInvalidFab, "");
  EXPECT_TRUE(process_->host().AwaitBegun(0).empty());
  process_->AwaitDescribed(R"("working_on":[])");
  EXPECT_EQ(process_->counters().error_replies, 3u);
  EXPECT_TRUE(Stop().ok());
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, AnObjectThatTheSuperLinkLetGoOfIsPushedAgain) {
  pb::PushObjectResponse response;
  fleet_.Next("push-object", FleetDouble::Status(200, response.SerializeAsString()), 2);
  Begin();
  const std::string id = fleet_.Instruct(kRun);
  fleet_.AwaitReplies(1);
  EXPECT_GE(fleet_.Count("push-messages"), 2u);
  EXPECT_LE(fleet_.Count("push-messages"), 3u);
  AwaitKept(id, Progress::kSent);

  fleet_.Always("push-object", FleetDouble::Status(200, response.SerializeAsString()));
  const size_t before = fleet_.Count("push-messages");
  const std::string other = fleet_.Instruct(kRun);
  AwaitKept(other, Progress::kSent);  // nobody wants it
  EXPECT_EQ(fleet_.Count("push-messages"), before + 3);
  EXPECT_EQ(process_->counters().dropped, 1u);
}

TEST_F(NodeTest, WhatBelongsToARunThatIsOverIsDropped) {
  Begin();
  // Known only when the run is asked for, when the objects are, when it is confirmed, when the
  // reply is pushed.
  const auto over = FleetDouble::Refusal(403, flower::wire::kRunNotRunning, "Run is not running");
  std::vector<std::string> ids;
  for (const char* route :
       {"get-run", "pull-object", "confirm-message-received", "push-messages", "push-object"}) {
    fleet_.Always(route, over);
    const size_t before = fleet_.Count(route);
    ids.push_back(fleet_.Instruct(kRun));
    fleet_.AwaitCount(route, before + 1);
    process_->AwaitDescribed(R"("working_on":[])");
    fleet_.Always(route, nullptr);
    // The next one is received, so the one before is done with.
    fleet_.Instruct(kOtherRun);
    fleet_.AwaitReplies(ids.size());
  }
  process_->AwaitDescribed(R"("working_on":[])");
  EXPECT_EQ(process_->counters().dropped, 2u);
  EXPECT_TRUE(Stop().ok());
  for (const std::string& id : ids) EXPECT_NE(Kept(id), Progress::kTaken);
  for (const std::string& id : ids) EXPECT_NE(Kept(id), Progress::kAnswered);
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, WhatCannotBeReceivedIsAnsweredWithAnError) {
  Begin();
  pb::PullObjectResponse wrong;
  wrong.set_object_found(true);
  wrong.set_object_available(true);
  wrong.set_object_content("something else");
  fleet_.Always("pull-object", FleetDouble::Status(200, wrong.SerializeAsString()));
  fleet_.Instruct(kRun);
  IsError(fleet_.AwaitReplies(1)[0], ReplyError::kUnknown, "do not hash to");
  fleet_.Always("pull-object", nullptr);

  fleet_.Next("get-fab", FleetDouble::Status(500, "\xff broken"));
  fleet_.Instruct(kOtherRun);
  IsError(fleet_.AwaitReplies(2)[1], ReplyError::kUnknown, "get-fab: 500");

  fleet_.Next("confirm-message-received", FleetDouble::Status(500, "broken"));
  fleet_.Instruct(kRun);
  EXPECT_TRUE(fleet_.AwaitReplies(3)[2].message.has_content());  // all of it was here
  process_->AwaitDescribed(R"("working_on":[])");
  EXPECT_TRUE(Stop().ok());
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, AReplyThatCannotBeKeptIsNotSent) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  process_->host().AwaitBegun(1);
  auto file = store::Connection::Open(directory_.path() + "/journal.db",
                                      store::Connection::Mode::kReadWrite)
                  .value();
  ASSERT_TRUE(file->Execute("CREATE TRIGGER no BEFORE UPDATE ON instruction WHEN new.progress = 1 "
                            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
                  .ok());
  Release(id);
  IsError(fleet_.AwaitReplies(1)[0], ReplyError::kUnknown, "could not keep the reply");
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(Context(), "");
}

TEST_F(NodeTest, AHostThatFailsIsTriedThreeTimes) {
  Process::Options options;
  options.failures = 2;
  options.error = Error{Code::kUnavailable, "the worker \xff is gone", 0};
  Begin(options);
  fleet_.Instruct(kRun);
  EXPECT_TRUE(fleet_.AwaitReplies(1)[0].message.has_content());
  EXPECT_EQ(process_->host().AwaitBegun(3).size(), 3u);
  process_->host().Fail(3, options.error);
  fleet_.Instruct(kRun);
  IsError(fleet_.AwaitReplies(2)[1], ReplyError::kCrashed, "the worker ? is gone");
  EXPECT_EQ(process_->host().AwaitBegun(6).size(), 6u);
  process_->AwaitDescribed(R"("working_on":[])");
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(Context(), "x");
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, AHostThatSaysTheRunIsOverIsBelieved) {
  Process::Options options;
  options.failures = 1;
  options.error = Error{Code::kCancelled, "over", 0};
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  process_->host().AwaitBegun(1);
  process_->AwaitDescribed(R"("working_on":[])");
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(Kept(id), std::nullopt);
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, OneSeriesIsInOrderAndSeveralAreSideBySide) {
  Process::Options options;
  options.block = true;
  options.max_parallel = 4;
  Begin(options);
  std::vector<std::string> ours, others;
  for (int i = 0; i < 4; ++i) {
    ours.push_back(fleet_.Instruct(kRun));
    others.push_back(fleet_.Instruct(kOtherRun));
  }
  fleet_.AwaitCount("confirm-message-received", 8);
  EXPECT_EQ(process_->host().AwaitBegun(2), (std::vector{ours[0], others[0]}));
  for (const std::string& id : others) Release(id);
  EXPECT_EQ(process_->host().AwaitBegun(5),
            (std::vector{ours[0], others[0], others[1], others[2], others[3]}));
  fleet_.AwaitReplies(4);
  for (const std::string& id : ours) Release(id);
  const auto replies = fleet_.AwaitReplies(8);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(replies[i].message.metadata().reply_to_message_id(), others[i]);
    EXPECT_EQ(replies[4 + i].message.metadata().reply_to_message_id(), ours[i]);
  }
  EXPECT_EQ(process_->host().most_at_once(), 2u);
  AwaitKept(ours[3], Progress::kSent);
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(Context(), "xxxx");
}

TEST_F(NodeTest, NoMoreJobsThanSlots) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string first = fleet_.Instruct(kRun);
  const std::string second = fleet_.Instruct(kOtherRun);
  fleet_.AwaitCount("confirm-message-received", 2);
  EXPECT_EQ(process_->host().AwaitBegun(1), std::vector{first});
  Release(first);
  EXPECT_EQ(process_->host().AwaitBegun(2), (std::vector{first, second}));
  Release(second);
  fleet_.AwaitReplies(2);
  EXPECT_EQ(process_->host().most_at_once(), 1u);
}

TEST_F(NodeTest, AKeyThatIsNotKnownAnyMoreIsReplaced) {
  Begin();
  fleet_.Instruct(kRun);
  fleet_.AwaitReplies(1);
  fleet_.SetNodeId(NodeId{78});
  fleet_.Next("pull-messages",
              FleetDouble::Status(401, R"({"detail":"Invalid SuperNode authentication"})"));
  fleet_.Instruct(kRun);  // wakes the held pull; the next is refused
  fleet_.AwaitCount("activate-node", 2);
  EXPECT_EQ(fleet_.Count("register-node"), 2u);
  const auto calls = fleet_.Calls("activate-node");
  EXPECT_NE(calls[0].key, calls[1].key);
  process_->AwaitDescribed(R"("node_id":78)");
  process_->AwaitDescribed(R"("connected":true)");  // stopped before that, it says so
  const Status end = Stop();
  EXPECT_TRUE(end.ok()) << (end.ok() ? "" : end.error().message);
  // It is this node from now on.
  Begin();
  fleet_.AwaitCount("activate-node", 3);
  EXPECT_EQ(fleet_.Calls("activate-node")[2].key, calls[1].key);
  EXPECT_EQ(fleet_.Count("register-node"), 2u);
}

TEST_F(NodeTest, ASuperLinkThatRefusesEveryKeyIsNotAskedWithoutEnd) {
  fleet_.Always("activate-node", FleetDouble::Status(401));
  Begin();
  const Status end = process_->Await();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kUnauthenticated);
  EXPECT_LE(fleet_.Count("register-node"), 2u);
  EXPECT_LE(fleet_.Count("activate-node"), 2u);
}

TEST_F(NodeTest, RegistrationThatIsOffIsSaid) {
  fleet_.Always("register-node", FleetDouble::Refusal(403, 2001, "disabled"));
  Begin();
  const Status end = process_->Await();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kFailedPrecondition);
  EXPECT_NE(end.error().message.find("flwr supernode register"), std::string::npos);
}

TEST_F(NodeTest, OneThatStillCountsAsOnlineWaits) {
  Begin();
  fleet_.AwaitCount("pull-messages", 1);
  Kill();
  fleet_.Next("activate-node", FleetDouble::Refusal(412, 2004, "already online"), 2);
  fleet_.Next("register-node", FleetDouble::Refusal(412, 23, "in use"));
  Begin();
  fleet_.AwaitCount("pull-messages", 2);
  EXPECT_EQ(fleet_.Count("activate-node"), 4u);
  for (const auto& call : fleet_.Calls("activate-node"))
    EXPECT_EQ(call.key, fleet_.Calls("activate-node")[0].key);
}

TEST_F(NodeTest, ASuperLinkThatIsAwayForTooLongEndsTheNodeAndNothingIsLost) {
  Process::Options options;
  options.retry.tries_max = 1;
  fleet_.Always("push-messages", FleetDouble::Status(503));
  Begin(options);
  const std::string id = fleet_.Instruct(kRun);
  fleet_.AwaitCount("push-messages", 2);
  process_->AwaitDescribed(R"("working_on":[])");
  fleet_.InstructAgain(id);  // so that the pull that is held ends
  const Status end = process_->Await();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kUnavailable);
  EXPECT_EQ(end.error().message, "push-messages: 503 ");
  Kill();
  EXPECT_EQ(Kept(id), Progress::kAnswered);
  fleet_.Always("push-messages", nullptr);
  Begin(options);
  EXPECT_EQ(fleet_.AwaitReplies(1)[0].message.metadata().reply_to_message_id(), id);
}

TEST_F(NodeTest, InstructionsThatAreNoneHarmNothing) {
  pb::FleetPullMessagesResponse response;
  auto* metadata = response.add_messages_list()->mutable_metadata();
  metadata->set_run_id(kRun.value);
  metadata->set_message_id(std::string(64, 'Z'));
  response.mutable_messages_list(0)->mutable_content();
  response.add_message_object_trees()->set_object_id(std::string(64, 'Z'));
  fleet_.Next("pull-messages", FleetDouble::Status(200, response.SerializeAsString()));
  Begin();
  fleet_.Instruct(kRun);
  EXPECT_TRUE(fleet_.AwaitReplies(1)[0].message.has_content());
}

/// Where a node is when it is stopped or killed.
struct Phase {
  const char* name;
  const char* blocked;  // the route that does not answer
  size_t calls;
};
class NodePhaseTest : public NodeTest, public ::testing::WithParamInterface<Phase> {
 protected:
  void Reach() {
    fleet_.Block(GetParam().blocked);
    Begin();
    fleet_.Instruct(kRun);
    fleet_.AwaitCount(GetParam().blocked, GetParam().calls);
  }
  void GoesOnNextTime() {
    fleet_.Release();
    if (!Kept(fleet_.last_instruction())) fleet_.InstructAgain(fleet_.last_instruction());
    Begin();
    EXPECT_TRUE(fleet_.AwaitReplies(1)[0].message.has_content());
    AwaitKept(fleet_.last_instruction(), Progress::kSent);
    EXPECT_TRUE(Stop().ok());
    EXPECT_EQ(Context(), "x");
    EXPECT_TRUE(Spools().empty());
  }
};

TEST_P(NodePhaseTest, StoppedItEndsAtOnce) {
  Reach();
  const Status end = Stop();
  EXPECT_TRUE(end.ok() || end.error().code == Code::kCancelled) << end.error().message;
  GoesOnNextTime();
}

TEST_P(NodePhaseTest, KilledItLosesNothing) {
  Reach();
  Kill();
  GoesOnNextTime();
}

INSTANTIATE_TEST_SUITE_P(
    All, NodePhaseTest,
    ::testing::Values(Phase{"Registering", "register-node", 1},
                      Phase{"Activating", "activate-node", 1}, Phase{"Pulling", "pull-messages", 1},
                      Phase{"AskingForTheRun", "get-run", 1}, Phase{"Fetching", "pull-object", 3},
                      Phase{"Confirming", "confirm-message-received", 1},
                      Phase{"Announcing", "push-messages", 1}, Phase{"Pushing", "push-object", 2}),
    [](const auto& phase) { return phase.param.name; });

TEST_F(NodeTest, StoppedWhileItWorksItGoesOnNextTime) {
  Process::Options options;
  options.block = true;
  Begin(options);
  const std::string first = fleet_.Instruct(kRun);
  const std::string second = fleet_.Instruct(kRun);
  const std::string other = fleet_.Instruct(kOtherRun);  // waits for the slot
  fleet_.AwaitCount("confirm-message-received", 3);
  process_->host().AwaitBegun(1);
  EXPECT_TRUE(Stop().ok());
  EXPECT_EQ(fleet_.reply_count(), 0u);
  for (const std::string& id : {first, second, other}) EXPECT_EQ(Kept(id), Progress::kTaken);
  Begin();
  fleet_.AwaitReplies(3);
  AwaitKept(first, Progress::kSent);
  AwaitKept(second, Progress::kSent);
  AwaitKept(other, Progress::kSent);
  EXPECT_TRUE(Stop().ok());
  EXPECT_TRUE(Spools().empty());
}

TEST_F(NodeTest, StoppedWhileTheSuperLinkIsAwayItEndsAtOnce) {
  Process::Options options;
  options.retry.pause_min = seconds(1);
  Begin(options);
  fleet_.AwaitCount("pull-messages", 1);
  fleet_.Stop();
  process_->AwaitDescribed("127.0.0.1");  // its last error
  const auto begin = std::chrono::steady_clock::now();
  const Status end = Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
  EXPECT_TRUE(end.ok() || end.error().code == Code::kCancelled) << end.error().message;
}

TEST_F(NodeTest, StoppedWhileItIsActivatedItSaysGoodBye) {
  fleet_.Block("activate-node");
  Begin();
  fleet_.AwaitCount("activate-node", 1);
  process_->SignOff();
  fleet_.Release();
  const Status end = process_->Await();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kCancelled);
  EXPECT_EQ(fleet_.Count("deactivate-node"), 1u);
}

}  // namespace
}  // namespace umbel::supernode
