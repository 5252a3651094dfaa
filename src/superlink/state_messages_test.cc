// Instructions, replies and their objects.
#include <gtest/gtest.h>

#include "flower/errors.h"
#include "flwr/common.pb.h"
#include "superlink/state_testing.h"

namespace umbel::superlink {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Object;
using testing::Waiter;
using testing::World;

constexpr int kMessageUnavailable = 3;
constexpr int kReplyUnavailable = 4;
constexpr int kNodeUnavailable = 5;

/// What an answer to a Runtime pull is: the error's code, or 0.
flwr::proto::Message Decoded(const std::shared_ptr<const MessageBytes>& bytes) {
  flwr::proto::Message message;
  EXPECT_TRUE(message.ParseFromString(bytes->body)) << bytes->body;
  return message;
}

class StateMessages : public ::testing::Test {
 protected:
  /// Time passes; the ServerApp lives, the nodes say nothing.
  void Pass(milliseconds time) {
    for (; time.count() > 0; time -= seconds(10)) {
      world.state().TaskHeartbeat(world.run(run_id), world.now());
      world.Pass(std::min<milliseconds>(time, seconds(10)));
    }
  }

  World world;
  const NodeId node = world.Node("key");
  const RunId run_id = world.Running();
};

TEST_F(StateMessages, FromInstructionToConfirmedReply) {
  const auto node_waits = std::make_shared<Waiter>();
  const auto app_waits = std::make_shared<Waiter>();
  EXPECT_FALSE(world.Pull(node, node_waits).has_value());

  const PushOutcome pushed =
      world.Push(run_id, world.Instruction(run_id, node, Object(1), {Object(2), Object(3)}));
  EXPECT_EQ(pushed.message_ids, std::vector{Object(1).Hex()});
  EXPECT_EQ(pushed.objects_to_push, (std::vector{Object(2), Object(3), Object(1)}));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(1), pushed.session_id));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(2), pushed.session_id));
  EXPECT_FALSE(node_waits->Take());  // it is not complete, so it is not shown
  EXPECT_FALSE(world.Pull(node, node_waits).has_value());
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(3), pushed.session_id));
  EXPECT_TRUE(node_waits->Take());

  EXPECT_EQ(world.Pull(node), Object(1));
  world.Touch(run_id, node, Object(1));
  EXPECT_FALSE(world.Collect(run_id, {Object(1)}, app_waits).all);

  const PushOutcome reply =
      world.PushReply(run_id, world.Reply(run_id, node, Object(1), Object(4), {Object(5)}));
  EXPECT_TRUE(reply.accepted);
  EXPECT_FALSE(reply.repeated);
  EXPECT_EQ(reply.objects_to_push, (std::vector{Object(5), Object(4)}));
  EXPECT_TRUE(world.Store(run_id, node, Object(5), reply.session_id));
  EXPECT_FALSE(app_waits->Take());
  EXPECT_TRUE(world.Store(run_id, node, Object(4), reply.session_id));
  EXPECT_TRUE(app_waits->Take());

  for (int i = 0; i < 2; ++i) {  // an answer that was lost is given again
    const Collected collected = world.Collect(run_id, {Object(1)});
    EXPECT_TRUE(collected.all);
    ASSERT_EQ(collected.messages.size(), 1u);
    EXPECT_EQ(collected.messages[0], world.run(run_id).messages.at(Object(4)).bytes);
  }
  world.Confirm(run_id, Object(4));
  world.Confirm(run_id, Object(4));
  EXPECT_TRUE(world.run(run_id).messages.empty());
  EXPECT_TRUE(world.run(run_id).objects.empty());
  EXPECT_TRUE(world.rows().messages.empty());
  EXPECT_TRUE(world.rows().objects.empty());
}

