// Native rounds in a world that does its worst: calls of nodes are dropped, delayed, repeated and
// reordered, nodes go away, forget and lie, and the SuperLink is killed wherever it looks at its
// clock or its disk, which then has lost whatever nobody was told to be durable. One thread, one
// clock, one seed; the SuperLink's Engine and Session are the real ones.
//
// UMBEL_SEEDS says how many histories, UMBEL_SEED which is the first, and without the other the
// only one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>

#include "base/testing.h"
#include "flower/proto_bytes.h"
#include "flower/record_bytes.h"
#include "flower/record_json.h"
#include "flwr/common.pb.h"
#include "superlink/rounds/machine.h"
#include "superlink/rounds/model.h"
#include "superlink/rounds/session.h"
#include "superlink/rounds/simulation_testing.h"
#include "tensor/npy.h"
#include "tensor/object.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

namespace pb = ::umbel::rounds;
using tensor::ObjectType;
using testing::Disk;
using testing::Fate;
using testing::Killed;
using testing::SimClock;
using testing::SimStore;

constexpr double kHeartbeat = 30;     // seconds; a node lapses after twice that
constexpr size_t kWildEvents = 1200;  // then nothing fails any more, and the run has to end
constexpr size_t kEventsMax = 60'000;
constexpr size_t kCallsMax = 200;     // on their way
constexpr size_t kAtOnce = 3;         // of one node
constexpr double kGrid = 1.0 / 1024;  // of all values: their sums are exact in 128 bits
constexpr std::string_view kWeight = "num-examples";

/// What is wrong with a history.
struct Fault {
  std::string what;
};
void Require(bool condition, const std::string& what) {
  if (!condition) throw Fault{what};
}

/// What has happened in all histories: a world in which nothing does shows nothing.
struct Tally {
  uint64_t events = 0, kills = 0, kills_in_steps = 0, lost_batches = 0, checkpoints = 0, held = 0;
  uint64_t accepted = 0, refused = 0, late_or_gone = 0;
};

/// What a node answers.
enum class Kind { kHonest, kError, kNan, kWideNan, kShape, kNoWeight, kBadWeight, kKeys };
constexpr Kind kKinds[] = {Kind::kWideNan, Kind::kHonest,   Kind::kError,     Kind::kNan,
                           Kind::kShape,   Kind::kNoWeight, Kind::kBadWeight, Kind::kKeys};

Outcome OutcomeOf(Kind kind, bool train) {
  switch (kind) {
    case Kind::kHonest:
      return Outcome::kAccepted;
    case Kind::kError:
      return Outcome::kFailed;
    case Kind::kNan:
    case Kind::kWideNan:
      return train ? Outcome::kNonFinite : Outcome::kAccepted;
    case Kind::kShape:
      return train ? Outcome::kWrongShape : Outcome::kAccepted;
    case Kind::kNoWeight:
      return Outcome::kNoWeight;
    case Kind::kBadWeight:
      return Outcome::kBadWeight;
    case Kind::kKeys:
      return train ? Outcome::kWrongKeys : Outcome::kAccepted;
  }
  return Outcome::kMalformed;
}

/// The model: two arrays.
struct Values {
  std::vector<int64_t> small;  // of "a", float32, in units of kGrid
  std::vector<int64_t> wide;   // of "b", float64
};

struct Reply {
  NodeId node;
  Kind kind = Kind::kHonest;
  Values values;
  int64_t weight = 1;
  int64_t metric = 0;
  std::map<ObjectId, std::string> objects;
  std::set<ObjectId> chunks;  // of those
  NewMessage message;
  bool begun = false;     // a push of it was accepted
  bool complete = false;  // the node was told that all of it is stored
};

/// A phase as the nodes know it.
using PhaseKey = std::pair<uint32_t, bool>;  // round, train

struct Work {
  PhaseKey phase;
  std::string body;  // of the instruction
  enum { kFetching, kWorking, kPushing, kSending, kDone } stage = kFetching;
  std::shared_ptr<Reply> reply;
  std::string session;
  std::set<ObjectId> left;
};

struct SimNode {
  std::string key;
  NodeId id;
  bool up = true;
  uint64_t life = 0;              // how often it has forgotten everything
  size_t calls = 0;               // that it waits for
  std::map<ObjectId, Work> work;  // by instruction
};

