#include "manager/manager.h"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/lock_file.h"
#include "base/log.h"
#include "manager/commands.h"
#include "manager/customer_services.h"
#include "manager/jobs.h"
#include "manager/reconciler.h"
#include "manager/store.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;
using orchestrator::InstanceState;
using orchestrator::LogPart;

constexpr std::chrono::seconds kTroublePause{5};
constexpr std::chrono::minutes kLookAgain{1};  // whatever was missed

/// What wakes the reconciling thread.
class Bell final : public Wakeable {
 public:
  void Wake() override {
    {
      const std::lock_guard lock(mutex_);
      rung_ = true;
    }
    changed_.notify_all();
  }
  /// Until it has rung, or `limit` is over.
  void Wait(std::chrono::microseconds limit, std::stop_token stop) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, limit, [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool rung_ = false;
};

/// The machine's monotonic clock: setting the time does not move it.
class Timer final : public Clock {
 public:
  WallTime Now() const override {
    const auto passed = std::chrono::steady_clock::now().time_since_epoch();
    return WallTime(std::chrono::duration_cast<Micros>(passed));
  }
};

/// Kept for what has no process: an observer is its project's log.
Instance ObserverInstance(const Service& service) {
  Instance instance;
  instance.service_id = service.id;
  instance.name = service.name + ".0";
  instance.state = InstanceState::kRunning;
  instance.since = service.created_at;
  return instance;
}

class ManagerImpl final : public Manager {
 public:
  ManagerImpl(const Options& options, orchestrator::Ground& ground, Peers& peers,
              const Clock& clock, Rng& rng)
      : options_(options),
        ground_(ground),
        clock_(clock),
        ids_(clock, rng),
        jobs_([bell = bell_] { bell->Wake(); }),
        peers_(peers),
        rng_(rng) {}

  ~ManagerImpl() override {
    thread_.request_stop();
    bell_->Wake();
    if (thread_.joinable()) thread_.join();
    jobs_.Stop();
    reconciler_.reset();
    if (store_) store_->WakeAll();
  }

  Status Open() {
    UMBEL_TRY(MakeDirectories(options_.state));
    UMBEL_ASSIGN(LockFile lock, LockFile::Take(options_.state + "/manager.lock", options_.state));
    lock_ = std::make_unique<LockFile>(std::move(lock));
    for (const char* folder : {"projects", "logs", "secrets", "tracking", "environments", "mocks"})
      UMBEL_TRY(MakeDirectories(options_.state + "/" + folder));
    UMBEL_ASSIGN(store_, Store::Open(options_.state + "/manager.db"));
    reconciler_ = std::make_unique<Reconciler>(Reconciler::Parts{
        options_, *store_, ground_, peers_, jobs_, clock_, timer_, rng_, ids_, bell_});
    UMBEL_TRY(reconciler_->Begin());
    ground_.Watch(bell_);
    thread_ = std::jthread([this](std::stop_token stop) { Reconcile(std::move(stop)); });
    return {};
  }

  Result<Project> Submit(std::string_view text) override {
    UMBEL_ASSIGN(const Sla sla, ParseSla(text));
    Project project;
    project.id = ids_.Next();
    project.customer = sla.customer;
    project.sla = ToJson(sla);
    project.app_id = ids_.Next();
    project.app_name = "proj" + ShortHash(project.id);
    project.created_at = project.stage_since = clock_.Now();
    if (!sla.token.empty())
      UMBEL_TRY(WriteFileAtomic(options_.state + "/secrets/" + project.id, sla.token));
    Service observer;
    observer.id = ids_.Next();
    observer.kind = Kind::kObserver;
    observer.name = "observ" + ShortHash(project.id);
    observer.project = project.id;
    observer.customer = project.customer;
    observer.created_at = clock_.Now();
    UMBEL_TRY(store_->Write([&](Connection& db) -> Status {
      UMBEL_TRY(InsertProject(db, project));
      UMBEL_TRY(
          InsertApp(db, {project.app_id, project.app_name, "proj", project.customer, project.id}));
      UMBEL_ASSIGN(const std::vector<App> apps, ListApps(db));
      for (const App& app : apps)
        if (app.name == "observatory" && app.customer == project.customer) observer.app_id = app.id;
      if (observer.app_id.empty()) {
        observer.app_id = ids_.Next();
        UMBEL_TRY(
            InsertApp(db, {observer.app_id, "observatory", "observatory", project.customer, ""}));
      }
      UMBEL_TRY(PutService(db, observer));
      const auto say = [&](Level level, std::string words) {
        return AddEntry(db, project.id,
                        {0, clock_.Now(), Stage::kPrepare, level, std::move(words)});
      };
      UMBEL_TRY(say(Level::kInfo, "submitted by " + project.customer));
      for (const std::string& field : sla.unknown)
        UMBEL_TRY(say(Level::kWarn, fmt::format("{}: means nothing here and is left out", field)));
      if (sla.memory_mb < options_.python_memory_mb)
        UMBEL_TRY(say(Level::kInfo,
                      fmt::format("resource_constraints.memory: {} MB is too little for a Python "
                                  "process; {} MB are set aside for each learner",
                                  sla.memory_mb, options_.python_memory_mb)));
      return AddWords(db, project.id, "Project Observer started\n");
    }));
    LogInfo("project submitted", {{"project", project.id}, {"customer", project.customer}});
    bell_->Wake();
    return project;
  }

