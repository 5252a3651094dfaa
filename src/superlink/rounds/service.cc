#include "superlink/rounds/service.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "flwr/common.pb.h"
#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/instructions.h"
#include "superlink/rounds/objects.h"
#include "superlink/rounds/plan.h"
#include "superlink/rounds/session.h"
#include "superlink/rounds/signal.h"
#include "tensor/tree.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

// Flower's code of what a mod refuses before anything was done: whoever asked may do it otherwise.
constexpr int kErrorRefused = 6;
constexpr std::chrono::hours kForever{1};

/// A message's tree with the subtree of one of its records.
Result<std::string> SubtreeOf(const std::string& tree, const ObjectId& id) {
  flwr::proto::ObjectTree root;
  if (!root.ParseFromString(tree)) return Fail(Code::kInvalidArgument, "its tree is no protobuf");
  const std::string hex = id.Hex();
  for (const auto& content : root.children())
    for (const auto& record : content.children())
      if (record.object_id() == hex) return record.SerializeAsString();
  return Fail(Code::kInvalidArgument, fmt::format("object {} is not in its tree", hex));
}

/// What a message of type query.umbel_start brings.
struct Start {
  std::string plan;
  std::string model_tree;
};

Result<Start> ReadStart(const Delivery& message, bool with_plan, RunObjects& objects) {
  UMBEL_ASSIGN(const flower::RecordDict records, flower::ReadRecords(message.id, objects));
  UMBEL_ASSIGN(const auto ids, flower::ReadRecordIds(message.id, objects));
  Start start;
  for (size_t i = 0; i < records.size(); ++i) {
    const auto& [name, record] = records[i];
    if (std::holds_alternative<flower::ArrayRecord>(record)) {
      if (!start.model_tree.empty())
        return Fail(Code::kInvalidArgument, "it has more than one ArrayRecord");
      UMBEL_ASSIGN(start.model_tree, SubtreeOf(message.bytes->tree, ids[i].second));
    }
  }
  if (start.model_tree.empty()) return Fail(Code::kInvalidArgument, "it has no ArrayRecord");
  if (with_plan) {
    UMBEL_ASSIGN(start.plan, PlanFromRecords(records));
  }
  return start;
}

class ServiceImpl final : public Service {
 public:
  ServiceImpl(Engine& engine, std::string directory)
      : engine_(engine), directory_(std::move(directory)) {}
  ~ServiceImpl() override { Stop(); }

  Status Begin() {
    if (!directory_.empty()) {
      UMBEL_TRY(MakeDirectories(directory_ + "/rounds"));
      UMBEL_TRY(MakeDirectories(directory_ + "/models"));
    }
    std::vector<store::SessionRow> rows;
    engine_.Read([&](State& state, WallTime) {
      for (const auto& [run_id, run] : state.runs())
        for (const auto& [name, session] : run.native_sessions)
          if (!session.row.model_tree.empty()) rows.push_back(session.row);
    });
    SweepCheckpoints(rows);
    for (const store::SessionRow& row : rows) {
      const Status begun = Add(row);
      if (!begun.ok()) Abandon(row.run_id, row.name, begun.error().message);
    }
    thread_ = std::jthread([this](std::stop_token stop) { Attend(stop); });
    return {};
  }

  void Stop() override {
    if (thread_.joinable()) {
      thread_.request_stop();
      signal_->Wake();
      thread_.join();
    }
    for (auto& [key, worker] : workers_) {
      worker->thread.request_stop();
      worker->signal->Wake();
    }
    workers_.clear();
  }

 private:
  struct Worker {
    std::unique_ptr<Session> session;
    std::shared_ptr<Signal> signal = std::make_shared<Signal>();
    std::jthread thread;  // last: it uses the others
  };
  using Key = std::pair<RunId, std::string>;