/// A call of a node, on its way to the SuperLink, inside of it, or on its way back.
struct Call {
  enum What { kPull, kTouch, kPush, kObject } what = kPull;
  size_t node = 0;
  uint64_t life = 0;  // of the node
  bool echo = false;  // a network has repeated it: nobody waits for the answer
  ObjectId instruction;
  ObjectId object;
  std::string session;
  std::shared_ptr<Reply> reply;
  // From here on it has been heard.
  CommitPtr commit;
  uint64_t number = 0;
  PushOutcome pushed;
  std::optional<Delivery> pulled;
  bool stored = false;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), engine_rng_(seed ^ 0x5eed), clock_(fate_) {}

  void Run() {
    Draw();
    Boot();
    Begin();
    const WallTime began = clock_.now();
    for (size_t event = 0; !over_; ++event) {
      Require(event < kEventsMax, "the run does not end");
      if (event == kWildEvents) Calm();
      ++tally_.events;
      Happen();
    }
    const double seconds = std::chrono::duration<double>(clock_.now() - began).count();
    const double allowed = 1.5 * (calm_at_ + rounds_ * 2 * (timeout_ + 4 * kHeartbeat) + 1000);
    Require(seconds <= allowed, fmt::format("it took {} s, more than {}", seconds, allowed));
    CheckEnd();
  }

  const Tally& tally() const { return tally_; }
  std::string History() const {
    std::string text;
    for (const std::string& line : history_) text += line + "\n";
    return text;
  }

 private:
  // --- chance ------------------------------------------------------------------------------------
  uint64_t Below(uint64_t n) { return random_() % n; }
  bool Chance(double p) { return static_cast<double>(random_() >> 11) * 0x1p-53 < p; }
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Below(static_cast<uint64_t>(high - low + 1)));
  }

  template <typename... Args>
  void Note(fmt::format_string<Args...> format, Args&&... args) {
    history_.push_back(fmt::format("{:10.3f} ", UnixSeconds(clock_.now()) - 1.8e9) +
                       fmt::format(format, std::forward<Args>(args)...));
    if (history_.size() > 80) history_.pop_front();
  }

  // --- the beginning -----------------------------------------------------------------------------
  void Draw() {
    rounds_ = static_cast<uint32_t>(Between(1, 4));
    timeout_ = static_cast<double>(Chance(0.3) ? Between(400, 1500) : Between(40, 400));
    nodes_.resize(static_cast<size_t>(Between(2, 8)));
    for (size_t i = 0; i < nodes_.size(); ++i) nodes_[i].key = fmt::format("key {}", i);
    small_size_ = Chance(0.1) ? 20'000 : static_cast<size_t>(Between(1, 40));  // or outside of rows
    wide_size_ = static_cast<size_t>(Between(0, 5));
    liars_ = Chance(0.5) ? 0.2 : 0;
    deaths_ = Chance(0.8) ? 0.25 : 0;
    losses_ = Chance(0.7) ? 0.1 : 0;
    absences_ = Chance(0.5) ? 0.01 : 0;
    oblivion_ = timeout_ >= 400 ? 0.05 : 0;
    stops_ = Chance(0.15) ? 0.002 : 0;
    plan_.set_strategy("FedAvg");
    plan_.set_num_rounds(rounds_);
    plan_.set_timeout(timeout_);
    plan_.set_seed(random_() | 1);
    plan_.set_spool_models(static_cast<double>(Between(1, 8)) / 2);
    auto& parameters = *plan_.mutable_parameters();
    parameters["min_available_nodes"].set_uint64(2);
    parameters["min_train_nodes"].set_uint64(2);
    parameters["min_evaluate_nodes"].set_uint64(Chance(0.5) ? 2 : 1);
    if (Chance(0.3)) parameters["fraction_train"].set_double_(0.5);
    if (Chance(0.3)) parameters["fraction_evaluate"].set_double_(0);
    if (Chance(0.3)) plan_.set_close_train_at(static_cast<uint32_t>(Between(1, 4)));
    if (Chance(0.2)) plan_.set_close_evaluate_at(1);
  }

  /// A process over what the disk has.
  void Boot() {
    fate_.Set(0);
    auto store = std::make_unique<SimStore>(disk_, fate_, folder_.path());
    store_ = store.get();
    auto engine = Engine::Open(std::move(store), false, clock_, engine_rng_);
    Require(engine.ok(), "the engine does not open");
    engine_ = *std::move(engine);
    waiter_ = std::make_shared<superlink::testing::Waiter>();
    step_at_ = clock_.now();
    if (run_id_ && !engine_->Read([&](State& s, WallTime) { return s.FindRun(run_id_); })) {
      over_ = true;
      for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/rounds"))
        std::filesystem::remove(entry.path());  // as below; the run names none
      return;
    }
    if (run_id_) {
      Sweep();
      OpenSession();
    }
  }

  /// As the Service does at its start: no row names such a file.
  void Sweep() {
    std::string named;
    engine_->Read([&](State& state, WallTime) {
      pb::Progress progress;
      progress.ParseFromString(state.FindRun(run_id_)->native_sessions.at("").row.progress);
      named = progress.checkpoint();
    });
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path() + "/rounds"))
      if (entry.path().string() != named) std::filesystem::remove(entry.path());
  }

  void OpenSession() {
    const store::SessionRow row = engine_->Read(
        [&](State& state, WallTime) { return state.FindRun(run_id_)->native_sessions.at("").row; });
    Session::Setup setup{run_id_, folder_.path() + "/rounds", folder_.path() + "/models", 0};
    if (Chance(deaths_ / 2)) fate_.Set(static_cast<uint64_t>(Between(1, 10)));
    Watch([&] {
      auto session = Session::Open(*engine_, setup, row);
      if (!session.ok()) throw Fault{"the session does not open: " + session.error().message};
      session_ = *std::move(session);
    });
  }

  void Begin() {
    std::filesystem::create_directories(folder_.path() + "/rounds");
    std::filesystem::create_directories(folder_.path() + "/models");
    for (SimNode& node : nodes_) {
      engine_->Apply([&](State& state, WallTime now, Changes& changes) {
        node.id = *state.RegisterNode({node.key, "", "", node.key, "", 0}, now, changes);
        static_cast<void>(state.ActivateNode(node.key, kHeartbeat, now, changes));
      });
    }
    Values zero;
    zero.small.resize(small_size_);
    zero.wide.resize(wide_size_);
    for (int64_t& v : zero.small) v = Between(-1000, 1000);
    model_ = Bits(zero);
    engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      State::NewRun spec;
      spec.fab_id = "umbel/simulated";
      spec.native_plan = plan_.SerializeAsString();
      run_id_ = state.StartRun(std::move(spec), now, changes).row.run_id;
    });
    store_->CommitAll();
    std::vector<NewArray> arrays;
    for (const auto& [name, bits] : model_)
      arrays.push_back({name,
                        name == "a" ? "<f4" : "<f8",
                        {uint64_t{bits.size() / (name == "a" ? 4 : 8)}},
                        [&bits = bits, item = name == "a" ? 4 : 8](uint64_t first, uint64_t,
                                                                   std::span<char> out) {
                          std::copy_n(bits.data() + first * static_cast<uint64_t>(item), out.size(),
                                      out.data());
                          return Status();
                        }});
    auto made = WriteModel(*engine_, run_id_, {std::move(arrays), {}});
    Require(made.ok(), "the initial model is not written");
    engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      ::umbel::superlink::Run& run = *state.FindRun(run_id_);
      state.PutSession(run, {run_id_, "", plan_.SerializeAsString(), "", made->tree},
                       std::move(made->objects), changes);
      Require(state.BeginTask(run, now, changes).ok(), "the task does not begin");
    });
    store_->CommitAll();
    engine_->Read([&](State& state, WallTime) { state.ModelStored(*state.FindRun(run_id_), ""); });
    OpenSession();
  }

  using ModelBits = std::vector<std::pair<std::string, std::string>>;
  static ModelBits Bits(const Values& values) {
    ModelBits model = {{"a", ""}, {"b", ""}};
    for (const int64_t v : values.small) {
      const float value = static_cast<float>(static_cast<double>(v) * kGrid);
      model[0].second.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    for (const int64_t v : values.wide) {
      const double value = static_cast<double>(v) * kGrid;
      model[1].second.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    return model;
  }

  // --- what happens ------------------------------------------------------------------------------
  /// From here on the world is kind.
  void Calm() {
    Note("it is calm now");
    deaths_ = losses_ = absences_ = oblivion_ = stops_ = 0;
    calm_at_ = UnixSeconds(clock_.now()) - 1.8e9;
    calm_ = true;
    for (size_t i = 0; i < nodes_.size(); ++i) Return(i);
  }

  void Happen() {
    const bool due = waiter_->Take() || clock_.now() >= step_at_;
    woken_ |= due;
    if (woken_ && Chance(0.5)) return Step();
    if (Chance(deaths_ / 150)) return Die("between steps");
    if (Chance(absences_)) return Leave();
    if (Chance(0.02)) return Return(Below(nodes_.size()));
    if (Chance(absences_ / 2)) return Restart(Below(nodes_.size()));
    if (Chance(oblivion_)) return Forget();
    if (Chance(stops_)) return Stop();
    if (Chance(0.05)) return store_->CommitAll();
    if (Chance(0.1)) return Pass();
    if (!calls_.empty() && Chance(0.4)) return Hear();
    if (!inside_.empty() && Chance(0.4)) return Answer();
    Act(Below(nodes_.size()));
  }

  /// Time goes by, and the SuperLink notices.
  void Pass() {
    const bool idle = calls_.empty() && inside_.empty();
    Pass(idle && Chance(0.2) ? 20 : std::ldexp(1.0, static_cast<int>(Between(-10, 3))));
  }
  void Pass(double seconds) {
    clock_.Advance(Micros(static_cast<int64_t>(seconds * 1e6)));
    for (SimNode& node : nodes_) {
      if (!node.up) continue;
      engine_->Apply([&](State& state, WallTime now, Changes& changes) {
        static_cast<void>(state.NodeHeartbeat(node.id, kHeartbeat, now, changes));
      });
    }
    engine_->Apply([&](State& state, WallTime now, Changes& changes) { state.Tick(now, changes); });
    MarkOffline();
  }

  /// Who is offline now has been disturbed in this phase.
  void MarkOffline() {
    engine_->Read([&](State& state, WallTime) {
      for (const SimNode& node : nodes_)
        if (state.FindNode(node.id)->status != NodeStatus::kOnline) disturbed_.insert(node.id);
    });
  }

  void Leave() {
    const size_t i = Below(nodes_.size());
    SimNode& node = nodes_[i];
    if (!node.up) return;
    node.up = false;
    const bool says_so = Chance(0.5);
    Note("node {} leaves{}", i, says_so ? "" : " without a word");
    if (says_so)
      engine_->Apply([&](State& state, WallTime now, Changes& changes) {
        static_cast<void>(state.DeactivateNode(node.id, now, changes));
      });
    MarkOffline();
  }

  void Return(size_t i) {
    if (!nodes_[i].up) Activate(i, Chance(0.5));
  }
  /// A node is killed and started again, faster than anybody sees.
  void Restart(size_t i) {
    if (nodes_[i].up) Activate(i, true);
  }

  /// A node that has sent half of a reply is started again, twice: then, and after the half was
  /// dropped. What it answers in the end is another reply to the same instruction.
  void Forget() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].up) continue;
      for (const auto& [id, work] : nodes_[i].work) {
        if (work.stage != Work::kSending || work.left.size() > 1) continue;
        Restart(i);
        Note("time for its half a reply to be dropped");
        for (int n = 0; n < 10; ++n) Pass(20);
        Restart(i);
        return;
      }
    }
  }

  void Activate(size_t i, bool forgot) {
    SimNode& node = nodes_[i];
    node.up = true;
    Note("node {} is back{}", i, forgot ? ", and has forgotten" : "");
    if (forgot) {
      if (!node.work.empty()) disturbed_.insert(node.id);
      node.work.clear();
      ++node.life;
      node.calls = 0;
    }
    engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      static_cast<void>(state.ActivateNode(node.key, kHeartbeat, now, changes));
    });
  }

  /// Somebody has had enough.
  void Stop() {
    Note("stopped");
    engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      state.FinishTask(run_id_, TaskEvent::kStop, "", now, changes);
    });
  }

  /// The session does what it can; it may die of it.
  void Step() {
    woken_ = false;
    if (!session_) return;
    if (Chance(deaths_)) fate_.Set(static_cast<uint64_t>(Between(1, 40)));
    Watch([&] {
      const auto until = session_->Step(waiter_);
      step_at_ = until ? *until : clock_.now() + std::chrono::hours(1000);
    });
  }

  /// Runs a piece of the SuperLink that commits as it goes, and looks at what it has done.
  template <typename F>
  void Watch(F&& f) {
    store_->Automatic(true);
    try {
      f();
    } catch (const Killed&) {
      return Die("in a step");
    }
    fate_.Set(0);
    store_->CommitAll();
    store_->Automatic(false);
    Look();
  }

  void Die(std::string_view where) {
    fate_.Set(0);
    const auto [seen, submitted] = store_->Fates();
    const size_t survivors = seen + Below(submitted - seen + 1);
    Note("killed {}: {} of {} batches stay, {} were seen", where, survivors, submitted, seen);
    ++tally_.kills;
    tally_.kills_in_steps += where == "in a step";
    tally_.lost_batches += submitted - survivors;
    store_->Die(survivors);
    session_.reset();
    engine_.reset();
    // What was under way is lost, whichever way it went.
    calls_.clear();
    inside_.clear();
    for (SimNode& node : nodes_) node.calls = 0;
    clock_.Advance(std::chrono::milliseconds(Between(1, 20'000)));
    Boot();
    if (!over_) Look();
  }

  // --- nodes -------------------------------------------------------------------------------------
  void Act(size_t i) {
    SimNode& node = nodes_[i];
    if (!node.up || calls_.size() >= kCallsMax) return;
    if (node.calls >= kAtOnce) return;
    std::vector<ObjectId> todo;
    for (const auto& [id, work] : node.work)
      if (work.stage != Work::kDone) todo.push_back(id);
    Call call;
    call.node = i;
    call.life = node.life;
    if (todo.empty() || Chance(0.1)) return Issue(std::move(call));
    call.instruction = todo[Below(todo.size())];
    Work& work = node.work.at(call.instruction);
    if (work.stage != Work::kSending && node.calls > 0) return;  // only objects go side by side
    switch (work.stage) {
      case Work::kFetching:
        call.what = Call::kTouch;
        break;
      case Work::kWorking:
        if (Chance(0.6)) return;
        work.reply = MakeReply(node, call.instruction, work);
        work.stage = Work::kPushing;
        [[fallthrough]];
      case Work::kPushing:
        call.what = Call::kPush;
        call.reply = work.reply;
        break;
      case Work::kSending: {
        call.what = Call::kObject;
        // Mostly as our nodes do it: what says where chunks belong comes before them.
        std::vector<ObjectId> next;
        for (const ObjectId& id : work.left)
          if (!work.reply->chunks.contains(id)) next.push_back(id);
        if (next.empty() || Chance(0.1)) next.assign(work.left.begin(), work.left.end());
        call.object = next[Below(next.size())];
        call.session = work.session;
        call.reply = work.reply;
        break;
      }
      case Work::kDone:
        return;
    }
    Issue(std::move(call));
  }

  void Issue(Call call) {
    ++nodes_[call.node].calls;
    calls_.push_back(std::move(call));
  }
  /// The node has an answer, or has seen the connection break.
  void Settle(const Call& call) {
    SimNode& node = nodes_[call.node];
    if (!call.echo && call.life == node.life) --node.calls;
  }

  /// One of the calls under way arrives, or does not, or does so twice.
  void Hear() {
    const size_t i = Below(calls_.size());
    Call call = calls_[i];
    if (Chance(losses_ / 4)) {
      calls_[i].echo = true;
    } else {
      std::swap(calls_[i], calls_.back());
      calls_.pop_back();
    }
    if (Chance(losses_)) return Settle(call);
    const NodeId node = nodes_[call.node].id;
    bool held = false;
    auto [known, commit] = engine_->Apply([&](State& state, WallTime now, Changes& changes) {
      ::umbel::superlink::Run* run = state.FindRun(run_id_);
      if (!run) return false;
      switch (call.what) {
        case Call::kPull:
          call.pulled = state.PullInstruction(node, nullptr, now);
          break;
        case Call::kTouch:
          state.TouchInstruction(*run, node, call.instruction, changes);
          break;
        case Call::kPush: {
          NewMessage fresh = call.reply->message;
          call.pushed = state.PushReply(*run, node, std::move(fresh), now, changes);
          call.reply->begun |= call.pushed.accepted;
          break;
        }
        case Call::kObject: {
          const auto upload = state.CheckUpload(*run, node, call.object, call.session, now);
          if (upload == State::Upload::kRefused) return false;
          if (upload == State::Upload::kAlreadyHere) break;
          held = call.reply->chunks.contains(call.object) && !state.LetIn(*run, node, nullptr, now);
          if (held) return false;
          const std::string& bytes = call.reply->objects.at(call.object);
          store::ObjectRow row;
          row.run_id = run_id_;
          row.object_id = call.object;
          row.size = bytes.size();
          ExtentPtr extent;
          if (bytes.size() < (size_t{64} << 10)) {
            row.content = bytes;
          } else {
            const auto place = engine_->segments().Allocate(run_id_, bytes.size());
            Require(place.ok() && engine_->segments().Write(*place, 0, bytes).ok(), "no space");
            extent = engine_->OwnExtent(*place);
            row.segment = place->segment;
            row.offset = place->offset;
          }
          call.number = state.KeepObject(*run, std::move(row), std::move(extent), changes);
          if (call.number == 0) return false;
          break;
        }
      }
      return true;
    });
    if (held) {  // the connection is not read on
      ++tally_.held;
      if (!call.echo) calls_.push_back(std::move(call));
      return;
    }
    call.commit = commit;
    call.stored = known;
    inside_.push_back(std::move(call));
  }

  /// The SuperLink answers one of the calls it has heard, once that is durable; the answer may be
  /// lost.
  void Answer() {
    const size_t i = Below(inside_.size());
    if (!inside_[i].commit->done()) return store_->CommitAll();
    Call call = std::move(inside_[i]);
    std::swap(inside_[i], inside_.back());
    inside_.pop_back();
    SimNode& node = nodes_[call.node];
    if (call.what == Call::kObject && call.stored)
      call.stored = engine_->Read([&](State& state, WallTime now) {
        ::umbel::superlink::Run* run = state.FindRun(run_id_);
        return run &&
               state.ObjectStored(*run, node.id, call.object, call.session, call.number, now);
      });
    Settle(call);
    if (Chance(losses_) || !node.up || call.echo || call.life != node.life) return;
    if (call.what == Call::kPull) {
      if (call.pulled) Take(node, *call.pulled);
      return;
    }
    const auto found = node.work.find(call.instruction);
    if (found == node.work.end()) return;
    Work& work = found->second;
    if (call.what == Call::kTouch) {
      if (work.stage == Work::kFetching) work.stage = Work::kWorking;
      return;
    }
    if (work.reply != call.reply) return;  // of before it forgot
    if (call.what == Call::kPush) {
      if (work.stage != Work::kPushing && work.stage != Work::kSending) return;
      if (!call.stored || (!call.pushed.accepted)) {
        Note("node {}'s reply is not taken", call.node);
        disturbed_.insert(node.id);
        work.stage = Work::kDone;
        return;
      }
      work.session = call.pushed.session_id;
      work.left = {call.pushed.objects_to_push.begin(), call.pushed.objects_to_push.end()};
      work.stage = Work::kSending;
    } else if (work.stage == Work::kSending) {
      if (!call.stored) {
        if (work.session != call.session) return;  // of a push before the last
        Note("node {}'s object is not taken", call.node);
        disturbed_.insert(node.id);
        work.stage = Work::kDone;
        return;
      }
      work.left.erase(call.object);
    }
    if (work.stage == Work::kSending && work.left.empty()) {
      Note("node {} has answered round {} {}", call.node, work.phase.first,
           work.phase.second ? "train" : "evaluate");
      work.reply->complete = true;
      work.stage = Work::kDone;
    }
  }

  /// An instruction has come.
  void Take(SimNode& node, const Delivery& delivery) {
    if (node.work.contains(delivery.id)) return;
    flwr::proto::Message message;
    Require(message.ParseFromString(delivery.bytes->body), "an instruction is no protobuf");
    Work work;
    const auto phase = phases_.find(delivery.id);
    Require(phase != phases_.end(), "an instruction nobody was seen to give");
    work.phase = phase->second;
    work.body = delivery.bytes->body;
    const auto tree = tensor::ParseTree(delivery.bytes->tree);
    Require(tree.ok(), "an instruction without a tree");
    engine_->Read([&](State& state, WallTime) {
      ::umbel::superlink::Run* run = state.FindRun(run_id_);
      if (!run || !run->messages.contains(delivery.id)) return;  // withdrawn meanwhile
      for (const ObjectId& id : tree->ids)
        Require(run->objects.at(id).available, "an object of an instruction is not there");
    });
    Note("node {} takes round {} {}", &node - nodes_.data(), work.phase.first,
         work.phase.second ? "train" : "evaluate");
    node.work.emplace(delivery.id, std::move(work));
  }

  // --- replies -----------------------------------------------------------------------------------
  static ObjectId Put(ObjectType type, std::vector<ObjectId> children, std::string_view body,
                      std::map<ObjectId, std::string>& objects) {
    std::string whole = tensor::MakeObject(type, children, body);
    const ObjectId id = tensor::ObjectIdOf(whole);
    objects[id] = std::move(whole);
    return id;
  }

  std::shared_ptr<Reply> MakeReply(const SimNode& node, const ObjectId& instruction,
                                   const Work& work) {
    auto reply = std::make_shared<Reply>();
    reply->node = node.id;
    if (Chance(liars_)) reply->kind = kKinds[Below(std::size(kKinds))];
    reply->weight = Between(1, 1000);
    reply->metric = Between(-1'000'000, 1'000'000);
    flwr::proto::Message asked;
    asked.ParseFromString(work.body);
    flwr::proto::Message answer;
    auto* metadata = answer.mutable_metadata();
    *metadata = asked.metadata();
    metadata->clear_message_id();
    metadata->set_reply_to_message_id(instruction.Hex());
    metadata->set_src_node_id(node.id.value);
    metadata->set_dst_node_id(kSuperLinkNode.value);
    metadata->set_created_at(UnixSeconds(clock_.now()));
    metadata->set_ttl(asked.metadata().created_at() + asked.metadata().ttl() -
                      metadata->created_at());
    tensor::TreeNode root;
    if (reply->kind == Kind::kError) {
      answer.mutable_error()->set_code(4);
      answer.mutable_error()->set_reason("simulated");
      root.id =
          Put(ObjectType::kMessage, {}, flower::SerializeDeterministic(answer), reply->objects);
    } else {
      tensor::TreeNode content = MakeContent(*reply, work.phase.second);
      root.id = Put(ObjectType::kMessage, {content.id}, flower::SerializeDeterministic(answer),
                    reply->objects);
      root.children.push_back(std::move(content));
      answer.mutable_content();
    }
    metadata->set_message_id(root.id.Hex());
    NewMessage& fresh = reply->message;
    fresh.message.id = root.id;
    fresh.message.src = node.id;
    fresh.message.dst = kSuperLinkNode;
    fresh.message.reply_to = instruction.Hex();
    fresh.message.group_id = metadata->group_id();
    fresh.message.type = metadata->message_type();
    fresh.message.created_at = metadata->created_at();
    fresh.message.ttl = metadata->ttl();
    const std::string tree = tensor::EncodeTree(root);
    fresh.ids = tensor::ParseTree(tree)->ids;
    fresh.message.bytes =
        std::make_shared<MessageBytes>(MessageBytes{answer.SerializeAsString(), tree});
    sent_[{work.phase, node.id}].push_back(reply);
    return reply;
  }

  tensor::TreeNode MakeContent(Reply& reply, bool train) {
    std::vector<tensor::TreeNode> below;
    flower::Ordered<ObjectId> names;
    if (train) {
      reply.values.small.resize(small_size_);
      reply.values.wide.resize(wide_size_);
      for (int64_t& v : reply.values.small) v = Between(-1'000'000, 1'000'000);
      for (int64_t& v : reply.values.wide) v = Between(-1'000'000, 1'000'000);
      ModelBits bits = Bits(reply.values);
      if (reply.kind == Kind::kWideNan) bits[0].second.assign(small_size_ * 8, '\xff');
      if (reply.kind == Kind::kNan) {
        const float nan = std::nanf("");
        bits[0].second.replace(bits[0].second.size() - 4, 4, reinterpret_cast<const char*>(&nan),
                               4);
      }
      if (reply.kind == Kind::kShape) bits[1].second += std::string(8, '\0');
      if (reply.kind == Kind::kKeys) bits[1].first = "c";
      tensor::TreeNode arrays;
      flower::Ordered<ObjectId> array_names;
      std::vector<ObjectId> ids;
      for (const auto& [name, data] : bits) {
        const bool small = name == "a" && reply.kind != Kind::kWideNan;
        const uint64_t shape[] = {data.size() / (small ? 4 : 8)};
        const ObjectId chunk =
            Put(ObjectType::kArrayChunk, {},
                tensor::MakeNpyHead(small ? "<f4" : "<f8", shape) + data, reply.objects);
        const ObjectId array = Put(ObjectType::kArray, {chunk},
                                   flower::WriteArray({small ? "float32" : "float64",
                                                       {static_cast<int64_t>(shape[0])},
                                                       "numpy.ndarray",
                                                       {0}}),
                                   reply.objects);
        reply.chunks.insert(chunk);
        array_names.emplace_back(name, array);
        ids.push_back(array);
        arrays.children.push_back({array, {{chunk, {}}}});
      }
      arrays.id =
          Put(ObjectType::kArrayRecord, ids, flower::WriteNames(array_names), reply.objects);
      names.emplace_back("arrays", arrays.id);
      below.push_back(std::move(arrays));
    }
    flower::MetricRecord metrics = {{"metric", static_cast<double>(reply.metric)}};
    if (reply.kind == Kind::kBadWeight) {
      metrics.emplace_back(std::string(kWeight), int64_t{0});
    } else if (reply.kind != Kind::kNoWeight) {
      metrics.emplace_back(std::string(kWeight), reply.weight);
    }
    const ObjectId record =
        Put(ObjectType::kMetricRecord, {}, *flower::EncodeMetrics(metrics), reply.objects);
    names.emplace_back("metrics", record);
    below.push_back({record, {}});
    std::vector<ObjectId> ids;
    for (const auto& node : below) ids.push_back(node.id);
    tensor::TreeNode content;
    content.id = Put(ObjectType::kRecordDict, ids, flower::WriteNames(names), reply.objects);
    content.children = std::move(below);
    return content;
  }

  // --- what must hold ----------------------------------------------------------------------------
  /// After everything that the session did: what is told of it is true, and nothing is kept for
  /// longer than needed.
  void Look() {
    const auto rows = store_->ReadRounds(run_id_, told_, 1000);
    for (const store::RoundRow& row : *rows) {
      Require(row.sequence == told_ + 1, fmt::format("record {} after {}", row.sequence, told_));
      told_ = row.sequence;
      pb::RoundRecord record;
      Require(record.ParseFromString(row.record), "a record is no protobuf");
      CheckRecord(record);
    }
    pb::Progress progress;
    bool gone = false;
    engine_->Read([&](State& state, WallTime) {
      ::umbel::superlink::Run* run = state.FindRun(run_id_);
      gone = run == nullptr;
      if (gone) return;
      const store::SessionRow& row = run->native_sessions.at("").row;
      Require(progress.ParseFromString(row.progress), "a progress is no protobuf");
      tree_ = row.model_tree;
      CheckKept(*run, progress);
    });
    if (gone) {
      over_ = true;
      return;
    }
    CheckPhase(progress);
    CheckModel();
    if (progress.checkpoint() != checkpoint_ && !progress.checkpoint().empty())
      ++tally_.checkpoints;
    checkpoint_ = progress.checkpoint();
  }

  void CheckPhase(const pb::Progress& progress) {
    const auto phase = static_cast<Phase>(progress.phase());
    std::set<Phase> reachable = {phase_};
    for (bool grew = true; grew;) {
      grew = false;
      for (const auto& step : kPhaseTransitions)
        if (reachable.contains(step.from) && step.event != PhaseEvent::kFailed)
          grew |= reachable.insert(step.to).second;
    }
    Require(progress.failure().empty(), "the session failed: " + progress.failure());
    Require(reachable.contains(phase), fmt::format("phase {} after {}", Name(phase), Name(phase_)));
    Require(progress.round() >= round_ && progress.round() <= round_ + 1,
            fmt::format("round {} after {}", progress.round(), round_));
    if (phase != phase_ || progress.round() != round_) {
      Note("round {} {}", progress.round(), Name(phase));
      const PhaseKey key{progress.round(), IsTrain(phase)};
      if (phase == Phase::kTrain || phase == Phase::kEvaluate) {
        Require(asked_.insert(key).second, "a phase was asked twice");
        disturbed_.clear();
        MarkOffline();
        for (const pb::Asked& asked : progress.asked()) {
          ObjectId id;
          std::copy_n(asked.instruction().begin(), id.bytes.size(), id.bytes.begin());
          phases_[id] = key;
        }
      }
    }
    phase_ = phase;
    round_ = progress.round();
  }

  /// Objects are the model's and those of messages; between phases there are no messages.
  void CheckKept(::umbel::superlink::Run& run, const pb::Progress& progress) {
    const auto phase = static_cast<Phase>(progress.phase());
    std::set<ObjectId> wanted;
    const auto want = [&](const std::string& tree) {
      const auto parsed = tensor::ParseTree(tree);
      wanted.insert(parsed->ids.begin(), parsed->ids.end());
    };
    want(tree_);
    for (const auto& [id, message] : run.messages) want(message.bytes->tree);
    for (const auto& [id, slot] : run.objects)
      Require(wanted.contains(id), "an object that nothing names");
    if (phase == Phase::kTrain || phase == Phase::kEvaluate) return;
    Require(run.messages.empty(), fmt::format("{} messages between phases", run.messages.size()));
    Require(run.errors.empty() && run.made_objects.empty(), "errors between phases");
    Require(progress.checkpoint().empty(), "a checkpoint between phases");
  }

  /// The model in the SuperLink is the one that was calculated.
  void CheckModel() {
    if (tree_ == checked_tree_) return;
    const auto model = LoadModel(*engine_, run_id_, tree_);
    Require(model.ok(), "the model cannot be read");
    Require(model->arrays.size() == model_.size(), "the model has other arrays");
    for (size_t a = 0; a < model_.size(); ++a) {
      const ModelArray& array = model->arrays[a];
      std::string bits(array.data_bytes(), '\0');
      Require(array.name == model_[a].first, "the model has another array");
      Require(array.file.Read(array.npy.data_offset, bits).ok(), "an array cannot be read");
      Require(bits == model_[a].second, "the model is not the exact mean of what was accepted");
    }
    checked_tree_ = tree_;
  }

  void CheckRecord(const pb::RoundRecord& record) {
    if (record.kind() == "end") {
      Require(std::exchange(ended_, true) == false, "the end is told twice");
      Require(record.outcome() == "completed", "the end is: " + record.outcome());
      return;
    }
    const PhaseKey key{record.round(), record.kind() == "train"};
    Require(asked_.contains(key), "a record of a phase that was not asked");
    Require(recorded_.insert(key).second, "a phase is told twice");
    std::vector<std::vector<std::shared_ptr<Reply>>> accepted;
    for (const pb::NodeOutcome& told : record.phase().nodes()) {
      const NodeId node{told.node_id()};
      const auto& replies = sent_[{key, node}];
      if (told.outcome() == Name(Outcome::kAccepted)) {
        std::vector<std::shared_ptr<Reply>> candidates;
        for (const auto& reply : replies)
          if (reply->begun && OutcomeOf(reply->kind, key.second) == Outcome::kAccepted)
            candidates.push_back(reply);
        Require(!candidates.empty(), fmt::format("node {} has sent nothing to accept", node));
        accepted.push_back(std::move(candidates));
      }
      CheckOutcome(told, node, key.second, replies);
      const bool silent =
          told.outcome() == Name(Outcome::kLate) || told.outcome() == Name(Outcome::kFailed);
      if (told.outcome() == Name(Outcome::kAccepted)) {
        ++tally_.accepted;
      } else {
        ++(silent ? tally_.late_or_gone : tally_.refused);
      }
    }
    Note("{} of {} accepted", accepted.size(), record.phase().nodes_size());
    Require(record.phase().accepted() == accepted.size(), "a wrong count");
    if (accepted.empty()) return;
    std::vector<const Reply*> chosen;
    Require(Explain(record, key.second, accepted, chosen),
            "no choice of one reply for each accepted node explains the result");
  }

  /// What a node was told to be stored counts for what it is, unless the node was offline.
  void CheckOutcome(const pb::NodeOutcome& told, NodeId node, bool train,
                    const std::vector<std::shared_ptr<Reply>>& replies) {
    std::set<std::string_view> allowed = {Name(Outcome::kLate), Name(Outcome::kFailed)};
    for (const auto& reply : replies) allowed.insert(Name(OutcomeOf(reply->kind, train)));
    for (const auto& reply : replies)
      if (reply->complete && !disturbed_.contains(node))
        allowed = {Name(OutcomeOf(reply->kind, train))};
    Require(allowed.contains(told.outcome()),
            fmt::format("node {} is {}: {}", node, told.outcome(), told.detail()));
  }

  /// Whether one reply of each node has the model and the metric as its mean.
  bool Explain(const pb::RoundRecord& record, bool train,
               const std::vector<std::vector<std::shared_ptr<Reply>>>& accepted,
               std::vector<const Reply*>& chosen) {
    if (chosen.size() < accepted.size()) {
      for (const auto& reply : accepted[chosen.size()]) {
        chosen.push_back(reply.get());
        if (Explain(record, train, accepted, chosen)) return true;
        chosen.pop_back();
      }
      return false;
    }
    __int128 weights = 0;
    __int128 metric = 0;
    for (const Reply* reply : chosen) {
      weights += reply->weight;
      metric += static_cast<__int128>(reply->metric) * reply->weight;
    }
    const auto mean = [&](__int128 sum) {
      return static_cast<__float128>(sum) / static_cast<__float128>(weights);
    };
    const double told = record.phase().metrics().items(0).value().double_();
    if (record.phase().metrics().items(0).key() != "metric" ||
        told != static_cast<double>(mean(metric)))
      return false;
    if (!train) return true;
    ModelBits bits = {{"a", ""}, {"b", ""}};
    for (size_t i = 0; i < small_size_ + wide_size_; ++i) {
      __int128 sum = 0;
      for (const Reply* reply : chosen)
        sum += static_cast<__int128>(i < small_size_ ? reply->values.small[i]
                                                     : reply->values.wide[i - small_size_]) *
               reply->weight;
      const __float128 exact = mean(sum) * static_cast<__float128>(kGrid);
      if (i < small_size_) {
        const float value = static_cast<float>(exact);
        bits[0].second.append(reinterpret_cast<const char*>(&value), sizeof value);
      } else {
        const double value = static_cast<double>(exact);
        bits[1].second.append(reinterpret_cast<const char*>(&value), sizeof value);
      }
    }
    model_ = std::move(bits);  // CheckModel compares: the metric has named the replies
    return true;
  }

  void CheckEnd() {
    store_->CommitAll();
    const Disk disk = store_->Live();
    if (disk.rows.tasks.at(run_id_).sub_status == "stopped") {
      Require(!ended_, "an end is told of a run that was stopped");
    } else {
      Require(ended_, "the end is not told");
      const bool evaluates = !plan_.parameters().contains("fraction_evaluate");
      Require(recorded_.size() == rounds_ * (evaluates ? 2 : 1),
              fmt::format("{} phases are told", recorded_.size()));
      Require(disk.rows.tasks.at(run_id_).sub_status == "completed", "the run is not completed");
    }
    Require(disk.rows.messages.empty(), "messages are left");
    Require(disk.rows.objects.empty(), "objects are left");
    Require(disk.rows.sessions.empty(), "a session is left");
    Require(std::filesystem::is_empty(folder_.path() + "/rounds"), "a checkpoint is left");
    session_.reset();
    engine_.reset();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path()))
      Require(!entry.is_regular_file() || entry.path().extension() == ".npz" ||
                  entry.path().string().find("/objects/") == std::string::npos,
              entry.path().string() + " is left");
  }

  std::mt19937_64 random_;
  SeededRng engine_rng_;
  umbel::testing::TempDir folder_;
  Fate fate_;
  SimClock clock_;
  Disk disk_;
  std::deque<std::string> history_;
  Tally tally_;

  // What was drawn.
  pb::Plan plan_;
  uint32_t rounds_ = 0;
  double timeout_ = 0;
  size_t small_size_ = 0;
  size_t wide_size_ = 0;
  double liars_ = 0;     // share of replies that are not honest
  double deaths_ = 0;    // share of steps that end in one
  double losses_ = 0;    // of calls, of answers, and of calls that come once more
  double absences_ = 0;  // of events
  double oblivion_ = 0;  // of events
  double stops_ = 0;     // of events

  // The process.
  SimStore* store_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Session> session_;
  std::shared_ptr<superlink::testing::Waiter> waiter_;
  WallTime step_at_;
  bool woken_ = false;

  // The world around it.
  std::vector<SimNode> nodes_;
  std::vector<Call> calls_;   // on their way
  std::vector<Call> inside_;  // heard, not answered
  bool calm_ = false;
  double calm_at_ = 0;

  // What is known of the run.
  RunId run_id_;
  ModelBits model_;  // as it should be
  std::string tree_;
  std::string checked_tree_;
  std::string checkpoint_;
  Phase phase_ = Phase::kPrepare;
  uint32_t round_ = 0;
  uint64_t told_ = 0;  // records
  bool ended_ = false;
  bool over_ = false;
  std::set<PhaseKey> asked_;
  std::set<PhaseKey> recorded_;
  std::map<ObjectId, PhaseKey> phases_;  // of instructions
  std::map<std::pair<PhaseKey, NodeId>, std::vector<std::shared_ptr<Reply>>> sent_;
  std::set<NodeId> disturbed_;  // nodes that may be late or failed in this phase
};