TEST_F(StateMessages, AnInstructionIsHandedOutUntilItsNodeTouchesIt) {
  const ObjectId first = world.Ask(run_id, node, 1);
  const ObjectId second = world.Ask(run_id, node, 2);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(world.Pull(node), first);
  world.Restart();
  EXPECT_EQ(world.Pull(node), first);
  world.Touch(run_id, NodeId{5}, first);  // another's word does not count
  EXPECT_EQ(world.Pull(node), first);
  world.Touch(run_id, node, first);
  EXPECT_EQ(world.Pull(node), second);
  world.Restart();
  EXPECT_EQ(world.Pull(node), second);
  world.Answer(run_id, node, second, 3);  // an answer, too, shows that it has come
  EXPECT_FALSE(world.Pull(node).has_value());
}

TEST_F(StateMessages, ANodeThatActivatesAgainGetsWhatItHadBegun) {
  const ObjectId answered = world.Ask(run_id, node, 1);
  const ObjectId begun = world.Ask(run_id, node, 2);
  const ObjectId fresh = world.Ask(run_id, node, 3);
  world.Touch(run_id, node, answered);
  world.Answer(run_id, node, answered, 4);
  world.Touch(run_id, node, begun);
  EXPECT_EQ(world.Pull(node), fresh);
  ASSERT_TRUE(world.Activate("key").ok());
  EXPECT_EQ(world.Pull(node), begun);
  world.Restart();
  EXPECT_EQ(world.Pull(node), begun);
  world.Touch(run_id, node, begun);
  EXPECT_EQ(world.Pull(node), fresh);
}

TEST_F(StateMessages, ToNodesThatCannotGetThemMessagesAreNotTaken) {
  const NodeId registered = world.Register("registered");
  const NodeId offline = world.Node("offline");
  ASSERT_TRUE(world.Deactivate(offline).ok());
  const NodeId gone = world.Node("gone");
  ASSERT_TRUE(world.Unregister(gone).ok());
  std::vector<NewMessage> messages;
  uint64_t number = 10;
  for (const NodeId dst : {node, registered, offline, gone, NodeId{99}})
    messages.push_back(world.Instruction(run_id, dst, Object(number++)));
  const PushOutcome outcome = world.Push(run_id, std::move(messages));
  EXPECT_EQ(outcome.message_ids,
            (std::vector<std::string>{Object(10).Hex(), "", Object(12).Hex(), "", ""}));
  EXPECT_EQ(outcome.objects_to_push, (std::vector{Object(10), Object(12)}));
}

TEST_F(StateMessages, PushingAgainChangesNothing) {
  const auto push = [&] {
    return world.Push(run_id, world.Instruction(run_id, node, Object(1), {Object(2)}));
  };
  const PushOutcome first = push();
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(2), first.session_id));
  const PushOutcome again = push();  // its answer was lost: only what is missing is asked for
  EXPECT_EQ(again.message_ids, first.message_ids);
  EXPECT_EQ(again.objects_to_push, std::vector{Object(1)});
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(1), again.session_id));
  EXPECT_TRUE(push().objects_to_push.empty());
  EXPECT_EQ(world.run(run_id).messages.size(), 1u);
  EXPECT_TRUE(world.run(run_id).sessions.empty());

  const auto reply = [&] {
    return world.PushReply(run_id, world.Reply(run_id, node, Object(1), Object(3), {Object(4)}));
  };
  const PushOutcome told = reply();
  EXPECT_TRUE(world.Store(run_id, node, Object(4), told.session_id));
  const PushOutcome twice = reply();
  EXPECT_TRUE(twice.accepted && twice.repeated);
  EXPECT_EQ(twice.objects_to_push, std::vector{Object(3)});
  EXPECT_TRUE(world.Store(run_id, node, Object(3), twice.session_id));
  EXPECT_TRUE(reply().objects_to_push.empty());
  EXPECT_TRUE(world.Collect(run_id, {Object(1)}).all);
}

