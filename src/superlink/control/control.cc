// The Control door: what the flwr command asks. It starts code on the server and at every site, so
// it answers only peers that may command, and each call is on record.
#include "superlink/control/control.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/log.h"
#include "flower/fab.h"
#include "flwr/control.pb.h"
#include "superlink/wire.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr std::string_view kAccountId = "<id:none>";
constexpr std::string_view kAccountName = "none";
constexpr uint64_t kListedMax = 20;  // runs, unless the request says how many
constexpr double kHeartbeatInterval = 30;

template <typename Request>
Task<Status> Begin(Exchange& exchange, Request* request, size_t limit = kControlRequestMax) {
  co_return co_await ReadMessage(exchange, request, limit);
}

/// For routes whose request has nothing we read.
Task<Status> BeginEmpty(Exchange& exchange) {
  pb::NoFields request;
  co_return co_await Begin(exchange, &request);
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// `@account/app`, or `@account/app==1.2.3`.
bool IsAppSpec(std::string_view spec) {
  const auto part = [](std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
    });
  };
  const auto digits = [](std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (const size_t at = spec.find("=="); at != std::string_view::npos) {
    const std::string_view version = spec.substr(at + 2);
    const size_t dot = version.find('.');
    const size_t second = dot == std::string_view::npos ? dot : version.find('.', dot + 1);
    if (second == std::string_view::npos || !digits(version.substr(0, dot)) ||
        !digits(version.substr(dot + 1, second - dot - 1)) || !digits(version.substr(second + 1)))
      return false;
    spec = spec.substr(0, at);
  }
  const size_t slash = spec.find('/');
  return !spec.empty() && spec[0] == '@' && slash != std::string_view::npos &&
         part(spec.substr(1, slash - 1)) && part(spec.substr(slash + 1));
}

/// What can be said of a start-run request without opening its FAB.
Status CheckRequest(const pb::StartRunRequest& request) {
  if (!request.federation().empty() && request.federation() != kFederation)
    return WireError(wire::kFederationNotFound, request.federation().substr(0, 200));
  const std::string app = request.app_spec().substr(0, 200);
  if (!app.empty() && !IsAppSpec(request.app_spec()))
    return WireError(wire::kInvalidAppSpec,
                     fmt::format("'{}' is not @account/app or @account/app==1.2.3", app));
  if (!app.empty() || request.fab().content().empty())
    return WireError(wire::kAppDownload,
                     fmt::format("app '{}' would come from a hub; send its own files", app));
  for (const std::string& ref : request.connector_refs())
    if (Trim(ref).empty()) return WireError(wire::kInvalidConnector, "connector_ref is empty");
  if (!request.connector_refs().empty() || !request.connector_ids().empty())
    return WireError(wire::kConnectorNotFound, "connectors serve agents only");
  for (const auto& [key, value] : request.override_config())
    if (value.scalar_case() == pb::Scalar::SCALAR_NOT_SET || value.has_bytes())
      return WireError(
          wire::kInvalidRunConfig,
          fmt::format("run config: '{}' is not a bool, int, float or string", key.substr(0, 200)));
  return {};
}

/// What can be said of it with its FAB.
Status CheckApp(const pb::StartRunRequest& request, const flower::FabInfo& fab) {
  for (const auto& [key, value] : request.override_config())
    UMBEL_TRY(flower::CheckOverrideKey(fab, key));
  if (fab.agentapp.empty()) return {};
  if (Trim(request.user_prompt()).empty()) return WireError(wire::kUserPromptRequired);
  return WireError(wire::kInvalidRunConfig, "agent apps are not run by this SuperLink");
}

}  // namespace

