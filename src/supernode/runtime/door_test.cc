#include "supernode/runtime/door.h"

#include "supernode/hosts/process_host.h"
#include "supernode/runtime/reply.h"
#include "supernode/runtime/runtime_testing.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::milliseconds;

const pb::NoFields kNothing;

/// One job given to a process that is warm already.
class RuntimeDoorTest : public DoorTest {
 protected:
  void OpenWarm(TaskTimes times = {}, RuntimeDoorOptions options = {}) {
    Open(times, std::move(options));
    task_ = On([&] { return table_->Warm(); });
    token_ = task_->token;
  }
  void Assign(std::chrono::seconds wall_time = {}) {
    job_ = MakeJob();
    On([&] {
      table_->Assign(*task_, job_, wall_time);
      return true;
    });
    outcome_ = Spawn(table_->Finish(task_, job_));
  }
  pb::PullTaskInputResponse Begin(Peer& peer) {
    return peer.Ask<pb::PullTaskInputResponse>("pull-task-input", kNothing, token_);
  }
  bool OutcomeIsThere() { return outcome_.wait_for(milliseconds(0)) == std::future_status::ready; }

  /// The outcome, which must be an error reply to the job.
  std::string CrashReason() {
    const Result<Outcome> outcome = outcome_.get();
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
    if (!outcome.ok()) return "";
    const flower::Parcel& reply = outcome->reply;
    EXPECT_EQ(reply.head.reply_to, job_.instruction.head.message_id);
    EXPECT_EQ(reply.head.src, kNode);
    EXPECT_EQ(reply.head.dst, kSuperLinkNode);
    EXPECT_TRUE(reply.error);
    if (!reply.error) return "";
    EXPECT_EQ(reply.error->code, static_cast<int64_t>(ReplyError::kCrashed));
    EXPECT_EQ(reply.objects->objects().size(), 1u);
    return reply.error->reason;
  }

  AppTaskPtr task_;
  std::string token_;
  Job job_;
  std::future<Result<Outcome>> outcome_;
};

