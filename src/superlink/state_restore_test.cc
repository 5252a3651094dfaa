// Random histories of everything that can be asked of a State, each cut by restarts: the rows are
// exactly what the State holds, and one made from them gives the same answers.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/detail/Configuration.h>

#include <cstdlib>
#include <set>

#include "superlink/state_testing.h"

namespace umbel::superlink {
namespace {

using testing::Object;
using testing::Rows;
using testing::World;

int Histories() {
  const char* asked = std::getenv("UMBEL_SEEDS");
  return asked ? std::atoi(asked) : 200;
}

/// The rows hold what the State holds, no more and no less.
void CheckRows(World& world) {
  std::set<Rows::Key> messages, objects;
  for (const auto& [run_id, run] : world.state().runs()) {
    for (const auto& [id, message] : run.messages) {
      if (message.made_here) continue;
      messages.emplace(run_id, id);
      const auto row = world.rows().messages.find({run_id, id});
      RC_ASSERT(row != world.rows().messages.end());
      RC_ASSERT(row->second.touched == message.touched);
      RC_ASSERT(row->second.sequence == message.sequence);
      RC_ASSERT(row->second.body == message.bytes->body);
    }
    for (const auto& [id, slot] : run.objects) {
      RC_ASSERT(slot.holders > 0u);
      if (slot.available && !run.made_objects.contains(id)) objects.emplace(run_id, id);
    }
    RC_ASSERT(world.rows().tasks.at(run_id).status == run.task.status);
    RC_ASSERT(world.rows().tasks.at(run_id).token == run.task.token);
  }
  for (const auto& [key, row] : world.rows().messages) RC_ASSERT(messages.erase(key) == 1u);
  for (const auto& [key, row] : world.rows().objects) RC_ASSERT(objects.erase(key) == 1u);
  RC_ASSERT(messages.empty());
  RC_ASSERT(objects.empty());
}

bool AllHere(const Run& run, const ObjectId& id) {
  const auto found = run.messages.find(id);
  if (found == run.messages.end()) return false;
  const auto tree = tensor::ParseTree(found->second.bytes->tree);
  return std::all_of(tree->ids.begin(), tree->ids.end(),
                     [&](const ObjectId& o) { return run.objects.at(o).available; });
}

/// What the ServerApp gets for one id: "open", the reply's bytes, or an error, which is not kept.
std::string Answer(State& state, Run& run, const ObjectId& asked, WallTime now) {
  if (run.errors.contains(asked.Hex())) return "error";
  const Collected collected = state.CollectReplies(run, {asked.Hex()}, nullptr, now);
  if (!collected.all) return "open";
  return run.errors.contains(asked.Hex()) ? "error" : collected.messages.at(0)->body;
}

void CheckRestored(World& world, const std::vector<NodeId>& nodes) {
  const auto restored = world.Restored();
  State& before = world.state();
  RC_ASSERT(restored->node_count() == before.node_count());
  RC_ASSERT(restored->runs().size() == before.runs().size());
  for (const NodeId node : nodes) {
    const store::NodeRow* is = restored->FindNode(node);
    const store::NodeRow* was = before.FindNode(node);
    RC_ASSERT(is->status == was->status);
    RC_ASSERT(is->public_key == was->public_key);
    RC_ASSERT(is->status != NodeStatus::kOnline || is->online_until >= was->online_until);
    const auto now_given = restored->PullInstruction(node, nullptr, world.now());
    const auto then_given = before.PullInstruction(node, nullptr, world.now());
    RC_ASSERT(now_given.has_value() || !then_given.has_value());
    if (now_given && (!then_given || now_given->id != then_given->id)) {
      // Answered with an error, which only memory knows of; or complete, but it waited for the
      // others that were pushed with it.
      const Run& run = *before.FindRun(now_given->run_id);
      if (run.errors.contains(now_given->id.Hex())) continue;
      RC_ASSERT(!run.messages.at(now_given->id).complete);
      RC_ASSERT(AllHere(run, now_given->id));
    }
  }
  for (const auto& [run_id, ignored] : before.runs()) {
    Run& was = *before.FindRun(run_id);
    Run* is = restored->FindRun(run_id);
    RC_ASSERT(is != nullptr);
    RC_ASSERT(is->row == was.row);
    RC_ASSERT(is->task.status == was.task.status);
    if (!was.task.token.empty()) RC_ASSERT(restored->FindByToken(was.task.token, world.now()).ok());
    std::vector<NodeId> owners(nodes);
    owners.push_back(kSuperLinkNode);
    std::set<ObjectId> asked, objects;
    for (const auto& [id, message] : was.messages)
      if (message.is_instruction()) asked.insert(id);
    for (const auto& [id, slot] : was.objects)
      if (!was.made_objects.contains(id)) objects.insert(id);
    for (const ObjectId& id : objects)
      for (const NodeId owner : owners)
        RC_ASSERT(restored->CheckUpload(*is, owner, id, "", world.now()) ==
                  before.CheckUpload(was, owner, id, "", world.now()));
    for (const ObjectId& id : asked) {
      if (was.errors.contains(id.Hex())) continue;  // only memory knows of those
      const auto answer = was.messages.at(id).answer;
      const std::string said = Answer(before, was, id, world.now());
      const std::string says = Answer(*restored, *is, id, world.now());
      // A reply whose last object another node has sent already still waits for its own copy; a
      // restart cannot tell them apart.
      if (answer && !was.messages.at(*answer).complete && AllHere(was, *answer)) continue;
      RC_ASSERT(says == said);
    }
  }
}

class History {
 public:
  void Run() {
    for (int i = 0; i < 3; ++i) Register();
    const int steps = *rc::gen::inRange(1, 120);
    for (int i = 0; i < steps; ++i) {
      Step();
      CheckRows(world_);
    }
    world_.Pass(std::chrono::milliseconds(0));  // what has lapsed is noticed
    CheckRows(world_);
    CheckRestored(world_, nodes_);
  }