TEST_F(StateMessages, WhatIsAnsweredBeforeItIsCompleteIsNotHandedOut) {
  const PushOutcome pushed = world.Push(run_id, world.Instruction(run_id, node, Object(1)));
  world.Answer(run_id, node, Object(1), 2);
  world.StoreAll(run_id, kSuperLinkNode, pushed);
  EXPECT_FALSE(world.Pull(node).has_value());
}

TEST_F(StateMessages, RepliesThatDoNotFitAreNotTaken) {
  const NodeId other = world.Node("other");
  const ObjectId asked = world.Ask(run_id, node, 1);
  const auto refused = [&](NewMessage reply) {
    return !world.PushReply(run_id, std::move(reply)).accepted;
  };
  EXPECT_TRUE(refused(world.Reply(run_id, node, Object(77), Object(2))));  // nothing was asked
  EXPECT_TRUE(refused(world.Reply(run_id, other, asked, Object(2))));      // of somebody else
  EXPECT_TRUE(refused(world.Reply(run_id, kSuperLinkNode, asked, Object(2))));
  NewMessage wrong = world.Reply(run_id, node, asked, Object(2));
  wrong.message.dst = other;
  EXPECT_TRUE(refused(std::move(wrong)));
  NewMessage late = world.Reply(run_id, node, asked, Object(2));
  late.message.ttl += 1;  // it would outlive its instruction
  EXPECT_TRUE(refused(std::move(late)));
  world.Answer(run_id, node, asked, 3);
  EXPECT_TRUE(refused(world.Reply(run_id, node, asked, Object(4))));      // it has one already
  EXPECT_TRUE(refused(world.Reply(run_id, node, Object(3), Object(5))));  // not an instruction
}

// --- error replies ------------------------------------------------------------------------------

TEST_F(StateMessages, Code3ForWhatIsNotThereOrHasExpired) {
  const ObjectId asked = world.Ask(run_id, node, 1, 8.0);
  const auto waiter = std::make_shared<Waiter>();
  EXPECT_FALSE(world.Collect(run_id, {asked}, waiter).all);
  Pass(milliseconds(7900));
  EXPECT_FALSE(waiter->Take());
  Pass(milliseconds(200));  // a held poll is woken at the expiry, not at its own end
  EXPECT_TRUE(waiter->Take());
  const Collected expired = world.Collect(run_id, {asked});
  ASSERT_TRUE(expired.all);
  const auto error = Decoded(expired.messages.at(0));
  EXPECT_EQ(error.error().code(), kMessageUnavailable);
  EXPECT_EQ(error.metadata().reply_to_message_id(), asked.Hex());
  EXPECT_EQ(error.metadata().message_type(), "system");
  EXPECT_EQ(error.metadata().src_node_id(), kSuperLinkNode.value);
  EXPECT_EQ(error.metadata().ttl(), 0);
  EXPECT_FALSE(world.Pull(node).has_value());
  EXPECT_FALSE(world.PushReply(run_id, world.Reply(run_id, node, asked, Object(2))).accepted);

  // The same answer until it is confirmed.
  EXPECT_EQ(world.Collect(run_id, {asked}).messages.at(0), expired.messages.at(0));
  const ObjectId id = *ObjectId::FromHex(error.metadata().message_id());
  EXPECT_TRUE(world.run(run_id).made_objects.contains(id));
  world.Confirm(run_id, id);
  EXPECT_TRUE(world.run(run_id).messages.empty());
  EXPECT_TRUE(world.run(run_id).objects.empty());
  EXPECT_TRUE(world.run(run_id).made_objects.empty());
  EXPECT_TRUE(world.rows().messages.empty());

  for (const std::string& text : {std::string(), std::string("nonsense"), Object(55).Hex()}) {
    const auto unknown =
        world.state().CollectReplies(world.run(run_id), {text}, nullptr, world.now());
    ASSERT_TRUE(unknown.all);
    EXPECT_EQ(Decoded(unknown.messages.at(0)).error().code(), kMessageUnavailable);
    EXPECT_EQ(Decoded(unknown.messages.at(0)).metadata().reply_to_message_id(), text);
  }
}