TEST_F(RuntimeDoorTest, AWarmProcessIsHeldUntilItsJobComesAndAnswersIt) {
  OpenWarm();
  Peer peer = Connect();
  // While it waits its heartbeats are good.
  EXPECT_EQ(peer.Call("send-task-heartbeat", kNothing, token_).body, std::string("\x08\x01", 2));
  EXPECT_EQ(peer.Call("pull-messages", kNothing, token_).body, "");
  Peer held = Connect();
  held.Send(Peer::Request("pull-task-input", "", token_));
  while (!On([&] { return task_->asked; })) std::this_thread::yield();
  Assign();
  const Peer::Answer answer = held.Receive();
  ASSERT_EQ(answer.status, 200) << answer.body;
  pb::PullTaskInputResponse input;
  ASSERT_TRUE(input.ParseFromString(answer.body));
  EXPECT_EQ(input.context().run_id(), kRun.value);
  EXPECT_EQ(input.context().node_id(), kNode.value);
  EXPECT_EQ(input.context().series_id(), kSeries.value);
  EXPECT_TRUE(input.context().has_state());
  EXPECT_EQ(input.context().node_config().at("site").sint64(), 1);
  EXPECT_EQ(input.context().run_config().at("rounds").sint64(), -3);
  EXPECT_EQ(input.context().run_config().at("big").uint64(), ~uint64_t{0});
  EXPECT_EQ(input.context().run_config().at("rate").double_(), 0.5);
  EXPECT_EQ(input.context().run_config().at("name").string(), "x");
  EXPECT_TRUE(input.context().run_config().at("flag").bool_());
  EXPECT_EQ(input.run().fab_id(), "umbel/toy");
  EXPECT_EQ(input.fab().content(), "the FAB");
  EXPECT_EQ(input.fab().hash_str(), tensor::Sha256Of("the FAB").Hex());
  EXPECT_TRUE(input.fab().verifications().empty());
  EXPECT_EQ(input.task_id(), task_->id.value);

  const auto pulled = peer.Ask<pb::RuntimePullMessagesResponse>("pull-messages", kNothing, token_);
  ASSERT_EQ(pulled.messages_list_size(), 1);
  EXPECT_EQ(pulled.messages_list(0).metadata().message_id(), job_.instruction.head.message_id);
  EXPECT_TRUE(pulled.messages_list(0).has_content());
  const auto ids = tensor::ParseTree(pulled.message_object_trees(0).SerializeAsString());
  ASSERT_TRUE(ids.ok());
  for (const ObjectId& id : ids->ids) {
    pb::PullObjectRequest pull;
    pull.set_object_id(id.Hex());
    const auto object = peer.Ask<pb::PullObjectResponse>("pull-object", pull, token_);
    EXPECT_TRUE(object.object_found() && object.object_available());
    EXPECT_EQ(tensor::ObjectIdOf(object.object_content()), id);
  }
  EXPECT_EQ(peer.Call("confirm-message-received", kNothing, token_).status, 200);

  // One object beyond each way of keeping them: in the head, written at once, written in pieces.
  const Sent reply = MakeReply(
      job_, {"small", std::string(30'000, 'm'), std::string(3'000'000, 'l'), std::string("small")});
  EXPECT_TRUE(PushAll(peer, reply, token_));
  EXPECT_FALSE(OutcomeIsThere());  // the context is to come
  pb::PushTaskOutputRequest output = Output("completed");
  auto* item = output.mutable_context()->mutable_state()->add_items();
  item->set_key("counts");
  item->mutable_config_record();
  EXPECT_EQ(peer.Call("push-task-output", output, token_).status, 200);
  const Result<Outcome> outcome = outcome_.get();
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  EXPECT_FALSE(outcome->reply.error);
  EXPECT_EQ(outcome->state, output.context().state().SerializeAsString());
  EXPECT_GT(outcome->runtime_seconds, 0);
  EXPECT_EQ(outcome->reply.head.ttl, 3000);
  EXPECT_EQ(outcome->reply.objects->objects().size(), reply.objects.size());
  for (const auto& [id, bytes] : reply.objects)
    EXPECT_EQ(outcome->reply.objects->Read(ObjectId::FromHex(id).value(), 1 << 30).value(), bytes);
  EXPECT_EQ(::access(job_.spool_path.c_str(), R_OK), 0);
  // Its token is worth nothing any more.
  EXPECT_EQ(peer.Call("send-task-heartbeat", kNothing, token_).status, 401);
  EXPECT_EQ(On([&] { return table_->tokens(); }), 0u);
}

TEST_F(RuntimeDoorTest, OnlyATokenOfALiveTaskOpensAnything) {
  OpenWarm();
  Assign();
  const Job other_job = MakeJob();
  const AppTaskPtr other = On([&] { return table_->Warm(); });
  Peer peer = Connect();
  const std::string twice = fmt::format("flwr-task-token: {}\r\n", token_);
  for (const std::string_view route :
       {"send-task-heartbeat", "pull-task-input", "push-task-output", "push-messages",
        "pull-messages", "push-object", "pull-object", "confirm-message-received", "push-logs",
        "get-nodes"}) {
    EXPECT_EQ(peer.Call(route, kNothing, "").status, 401) << route;
    EXPECT_EQ(peer.Call(route, kNothing, std::string(256, '0')).status, 401) << route;
    EXPECT_EQ(peer.Call(route, kNothing, token_, twice).status, 401) << route;
    EXPECT_TRUE(peer.Call(route, kNothing, token_ + "0").Has("\"code\":1008")) << route;
  }
  // Another task's token does not reach this one's objects, nor take its reply.
  pb::PullObjectRequest pull;
  pull.set_object_id(job_.instruction.head.message_id);
  EXPECT_FALSE(peer.Ask<pb::PullObjectResponse>("pull-object", pull, other->token).object_found());
  const Sent reply = MakeReply(job_, {"x"});
  EXPECT_TRUE(peer.Call("push-messages", reply.request, other->token).Has("\"code\":3014"));
  Begin(peer);
  ASSERT_TRUE(PushAll(peer, reply, token_));
  peer.Call("push-task-output", Output("completed"), token_);
  EXPECT_TRUE(outcome_.get().ok());
  EXPECT_EQ(peer.Call("push-messages", reply.request, token_).status, 401);
  On([&] {
    table_->Cancel(*other);
    return true;
  });
  EXPECT_EQ(peer.Call("send-task-heartbeat", kNothing, other->token).status, 401);
}

TEST_F(RuntimeDoorTest, WhatIsNotARequestIsSaidSo) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  peer.Send(Peer::Request("pull-messages", "\xff\xff", token_));
  EXPECT_TRUE(peer.Receive().Has("\"code\":1003"));
  peer.Send(Peer::Request("push-object", "\x0b", token_));
  EXPECT_TRUE(peer.Receive().Has("\"code\":1003"));
  peer.Send(
      fmt::format("POST /v1/runtime/pull-messages HTTP/1.1\r\nHost: x\r\n"
                  "Content-Length: 0\r\nflwr-task-token: {}\r\n\r\n",
                  token_));
  EXPECT_EQ(peer.Receive().status, 415);
  peer.Send("GET /v1/runtime/pull-messages HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(peer.Receive().status, 405);
  EXPECT_EQ(peer.Call("no-such-thing", kNothing, token_).status, 404);
  EXPECT_TRUE(peer.Call("get-nodes", kNothing, token_).Has("\"code\":3005"));
  EXPECT_TRUE(peer.Call("start-automation", kNothing, token_).Has("\"code\":3003"));
  EXPECT_TRUE(peer.Call("get-connector", kNothing, token_).Has("\"code\":3001"));
  EXPECT_EQ(peer.Call("acquire-task", kNothing, "").body, "");
}

TEST_F(RuntimeDoorTest, AReplyMustAnswerItsInstruction) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  const auto refused = [&](Sent sent, std::string_view code) {
    const Peer::Answer answer = peer.Call("push-messages", sent.request, token_);
    EXPECT_TRUE(answer.Has(fmt::format("\"code\":{}", code))) << answer.body;
  };
  refused(MakeReply(job_, {}), "3002");  // it has not even asked for its input
  Begin(peer);
  Sent sent = MakeReply(job_, {"x"});
  sent.request.add_messages_list();
  refused(sent, "3013");
  sent.request.clear_messages_list();
  refused(sent, "3013");
  sent = MakeReply(job_, {"x"});
  sent.metadata()->set_run_id(1);
  refused(sent, "3014");
  sent = MakeReply(job_, {"x"});
  sent.metadata()->set_message_id(std::string(64, '0'));
  refused(sent, "1003");
  sent = MakeReply(job_, {"x"});
  sent.request.mutable_messages_list(0)->mutable_error();
  refused(sent, "1003");
  sent = MakeReply(job_, {"x"});
  sent.request.mutable_message_object_trees(0)->mutable_children(0)->set_object_id("../../etc");
  refused(sent, "1003");
  sent = MakeReply(job_, {"x"});
  sent.metadata()->set_src_node_id(2);
  refused(sent, "1003");
  sent = MakeReply(job_, {"x"});
  sent.metadata()->set_dst_node_id(kNode.value);
  refused(sent, "1003");
  sent = MakeReply(job_, {"x"});
  sent.metadata()->set_reply_to_message_id(std::string(64, 'f'));
  refused(sent, "1003");
  // The site learns why, and the SuperLink.
  EXPECT_EQ(peer.Call("push-task-output", Output("completed"), token_).status, 200);
  EXPECT_NE(CrashReason().find("Its reply was refused: it answers 'ffff"), std::string::npos);
}

TEST_F(RuntimeDoorTest, ALostAnswerIsGivenAgainButThereIsOneReply) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  Begin(peer);
  EXPECT_EQ(Begin(peer).task_id(), task_->id.value);
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(peer.Ask<pb::RuntimePullMessagesResponse>("pull-messages", kNothing, token_)
                  .messages_list_size(),
              1);
  const Sent reply = MakeReply(job_, {"a", "b"});
  const auto first =
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", reply.request, token_);
  EXPECT_EQ(first.objects_to_push_size(), 3);
  const std::string id = first.objects_to_push(0);
  const auto push = PushOf(id, reply.objects.at(id), first.session_id());
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(peer.Ask<pb::PushObjectResponse>("push-object", push, token_).stored());
  const auto second =
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", reply.request, token_);
  EXPECT_EQ(second.objects_to_push_size(), 2);
  EXPECT_EQ(second.session_id(), first.session_id());
  EXPECT_TRUE(peer.Call("push-messages", MakeReply(job_, {"c"}).request, token_)
                  .Has("another reply already"));
  EXPECT_TRUE(PushAll(peer, reply, token_));
  peer.Call("push-task-output", Output("completed"), token_);
  const auto outcome = outcome_.get();
  ASSERT_TRUE(outcome.ok());
  EXPECT_FALSE(outcome->reply.error);
  EXPECT_FALSE(outcome->state);
}

TEST_F(RuntimeDoorTest, ObjectsThatLieAreNotTaken) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  Begin(peer);
  const std::string large(2'000'000, 'x');
  const Sent reply = MakeReply(job_, {"small", large});
  const auto pushed =
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", reply.request, token_);
  const auto stored = [&](const pb::PushObjectRequest& push) {
    return peer.Ask<pb::PushObjectResponse>("push-object", push, token_).stored();
  };
  const std::string& session = pushed.session_id();
  uint64_t file_size = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    for (const auto& [id, bytes] : reply.objects) {
      std::string lie = bytes;
      lie.back() ^= 1;
      EXPECT_FALSE(stored(PushOf(id, lie, session)));
      EXPECT_FALSE(stored(PushOf(id, bytes + "x", session)));
      EXPECT_FALSE(stored(PushOf(id, bytes.substr(1), session)));
      EXPECT_FALSE(stored(PushOf(id, "", session)));
      EXPECT_FALSE(stored(PushOf(id, bytes, "another session")));
      EXPECT_FALSE(stored(PushOf(std::string(64, 'a'), bytes, session)));
      EXPECT_FALSE(stored(PushOf("", bytes, session)));
    }
    // Right to its name, but no object at all.
    EXPECT_FALSE(stored(PushOf(tensor::Sha256Of("junk").Hex(), "junk", session)));
    // What lies is written over by the next: the disk does not fill.
    const uint64_t now = On([&] { return task_->reply->parcel().objects->size(); });
    if (attempt > 0) {
      EXPECT_EQ(now, file_size);
    }
    file_size = now;
  }
  EXPECT_LT(file_size, 3 * large.size());
  EXPECT_TRUE(PushAll(peer, reply, token_));
  peer.Call("push-task-output", Output("completed"), token_);
  const auto outcome = outcome_.get();
  ASSERT_TRUE(outcome.ok());
  EXPECT_FALSE(outcome->reply.error);
  for (const auto& [id, bytes] : reply.objects)
    EXPECT_EQ(outcome->reply.objects->Read(ObjectId::FromHex(id).value(), 1 << 30).value(), bytes);
}