 private:
  template <typename T>
  static T Any(const std::vector<T>& from) {
    return from[*rc::gen::inRange<size_t>(0, from.size())];
  }
  std::vector<RunId> Runs(TaskStatus status) {
    std::set<RunId> found;  // in an order that the seed determines
    for (const auto& [id, run] : world_.state().runs())
      if (run.task.status == status) found.insert(id);
    return {found.begin(), found.end()};
  }
  ObjectId Fresh() { return Object(1000 + next_++); }
  std::vector<ObjectId> Below() {
    // Few numbers, so that messages share objects.
    std::vector<ObjectId> below;
    for (int i = *rc::gen::inRange(0, 4); i > 0; --i)
      below.push_back(Object(*rc::gen::inRange<uint64_t>(0, 6)));
    return below;
  }
  void Register() {
    keys_.push_back(fmt::format("key {}", keys_.size()));
    nodes_.push_back(world_.Register(keys_.back()));
    static_cast<void>(world_.Activate(keys_.back()));
  }

  void Step() {
    const int choice = *rc::gen::inRange(0, 20);
    RC_LOG() << "step " << choice << "\n";
    switch (choice) {
      case 0:
        return static_cast<void>(world_.Activate(Any(keys_)));
      case 1:
        return static_cast<void>(world_.Deactivate(Any(nodes_)));
      case 2:
        if (*rc::gen::inRange(0, 4) == 0) static_cast<void>(world_.Unregister(Any(nodes_)));
        return;
      case 3:
        for (const NodeId node : nodes_) world_.Heartbeat(node);
        return;
      case 4:
        if (nodes_.size() < 5) Register();
        return;
      case 5:
        if (world_.state().runs().size() < 3) world_.Pending();
        return;
      case 6:
        return static_cast<void>(world_.Acquire());
      case 7:
        if (const auto runs = Runs(TaskStatus::kStarting); !runs.empty())
          static_cast<void>(world_.Begin(Any(runs)));
        return;
      case 8:
        if (*rc::gen::inRange(0, 6) == 0) {
          if (const auto runs = Runs(TaskStatus::kRunning); !runs.empty())
            world_.Finish(Any(runs), *rc::gen::element(TaskEvent::kComplete, TaskEvent::kStop,
                                                       TaskEvent::kFail));
        }
        return;
      case 9:
        world_.Pass(std::chrono::milliseconds(*rc::gen::inRange(0, 70'000)));
        return;
      case 10:
        CheckRestored(world_, nodes_);
        world_.Restart(std::chrono::milliseconds(*rc::gen::inRange(0, 400'000)));
        world_.Pass(std::chrono::milliseconds(0));
        return;
      default: {
        auto runs = Runs(TaskStatus::kRunning);
        if (runs.empty()) {  // the run that has been pending longest
          if (world_.state().runs().size() < 3) world_.Pending();
          if (const RunId run_id = world_.Acquire()) {
            RC_ASSERT(world_.Begin(run_id).ok());
            runs.push_back(run_id);
          }
        }
        if (!runs.empty()) InRun(Any(runs));
        return;
      }
    }
  }

  void InRun(RunId run_id) {
    superlink::Run& run = world_.run(run_id);
    std::map<uint64_t, ObjectId> instructions, replies;  // by sequence: the seed's own order
    for (const auto& [id, message] : run.messages)
      (message.is_instruction() ? instructions : replies).emplace(message.sequence, id);
    const auto any = [](const std::map<uint64_t, ObjectId>& from) {
      return std::next(from.begin(), *rc::gen::inRange(0, static_cast<int>(from.size())))->second;
    };
    const int choice = *rc::gen::inRange(0, 9);
    RC_LOG() << "  in run " << run_id.value << ": " << choice << "\n";
    switch (choice) {
      case 0:
      case 1: {
        std::vector<NewMessage> messages;
        const auto below = Below();
        for (int i = *rc::gen::inRange(1, 4); i > 0; --i)
          messages.push_back(world_.Instruction(run_id, Any(nodes_), Fresh(), below,
                                                *rc::gen::element(20.0, 300.0, 3600.0)));
        world_.Push(run_id, std::move(messages));
        return;
      }
      case 2:
      case 3:
      case 4: {  // an object that some session waits for, or one that has been sent before
        if (run.sessions.empty()) return;
        std::map<std::pair<NodeId, ObjectId>, std::string> wanted;
        for (const auto& [name, session] : run.sessions)
          for (const ObjectId& id : session.pending)
            wanted.emplace(std::pair(session.owner, id), session.restored ? "stale" : name);
        const auto pick =
            *std::next(wanted.begin(), *rc::gen::inRange(0, static_cast<int>(wanted.size())));
        RC_ASSERT(world_.Store(run_id, pick.first.first, pick.first.second, pick.second));
        if (*rc::gen::inRange(0, 4) == 0)  // its answer was lost: it comes again
          RC_ASSERT(world_.Store(run_id, pick.first.first, pick.first.second, pick.second));
        return;
      }
      case 5: {
        const NodeId node = Any(nodes_);
        if (const auto given = world_.state().PullInstruction(node, nullptr, world_.now()))
          world_.Touch(given->run_id, node, given->id);
        return;
      }
      case 6: {
        if (instructions.empty()) return;
        const ObjectId asked = any(instructions);
        const auto& instruction = run.messages.at(asked);
        const ObjectId id = instruction.answer && !run.errors.contains(asked.Hex())
                                ? *instruction.answer  // the same again
                                : Fresh();
        if (run.messages.contains(id)) {
          NewMessage again = world_.Reply(run_id, instruction.dst, asked, id);
          const auto& known = run.messages.at(id);
          again.message = known;
          again.ids = tensor::ParseTree(known.bytes->tree)->ids;
          world_.PushReply(run_id, std::move(again));
        } else {
          world_.PushReply(run_id, world_.Reply(run_id, instruction.dst, asked, id, Below()));
        }
        return;
      }
      case 7:
        if (!instructions.empty()) world_.Collect(run_id, {any(instructions)});
        return;
      default:
        if (!replies.empty()) world_.Confirm(run_id, any(replies));
        return;
    }
  }

  World world_{*rc::gen::arbitrary<uint64_t>()};
  std::vector<std::string> keys_;
  std::vector<NodeId> nodes_;
  uint64_t next_ = 0;
};

TEST(StateRestore, AnswersAsTheStateBeforeIt) {
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = Histories();
  params.maxSize = 100;
  rc::detail::TestMetadata metadata;
  metadata.id = "StateRestore";
  metadata.description = "AnswersAsTheStateBeforeIt";
  const auto result = rc::detail::checkTestable([] { History().Run(); }, metadata, params);
  std::cout << params.maxSuccess << " histories, seed " << params.seed << "\n";
  if (!result.is<rc::detail::SuccessResult>()) {
    std::ostringstream text;
    rc::detail::printResultMessage(result, text);
    FAIL() << text.str();
  }
}

}  // namespace
}  // namespace umbel::superlink