TEST(Simulation, EveryHistoryEndsWithTheExactMeanOfWhatWasAccepted) {
  const char* one = std::getenv("UMBEL_SEED");
  const char* asked = std::getenv("UMBEL_SEEDS");
  const uint64_t first = one ? std::strtoull(one, nullptr, 10) : std::random_device{}();
  const uint64_t count = asked ? std::strtoull(asked, nullptr, 10) : one ? 1 : 150;
  std::printf("%llu histories from seed %llu (UMBEL_SEED=... replays one)\n",
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(first));
  std::fflush(stdout);
  int faults = 0;
  Tally all;
  for (uint64_t seed = first; seed < first + count && faults < 5; ++seed) {
    Simulation simulation(seed);
    try {
      simulation.Run();
    } catch (const Fault& fault) {
      ++faults;
      ADD_FAILURE() << "UMBEL_SEED=" << seed << ": " << fault.what << "\n" << simulation.History();
    }
    const Tally& one_more = simulation.tally();
    all.events += one_more.events;
    all.kills += one_more.kills;
    all.kills_in_steps += one_more.kills_in_steps;
    all.lost_batches += one_more.lost_batches;
    all.checkpoints += one_more.checkpoints;
    all.held += one_more.held;
    all.accepted += one_more.accepted;
    all.refused += one_more.refused;
    all.late_or_gone += one_more.late_or_gone;
    if (one && std::getenv("UMBEL_HISTORY")) std::printf("%s", simulation.History().c_str());
  }
  fmt::print(
      "{} events; {} kills, {} of them in steps; {} batches lost; {} checkpoints; {} objects "
      "held back; {} replies accepted, {} refused, {} late or gone\n",
      all.events, all.kills, all.kills_in_steps, all.lost_batches, all.checkpoints, all.held,
      all.accepted, all.refused, all.late_or_gone);
}

}  // namespace
}  // namespace umbel::superlink::rounds
