// POST /v1/umbel/...: native rounds, for whoever may command.
#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <filesystem>
#include <set>

#include "aggregation/strategy.h"
#include "base/file.h"
#include "base/version.h"
#include "flwr/control.pb.h"
#include "superlink/control/control.h"
#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/npz.h"
#include "superlink/rounds/plan.h"
#include "superlink/rounds/safetensors.h"
#include "tensor/frame.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink {
namespace pb = ::umbel::rounds;
namespace {

constexpr std::string_view kStream = "application/flower-protobuf-stream";
constexpr uint64_t kRowsTogether = 100;

Task<Status> GetCapabilities(Site&, Exchange& exchange) {
  pb::GetCapabilitiesRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  pb::GetCapabilitiesResponse response;
  response.set_protocol(pb::PROTOCOL);
  response.set_version(std::string(kVersion));
  for (std::string& name : rounds::NativeStrategies()) response.add_strategies(std::move(name));
  co_return co_await ReplyMessage(exchange, response);
}

Status CheckPlan(const std::string& plan) {
  UMBEL_ASSIGN(const rounds::Plan read, rounds::ReadPlan(plan));
  if (rounds::RunsNatively(read.strategy)) return {};
  return Fail(Code::kUnimplemented,
              fmt::format("strategy {} does not run natively yet: use its class in a ServerApp",
                          read.strategy.base().name()));
}

Task<Status> StartNativeRun(Site& site, Exchange& exchange) {
  pb::StartNativeRunRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kStartRunMax));
  std::string plan = request.plan().SerializeAsString();
  if (const Status plan_ok = CheckPlan(plan); !plan_ok.ok()) {
    const std::string& why = plan_ok.error().message;
    site.Audit(exchange, "start-native-run", RunId{}, request.run().fab().hash_str(),
               "refused: " + why);
    co_return WireError(wire::kInvalidRunConfig, why);
  }
  auto run = std::make_shared<flwr::proto::StartRunRequest>();
  run->Swap(request.mutable_run());
  UMBEL_CO_ASSIGN(const AcceptedRun accepted,
                  co_await AcceptRun(site, exchange, std::move(run), std::move(plan)));
  pb::StartNativeRunResponse response;
  response.set_run_id(accepted.row.run_id.value);
  response.set_series_id(accepted.row.series_id.value);
  response.set_federation(accepted.row.federation);
  response.set_token(accepted.token);
  co_return co_await ReplyMessage(exchange, response);
}

/// ended  the run is gone from the State, a moment before its last record is durable.
Result<std::vector<store::RoundRow>> ReadRecords(store::Store& store, RunId run_id, uint64_t after,
                                                 bool ended) {
  if (ended) UMBEL_TRY(store.Drain());
  return store.ReadRounds(run_id, after, kRowsTogether);
}

/// For callers that read whole answers: a long poll.
Task<Status> WatchOnce(Site& site, Exchange& exchange, RunId run_id, uint64_t after) {
  const HoldPlan plan = PlanHold(exchange, true);
  for (bool last = false;;) {
    const auto before = LogVersion(site, run_id);
    const auto read = [&store = site.engine.store(), run_id, after, ended = !before] {
      return ReadRecords(store, run_id, after, ended);
    };
    const auto rows = co_await OnPool(site, exchange, read);
    if (!rows.ok()) co_return Fail(rows.error());
    if (!rows->empty() || !before || last) {
      std::string frames;
      for (const store::RoundRow& row : *rows) frames += tensor::EncodeFrame(row.record);
      co_return co_await exchange.Reply({200, std::string(kStream), std::move(frames), ""});
    }
    const bool unchanged = site.engine.Read([&](State& state, WallTime) {
      Run* run = state.FindRun(run_id);
      if (!run || run->log_version != *before) return false;
      run->log_waiters.Add(exchange.waker());
      return true;
    });
    if (!unchanged) continue;
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    last = end != http::HoldEnd::kWoken;
  }
}

