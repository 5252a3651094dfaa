// Services and instances: rows first, then the ground.
#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "manager/customer_services.h"
#include "manager/ports.h"
#include "manager/reconciler.h"

namespace umbel::manager {
namespace {

constexpr size_t kLogKept = size_t{4} << 20;
constexpr std::chrono::seconds kGroundPause{2};

/// The project a service's event is told to; "" for a customer's.
Entry About(const Project& project, WallTime at, Level level, std::string text) {
  return {0, at, project.stage, level, std::move(text)};
}

}  // namespace

const Service* Reconciler::FindService(Kind kind, const Project& project) const {
  for (const Service& service : view_.services)
    if (service.kind == kind && service.project == project.id) return &service;
  return nullptr;
}

const Service* Reconciler::FindTracking(const std::string& customer) const {
  for (const Service& service : view_.services)
    if (service.kind == Kind::kTracking && service.customer == customer) return &service;
  return nullptr;
}

const Instance* Reconciler::FindInstance(const Service& service, uint32_t number) const {
  for (const Instance& instance : view_.instances)
    if (instance.service_id == service.id && instance.number == number) return &instance;
  return nullptr;
}

std::vector<const Instance*> Reconciler::InstancesOf(const Service& service) const {
  std::vector<const Instance*> found;
  for (const Instance& instance : view_.instances)
    if (instance.service_id == service.id) found.push_back(&instance);
  return found;
}

Reconciler::Moved Reconciler::SyncInstances() {
  bool moved = false;
  for (const Instance& instance : view_.instances) {
    if (!instance.wanted) {
      UMBEL_ASSIGN(const bool removed, RemoveInstance(instance));
      moved = moved || removed;
      continue;
    }
    const auto seen = view_.seen.find(instance.name);
    if (!applied_.contains(instance.name) || seen == view_.seen.end()) {
      UMBEL_ASSIGN(const InstanceSpec spec, SpecFromJson(instance.spec));
      if (const Status applied = p_.ground.Apply(spec); !applied.ok()) {
        if (applied.error().code == Code::kCancelled) return Fail(applied.error());
        orchestrator::InstanceStatus trouble;
        trouble.state = applied.error().code == Code::kUnavailable ? InstanceState::kWaiting
                                                                   : InstanceState::kFailed;
        trouble.detail = applied.error().message;
        trouble.since = instance.since;
        LookAgainAt(Timer() + kGroundPause);
        UMBEL_ASSIGN(const bool noted, NoteStatus(instance, trouble));
        moved = moved || noted;
        continue;
      }
      applied_.insert(instance.name);
      const auto now = p_.ground.Find(instance.name);
      if (!now) continue;
      UMBEL_ASSIGN(const bool noted, NoteStatus(instance, *now));
      moved = moved || noted;
      continue;
    }
    UMBEL_ASSIGN(const bool noted, NoteStatus(instance, seen->second));
    moved = moved || noted;
  }
  return moved;
}

Reconciler::Moved Reconciler::NoteStatus(const Instance& instance,
                                         const orchestrator::InstanceStatus& seen) {
  const bool placed = seen.node != instance.node && !seen.node.empty();
  const bool failed = seen.state == InstanceState::kFailed &&
                      (instance.state != InstanceState::kFailed || seen.starts != instance.starts);
  if (seen.state == instance.state && seen.node == instance.node &&
      seen.address == instance.address && seen.detail == instance.detail &&
      seen.starts == instance.starts)
    return false;
  Instance row = instance;
  row.state = seen.state;
  row.node = seen.node;
  row.address = seen.address;
  row.detail = seen.detail;
  row.starts = seen.starts;
  row.since = seen.state == instance.state ? instance.since : Now();
  const Project* owner = nullptr;
  for (const Service& service : view_.services)
    for (const Project& project : view_.projects)
      if (service.id == instance.service_id && service.project == project.id) owner = &project;
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    UMBEL_TRY(PutInstance(db, row));
    if (!owner || !owner->live()) return {};
    if (placed)
      UMBEL_TRY(AddEntry(
          db, owner->id,
          About(*owner, Now(), Level::kInfo, fmt::format("{} runs on {}", row.name, row.node))));
    if (failed)
      UMBEL_TRY(AddEntry(db, owner->id,
                         About(*owner, Now(), Level::kWarn,
                               fmt::format("{} on {}: {}", row.name,
                                           row.node.empty() ? "no node" : row.node, row.detail))));
    return {};
  }));
  if (failed)
    LogWarn("instance failed",
            {{"instance", row.name}, {"node", row.node}, {"detail", row.detail}});
  return true;
}