Task<Result<AcceptedRun>> AcceptRun(Site& site, Exchange& exchange,
                                    std::shared_ptr<pb::StartRunRequest> shared,
                                    std::optional<std::string> native_plan) {
  pb::StartRunRequest& request = *shared;
  const auto refuse = [&](tl::unexpected<Error> error) {
    site.Audit(exchange, "start-run", RunId{}, request.fab().hash_str(),
               fmt::format("refused: {} {}", flower::PublicText(error.value().wire_code),
                           error.value().message));
    return error;
  };
  if (const Status fits = CheckRequest(request); !fits.ok()) co_return refuse(Fail(fits.error()));
  if (request.fab().content().size() > flower::kFabMax)
    co_return refuse(WireError(wire::kInvalidRunConfig, "the FAB is larger than 10 MiB"));
  auto read_fab = [shared] { return flower::ReadFab(shared->fab().content()); };
  const auto fab = co_await OnPool(site, exchange, std::move(read_fab));
  if (!fab.ok()) co_return refuse(Fail(fab.error()));
  if (const Status fits = CheckApp(request, *fab); !fits.ok()) co_return refuse(Fail(fits.error()));
  if (request.has_series_id()) {
    const auto read_series = [&store = site.engine.store(), id = SeriesId{request.series_id()}] {
      return store.ReadSeries(id);
    };
    const auto series = co_await OnPool(site, exchange, read_series);
    if (!series.ok())
      co_return refuse(WireError(wire::kSeriesUnusable,
                                 fmt::format("run series {} is not known", request.series_id())));
  }
  pb::StartRunRequest kept;
  *kept.mutable_override_config() = request.override_config();
  AcceptedRun accepted;
  const bool native = native_plan.has_value();
  auto [known_series, commit] =
      site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
        State::NewRun spec;
        spec.fab_id = fab->fab_id;
        spec.fab_version = fab->version;
        spec.fab_hash = fab->hash;
        spec.override_config = kept.SerializeAsString();
        spec.federation = std::string(kFederation);
        spec.series_id = SeriesId{request.series_id()};
        spec.native_plan = std::move(native_plan);
        const bool continues = request.has_series_id();
        changes.writes.push_back(store::PutFab{{fab->hash, request.fab().content()}});
        const Run& run = state.StartRun(std::move(spec), now, changes);
        accepted = {run.row, run.task.token};
        if (!continues)
          changes.writes.push_back(store::PutSeries{{accepted.row.series_id, "", now}});
        return continues;
      });
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  site.Audit(exchange, native ? "start-native-run" : "start-run", accepted.row.run_id,
             fab->hash.Hex(), "accepted");
  LogInfo("run is pending", {{"run_id", accepted.row.run_id}, {"app", fab->fab_id}});
  co_return accepted;
}

namespace {

Task<Status> StartRun(Site& site, Exchange& exchange) {
  // Shared with the pool's thread, which goes on reading when the peer has gone.
  auto request = std::make_shared<pb::StartRunRequest>();
  UMBEL_CO_TRY(co_await Begin(exchange, request.get(), kStartRunMax));
  const bool too_large =
      CheckRequest(*request).ok() && request->fab().content().size() > flower::kFabMax;
  auto accepted = co_await AcceptRun(site, exchange, std::move(request), std::nullopt);
  // As Flower answers one: with nothing.
  if (too_large && !accepted.ok())
    co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
  if (!accepted.ok()) co_return Fail(accepted.error());
  pb::StartRunResponse response;
  response.set_run_id(accepted->row.run_id.value);
  response.set_series_id(accepted->row.series_id.value);
  response.set_federation(accepted->row.federation);
  co_return co_await ReplyMessage(exchange, response);
}

/// Overlays what is known of live runs.
void Refresh(Site& site, std::vector<store::RunListing>& listings) {
  site.engine.Read([&](State& state, WallTime) {
    for (store::RunListing& listing : listings)
      if (const Run* run = state.FindRun(listing.run.run_id)) listing = {run->Shown(), run->task};
  });
}

}  // namespace

Task<Result<store::RunListing>> FindListing(Site& site, Exchange& exchange, RunId run_id) {
  const auto live = site.engine.Read([&](State& state, WallTime) {
    Run* run = state.FindRun(run_id);
    return run ? std::optional<store::RunListing>({run->Shown(), run->task}) : std::nullopt;
  });
  if (live) co_return *live;
  const auto read = [&store = site.engine.store(), run_id] { return store.ReadRun(run_id); };
  auto stored = co_await OnPool(site, exchange, read);
  if (stored.ok()) co_return std::move(*stored);
  if (stored.error().code != Code::kNotFound) co_return Fail(stored.error());
  co_return WireError(wire::kRunIdNotFound, fmt::format("run {}", run_id));
}