TEST_F(RuntimeDoorTest, ABodyTooLargeIsRefusedAndABrokenOneForgotten) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  Begin(peer);
  const std::string large(2'000'000, 'x');
  const Sent reply = MakeReply(job_, {large});
  const auto pushed =
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", reply.request, token_);
  const std::string id =
      tensor::ObjectIdOf(tensor::MakeObject(tensor::ObjectType::kArrayChunk, {}, large)).Hex();
  // A content of 2 GiB is announced: it is refused before it is read.
  std::string huge("\x1a\x40", 2);
  huge += id + std::string("\x22\x80\x80\x80\x80\x08", 6);
  Peer liar = Connect();
  liar.Send(
      fmt::format("POST /v1/runtime/push-object HTTP/1.1\r\nHost: x\r\nContent-Type: "
                  "application/protobuf\r\nContent-Length: {}\r\nflwr-task-token: {}\r\n\r\n{}",
                  (uint64_t{2} << 30) + huge.size(), token_, huge + std::string(1000, 'x')));
  EXPECT_EQ(liar.Receive().status, 413);
  // A push-messages that nobody has the memory for.
  Peer fat = Connect();
  fat.Send(
      fmt::format("POST /v1/runtime/push-messages HTTP/1.1\r\nHost: x\r\nContent-Type: "
                  "application/protobuf\r\nContent-Length: {}\r\nflwr-task-token: {}\r\n\r\n",
                  uint64_t{1} << 40, token_));
  EXPECT_EQ(fat.Receive().status, 413);
  // Hung up in the middle of an object, again and again, at different places.
  const std::string whole = Peer::Request(
      "push-object", PushOf(id, reply.objects.at(id), pushed.session_id()).SerializeAsString(),
      token_);
  for (size_t part = 1; part <= 8; ++part) {
    Peer hasty = Connect();
    hasty.Send(std::string_view(whole).substr(0, whole.size() * part / 9));
    hasty.Close();
  }
  // The content ends before its length.
  const auto cut = PushOf(id, reply.objects.at(id), "").SerializeAsString();
  peer.Send(Peer::Request("push-object", cut.substr(0, cut.size() - 5), token_));
  EXPECT_TRUE(peer.Receive().Has("ends 5 bytes early"));
  EXPECT_FALSE(OutcomeIsThere());
  EXPECT_TRUE(PushAll(peer, reply, token_));
  peer.Call("push-task-output", Output("completed"), token_);
  const auto outcome = outcome_.get();
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->reply.objects->Read(ObjectId::FromHex(id).value(), 1 << 30).value(),
            reply.objects.at(id));
}