Reconciler::Moved Reconciler::RemoveInstance(const Instance& instance) {
  const std::string name = instance.name;
  const std::string kept = p_.options.state + "/logs";
  auto& ground = p_.ground;
  auto& peers = p_.peers;
  // What goes with it: its part of the data, and those of nodes it was on while their servers were
  // away.
  std::vector<ShareWish> shares;
  bool forget = false;  // nobody is left to read its log
  for (const Service& service : view_.services) {
    if (service.id != instance.service_id) continue;
    forget = service.kind == Kind::kMock;
    if (instance.share_node.empty()) continue;
    for (const Service& data : view_.services)
      if (const Instance* server = FindInstance(data, 0);
          data.kind == Kind::kData && server && server->state == InstanceState::kRunning)
        shares.push_back({DataLocation(data), service.project, name, {}, 0});
  }
  const std::function<Result<bool>(std::stop_token)> work =
      [&ground, &peers, name, kept, shares, forget](std::stop_token stop) -> Result<bool> {
    // Its log outlives it, as far as its end goes.
    std::string log;
    for (uint64_t offset = 0; !forget;) {
      const auto part = ground.Logs(name, offset, kLogKept);
      if (!part.ok() || part->bytes.empty()) break;
      log += part->bytes;
      if (log.size() > kLogKept) log.erase(0, log.size() - kLogKept);
      offset = part->next;
    }
    if (!log.empty()) {
      UMBEL_TRY(MakeDirectories(kept));
      UMBEL_TRY(WriteFileAtomic(fmt::format("{}/{}.log", kept, name), log));
    }
    UMBEL_TRY(ground.Remove(name));
    for (const ShareWish& share : shares)
      if (const Status released = peers.Unshare(share, stop); !released.ok())
        LogWarn("a learner's part of the data is still taken",
                {{"learner", name}, {"error", released.error().message}});
    return true;
  };
  const auto removed = p_.jobs.Run<bool>("remove/" + name, work);
  if (!removed) return false;
  if (!removed->ok()) {
    if (removed->error().code == Code::kCancelled) return Fail(removed->error());
    LogWarn("an instance cannot be removed",
            {{"instance", name}, {"error", removed->error().message}});
    LookAgainAt(Timer() + kGroundPause);
    return false;
  }
  applied_.erase(name);
  begun_.erase(name);
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    UMBEL_TRY(DeleteInstance(db, instance.service_id, instance.number));
    // Others may have gone since the last look.
    UMBEL_ASSIGN(const std::vector<Instance> left, ListInstances(db));
    for (const Instance& other : left)
      if (other.service_id == instance.service_id) return {};
    for (const Service& service : view_.services) {
      if (service.id != instance.service_id) continue;
      if (forget) return DeleteService(db, service.id);
      Service gone = service;
      gone.gone = true;
      UMBEL_TRY(PutService(db, gone));
      for (const Project& project : view_.projects)
        if (project.id == service.project && project.wanted != Wanted::kDelete)
          UMBEL_TRY(AddEntry(
              db, project.id,
              About(project, Now(), Level::kInfo, fmt::format("{} is removed", service.name))));
    }
    return {};
  }));
  return true;
}