TEST_F(StateMessages, Code4ForAReplyThatExpiredUnread) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  NewMessage reply = world.Reply(run_id, node, asked, Object(2));
  reply.message.ttl = 5;
  world.StoreAll(run_id, node, world.PushReply(run_id, std::move(reply)));
  const auto waiter = std::make_shared<Waiter>();
  EXPECT_FALSE(world.Collect(run_id, {asked, world.Ask(run_id, node, 3)}, waiter).all);
  Pass(seconds(6));
  EXPECT_TRUE(waiter->Take());
  const auto error = Decoded(world.Collect(run_id, {asked}).messages.at(0));
  EXPECT_EQ(error.error().code(), kReplyUnavailable);
  EXPECT_EQ(error.metadata().group_id(), "7");
  EXPECT_EQ(error.metadata().message_type(), "train");
  EXPECT_NEAR(error.metadata().ttl(), 3594, 0.01);
}

TEST_F(StateMessages, Code5ForANodeThatIsGoneUnlessItHadAnswered) {
  const ObjectId answered = world.Ask(run_id, node, 1);
  const ObjectId open = world.Ask(run_id, node, 2);
  world.Answer(run_id, node, answered, 3);
  const auto waiter = std::make_shared<Waiter>();
  EXPECT_FALSE(world.Collect(run_id, {answered, open}, waiter).all);
  Pass(seconds(61));
  EXPECT_TRUE(waiter->Take());
  const Collected collected = world.Collect(run_id, {answered, open});
  ASSERT_TRUE(collected.all);
  EXPECT_EQ(collected.messages.at(0), world.run(run_id).messages.at(Object(3)).bytes);
  const auto error = Decoded(collected.messages.at(1));
  EXPECT_EQ(error.error().code(), kNodeUnavailable);
  EXPECT_EQ(error.metadata().message_type(), "train");

  // Too late now, even if it comes back: the ServerApp has its answer.
  ASSERT_TRUE(world.Activate("key").ok());
  EXPECT_FALSE(world.PushReply(run_id, world.Reply(run_id, node, open, Object(4))).accepted);
}

TEST_F(StateMessages, AReplyThatWasNotShownGoesWithTheErrorThatWas) {
  const ObjectId expired = world.Ask(run_id, node, 1, 20.0);
  world.Answer(run_id, node, expired, 2);  // complete, but the instruction's time is over
  const ObjectId late = world.Ask(run_id, node, 3);
  const PushOutcome half = world.PushReply(
      run_id, world.Reply(run_id, node, late, Object(4), {Object(5)}));  // its node goes away
  EXPECT_TRUE(world.Store(run_id, node, Object(5), half.session_id));
  Pass(seconds(61));
  for (const ObjectId& asked : {expired, late}) {
    const auto error = Decoded(world.Collect(run_id, {asked}).messages.at(0));
    EXPECT_NE(error.error().code(), 0);
    world.Confirm(run_id, *ObjectId::FromHex(error.metadata().message_id()));
  }
  EXPECT_TRUE(world.run(run_id).messages.empty());
  EXPECT_TRUE(world.run(run_id).objects.empty());
  EXPECT_TRUE(world.run(run_id).sessions.empty());
  EXPECT_TRUE(world.rows().messages.empty());
  EXPECT_TRUE(world.rows().objects.empty());
}

TEST_F(StateMessages, WhatIsLeftOfAPushGoesOnWithoutADroppedMessage) {
  const NodeId other = world.Node("other");
  std::vector<NewMessage> both;
  both.push_back(world.Instruction(run_id, node, Object(1), {Object(5)}));
  both.push_back(world.Instruction(run_id, other, Object(2), {Object(6)}));
  const PushOutcome pushed = world.Push(run_id, std::move(both));
  for (const ObjectId& id : {Object(5), Object(1)})
    EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, id, pushed.session_id));
  ASSERT_TRUE(world.Deactivate(other).ok());
  const auto error = Decoded(world.Collect(run_id, {Object(2)}).messages.at(0));
  world.Confirm(run_id, *ObjectId::FromHex(error.metadata().message_id()));
  EXPECT_EQ(world.Pull(node), Object(1));
  EXPECT_FALSE(world.Store(run_id, kSuperLinkNode, Object(2), pushed.session_id));
}