TEST_F(RuntimeDoorTest, OneObjectThatComesTwiceAtOnceIsKeptOnce) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  Begin(peer);
  const Sent reply = MakeReply(job_, {std::string(2'000'000, 'x')});
  const auto pushed =
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", reply.request, token_);
  const std::string& id = pushed.objects_to_push(0);
  const auto push = PushOf(id, reply.objects.at(id), pushed.session_id());
  const std::string whole = Peer::Request("push-object", push.SerializeAsString(), token_);
  const std::string_view halves = whole;
  Peer slow = Connect();
  slow.Send(halves.substr(0, whole.size() / 2));
  EXPECT_TRUE(peer.Ask<pb::PushObjectResponse>("push-object", push, token_).stored());
  slow.Send(halves.substr(whole.size() / 2));
  pb::PushObjectResponse late;
  ASSERT_TRUE(late.ParseFromString(slow.Receive().body));
  EXPECT_TRUE(late.stored());
  EXPECT_TRUE(PushAll(peer, reply, token_));
  peer.Call("push-task-output", Output("completed"), token_);
  const auto outcome = outcome_.get();
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->reply.objects->Read(ObjectId::FromHex(id).value(), 1 << 30).value(),
            reply.objects.at(id));
}

TEST_F(RuntimeDoorTest, WithoutAPlaceForItsReplyTheProcessIsSentAwayAtOnce) {
  OpenWarm();
  job_ = MakeJob();
  job_.spool_path = directory_.path() + "/missing/reply";
  On([&] {
    table_->Assign(*task_, job_, {});
    return true;
  });
  outcome_ = Spawn(table_->Finish(task_, job_));
  Peer peer = Connect();
  Begin(peer);
  EXPECT_EQ(peer.Call("push-messages", MakeReply(job_, {"x"}).request, token_).status, 500);
  peer.Call("push-task-output", Output("completed"), token_);
  EXPECT_FALSE(outcome_.get().ok());  // not even an error reply has a place
}