  Result<Service> Mock(std::string_view text) override {
    UMBEL_ASSIGN(const MockSla mock, ParseMockSla(text));
    if (options_.dataserver.empty())
      return Fail(Code::kFailedPrecondition,
                  "there are no data servers here: umbel-dataserver is not beside umbel");
    Service service;
    service.id = ids_.Next();
    // Without its document it would be taken for one that is not wanted.
    UMBEL_TRY(WriteFileDurable(MockFile(options_, service), std::string(text)));
    UMBEL_TRY(store_->Write([&](Connection& db) -> Status {
      UMBEL_ASSIGN(
          service,
          AddCustomerService(db, ids_, {Kind::kMock, service.id, mock.customer, clock_.Now(), 0}));
      return {};
    }));
    LogInfo("mock data wanted", {{"service", service.name}, {"customer", mock.customer}});
    bell_->Wake();
    return service;
  }

  Result<Service> RemoveMock(std::string_view name, std::string_view customer) override {
    UMBEL_ASSIGN(const std::vector<Service> services,
                 store_->Read([](Connection& db) { return ListServices(db, false); }));
    for (const Service& service : services) {
      if (service.kind != Kind::kMock || service.name != name ||
          (!customer.empty() && service.customer != customer))
        continue;
      std::error_code error;
      fs::remove(MockFile(options_, service), error);
      if (error)
        return Fail(Code::kUnavailable, fmt::format("'{}' cannot be removed: {}",
                                                    MockFile(options_, service), error.message()));
      LogInfo("mock data provider is not wanted any more", {{"service", service.name}});
      bell_->Wake();
      return service;
    }
    return Fail(Code::kNotFound,
                fmt::format("no mock data provider is called '{}'", name.substr(0, 80)));
  }

  Result<std::vector<Project>> List() override {
    return store_->Read([](Connection& db) { return ListProjects(db); });
  }

  Result<ProjectView> Find(std::string_view name, std::string_view customer) override {
    return store_->Read([&](Connection& db) -> Result<ProjectView> {
      ProjectView view;
      UMBEL_ASSIGN(view.project, FindByName(db, name, customer));
      UMBEL_ASSIGN(view.rounds, ListRounds(db, view.project.id, view.project.runs));
      return view;
    });
  }

  Result<Project> Stop(std::string_view name) override { return Want(name, Wanted::kStop); }
  Result<Project> Resume(std::string_view name) override { return Want(name, Wanted::kResume); }
  Result<Project> Delete(std::string_view name) override { return Want(name, Wanted::kDelete); }

  Result<std::vector<Entry>> Timeline(std::string_view name, uint64_t after,
                                      uint64_t limit) override {
    return store_->Read([&](Connection& db) -> Result<std::vector<Entry>> {
      UMBEL_ASSIGN(const Project project, FindByName(db, name, ""));
      return ListEntries(db, project.id, after, limit);
    });
  }

  Result<std::vector<ServiceView>> Services(bool gone) override {
    return store_->Read([&](Connection& db) -> Result<std::vector<ServiceView>> {
      UMBEL_ASSIGN(std::vector<Service> services, ListServices(db, gone));
      UMBEL_ASSIGN(const std::vector<Instance> instances, ListInstances(db));
      UMBEL_ASSIGN(const std::vector<App> apps, ListApps(db));
      std::vector<ServiceView> views;
      for (Service& service : services) {
        ServiceView view;
        for (const App& app : apps)
          if (app.id == service.app_id) view.app_name = app.name;
        for (const Instance& instance : instances)
          if (instance.service_id == service.id) view.instances.push_back(instance);
        if (service.kind == Kind::kObserver) view.instances.push_back(ObserverInstance(service));
        if (service.port > 0 && !service.gone)
          view.url = service.kind == Kind::kData ? DataLocation(service)
                                                 : fmt::format("http://127.0.0.1:{}", service.port);
        view.service = std::move(service);
        views.push_back(std::move(view));
      }
      return views;
    });
  }