TEST_F(StateMessages, SigningOffAndUnregisteringAnswerAtOnceToo) {
  for (const bool unregister : {false, true}) {
    const std::string key = unregister ? "leaves for good" : "leaves";
    const NodeId leaver = world.Node(key);
    const ObjectId asked = world.Ask(run_id, leaver, unregister ? 10 : 11);
    const auto waiter = std::make_shared<Waiter>();
    EXPECT_FALSE(world.Collect(run_id, {asked}, waiter).all);
    ASSERT_TRUE((unregister ? world.Unregister(leaver) : world.Deactivate(leaver)).ok());
    EXPECT_TRUE(waiter->Take());
    EXPECT_EQ(Decoded(world.Collect(run_id, {asked}).messages.at(0)).error().code(),
              kNodeUnavailable);
  }
}

TEST_F(StateMessages, AfterARestartNobodyIsGoneForTwoIntervals) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  world.Touch(run_id, node, asked);
  world.Restart(seconds(600));
  Pass(seconds(59));
  EXPECT_FALSE(world.Collect(run_id, {asked}).all);
  world.Answer(run_id, node, asked, 2);
  EXPECT_TRUE(world.Collect(run_id, {asked}).all);
}

TEST_F(StateMessages, AMessageToTheSuperLinkIsEchoed) {
  const ObjectId asked = world.Ask(run_id, kSuperLinkNode, 1);
  const Collected collected = world.Collect(run_id, {asked});
  ASSERT_EQ(collected.messages.size(), 2u);
  EXPECT_EQ(Decoded(collected.messages[0]).error().code(), kNodeUnavailable);
  EXPECT_EQ(collected.messages[1], world.run(run_id).messages.at(asked).bytes);
}

// --- objects and push sessions ------------------------------------------------------------------

TEST_F(StateMessages, ASessionEndsWhenNothingComesForThreeMinutes) {
  const PushOutcome pushed =
      world.Push(run_id, world.Instruction(run_id, node, Object(1), {Object(2)}));
  Pass(seconds(179));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(2), pushed.session_id));
  Pass(seconds(180));
  EXPECT_EQ(world.run(run_id).sessions.size(), 1u);
  EXPECT_TRUE(world.Heartbeat(node));
  const auto waiter = std::make_shared<Waiter>();
  EXPECT_FALSE(world.Collect(run_id, {Object(1)}, waiter).all);
  Pass(seconds(1));
  EXPECT_TRUE(waiter->Take());
  EXPECT_TRUE(world.run(run_id).messages.empty());
  EXPECT_TRUE(world.rows().messages.empty());
  EXPECT_TRUE(world.rows().objects.empty());
  EXPECT_FALSE(world.Store(run_id, kSuperLinkNode, Object(1), pushed.session_id));
}

TEST_F(StateMessages, AReplyWhoseSessionEndedMayComeAnew) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  world.Touch(run_id, node, asked);
  const PushOutcome first = world.PushReply(run_id, world.Reply(run_id, node, asked, Object(2)));
  for (int i = 0; i < 19; ++i) {
    Pass(seconds(10));
    world.Heartbeat(node);
  }
  EXPECT_FALSE(world.run(run_id).messages.contains(Object(2)));
  EXPECT_FALSE(world.Store(run_id, node, Object(2), first.session_id));
  world.Answer(run_id, node, asked, 3);
  EXPECT_TRUE(world.Collect(run_id, {asked}).all);
}

