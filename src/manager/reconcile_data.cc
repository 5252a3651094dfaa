// Data: a server on each learner node, a part of its data for each learner, mock data.
#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "manager/ports.h"
#include "manager/reconciler.h"

namespace umbel::manager {
namespace {

constexpr std::string_view kLearnerAddon = "FLOps-learner";
/// As FLOps names whom the platform itself belongs to.
constexpr const char* kPlatform = "Infrastructure_Provider";
constexpr uint32_t kShareRetries = 20;  // the server may just be starting

std::string NameOfData(const std::string& node) {
  return std::string(NamesOf(Kind::kData).prefix) + ShortHash(node);
}

}  // namespace

const Service* Reconciler::FindData(const std::string& node) const {
  for (const Service& service : view_.services)
    if (service.kind == Kind::kData && service.name == NameOfData(node)) return &service;
  return nullptr;
}

Reconciler::Moved Reconciler::EnsureData() {
  if (p_.options.dataserver.empty()) return false;
  // From the first that wants one on.
  bool wanted = std::any_of(view_.services.begin(), view_.services.end(), [](const Service& each) {
    return each.kind == Kind::kData || each.kind == Kind::kMock;
  });
  for (const Project& project : view_.projects) {
    if (wanted || !project.live()) continue;
    const auto sla = ParseSla(project.sla);
    wanted = sla.ok() && !sla->data_tags.empty();
  }
  if (!wanted) return false;
  for (const orchestrator::Node& node : p_.ground.Nodes()) {
    if (!node.addons.contains(std::string(kLearnerAddon))) continue;
    const Service* service = FindData(node.name);
    if (!service) return MakeDataService(node.name);
    UMBEL_ASSIGN(const bool made,
                 EnsureInstance(*service, DataSpec(p_.options, *service, node.name), 0));
    if (made) return true;
  }
  return EnsureMocks();
}

Reconciler::Moved Reconciler::MakeDataService(const std::string& node) {
  std::set<uint16_t> taken;
  for (const Service& each : view_.services) taken.insert(each.port);
  Service service;
  service.id = p_.ids.Next();
  service.kind = Kind::kData;
  service.name = NameOfData(node);
  service.customer = kPlatform;
  service.created_at = Now();
  UMBEL_ASSIGN(service.port, ChoosePort(p_.options.data_port, taken));
  UMBEL_ASSIGN(const std::vector<App> apps,
               p_.store.Read([](Connection& db) { return ListApps(db); }));
  std::optional<App> made;
  for (const App& app : apps)
    if (app.name == "mldata" && app.customer == kPlatform) service.app_id = app.id;
  if (service.app_id.empty()) {
    made = App{p_.ids.Next(), "mldata", "mldata", kPlatform, ""};
    service.app_id = made->id;
  }
  UMBEL_TRY(MakeDirectories(fmt::format("{}/data/{}", p_.options.state, node)));
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    if (made) UMBEL_TRY(InsertApp(db, *made));
    return PutService(db, service);
  }));
  return true;
}

Reconciler::Moved Reconciler::EnsureMocks() {
  std::vector<std::string> locations;
  for (const Service& service : view_.services) {
    if (service.kind != Kind::kData) continue;
    const Instance* instance = FindInstance(service, 0);
    if (!instance || instance->state != InstanceState::kRunning) return false;  // not yet
    locations.push_back(DataLocation(service));
  }
  if (locations.empty()) return false;
  for (const Service& service : view_.services) {
    if (service.kind != Kind::kMock || FindInstance(service, 0)) continue;
    UMBEL_ASSIGN(const std::string text, ReadFile(MockFile(p_.options, service)));
    UMBEL_ASSIGN(const MockSla mock, ParseMockSla(text));
    return EnsureInstance(service, MockSpec(p_.options, mock, service, locations), 0);
  }
  return false;
}

Reconciler::Moved Reconciler::EnsureShares(Project& project, const Sla& sla, bool* shared) {
  *shared = true;
  const Service* learners = FindService(Kind::kLearner, project);
  if (p_.options.dataserver.empty() || sla.data_tags.empty() || !learners) return false;
  std::map<std::string, uint32_t> on_node;
  for (const Instance* instance : InstancesOf(*learners)) ++on_node[instance->node];
  for (const Instance* instance : InstancesOf(*learners)) {
    const std::string key = fmt::format("{}@{}", instance->name, instance->node);
    if (shared_.contains(key)) continue;
    *shared = false;
    const Service* data = FindData(instance->node);
    if (!data)
      return FailProject(project, fmt::format("{} is on {}, which has no data server",
                                              instance->name, instance->node));
    const ShareWish wish{DataLocation(*data), project.id, instance->name, sla.data_tags,
                         on_node[instance->node]};
    auto& peers = p_.peers;
    const auto rows = Attempt<uint64_t>(
        "project/" + project.id + "/data/" + instance->name,
        [&peers, wish](std::stop_token stop) { return peers.Share(wish, stop); }, kShareRetries);
    if (!rows) continue;
    if (!rows->ok())
      return FailProject(project, fmt::format("{} on {} has no data: {}", instance->name,
                                              instance->node, rows->error().message));
    shared_.insert(key);
    Told told;
    told.entries.push_back(Say(
        project, Level::kInfo,
        fmt::format("{} has {} rows of the data on {}", instance->name, **rows, instance->node)));
    return Save(project, told);
  }
  return false;
}

}  // namespace umbel::manager
