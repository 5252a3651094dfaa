// The Control door: what a SuperLink without accounts, federation management, a hub, agents and
// automations is asked and does not do. Each answer is a row of a table.
#include <algorithm>
#include <cctype>

#include "flwr/control.pb.h"
#include "superlink/control/control.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr size_t kBodyMax = size_t{16} << 20;  // start-automation brings an app along

/// A request, read for whichever of its fields a row asks for.
struct Asked {
  pb::UnservedTexts texts;
  pb::UnservedNumbers numbers;
};

enum class Name { kNone, kFirst, kSecond, kThird };  // which field names the federation
using Check = Status (*)(Site&, const Asked&);

/// From left to right: the first that fails is the answer.
struct Row {
  std::string_view path;
  Name name = Name::kNone;
  bool needed = false;    // 412/12 without a name
  int other = 0;          // unless 0: the code when the name is not the default federation's
  Check check = nullptr;  // whatever else must be right
  int code = 0;           // the code in the end; 0: an empty message
  std::string_view why;   // goes with it
};

/// A letter, then letters, digits and hyphens.
Status CheckNewName(Site&, const Asked& asked) {
  constexpr size_t kNameMax = 32;
  const std::string& name = asked.texts.first();
  const auto is_letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  const auto is_plain = [&](char c) { return is_letter(c) || c == '-' || (c >= '0' && c <= '9'); };
  if (!name.empty() && name.size() <= kNameMax && is_letter(name[0]) &&
      std::all_of(name.begin(), name.end(), is_plain))
    return {};
  return WireError(wire::kInvalidFederationName,
                   fmt::format("'{}' is not a letter and up to {} letters, digits and hyphens",
                               name.substr(0, 80), kNameMax - 1));
}

Status CheckNode(Site& site, const Asked& asked) {
  const NodeId node_id{asked.numbers.node_id()};
  const bool known =
      site.engine.Read([&](State& state, WallTime) { return state.FindNode(node_id) != nullptr; });
  if (known) return {};
  return WireError(wire::kNodeNotOwned, fmt::format("SuperNode {}", node_id));
}

Status CheckSession(Site&, const Asked& asked) {
  const pb::UnservedTexts& texts = asked.texts;
  if (!texts.first().empty() && !texts.second().empty() && !texts.third().empty()) return {};
  return WireError(wire::kInvalidConnector, "oauth_session_id, code or state is missing");
}

constexpr std::string_view kOne = "this SuperLink serves one federation, @none/default";
constexpr std::string_view kNoAccounts = "this SuperLink has no accounts";
constexpr std::string_view kNoAgents = "this SuperLink runs no agents";
constexpr std::string_view kNoAutomation = "this SuperLink starts no runs by itself";
constexpr std::string_view kNoHub = "this SuperLink fetches no apps from a hub";
constexpr std::string_view kNoSeries = "this SuperLink shows no run series";
constexpr std::string_view kNoArtifacts = "this SuperLink keeps no artifacts";
constexpr std::string_view kNoSimulation = "this SuperLink simulates nothing";

using namespace wire;  // NOLINT: a table of codes