TEST_F(StateMessages, ABoundOnRepliesHoldsOthersBack) {
  const NodeId other = world.Node("other"), third = world.Node("third");
  auto& run = world.run(run_id);
  const auto let_in = [&](NodeId id, const std::shared_ptr<Waiter>& waiter = nullptr) {
    return world.Do([&](State& s, WallTime at, Changes&) { return s.LetIn(run, id, waiter, at); });
  };
  const auto bound = [&](size_t replies) {
    world.Do([&](State& s, WallTime, Changes&) { s.BoundReplies(run, replies); });
  };
  const ObjectId one = world.Ask(run_id, node, 1), two = world.Ask(run_id, other, 2);
  world.Ask(run_id, third, 3);
  EXPECT_TRUE(let_in(node)) << "no bound yet";
  world.Answer(run_id, node, one, 4);
  bound(2);
  EXPECT_TRUE(let_in(node)) << "its reply lies there";
  EXPECT_TRUE(let_in(other));
  const auto waiter = std::make_shared<Waiter>(), session = std::make_shared<Waiter>();
  run.object_waiters.Add(session);
  EXPECT_FALSE(let_in(third, waiter));
  EXPECT_TRUE(run.room.wanted);
  EXPECT_TRUE(session->Take());
  EXPECT_TRUE(let_in(other)) << "once in, always in";
  EXPECT_TRUE(let_in(kSuperLinkNode));
  EXPECT_FALSE(waiter->Take());
  world.Do([&](State& s, WallTime, Changes& c) { s.Withdraw(run, one, c); });
  EXPECT_TRUE(waiter->Take());
  EXPECT_FALSE(run.room.wanted);
  EXPECT_TRUE(let_in(third));
  EXPECT_FALSE(let_in(node, waiter));
  world.PushReply(run_id, world.Reply(run_id, other, two, Object(5)));
  Pass(seconds(181));  // half a reply is dropped when nothing of it comes
  EXPECT_TRUE(waiter->Take());
  EXPECT_TRUE(let_in(node));
  EXPECT_FALSE(let_in(other, waiter));
  bound(0);
  EXPECT_TRUE(waiter->Take());
  EXPECT_TRUE(let_in(other));
}

TEST_F(StateMessages, WhoIsHeldBackIsNotDropped) {
  const NodeId other = world.Node("other");
  auto& run = world.run(run_id);
  const ObjectId one = world.Ask(run_id, node, 1), two = world.Ask(run_id, other, 2);
  world.Answer(run_id, node, one, 4);
  world.Do([&](State& s, WallTime, Changes&) { s.BoundReplies(run, 1); });
  world.PushReply(run_id, world.Reply(run_id, other, two, Object(5)));
  for (int i = 0; i < 20; ++i) {
    Pass(seconds(20));
    world.Heartbeat(other);
    EXPECT_FALSE(world.Do(
        [&](State& s, WallTime at, Changes&) { return s.LetIn(run, other, nullptr, at); }));
  }
  EXPECT_TRUE(run.messages.contains(Object(5)));
}

TEST_F(StateMessages, TwoSessionsListTheSameObject) {
  const auto push = [&](uint64_t id) {
    return world.Push(run_id, world.Instruction(run_id, node, Object(id), {Object(5)}));
  };
  const PushOutcome one = push(1), two = push(2);
  EXPECT_EQ(one.objects_to_push, (std::vector{Object(5), Object(1)}));
  EXPECT_EQ(two.objects_to_push, (std::vector{Object(5), Object(2)}));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(5), one.session_id));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(2), two.session_id));
  EXPECT_FALSE(world.Pull(node).has_value());
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(5), two.session_id));
  EXPECT_EQ(world.Pull(node), Object(2));
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, Object(1), one.session_id));
  EXPECT_EQ(world.Pull(node), Object(1));
  // One that comes later need not send it at all.
  EXPECT_EQ(push(3).objects_to_push, std::vector{Object(3)});
}