Reconciler::Moved Reconciler::DropStrangers() {
  // Ours by name, and nobody's: an earlier process was killed between removing rows and instances.
  bool moved = false;
  for (const auto& [name, status] : view_.seen) {
    const bool known = std::any_of(view_.instances.begin(), view_.instances.end(),
                                   [&](const Instance& each) { return each.name == name; });
    if (known) continue;
    auto& ground = p_.ground;
    const std::function<Result<bool>(std::stop_token)> work =
        [&ground, name = name](std::stop_token) -> Result<bool> {
      UMBEL_TRY(ground.Remove(name));
      return true;
    };
    const auto removed = p_.jobs.Run<bool>("remove/" + name, work);
    if (removed && removed->ok()) moved = true;
    if (removed && !removed->ok()) LookAgainAt(Timer() + kGroundPause);
  }
  return moved;
}

Reconciler::Moved Reconciler::WantNothing(const Project& project, const std::set<Kind>& kinds) {
  bool moved = false;
  for (const Service& service : view_.services) {
    if (service.project != project.id || !kinds.contains(service.kind)) continue;
    const auto instances = InstancesOf(service);
    UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
      for (const Instance* instance : instances) {
        if (!instance->wanted) continue;
        Instance row = *instance;
        row.wanted = false;
        UMBEL_TRY(PutInstance(db, row));
        moved = true;
      }
      if (!instances.empty()) return {};
      Service gone = service;  // it never had any
      gone.gone = true;
      moved = true;
      return PutService(db, gone);
    }));
  }
  return moved;
}

Result<const Service*> Reconciler::EnsureService(const Project& project, Kind kind, uint16_t port) {
  if (const Service* found = FindService(kind, project)) return found;
  Service service;
  service.id = p_.ids.Next();
  service.kind = kind;
  service.customer = project.customer;
  service.project = project.id;
  service.app_id = project.app_id;
  service.created_at = Now();
  UMBEL_ASSIGN(const std::vector<App> apps,
               p_.store.Read([](Connection& db) { return ListApps(db); }));
  std::optional<App> made;
  if (kind == Kind::kServing) {
    // FLOps keeps these in an app of the customer.
    service.app_id.clear();
    for (const App& app : apps)
      if (app.name == "helper" && app.customer == project.customer) service.app_id = app.id;
    if (service.app_id.empty()) {
      made = App{p_.ids.Next(), "helper", "helper", project.customer, ""};
      service.app_id = made->id;
    }
  }
  if (port > 0) {
    std::set<uint16_t> taken;
    for (const Service& each : view_.services) taken.insert(each.port);
    UMBEL_ASSIGN(service.port, ChoosePort(port, taken));
  }
  // As FLOps hashes: a builder by its app, else by the project.
  const std::string plain = std::string(NamesOf(kind).prefix) +
                            ShortHash(kind == Kind::kBuilder ? project.app_id : project.id);
  service.name = plain;
  for (uint32_t i = 2; std::any_of(view_.services.begin(), view_.services.end(),
                                   [&](const Service& each) { return each.name == service.name; });
       ++i)
    service.name = fmt::format("{}-{}", plain, i);
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    if (made) UMBEL_TRY(InsertApp(db, *made));
    return PutService(db, service);
  }));
  return nullptr;
}

Reconciler::Moved Reconciler::EnsureInstance(const Service& service, const InstanceSpec& spec,
                                             uint32_t number, const std::string& words) {
  // What stands in the row stays: the environment of another manager would be another instance.
  if (FindInstance(service, number)) return false;
  Instance row;
  row.service_id = service.id;
  row.number = number;
  row.name = spec.name;
  row.spec = ToJson(spec);
  row.since = Now();
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    UMBEL_TRY(PutInstance(db, row));
    return AddWords(db, service.project, words);
  }));
  return true;
}