  std::vector<orchestrator::Node> Nodes() override { return ground_.Nodes(); }

  Result<LogPart> Logs(std::string_view name, uint64_t offset, size_t limit) override {
    UMBEL_ASSIGN(const std::vector<ServiceView> services, Services(true));
    std::string some;
    std::set<std::string> listed;
    for (const ServiceView& view : services) {
      const Service& service = view.service;
      if (listed.size() < 20 && listed.insert(service.name).second)
        some += (some.empty() ? "" : ", ") + service.name;
      const bool whole = name == service.name;
      if (!whole && !(name.starts_with(service.name) && name[service.name.size()] == '.')) continue;
      if (service.kind == Kind::kObserver) return Words(service, offset, limit);
      std::string instance(name);
      if (whole) {
        UMBEL_ASSIGN(instance, OnlyInstance(view));
      }
      return InstanceLog(instance, offset, limit);
    }
    return Fail(Code::kNotFound, fmt::format("no service is called '{}'; there are: {}", name,
                                             some.empty() ? "none" : some));
  }

  bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) override {
    if (ground_.WatchLog(name, waker)) return true;
    const auto services = Services(false);
    if (!services.ok()) return false;
    for (const ServiceView& view : *services) {
      if (view.service.kind == Kind::kObserver && view.service.name == name) return true;  // rows
      if (view.service.name == name && view.instances.size() == 1)
        return ground_.WatchLog(view.instances.front().name, waker);
    }
    return false;
  }

  Result<TrackingView> Tracking(const std::string& customer) override {
    for (bool made = false;; made = true) {
      UMBEL_ASSIGN(const std::vector<ServiceView> services, Services(false));
      for (const ServiceView& view : services)
        if (view.service.kind == Kind::kTracking && view.service.customer == customer)
          return TrackingView{view.url, WhyNoTracking(view)};
      UMBEL_CHECK(!made);
      UMBEL_TRY(store_->Write([&](Connection& db) -> Status {
        UMBEL_TRY(EnsureTrackingService(db, ids_, customer, clock_.Now(), options_.tracking_port));
        return {};
      }));
      LogInfo("tracking server wanted", {{"customer", customer}});
      bell_->Wake();
    }
  }

  uint64_t version() const override { return store_->version(); }
  void Watch(uint64_t seen, const std::shared_ptr<Wakeable>& waker) override {
    store_->Watch(seen, waker);
  }

 private:
  void Reconcile(std::stop_token stop) {
    while (!stop.stop_requested()) {
      const auto next = reconciler_->Pass();
      std::chrono::microseconds wait = kLookAgain;
      if (!next.ok()) {
        LogError("reconciling was interrupted", {{"error", next.error().message}});
        wait = kTroublePause;
      } else if (*next) {
        wait = std::clamp<std::chrono::microseconds>(**next - timer_.Now(), Micros(0), kLookAgain);
      }
      if (wait.count() > 0) bell_->Wait(wait, stop);
    }
  }

  Result<Project> FindByName(Connection& db, std::string_view name, std::string_view customer) {
    UMBEL_ASSIGN(const std::vector<Project> projects, ListProjects(db));
    std::vector<Project> found;
    for (const Project& project : projects) {
      if (!customer.empty() && project.customer != customer) continue;
      if (project.id == name || project.app_name == name) return project;
      if (!name.empty() && project.id.starts_with(name)) found.push_back(project);
    }
    if (found.size() == 1) return found.front();
    if (found.empty())
      return Fail(Code::kNotFound, fmt::format("no project is called '{}'", name.substr(0, 80)));
    return Fail(Code::kInvalidArgument,
                fmt::format("{} projects begin with '{}': give more of it", found.size(), name));
  }