TEST_F(StateMessages, NobodysWordIsTakenForAReplysObjects) {
  const NodeId other = world.Node("other");
  const ObjectId to_node = world.Ask(run_id, node, 1), to_other = world.Ask(run_id, other, 2);
  const PushOutcome mine =
      world.PushReply(run_id, world.Reply(run_id, node, to_node, Object(3), {Object(9)}));
  world.StoreAll(run_id, node, mine);
  // The other's reply has an identical object: it is asked for all the same.
  const PushOutcome others =
      world.PushReply(run_id, world.Reply(run_id, other, to_other, Object(4), {Object(9)}));
  EXPECT_EQ(others.objects_to_push, (std::vector{Object(9), Object(4)}));
  EXPECT_TRUE(world.Store(run_id, other, Object(4), others.session_id));
  EXPECT_FALSE(world.Collect(run_id, {to_other}).all);
  EXPECT_TRUE(world.Store(run_id, node, Object(9), others.session_id));  // its own once more:
  EXPECT_FALSE(world.Collect(run_id, {to_other}).all);                   // no help to the other
  EXPECT_FALSE(world.Store(run_id, NodeId{77}, Object(9), ""));
  EXPECT_TRUE(world.Store(run_id, other, Object(9), others.session_id));
  EXPECT_TRUE(world.Collect(run_id, {to_node, to_other}).all);
  // It stays until the last message that names it is gone.
  world.Confirm(run_id, Object(3));
  EXPECT_TRUE(world.run(run_id).objects.at(Object(9)).available);
  world.Confirm(run_id, Object(4));
  EXPECT_TRUE(world.rows().objects.empty());
}

TEST_F(StateMessages, OfCopiesThatComeAtTheSameTimeOneIsKept) {
  const NodeId other = world.Node("other");
  const ObjectId to_node = world.Ask(run_id, node, 1), to_other = world.Ask(run_id, other, 2);
  const PushOutcome mine =
      world.PushReply(run_id, world.Reply(run_id, node, to_node, Object(3), {Object(9)}));
  const PushOutcome others =
      world.PushReply(run_id, world.Reply(run_id, other, to_other, Object(4), {Object(9)}));
  const auto extent = [&](uint64_t offset) {
    return std::make_shared<const store::Extent>(store::Extent{run_id, 5, offset, 10});
  };
  const auto keep = [&](const ExtentPtr& place, Changes* changes) {
    store::ObjectRow row;
    row.run_id = run_id;
    row.object_id = Object(9);
    row.size = place->size;
    row.segment = place->segment;
    row.offset = place->offset;
    return world.state().KeepObject(world.run(run_id), row, place, *changes);
  };
  const auto row_offset = [&] { return world.rows().objects.at({run_id, Object(9)}).offset; };
  const ExtentPtr first = extent(100), second = extent(200), third = extent(300);
  Changes one, two, three;
  const uint64_t number = keep(first, &one);
  EXPECT_EQ(keep(second, &two), number);
  world.rows().Apply(one);
  world.rows().Apply(two);
  EXPECT_EQ(row_offset(), 100u);
  EXPECT_EQ(two.released, std::vector{second});
  EXPECT_EQ(two.writes.size(), 1u);  // for its commit
  EXPECT_FALSE(world.run(run_id).objects.at(Object(9)).available);
  // Whoever hears first that it is durable makes it available for both.
  State& state = world.state();
  auto& run = world.run(run_id);
  EXPECT_TRUE(state.ObjectStored(run, other, Object(9), others.session_id, number, world.now()));
  EXPECT_TRUE(state.ObjectStored(run, node, Object(9), mine.session_id, number, world.now()));
  EXPECT_EQ(keep(third, &three), number);
  EXPECT_EQ(three.released, std::vector{third});
  EXPECT_TRUE(three.writes.empty());
  EXPECT_EQ(run.objects.at(Object(9)).extent, first);
}