Reconciler::Moved Reconciler::EnsureTracking() {
  bool moved = false;
  // Those of live projects, and those that asked where theirs is.
  std::set<std::string> customers;
  for (const Project& project : view_.projects)
    if (project.live()) customers.insert(project.customer);
  for (const Service& service : view_.services)
    if (service.kind == Kind::kTracking) customers.insert(service.customer);
  for (const std::string& customer : customers) {
    const Service* const service = FindTracking(customer);
    if (!service) {
      UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
        UMBEL_TRY(EnsureTrackingService(db, p_.ids, customer, Now(), p_.options.tracking_port));
        return {};
      }));
      return true;
    }
    if (FindInstance(*service, 0)) continue;
    if (!p_.options.mlflow_python.empty()) mlflow_ = p_.options.mlflow_python;
    if (mlflow_.empty()) {
      const std::string folder = p_.options.state + "/mlflow";
      auto& peers = p_.peers;
      const auto python = Attempt<std::string>(
          "mlflow",
          [&peers, folder](std::stop_token stop) { return peers.MakeMlflow(folder, stop); },
          p_.options.limits.retries);
      if (!python) {
        mlflow_words_.With([](std::string& words) {
          if (words.empty())
            words = "an environment with MLflow is being made; the first time that takes minutes";
        });
        continue;
      }
      if (!python->ok()) {
        mlflow_trouble_ = python->error().message;
        mlflow_words_.With([&](std::string& words) { words = mlflow_trouble_; });
        LogWarn("no environment with MLflow", {{"error", mlflow_trouble_}});
        retries_["mlflow"] = {0, Timer() + std::chrono::minutes(5)};
        LookAgainAt(retries_["mlflow"].at);
        continue;
      }
      mlflow_ = **python;
      mlflow_trouble_.clear();
      mlflow_words_.With([](std::string& words) { words.clear(); });
    }
    UMBEL_TRY(MakeDirectories(FolderOfTracking(p_.options, customer)));
    UMBEL_ASSIGN(const bool made,
                 EnsureInstance(*service, TrackingSpec(p_.options, *service, mlflow_), 0));
    moved = moved || made;
  }
  return moved;
}

Reconciler::Moved Reconciler::FinishDelete(const Project& project) {
  UMBEL_ASSIGN(const bool moved,
               WantNothing(project, {Kind::kBuilder, Kind::kModel, Kind::kAggregator,
                                     Kind::kLearner, Kind::kServing}));
  if (moved) return true;
  for (const Service& service : view_.services)
    if (service.project == project.id && service.kind != Kind::kObserver) return false;
  UMBEL_TRY(EndRounds(project, "KILLED"));
  if (FindTracking(project.customer)) {
    UMBEL_ASSIGN(tracking::Tracker* const tracker, TrackerOf(project.customer));
    UMBEL_TRY(tracker->Forget(project.id + "/"));
  }
  // Nothing of it runs any more. Files first: rows are how they are found again.
  UMBEL_ASSIGN(const std::vector<Service> services,
               p_.store.Read([](Connection& db) { return ListServices(db, true); }));
  std::error_code ignored;
  std::filesystem::remove_all(FolderOf(p_.options, project.id), ignored);
  std::filesystem::remove(p_.options.state + "/secrets/" + project.id, ignored);
  for (const Service& service : services) {
    if (service.project != project.id) continue;
    for (const auto& entry :
         std::filesystem::directory_iterator(p_.options.state + "/logs", ignored))
      if (entry.path().filename().native().starts_with(service.name + "."))
        std::filesystem::remove(entry.path(), ignored);
  }
  UMBEL_TRY(p_.store.Write([&](Connection& db) -> Status {
    for (const Service& service : services)
      if (service.project == project.id) UMBEL_TRY(DeleteService(db, service.id));
    UMBEL_TRY(DeleteApp(db, project.app_id));
    return DeleteProject(db, project.id);
  }));
  LogInfo("project deleted", {{"project", project.id}});
  return true;
}

}  // namespace umbel::manager