TEST_F(RuntimeDoorTest, AnEndWithoutAReplyIsAnErrorReplyInWords) {
  for (const bool pushes : {false, true}) {
    OpenWarm();
    Assign();
    Peer peer = Connect();
    Begin(peer);
    if (pushes)
      peer.Ask<pb::RuntimePushMessagesResponse>("push-messages", MakeReply(job_, {"x"}).request,
                                                token_);
    EXPECT_EQ(peer.Call("push-task-output", Output("nonsense"), token_).status, 200);
    EXPECT_FALSE(OutcomeIsThere());
    peer.Call("push-task-output", Output("failed", "<class 'X'>:<'no'>"), token_);
    EXPECT_EQ(CrashReason(), pushes ? "ClientApp stopped responding. It ended before all of its "
                                      "reply was here."
                                    : "ClientApp stopped responding. It ended without a reply: "
                                      "<class 'X'>:<'no'>");
    Close();
  }
}

TEST_F(RuntimeDoorTest, AProcessThatDiesIsAnErrorReplyAtOnceUnlessItsReplyIsWhole) {
  for (const bool whole : {false, true}) {
    OpenWarm();
    Assign();
    Peer peer = Connect();
    Begin(peer);
    if (whole) {
      EXPECT_TRUE(PushAll(peer, MakeReply(job_, {"x"}), token_));
    }
    On([&] {
      table_->ProcessEnded(*task_, "was killed by signal 9 (SIGKILL)", "last words");
      return true;
    });
    if (whole) {
      const auto outcome = outcome_.get();
      ASSERT_TRUE(outcome.ok());
      EXPECT_FALSE(outcome->reply.error);
      EXPECT_FALSE(outcome->state);
    } else {
      EXPECT_EQ(CrashReason(),
                "ClientApp stopped responding. Its process was killed by signal 9 (SIGKILL). "
                "Its last words: last words");
    }
    Close();
  }
}