constexpr Row kRows[] = {
    {"/v1/control/get-auth-tokens", Name::kNone, false, 0, nullptr, kNoAccountAuth, kNoAccounts},
    {"/v1/control/refresh-auth-tokens", Name::kNone, false, 0, nullptr, kNotLoggedIn, kNoAccounts},
    {"/v1/control/pull-artifacts", Name::kNone, false, 0, nullptr, kNoArtifactProvider,
     kNoArtifacts},

    {"/v1/control/create-federation", Name::kFirst, true, 0, CheckNewName, kNoFederationManagement,
     kOne},
    {"/v1/control/archive-federation", Name::kFirst, true, 0, nullptr, kNoFederationManagement,
     kOne},
    {"/v1/control/set-federation-icon", Name::kFirst, true, 0, nullptr, kNoFederationManagement,
     kOne},
    {"/v1/control/add-node-to-federation", Name::kFirst, true, kFederationUnknown, CheckNode,
     kNoFederationManagement, kOne},
    {"/v1/control/remove-node-from-federation", Name::kFirst, true, kFederationUnknown, CheckNode,
     kNoFederationManagement, kOne},
    {"/v1/control/remove-account-from-federation", Name::kNone, false, 0, nullptr,
     kNoFederationManagement, kOne},
    {"/v1/control/configure-simulation-federation", Name::kNone, false, 0, nullptr,
     kFederationNotFound, kNoSimulation},
    {"/v1/control/list-invitations", Name::kNone, false, 0, nullptr, kNoFederationManagement, kOne},
    {"/v1/control/create-invitation", Name::kSecond, false, kFederationNotFound, nullptr,
     kNoFederationManagement, kOne},
    {"/v1/control/accept-invitation", Name::kFirst, false, kFederationNotFound, nullptr,
     kNoFederationManagement, kOne},
    {"/v1/control/reject-invitation", Name::kNone, false, 0, nullptr, kNoFederationManagement,
     kOne},
    {"/v1/control/revoke-invitation", Name::kNone, false, 0, nullptr, kNoFederationManagement,
     kOne},

    {"/v1/control/list-apps", Name::kFirst, true, kFederationUnknown, nullptr, 0, ""},
    {"/v1/control/list-app-associations", Name::kNone, false, 0, nullptr, 0, ""},
    {"/v1/control/add-app", Name::kFirst, true, kFederationUnknown, nullptr, kAppDownload, kNoHub},
    {"/v1/control/remove-app", Name::kFirst, true, kFederationUnknown, nullptr, 0, ""},

    {"/v1/control/list-run-series", Name::kThird, false, kFederationUnknown, nullptr, 0, ""},
    {"/v1/control/get-run-series", Name::kNone, false, 0, nullptr, kSeriesNotFound, kNoSeries},
    {"/v1/control/update-run-series-description", Name::kNone, false, 0, nullptr, kSeriesNotFound,
     kNoSeries},
    {"/v1/control/list-run-series-events", Name::kNone, false, 0, nullptr, kSeriesNotFound,
     kNoSeries},

    {"/v1/control/start-automation", Name::kNone, false, 0, nullptr, kInvalidAutomation,
     kNoAutomation},
    {"/v1/control/list-automations", Name::kFirst, false, kFederationUnknown, nullptr, 0, ""},
    {"/v1/control/stop-automation", Name::kNone, false, 0, nullptr, 0, ""},

    {"/v1/control/list-connectors", Name::kFirst, false, kFederationUnknown, nullptr, 0, ""},
    {"/v1/control/disconnect-connector", Name::kThird, true, kFederationUnknown, nullptr,
     kConnectorNotFound, kNoAgents},
    {"/v1/control/begin-connector-oauth", Name::kThird, true, kFederationUnknown, nullptr,
     kConnectorNotFound, kNoAgents},
    {"/v1/control/complete-connector-oauth", Name::kNone, false, 0, CheckSession,
     kConnectorNotFound, kNoAgents},
};

Status Decide(Site& site, const Row& row, const Asked& asked) {
  const std::string& name = row.name == Name::kSecond  ? asked.texts.second()
                            : row.name == Name::kThird ? asked.texts.third()
                                                       : asked.texts.first();
  if (row.needed && name.empty()) return WireError(kFederationNotSpecified);
  // Where no name is needed, none means the default federation; an invitation is to a named one.
  const bool named = !name.empty() || row.other == kFederationNotFound;
  if (row.other != 0 && named && name != kFederation)
    return WireError(row.other, fmt::format("federation '{}'", name.substr(0, 200)));
  if (row.check) UMBEL_TRY(row.check(site, asked));
  if (row.code != 0) return WireError(row.code, std::string(row.why));
  return {};
}

Task<Status> Answer(Site& site, Exchange& exchange) {
  UMBEL_CO_TRY(CheckContentType(exchange));
  UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kBodyMax));
  const Row* row = std::find_if(std::begin(kRows), std::end(kRows),
                                [&](const Row& r) { return r.path == exchange.path(); });
  UMBEL_CHECK(row != std::end(kRows));
  const bool read = row->name != Name::kNone || row->check != nullptr;
  Asked asked;
  pb::NoFields nothing;
  // Each skips what is of another's kind.
  if (read ? !asked.texts.ParseFromString(body) || !asked.numbers.ParseFromString(body)
           : !nothing.ParseFromString(body))
    co_return WireError(kBadProtobuf, fmt::format("the body's {} bytes are not what {} takes",
                                                  body.size(), exchange.path()));
  const Status status = Decide(site, *row, asked);
  if (status.ok()) co_return co_await exchange.Reply({200, "application/protobuf", "", ""});
  site.Audit(exchange, row->path.substr(row->path.rfind('/') + 1), RunId{}, "",
             "refused: " + status.error().message);
  co_return status;
}

}  // namespace

std::span<const Route> UnservedRoutes() {
  static const std::vector<Route> kRoutes = [] {
    std::vector<Route> routes;
    for (const Row& row : kRows) routes.push_back({row.path, Answer});
    return routes;
  }();
  return kRoutes;
}

}  // namespace umbel::superlink