/// Each record goes out when it is there; the stream ends with the run.
Task<Status> WatchRounds(Site& site, Exchange& exchange) {
  pb::WatchRoundsRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  const RunId run_id{request.run_id()};
  const auto known = co_await FindListing(site, exchange, run_id);
  if (!known.ok()) co_return Fail(known.error());
  if (request.once()) co_return co_await WatchOnce(site, exchange, run_id, request.after());
  UMBEL_CO_TRY(co_await exchange.BeginStream(std::string(kStream)));
  for (uint64_t after = request.after();;) {
    // Asked before reading: what is told meanwhile shows as a change.
    const auto before = LogVersion(site, run_id);
    const auto read = [&store = site.engine.store(), run_id, after, ended = !before] {
      return ReadRecords(store, run_id, after, ended);
    };
    const auto rows = co_await OnPool(site, exchange, read);
    if (!rows.ok()) co_return Fail(rows.error());
    for (const store::RoundRow& row : *rows) {
      after = row.sequence;
      const std::string frame = tensor::EncodeFrame(row.record);
      UMBEL_CO_TRY(co_await exchange.WriteStream(frame));
    }
    if (!rows->empty()) continue;
    if (!before) break;
    UMBEL_CO_ASSIGN(const bool more, co_await AwaitLog(site, exchange, run_id, *before));
    if (!more) break;
  }
  co_return co_await exchange.EndStream();
}

/// The kept model of a round, or the newest there is.
Result<std::string> FindModel(const std::string& models, RunId run_id,
                              std::optional<uint32_t> round) {
  const std::filesystem::path folder = rounds::ModelFolder(models, run_id);
  std::set<uint32_t> kept;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    unsigned number = 0;
    char end = 0;
    if (std::sscanf(entry.path().filename().c_str(), "round-%u.np%c", &number, &end) != 2 ||
        entry.path().extension() != ".npz")
      continue;
    kept.insert(number);
  }
  if (round ? kept.contains(*round) : !kept.empty())
    return rounds::ModelPath(models, run_id, round ? *round : *kept.rbegin());
  return Fail(Code::kNotFound,
              fmt::format("run {} has no model{}; kept are those of rounds: {}", run_id,
                          round ? fmt::format(" of round {}", *round) : "",
                          kept.empty() ? "none" : fmt::format("{}", fmt::join(kept, ", "))));
}

Task<Status> GetModel(Site& site, Exchange& exchange) {
  pb::GetModelRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  const RunId run_id{request.run_id()};
  const auto known = co_await FindListing(site, exchange, run_id);
  if (!known.ok()) co_return Fail(known.error());
  std::optional<uint32_t> round;
  if (request.has_round()) round = request.round();
  const std::string models = site.engine.store().directory() + "/models";
  const auto path = FindModel(models, run_id, round);
  if (!path.ok()) co_return Fail(Code::kNotFound, path.error().message, 404);
  Fd file;
  if (request.format() == pb::GetModelRequest::SAFETENSORS) {
    const auto make = [npz = *path, models] { return rounds::MakeSafetensors(npz, models); };
    auto made = co_await OnPool(site, exchange, make);
    if (!made.ok()) co_return Fail(made.error());
    file = *std::move(made);
  } else if (request.format() == pb::GetModelRequest::NPZ) {
    file = Fd(::open(path->c_str(), O_RDONLY | O_CLOEXEC));
  } else {
    co_return Fail(Code::kInvalidArgument,
                   fmt::format("there is no format {} of models", int{request.format()}), 400);
  }
  struct stat about {};
  if (!file.valid() || ::fstat(file.get(), &about) != 0) co_return Fail(SystemError("open", *path));
  co_return co_await exchange.ReplyFile("application/octet-stream", "", file.get(), 0,
                                        static_cast<uint64_t>(about.st_size));
}

/// A long poll, for who has just started the nodes.
Task<Status> WatchNodes(Site& site, Exchange& exchange) {
  pb::WatchNodesRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  const HoldPlan plan = PlanHold(exchange, true);
  for (bool last = false;;) {
    const size_t online = site.engine.Read([&](State& state, WallTime) {
      const size_t now = state.online_nodes();
      if (now < request.online_min()) state.node_waiters().Add(exchange.waker());
      return now;
    });
    if (online >= request.online_min() || last) {
      pb::WatchNodesResponse response;
      response.set_online(static_cast<uint32_t>(online));
      co_return co_await ReplyMessage(exchange, response);
    }
    const http::HoldEnd end = co_await exchange.Hold(plan.deadline, plan.interim);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    last = end != http::HoldEnd::kWoken;
  }
}

constexpr Route kRoutes[] = {
    {"/v1/umbel/get-capabilities", GetCapabilities}, {"/v1/umbel/start-native-run", StartNativeRun},
    {"/v1/umbel/watch-rounds", WatchRounds},         {"/v1/umbel/get-model", GetModel},
    {"/v1/umbel/watch-nodes", WatchNodes},
};

}  // namespace

std::span<const Route> UmbelRoutes() { return kRoutes; }

}  // namespace umbel::superlink