TEST_F(RuntimeDoorTest, AProcessThatWasKilledFromOutsideIsTriedAgain) {
  OpenWarm();
  Assign();
  Peer peer = Connect();
  Begin(peer);
  On([&] {
    table_->ProcessEnded(*task_, "was killed by signal 9 (SIGKILL)", "", true);
    return true;
  });
  const auto outcome = outcome_.get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kUnavailable);
}

TEST_F(RuntimeDoorTest, AProcessThatNeverAskedIsTheHostsFault) {
  OpenWarm();
  Assign();
  On([&] {
    table_->ProcessEnded(*task_, "exited with status 1", "No module named flwr");
    return true;
  });
  const auto outcome = outcome_.get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kUnavailable);
  EXPECT_EQ(outcome.error().message,
            "flwr-clientapp exited with status 1 before it asked for its task: "
            "No module named flwr");
}

TEST_F(RuntimeDoorTest, WhoIsNotHeardOfAnyMoreIsGivenUp) {
  OpenWarm({milliseconds(50), milliseconds(50)});
  Assign();
  Peer peer = Connect();
  Begin(peer);
  EXPECT_EQ(CrashReason(), "ClientApp stopped responding. Nothing was heard of it for 0.05 s.");
  EXPECT_EQ(peer.Call("send-task-heartbeat", kNothing, token_).status, 401);
}