  Result<Project> Want(std::string_view name, Wanted wanted) {
    Project project;
    UMBEL_TRY(store_->Write([&](Connection& db) -> Status {
      UMBEL_ASSIGN(project, FindByName(db, name, ""));
      if (wanted == Wanted::kResume && project.stage == Stage::kDone)
        return Fail(Code::kFailedPrecondition,
                    fmt::format("project {} is done already", project.id));
      if (project.wanted == Wanted::kDelete && wanted != Wanted::kDelete)
        return Fail(Code::kFailedPrecondition,
                    fmt::format("project {} is being deleted", project.id));
      project.wanted = wanted == Wanted::kResume && project.live() && project.wanted == Wanted::kRun
                           ? Wanted::kRun
                           : wanted;
      return UpdateProject(db, project);
    }));
    bell_->Wake();
    return project;
  }

  /// "": it answers.
  std::string WhyNoTracking(const ServiceView& view) {
    const std::string& name = view.service.name;
    if (view.instances.empty()) {
      const std::string words = reconciler_->MlflowWords();
      return words.empty() ? name + " is about to be started" : words;
    }
    const Instance& instance = view.instances.front();
    switch (instance.state) {
      case InstanceState::kWaiting:
        return instance.detail.empty()
                   ? name + " is about to be started"
                   : fmt::format("{} waits for a place: {}", name, instance.detail);
      case InstanceState::kFailed:
      case InstanceState::kCompleted:
        return fmt::format("{} has ended: {}; `umbel logs {}` tells more", name, instance.detail,
                           name);
      case InstanceState::kStarting:
      case InstanceState::kRunning:
        break;
    }
    const bool answers = instance.state == InstanceState::kRunning &&
                         peers_.WaitHealthy(view.url + "/health", std::chrono::seconds(0), {}).ok();
    return answers ? "" : name + " is starting, which takes MLflow some seconds";
  }

  Result<LogPart> Words(const Service& service, uint64_t offset, size_t limit) {
    return store_->Read([&](Connection& db) -> Result<LogPart> {
      LogPart part;
      UMBEL_ASSIGN(part.bytes, ReadWords(db, service.project, offset, limit));
      part.next = offset + part.bytes.size();
      UMBEL_ASSIGN(const auto project, FindProject(db, service.project));
      part.ended = part.bytes.empty() && (!project || !project->live());
      return part;
    });
  }

  Result<std::string> OnlyInstance(const ServiceView& view) {
    if (view.instances.size() == 1) return view.instances.front().name;
    if (view.instances.size() > 1)
      return Fail(Code::kInvalidArgument,
                  fmt::format("'{}' has {} instances: ask for {} to {}", view.service.name,
                              view.instances.size(), view.instances.front().name,
                              view.instances.back().name));
    // Removed: the newest log that was kept.
    std::string newest;
    fs::file_time_type when{};
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(options_.state + "/logs", ignored)) {
      const std::string file = entry.path().stem().native();
      if (!file.starts_with(view.service.name + ".")) continue;
      const auto time = entry.last_write_time(ignored);
      if (newest.empty() || time > when) {
        newest = file;
        when = time;
      }
    }
    if (!newest.empty()) return newest;
    return Fail(Code::kNotFound, fmt::format("'{}' has said nothing", view.service.name));
  }

  Result<LogPart> InstanceLog(const std::string& name, uint64_t offset, size_t limit) {
    auto part = ground_.Logs(name, offset, limit);
    if (part.ok() || part.error().code != Code::kNotFound) return part;
    if (name.find('/') != std::string::npos) return part;
    const auto text = ReadFile(fmt::format("{}/logs/{}.log", options_.state, name));
    if (!text.ok()) return part;
    LogPart kept;
    const size_t begin = std::min<size_t>(offset, text->size());
    kept.bytes = text->substr(begin, limit);
    kept.next = begin + kept.bytes.size();
    kept.ended = kept.next == text->size();
    return kept;
  }

  const Options options_;
  orchestrator::Ground& ground_;
  const Clock& clock_;
  const Timer timer_;
  ObjectIds ids_;
  const std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
  std::unique_ptr<LockFile> lock_;
  std::unique_ptr<Store> store_;
  Jobs jobs_;
  Peers& peers_;
  Rng& rng_;
  std::unique_ptr<Reconciler> reconciler_;
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<Manager>> Manager::Start(const Options& options,
                                                orchestrator::Ground& ground, Peers& peers,
                                                const Clock& clock, Rng& rng) {
  auto manager = std::make_unique<ManagerImpl>(options, ground, peers, clock, rng);
  UMBEL_TRY(manager->Open());
  return std::unique_ptr<Manager>(std::move(manager));
}

}  // namespace umbel::manager