  /// The thread of node 1.
  void Attend(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto messages =
          engine_.Read([&](State& state, WallTime) { return state.TakeOwn(signal_); });
      for (const Delivery& message : messages) Serve(message);
      Reap();
      signal_->Wait(std::chrono::seconds(5));
    }
  }

  void Serve(const Delivery& message) {
    flwr::proto::Message parsed;
    static_cast<void>(parsed.ParseFromString(message.bytes->body));
    const std::string& type = parsed.metadata().message_type();
    Status served;
    if (type == "query.umbel_probe") {
      served = Answer(message, ProbeAnswer(message));
    } else if (type == "query.umbel_start") {
      served = Begin(message);
    } else if (type == "query.umbel_step") {
      served = Pass(message);
    } else {
      served = Fail(Code::kInvalidArgument, fmt::format("node 1 does not know '{}'", type));
    }
    if (served.ok()) return;
    static_cast<void>(Answer(message, MakeOwnError(message.bytes->body, kErrorRefused,
                                                   served.error().message, engine_.clock().Now())));
  }

  Status Answer(const Delivery& message, Result<OwnReply> reply) {
    if (!reply.ok()) return Fail(reply.error());
    engine_.Read([&](State& state, WallTime now) {
      if (Run* run = state.FindRun(message.run_id))
        state.AnswerOwn(*run, message.id, std::move(reply->message), std::move(reply->objects),
                        now);
    });
    return {};
  }

  Result<OwnReply> ProbeAnswer(const Delivery& message) {
    flower::ConfigRecord told = {{"protocol", uint64_t{::umbel::rounds::PROTOCOL}},
                                 {"version", std::string(kVersion)},
                                 {"strategies", NativeStrategies()}};
    return MakeOwnReply(message.bytes->body, nullptr, {{"umbel", std::move(told)}},
                        engine_.clock().Now());
  }

  /// query.umbel_start: the run's session, if its plan is here already, else one of its own.
  Status Begin(const Delivery& message) {
    struct Found {
      bool native = false;
      bool begun = false;
      std::string plan;
    };
    const std::string own = message.id.Hex();
    const auto found = engine_.Read([&](State& state, WallTime) -> std::optional<Found> {
      Run* run = state.FindRun(message.run_id);
      if (!run) return std::nullopt;
      Found out{run->native, false, ""};
      const auto session = run->native_sessions.find(run->native ? "" : own);
      if (session == run->native_sessions.end()) return out;
      out.begun = !session->second.row.model_tree.empty();
      out.plan = session->second.row.plan;
      return out;
    });
    if (!found) return {};
    const std::string name = found->native ? "" : own;
    if (found->begun && found->native)
      return Fail(Code::kAlreadyExists, "the rounds of this run have begun");
    if (found->begun) return PassTo({message.run_id, name}, message);  // from before a restart
    RunObjects objects(engine_, message.run_id);
    auto start = ReadStart(message, !found->native, objects);
    if (!start.ok()) {
      if (found->native) Abandon(message.run_id, name, start.error().message);
      return Fail(start.error());
    }
    store::SessionRow row{message.run_id, name, found->native ? found->plan : start->plan, "",
                          start->model_tree};
    auto [begun, commit] = engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      Run* run = state.FindRun(message.run_id);
      if (!run) return false;
      state.PutSession(*run, row, {}, changes);
      if (!found->native) return true;
      state.Withdraw(*run, message.id, changes);
      return state.BeginTask(*run, now, changes).ok();
    });
    UMBEL_TRY(WaitFor(commit));
    if (!begun) return {};
    const Status added = Add(row);
    if (!added.ok()) {
      Abandon(message.run_id, name, added.error().message);
      return added;
    }
    return found->native ? Status() : PassTo({message.run_id, name}, message);
  }

  Status Pass(const Delivery& message) {
    RunObjects objects(engine_, message.run_id);
    UMBEL_ASSIGN(const flower::RecordDict records, flower::ReadRecords(message.id, objects));
    for (const auto& [name, record] : records) {
      const auto* config = std::get_if<flower::ConfigRecord>(&record);
      if (name != "step" || config == nullptr) continue;
      for (const auto& [key, value] : *config)
        if (const auto* text = std::get_if<std::string>(&value); key == "session" && text)
          return PassTo({message.run_id, *text}, message);
    }
    return Fail(Code::kInvalidArgument, "it has no record 'step' with a text 'session'");
  }

  Status PassTo(const Key& key, const Delivery& message) {
    const auto found = workers_.find(key);
    if (found == workers_.end())
      return Fail(Code::kNotFound, fmt::format("this run has no session '{}'", key.second));
    found->second->session->Deliver(message);
    found->second->signal->Wake();
    return {};
  }

  Status Add(const store::SessionRow& row) {
    Session::Setup setup;
    setup.run_id = row.run_id;
    if (!directory_.empty()) {
      setup.checkpoints = directory_ + "/rounds";
      setup.models = directory_ + "/models";
    }
    auto worker = std::make_unique<Worker>();
    UMBEL_ASSIGN(worker->session, Session::Open(engine_, setup, row));
    Worker& live = *worker;
    worker->thread = std::jthread([&live](std::stop_token stop) {
      while (!stop.stop_requested()) {
        const auto until = live.session->Step(live.signal);
        const Micros wait = until ? *until - live.session->Now() : Micros(kForever);
        if (wait > Micros(0)) live.signal->Wait(wait);
      }
    });
    workers_[{row.run_id, row.name}] = std::move(worker);
    return {};
  }

  /// Sessions of runs that are over.
  void Reap() {
    std::erase_if(workers_, [&](auto& entry) {
      const bool over = engine_.Read(
          [&](State& state, WallTime) { return state.FindRun(entry.first.first) == nullptr; });
      if (!over) return false;
      entry.second->thread.request_stop();
      entry.second->signal->Wake();
      entry.second->thread.join();
      return true;
    });
  }

  /// A session that cannot go on; one that is the whole run takes the run with it.
  void Abandon(RunId run_id, const std::string& name, const std::string& why) {
    LogError("native rounds cannot go on", {{"run_id", run_id}, {"session", name}, {"why", why}});
    if (!name.empty()) return;
    const CommitPtr commit = engine_.Apply([&](State& state, WallTime now, Changes& changes) {
      state.FinishTask(run_id, TaskEvent::kFail, why, now, changes);
    });
    static_cast<void>(WaitFor(commit));
  }

  /// Removes what no session names: a process was killed between writing and saying so.
  void SweepCheckpoints(const std::vector<store::SessionRow>& rows) const {
    if (directory_.empty()) return;
    std::set<std::string> named;
    for (const store::SessionRow& row : rows) {
      ::umbel::rounds::Progress progress;
      if (progress.ParseFromString(row.progress)) named.insert(progress.checkpoint());
    }
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/rounds", ignored))
      if (!named.contains(entry.path().string())) std::filesystem::remove(entry.path(), ignored);
  }

  Engine& engine_;
  const std::string directory_;
  std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  std::map<Key, std::unique_ptr<Worker>> workers_;  // the thread of node 1's, but in Stop
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<Service>> Service::Start(Engine& engine, const std::string& directory) {
  auto service = std::make_unique<ServiceImpl>(engine, directory);
  UMBEL_TRY(service->Begin());
  return std::unique_ptr<Service>(std::move(service));
}

}  // namespace umbel::superlink::rounds