TEST_F(RuntimeDoorTest, WhoHangsBeforeItBeginsIsTheHostsFault) {
  OpenWarm({milliseconds(50), milliseconds(50)});
  Assign();
  const auto outcome = outcome_.get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kDeadlineExceeded);
}

TEST_F(RuntimeDoorTest, HeartbeatsKeepATaskButNotBeyondItsTime) {
  OpenWarm({milliseconds(300), milliseconds(300)});
  Assign(std::chrono::seconds(1));
  Peer peer = Connect();
  Begin(peer);
  while (peer.Call("send-task-heartbeat", kNothing, token_).status == 200)
    std::this_thread::yield();
  EXPECT_EQ(CrashReason(),
            "ClientApp stopped responding. It had not answered after 1 s, this site's limit.");
}

TEST_F(RuntimeDoorTest, ADroppedRunIsCancelledAndItsProcessSentAway) {
  OpenWarm();
  Peer held = Connect();
  held.Send(Peer::Request("pull-task-input", "", token_));
  while (!On([&] { return task_->asked; })) std::this_thread::yield();
  On([&] {
    table_->Cancel(*task_);
    return true;
  });
  EXPECT_EQ(held.Receive().status, 401);
  Assign();
  const auto outcome = outcome_.get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kCancelled);
}

TEST_F(RuntimeDoorTest, ALogThatIsSentGoesToTheNodesOwn) {
  std::vector<std::string> lines;
  RuntimeDoorOptions options;
  options.output = [&](RunId, const std::string&, std::string_view line) {
    lines.emplace_back(line);
  };
  OpenWarm({}, options);
  Assign();
  Peer peer = Connect();
  pb::PushLogsRequest logs;
  logs.add_logs("one\ntw");
  logs.add_logs("o\n\nthree");
  EXPECT_EQ(peer.Call("push-logs", logs, token_).status, 200);
  EXPECT_EQ(On([&] { return lines; }), (std::vector<std::string>{"one", "two", "", "three"}));
}

// An external SuperExec.

class ProcessHostTest : public DoorTest {
 protected:
  void OpenHost(TaskTimes times = {}, flower::SuperExecAuth* superexec = nullptr) {
    RuntimeDoorOptions options;
    options.external = true;
    options.superexec = superexec;
    Open(times, options);
    host_ = MakeProcessHost(*table_);
    acquire_.add_supported_task_types("flwr-serverapp");
    acquire_.add_supported_task_types("flwr-clientapp");
  }
  std::future<Result<Outcome>> Run(const Job& job) { return Spawn(host_->Run(job)); }
  size_t Pending() {
    return On([&] { return table_->pending(); });
  }

  std::unique_ptr<Host> host_;
  pb::AcquireTaskRequest acquire_;
};

TEST_F(ProcessHostTest, ASuperExecIsHeldUntilThereIsAJob) {
  OpenHost();
  const Job job = MakeJob();
  pb::AcquireTaskRequest servers;
  servers.add_supported_task_types("flwr-serverapp");
  Peer peer = Connect();
  EXPECT_EQ(peer.Call("acquire-task", servers, "").body, "");
  Peer held = Connect();
  held.Send(Peer::Request("acquire-task", acquire_.SerializeAsString(), ""));
  auto outcome = Run(job);
  const Peer::Answer answer = held.Receive();
  pb::AcquireTaskResponse acquired;
  ASSERT_TRUE(acquired.ParseFromString(answer.body));
  EXPECT_EQ(acquired.task().type(), "flwr-clientapp");
  EXPECT_EQ(acquired.task().run_id(), kRun.value);
  EXPECT_EQ(acquired.task().fab_hash(), job.run->app->hash.Hex());
  EXPECT_EQ(acquired.task().status().status(), "pending");
  EXPECT_NE(acquired.task().task_id(), 0u);
  const std::string token = acquired.token();
  EXPECT_EQ(token.size(), 256u);
  const auto input = peer.Ask<pb::PullTaskInputResponse>("pull-task-input", kNothing, token);
  EXPECT_EQ(input.task_id(), acquired.task().task_id());
  EXPECT_EQ(On([&] { return host_->Describe(); }), "process: 1 running, 0 waiting for a SuperExec");
  EXPECT_TRUE(PushAll(peer, MakeReply(job, {"x"}), token));
  peer.Call("push-task-output", Output("completed"), token);
  const auto done = outcome.get();
  ASSERT_TRUE(done.ok());
  EXPECT_FALSE(done->reply.error);
}

