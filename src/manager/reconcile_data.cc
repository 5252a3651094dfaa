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
constexpr uint32_t kBackRetries = 2;

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

Reconciler::Moved Reconciler::DropMocks() {
  bool moved = false;
  for (const Service& service : view_.services) {
    std::error_code error;
    if (service.kind != Kind::kMock ||
        std::filesystem::exists(MockFile(p_.options, service), error) || error)
      continue;
    const Instance* instance = FindInstance(service, 0);
    if (instance && !instance->wanted) continue;  // it is being removed
    moved = true;
    UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
      if (!instance) return DeleteService(db, service.id);
      Instance row = *instance;
      row.wanted = false;
      return PutInstance(db, row);
    }));
  }
  return moved;
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

/// What is next for a learner's data, by its row:
/// - no part: its node's data is dealt, or it takes a part of that deal that is free;
/// - a part on another node: it has moved, and the part is given back;
/// - a part of a deal that is too small for those who came: it begins anew, and the data of its
///   node is dealt among all that are there.
///
/// A learner connects when its part's socket is there, so none trains on rows of another.
Reconciler::Moved Reconciler::EnsureShares(Project& project, const Sla& sla, bool* shared) {
  *shared = true;
  const Service* service = FindService(Kind::kLearner, project);
  if (p_.options.dataserver.empty() || sla.data_tags.empty() || !service) return false;
  const std::vector<const Instance*> learners = InstancesOf(*service);
  std::map<std::string, std::vector<const Instance*>> on_node;
  bool all_placed = learners.size() == sla.min_available;
  for (const Instance* learner : learners) {
    const bool placed = learner->wanted && !learner->node.empty();
    all_placed = all_placed && placed;
    if (!placed) {
      *shared = false;
    } else if (!learner->share_node.empty() && learner->share_node != learner->node) {
      *shared = false;
      return GiveBack(project, *learner);
    } else {
      on_node[learner->node].push_back(learner);
    }
  }
  for (const auto& [node, here] : on_node) {
    std::vector<const Instance*> holders, without;
    for (const Instance* learner : here)
      (learner->share_node.empty() ? without : holders).push_back(learner);
    if (without.empty()) continue;
    *shared = false;
    const auto count = static_cast<uint32_t>(here.size());
    if (holders.empty()) {
      // Only now is it known among how many; those who are to come would end this deal.
      if (!all_placed) continue;
      UMBEL_ASSIGN(const bool dealt, DealData(project, sla, node, here, count));
      if (dealt) return true;
    } else if (holders[0]->share_of >= count) {
      UMBEL_ASSIGN(const bool dealt, DealData(project, sla, node, without, holders[0]->share_of));
      if (dealt) return true;
    } else {
      return BeginAnew(project, node, holders);
    }
  }
  return false;
}

Reconciler::Moved Reconciler::GiveBack(Project& project, const Instance& learner) {
  const Service* data = FindData(learner.share_node);
  const Instance* server = data ? FindInstance(*data, 0) : nullptr;
  // A server that is not there has it taken from it before it deals again.
  if (server && server->state == InstanceState::kRunning) {
    const ShareWish wish{DataLocation(*data), project.id, learner.name, {}, 0};
    auto& peers = p_.peers;
    const std::function<Result<bool>(std::stop_token)> work =
        [&peers, wish](std::stop_token stop) -> Result<bool> {
      UMBEL_TRY(peers.Unshare(wish, stop));
      return true;
    };
    const auto given =
        Attempt<bool>("project/" + project.id + "/back/" + learner.name, work, kBackRetries);
    if (!given) return false;
    if (!given->ok())
      LogWarn("a learner's part of the data is still taken",
              {{"learner", learner.name}, {"error", given->error().message}});
  }
  Instance row = learner;
  row.share_node.clear();
  row.share_of = 0;
  const Entry entry = Say(
      project, Level::kInfo,
      fmt::format("{} has moved from {} to {}", learner.name, learner.share_node, learner.node));
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    UMBEL_TRY(PutInstance(db, row));
    return AddEntry(db, project.id, entry);
  }));
  return true;
}

Reconciler::Moved Reconciler::DealData(Project& project, const Sla& sla, const std::string& node,
                                       const std::vector<const Instance*>& learners, uint32_t of) {
  const Service* data = FindData(node);
  if (!data)
    return FailProject(
        project, fmt::format("{} is on {}, which has no data server", learners[0]->name, node));
  std::vector<ShareWish> wishes;
  for (const Instance* learner : learners)
    wishes.push_back({DataLocation(*data), project.id, learner->name, sla.data_tags, of});
  // Who may have had a part there, when this server was last asked.
  std::vector<ShareWish> before;
  const bool anew = learners.size() == of;
  if (anew)
    for (const Instance* learner : InstancesOf(*FindService(Kind::kLearner, project)))
      before.push_back({DataLocation(*data), project.id, learner->name, {}, 0});
  auto& peers = p_.peers;
  const std::function<Result<std::vector<uint64_t>>(std::stop_token)> work =
      [&peers, wishes, before](std::stop_token stop) -> Result<std::vector<uint64_t>> {
    for (bool again = false;; again = true) {
      std::vector<uint64_t> rows;
      Status done;
      for (const ShareWish& wish : wishes) {
        const auto share = peers.Share(wish, stop);
        if (share.ok())
          rows.push_back(*share);
        else if (done.ok())
          done = Fail(share.error());
      }
      if (done.ok()) return rows;
      if (again || before.empty() || done.error().code != Code::kFailedPrecondition)
        return Fail(done.error());
      for (const ShareWish& wish : before) UMBEL_TRY(peers.Unshare(wish, stop));
    }
  };
  const auto dealt = Attempt<std::vector<uint64_t>>("project/" + project.id + "/data/" + node, work,
                                                    kShareRetries);
  if (!dealt) return false;
  if (!dealt->ok())
    return FailProject(project, fmt::format("{} on {} has no data: {}", learners[0]->name, node,
                                            dealt->error().message));
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    for (size_t i = 0; i < learners.size(); ++i) {
      Instance row = *learners[i];
      row.share_node = node;
      row.share_of = of;
      UMBEL_TRY(PutInstance(db, row));
      UMBEL_TRY(AddEntry(
          db, project.id,
          Say(project, Level::kInfo,
              fmt::format("{} has {} rows of the data on {}", row.name, (**dealt)[i], node))));
    }
    return {};
  }));
  return true;
}

Reconciler::Moved Reconciler::BeginAnew(Project& project, const std::string& node,
                                        const std::vector<const Instance*>& learners) {
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    for (const Instance* learner : learners) {
      Instance row = *learner;
      row.wanted = false;  // it is removed with its part, and wanted again as one without
      UMBEL_TRY(PutInstance(db, row));
      UMBEL_TRY(AddEntry(db, project.id,
                         Say(project, Level::kInfo,
                             fmt::format("{} begins anew: another learner has come to {}, whose "
                                         "data is dealt among both",
                                         row.name, node))));
    }
    return {};
  }));
  return true;
}

}  // namespace umbel::manager