namespace {

Task<Status> StopRun(Site& site, Exchange& exchange) {
  pb::StopRunRequest request;
  UMBEL_CO_TRY(co_await Begin(exchange, &request));
  const RunId run_id{request.run_id()};
  UMBEL_CO_ASSIGN(const store::RunListing listing, co_await FindListing(site, exchange, run_id));
  if (listing.task.status == TaskStatus::kFinished)
    co_return WireError(wire::kRunAlreadyFinished, fmt::format("run {}", run_id));
  auto [stopped, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.FinishTask(run_id, TaskEvent::kStop, "", now, changes);
  });
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  site.Audit(exchange, "stop-run", run_id, listing.run.fab_hash.Hex(), "stopped");
  pb::StopRunResponse response;
  response.set_success(stopped);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> ListRuns(Site& site, Exchange& exchange) {
  pb::ListRunsRequest request;
  UMBEL_CO_TRY(co_await Begin(exchange, &request));
  pb::ListRunsResponse response;
  response.set_now(IsoFormat(site.engine.clock().Now()));
  std::vector<store::RunListing> listings;
  if (request.has_run_id()) {
    UMBEL_CO_ASSIGN(store::RunListing one,
                    co_await FindListing(site, exchange, RunId{request.run_id()}));
    listings.push_back(std::move(one));
  } else {
    const uint64_t limit = request.has_limit() ? request.limit() : kListedMax;
    const auto read = [&store = site.engine.store(), limit, skip = request.skip()] {
      return store.ListRuns(limit, skip);
    };
    auto stored = co_await OnPool(site, exchange, read);
    if (!stored.ok()) co_return Fail(stored.error());
    listings = std::move(*stored);
    Refresh(site, listings);
  }
  for (const store::RunListing& listing : listings)
    EncodeRun(listing.run, listing.task, &(*response.mutable_run_dict())[listing.run.run_id.value]);
  co_return co_await ReplyMessage(exchange, response);
}

/// "latitude,longitude" in degrees.
Status CheckLocation(std::string_view location) {
  const auto number = [](std::string_view text) {
    text = Trim(text);
    if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && !text.empty() ? value
                                                                                     : std::nan("");
  };
  const size_t comma = location.find(',');
  const bool two =
      comma != std::string_view::npos && location.find(',', comma + 1) == std::string_view::npos;
  // A NaN fails both comparisons.
  if (two && std::fabs(number(location.substr(0, comma))) <= 90 &&
      std::fabs(number(location.substr(comma + 1))) <= 180)
    return {};
  return WireError(wire::kInvalidLocation,
                   fmt::format("location '{}' is not latitude,longitude in [-90, 90],[-180, 180]",
                               location.substr(0, 80)));
}

Task<Status> RegisterNode(Site& site, Exchange& exchange) {
  pb::RegisterNodeControlRequest request;
  UMBEL_CO_TRY(co_await Begin(exchange, &request));
  const std::string& pem = request.public_key();
  if (const auto key = flower::NodeKey::FromPem(pem); !key.ok()) {
    site.Audit(exchange, "register-node", RunId{}, "", "refused: " + key.error().message);
    co_return WireError(wire::kPublicKeyNotValid, key.error().message);
  }
  if (request.has_location())
    if (const Status valid = CheckLocation(request.location()); !valid.ok()) {
      site.Audit(exchange, "register-node", RunId{}, "", "refused: " + valid.error().message);
      co_return Fail(valid.error());
    }
  auto [node_id, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.RegisterNode({pem, std::string(kAccountId), std::string(kAccountName),
                               request.name(), request.location(), kHeartbeatInterval},
                              now, changes);
  });
  site.Audit(exchange, "register-node", RunId{}, "",
             node_id.ok() ? fmt::format("node {}", *node_id) : "refused: key in use");
  if (!node_id.ok()) co_return Fail(node_id.error());
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  pb::RegisterNodeControlResponse response;
  response.set_node_id(node_id->value);
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> UnregisterNode(Site& site, Exchange& exchange) {
  pb::NodeIdRequest request;
  UMBEL_CO_TRY(co_await Begin(exchange, &request));
  auto [status, commit] = site.engine.Apply([&](State& state, WallTime now, Changes& changes) {
    return state.UnregisterNode(NodeId{request.node_id()}, now, changes);
  });
  site.Audit(exchange, "unregister-node", RunId{}, "",
             fmt::format("node {}: {}", request.node_id(), status.ok() ? "done" : "not found"));
  if (!status.ok()) co_return WireError(wire::kNodeNotFound, status.error().message);
  UMBEL_CO_TRY(co_await Durable(exchange, commit));
  co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
}

Task<Status> ListNodes(Site& site, Exchange& exchange) {
  UMBEL_CO_TRY(co_await BeginEmpty(exchange));
  pb::ListNodesResponse response;
  response.set_now(IsoFormat(site.engine.clock().Now()));
  for (const store::NodeRow& row :
       site.engine.Read([](State&state, WallTime) { return state.ListNodes(false); }))
    EncodeNode(row, response.add_nodes_info());
  co_return co_await ReplyMessage(exchange, response);
}

void DescribeFederation(pb::Federation* federation) {
  federation->set_name(std::string(kFederation));
  federation->set_description("The default federation.");
  pb::Member* member = federation->add_members();
  member->mutable_account()->set_id(std::string(kAccountId));
  member->mutable_account()->set_name(std::string(kAccountName));
  member->set_role("owner");
  federation->set_member_count(1);
}

Task<Status> ListFederations(Site&, Exchange& exchange) {
  UMBEL_CO_TRY(co_await BeginEmpty(exchange));
  pb::ListFederationsResponse response;
  DescribeFederation(response.add_federations());
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> ShowFederation(Site& site, Exchange& exchange) {
  pb::ShowFederationRequest request;
  UMBEL_CO_TRY(co_await Begin(exchange, &request));
  if (request.federation_name().empty()) co_return WireError(wire::kFederationNotSpecified);
  if (request.federation_name() != kFederation)
    co_return WireError(wire::kFederationNotMember, request.federation_name().substr(0, 200));
  pb::ShowFederationResponse response;
  response.set_now(IsoFormat(site.engine.clock().Now()));
  pb::Federation* federation = response.mutable_federation();
  DescribeFederation(federation);
  for (const store::NodeRow& row :
       site.engine.Read([](State&state, WallTime) { return state.ListNodes(false); }))
    EncodeNode(row, federation->add_nodes());
  const auto read = [&store = site.engine.store()] { return store.ListRuns(1000, 0); };
  auto listings = co_await OnPool(site, exchange, read);
  if (!listings.ok()) co_return Fail(listings.error());
  Refresh(site, *listings);
  for (const store::RunListing& listing : *listings) {
    EncodeRun(listing.run, listing.task, federation->add_runs());
    federation->mutable_runs()->rbegin()->clear_account_name();
  }
  co_return co_await ReplyMessage(exchange, response);
}

Task<Status> GetLoginDetails(Site&, Exchange& exchange) {
  UMBEL_CO_TRY(co_await BeginEmpty(exchange));
  pb::GetLoginDetailsResponse response;
  response.set_authn_type("noop");
  co_return co_await ReplyMessage(exchange, response);
}

constexpr Route kRoutes[] = {
    {"/v1/control/start-run", StartRun},
    {"/v1/control/stop-run", StopRun},
    {"/v1/control/list-runs", ListRuns},
    {"/v1/control/stream-logs", StreamLogs},
    {"/v1/control/stream-run-events", StreamRunEvents},
    {"/v1/control/register-node", RegisterNode},
    {"/v1/control/unregister-node", UnregisterNode},
    {"/v1/control/list-nodes", ListNodes},
    {"/v1/control/list-federations", ListFederations},
    {"/v1/control/show-federation", ShowFederation},
    {"/v1/control/get-login-details", GetLoginDetails},
};

}  // namespace

std::span<const Route> ControlRoutes() {
  static const std::vector<Route> kAll = [] {
    std::vector<Route> all(std::begin(kRoutes), std::end(kRoutes));
    const std::span<const Route> refused = UnservedRoutes();
    all.insert(all.end(), refused.begin(), refused.end());
    return all;
  }();
  return kAll;
}

}  // namespace umbel::superlink