TEST_F(ProcessHostTest, AClaimThatLapsesIsGivenToTheNextAndTheOldestGoFirst) {
  OpenHost({milliseconds(100), std::chrono::hours(1)});
  const Job first = MakeJob();
  Job second = MakeJob();
  second.spool_path += "2";
  auto one = Run(first);
  auto two = Run(second);
  while (Pending() != 2) std::this_thread::yield();
  Peer peer = Connect();
  const auto lost = peer.Ask<pb::AcquireTaskResponse>("acquire-task", acquire_, "");
  EXPECT_EQ(Pending(), 1u);
  while (Pending() != 2) std::this_thread::yield();  // nobody asked for its input in time
  EXPECT_EQ(peer.Call("send-task-heartbeat", kNothing, lost.token()).status, 401);
  const auto again = peer.Ask<pb::AcquireTaskResponse>("acquire-task", acquire_, "");
  EXPECT_EQ(again.task().task_id(), lost.task().task_id());
  EXPECT_NE(again.token(), lost.token());
  peer.Ask<pb::PullTaskInputResponse>("pull-task-input", kNothing, again.token());
  EXPECT_TRUE(PushAll(peer, MakeReply(first, {"x"}), again.token()));
  peer.Call("push-task-output", Output("completed"), again.token());
  EXPECT_TRUE(one.get().ok());
  On([&] {
    host_->Drop(kRun);
    return true;
  });
  EXPECT_EQ(two.get().error().code, Code::kCancelled);
  EXPECT_EQ(On([&] { return table_->tokens() + table_->pending(); }), 0u);
}

TEST_F(ProcessHostTest, AClaimNobodyHeardOfIsPendingAtOnce) {
  OpenHost();
  const Job job = MakeJob();
  for (int i = 0; i < 20; ++i) {  // hangs up while it is held, or while it is answered
    Peer hasty = Connect();
    hasty.Send(Peer::Request("acquire-task", acquire_.SerializeAsString(), ""));
    hasty.Close();
  }
  auto outcome = Run(job);
  On([&] {
    host_->Drop(kRun);
    return true;
  });
  EXPECT_EQ(outcome.get().error().code, Code::kCancelled);
}

TEST_F(ProcessHostTest, WithASecretOnlyWhoKnowsItTakesJobs) {
  flower::SuperExecAuth auth("secret");
  OpenHost({}, &auth);
  const Job job = MakeJob();
  auto outcome = Run(job);
  Peer peer = Connect();
  EXPECT_EQ(peer.Call("acquire-task", acquire_, "").status, 401);
  const std::string wrong = fmt::format(
      "flwr-superexec-ts: {}\r\nflwr-superexec-nonce: {}\r\nflwr-superexec-body-sha256: {}\r\n"
      "flwr-superexec-signature: {}\r\n",
      static_cast<int64_t>(UnixSeconds(clock_.Now())), std::string(32, 'a'),
      tensor::Sha256Of(acquire_.SerializeAsString()).Hex(), std::string(64, 'b'));
  EXPECT_EQ(peer.Call("acquire-task", acquire_, "", wrong).status, 401);
  EXPECT_EQ(Pending(), 1u);
  Spawn(host_->Stop(milliseconds(0))).get();
  EXPECT_EQ(outcome.get().error().code, Code::kCancelled);
}

}  // namespace
}  // namespace umbel::supernode