TEST_F(StateMessages, AnObjectWhoseMessagesWereDroppedOnTheWayIsNotStored) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  const PushOutcome reply = world.PushReply(run_id, world.Reply(run_id, node, asked, Object(2)));
  store::ObjectRow row;
  row.run_id = run_id;
  row.object_id = Object(2);
  const uint64_t number = world.Do([&](State& s, WallTime, Changes& c) {
    return s.KeepObject(world.run(run_id), row, nullptr, c);
  });
  EXPECT_EQ(world.rows().objects.size(), 2u);
  world.Confirm(run_id, Object(2));  // drops the reply and its instruction
  EXPECT_TRUE(world.rows().objects.empty());
  const auto stored = [&](uint64_t n) {
    return world.state().ObjectStored(world.run(run_id), node, Object(2), reply.session_id, n,
                                      world.now());
  };
  EXPECT_FALSE(stored(number));
  // Nor for another message that names it by now.
  const ObjectId again = world.Ask(run_id, node, 3);
  world.PushReply(run_id, world.Reply(run_id, node, again, Object(2)));
  EXPECT_FALSE(stored(number));
  EXPECT_FALSE(stored(0));
  Changes unnamed;
  row.object_id = Object(77);
  EXPECT_EQ(world.state().KeepObject(world.run(run_id), row, nullptr, unnamed), 0u);
  EXPECT_TRUE(unnamed.writes.empty());
}

TEST_F(StateMessages, OneObjectMayFillSeveralPlacesOfAReply) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  const PushOutcome reply = world.PushReply(
      run_id, world.Reply(run_id, node, asked, Object(2), {Object(3), Object(3), Object(3)}));
  EXPECT_EQ(reply.objects_to_push, (std::vector{Object(3), Object(2)}));
  world.StoreAll(run_id, node, reply);
  EXPECT_TRUE(world.Collect(run_id, {asked}).all);
  world.Confirm(run_id, Object(2));
  EXPECT_TRUE(world.run(run_id).objects.empty());
}

TEST_F(StateMessages, AnObjectWhoseAnswerWasLostMayBePushedAgain) {
  const ObjectId asked = world.Ask(run_id, node, 1);
  const PushOutcome reply =
      world.PushReply(run_id, world.Reply(run_id, node, asked, Object(2), {Object(3)}));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(world.Store(run_id, node, Object(3), reply.session_id));
  world.Restart();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(world.Store(run_id, node, Object(3), reply.session_id));
  EXPECT_FALSE(world.Collect(run_id, {asked}).all);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(world.Store(run_id, node, Object(2), reply.session_id));
  world.Restart();
  EXPECT_TRUE(world.Store(run_id, node, Object(2), reply.session_id));
  EXPECT_TRUE(world.Collect(run_id, {asked}).all);
  // The instruction's objects belong to the ServerApp: a node cannot claim to have sent them.
  EXPECT_TRUE(world.Store(run_id, kSuperLinkNode, asked, "an old session"));
  EXPECT_FALSE(world.Store(run_id, node, asked, reply.session_id));
}

TEST_F(StateMessages, AfterARestartOneObjectServesAllThatWaitForIt) {
  const NodeId other = world.Node("other");
  std::vector<NewMessage> both;
  both.push_back(world.Instruction(run_id, node, Object(1), {Object(5)}));
  both.push_back(world.Instruction(run_id, other, Object(2), {Object(5)}));
  const PushOutcome pushed = world.Push(run_id, std::move(both));
  EXPECT_EQ(pushed.objects_to_push, (std::vector{Object(5), Object(1), Object(2)}));
  world.Restart();
  world.StoreAll(run_id, kSuperLinkNode, pushed);  // each of them once, as it was told
  EXPECT_EQ(world.Pull(node), Object(1));
  EXPECT_EQ(world.Pull(other), Object(2));
  EXPECT_TRUE(world.run(run_id).sessions.empty());
}

}  // namespace
}  // namespace umbel::superlink
