// Closes the gap between what is wanted and what is seen: looks at every project and service, does
// what is next, writes it down, looks again. Everything it does is safe to do again, so that it may
// be killed at any moment. Belongs to one thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/guarded.h"
#include "base/random.h"
#include "base/result.h"
#include "base/wake.h"
#include "manager/commands.h"
#include "manager/jobs.h"
#include "manager/model.h"
#include "manager/names.h"
#include "manager/options.h"
#include "manager/peers.h"
#include "manager/store.h"
#include "orchestrator/ground.h"
#include "tracking/process_metrics.h"

namespace umbel::manager {

class Reconciler {
 public:
  struct Parts {
    const Options& options;
    Store& store;
    orchestrator::Ground& ground;
    Peers& peers;
    Jobs& jobs;
    const Clock& clock;
    const Clock& timer;  // never jumps; only differences of its times say something
    Rng& rng;
    ObjectIds& ids;
    std::shared_ptr<Wakeable> waker;  // of whoever calls Pass()
  };
  explicit Reconciler(Parts parts) : p_(std::move(parts)) {}

  /// Once, before the first Pass: what an earlier process left is taken up.
  Status Begin();
  /// Looks at everything until nothing moves. When to look again at the latest, by the timer;
  /// nullopt: when woken. errors  the store's and the tracker's: nothing is lost, try again.
  Result<std::optional<WallTime>> Pass();

  static std::string TrackingUrl(const Service& service);
  /// Why tracking servers cannot be started yet; "" when they can. Any thread.
  std::string MlflowWords() const {
    return mlflow_words_.With([](const std::string& words) { return words; });
  }

 private:
  using InstanceState = orchestrator::InstanceState;

  /// What is in the database and on the ground, read once for a look.
  struct View {
    std::vector<Project> projects;
    std::vector<Service> services;  // living
    std::vector<Instance> instances;
    std::map<std::string, orchestrator::InstanceStatus> seen;
  };
  /// True: something moved, look again. False: it waits.
  using Moved = Result<bool>;

  Status Look();
  WallTime Now() const { return p_.clock.Now(); }
  /// For deadlines and pauses: whoever sets the machine's clock ends none of them.
  WallTime Timer() const { return p_.timer.Now(); }
  void LookAgainAt(WallTime at);
  const Service* FindService(Kind kind, const Project& project) const;
  const Service* FindTracking(const std::string& customer) const;
  const Instance* FindInstance(const Service& service, uint32_t number) const;
  std::vector<const Instance*> InstancesOf(const Service& service) const;

  // reconcile_services.cc: instances are made what they are wanted to be.
  Moved SyncInstances();
  Moved NoteStatus(const Instance& instance, const orchestrator::InstanceStatus& seen);
  Moved RemoveInstance(const Instance& instance);
  Moved DropStrangers();
  Moved EnsureTracking();
  Moved WantNothing(const Project& project, const std::set<Kind>& kinds);
  /// The service, made if need be; nullptr: it has just been made, look again.
  Result<const Service*> EnsureService(const Project& project, Kind kind, uint16_t port);
  /// True: its row has just been made, and the observer has said `words`.
  Moved EnsureInstance(const Service& service, const InstanceSpec& spec, uint32_t number,
                       const std::string& words = "");
  Moved FinishDelete(const Project& project);

  // reconcile_environments.cc
  /// Once a day, environments that no project has used for long.
  Moved DropEnvironments();
  bool SweepsEnvironments();

  // reconcile_stages.cc
  Moved StepProject(Project project);
  /// A Python step: its folder is there and has no result yet, then its instance is wanted.
  Moved BeginStep(const Project& project, const std::string& step, const Service& service,
                  const InstanceSpec& spec, uint32_t number, const std::string& words = "");
  Moved StepPrepare(Project& project, const Sla& sla);
  Moved StepBuild(Project& project, const Sla& sla);
  Moved StepDeploy(Project& project, const Sla& sla);
  Moved StepRecord(Project& project, const Sla& sla);
  Moved StepServe(Project& project, const Sla& sla);
  Moved Resume(Project& project);
  struct Actors {
    std::string address;  // of the aggregator, once it answers
    std::string why;      // not yet
  };
  Moved EnsureActors(Project& project, const Sla& sla, uint32_t learners, Actors* actors);
  std::string WhyNoRoom(const Project& project, const Sla& sla);
  /// "for room for NAME: …": of what has no node, or none any more; "": all have theirs.
  std::string WhoHasNoRoom(const Project& project) const;
  bool IsItsTurn(const Project& project) const;
  Moved CheckActors(Project& project);
  /// A Python step's result, once there: the JSON it wrote.
  struct StepEnd {
    bool done = false;
    std::string json;
    std::string error;
    bool passes = false;  // the error: another time may go better
  };
  StepEnd EndOfStep(const Project& project, const Service& service, uint32_t number,
                    const std::string& step);
  /// Whether it is time for the step, which may have been broken off before.
  bool MayStep(const Project& project, const std::string& step);
  /// What has become of a step that ended with an error: it is tried again, or the project fails.
  Moved AfterFailure(Project& project, const Service& service, const std::string& step,
                     const StepEnd& end);

  // reconcile_data.cc
  const Service* FindData(const std::string& node) const;
  /// Data servers on learner nodes, and those that fill them with mock data.
  Moved EnsureData();
  Moved MakeDataService(const std::string& node);
  Moved EnsureMocks();
  /// Providers whose document is gone are not wanted any more.
  Moved DropMocks();
  /// Each learner of a project gets its part of the data of the node it is on, and another when it
  /// has moved. shared: all have theirs.
  Moved EnsureShares(Project& project, const Sla& sla, bool* shared);
  Moved GiveBack(Project& project, const Instance& learner);
  Moved DealData(Project& project, const Sla& sla, const std::string& node,
                 const std::vector<const Instance*>& learners, uint32_t of);
  Moved BeginAnew(Project& project, const std::string& node,
                  const std::vector<const Instance*>& learners);

  // reconcile_training.cc
  Moved StepTrain(Project& project, const Sla& sla);
  Moved TakeRecords(Project& project, const Sla& sla, const Seen& seen);
  Moved FinishRun(Project& project, const Seen& seen);
  Result<tracking::Tracker*> TrackerOf(const std::string& customer);
  /// What the project's aggregator uses now, where that can be seen; with names of MLflow's.
  std::vector<tracking::Metric> SampleAggregator(const Project& project, WallTime at,
                                                 uint32_t round);
  /// Tells the tracking server of rounds that will not go on.
  Status EndRounds(const Project& project, const std::string& status);

  // reconcile_words.cc: what people are told.
  struct Told {
    std::vector<Entry> entries;
    std::string words;  // of the observer
  };
  Entry Say(const Project& project, Level level, std::string text) const;
  Moved Advance(Project& project, Event event, Told told = {});
  Moved Save(const Project& project, const Told& told);
  Moved Wait(Project& project, const std::string& what);
  Moved FailProject(Project& project, const std::string& why);
  std::string LastLines(const std::string& instance);
  /// since  by the timer; the later of it and the stage's begin counts
  bool Overdue(const Project& project, std::chrono::seconds limit, WallTime since);
  /// Since when this is so of `key`, as far as this process has seen it: time that nobody was there
  /// is held against nobody.
  WallTime SinceWhen(const std::string& key, const std::string& what);
  WallTime SinceWhen(const Instance& instance);

  /// A job's result, once; what may go better another time is tried again a few times.
  template <typename T>
  std::optional<Result<T>> Attempt(const std::string& name,
                                   std::function<Result<T>(std::stop_token)> work,
                                   uint32_t retries);
  /// Ends what is under way for a project, and what was to be tried again.
  void CancelJobs(const Project& project);
  bool MayTry(const std::string& name);
  /// True: it is to be tried again, later.
  bool TryLater(const std::string& name, const Error& error, uint32_t retries);

  struct Retry {
    uint32_t count = 0;
    WallTime at{};
  };

  Parts p_;
  View view_;
  std::optional<WallTime> look_at_;
  std::map<std::string, Retry> retries_;
  std::set<std::string> applied_;  // by this process
  std::set<std::string> healthy_;  // servers that have answered
  WallTime next_sweep_{};          // of environments
  std::map<std::string, std::unique_ptr<tracking::Tracker>> trackers_;  // by customer
  struct Begun {
    std::string what;
    WallTime at{};
  };
  std::map<std::string, Begun> begun_;     // by project and instance
  std::map<std::string, WallTime> heard_;  // when a project's aggregator said something last
  std::map<std::string, tracking::ProcessMetrics> samplers_;  // by project
  std::string mlflow_;                                        // Python with MLflow
  std::string mlflow_trouble_;
  Guarded<std::string> mlflow_words_;
};

template <typename T>
std::optional<Result<T>> Reconciler::Attempt(const std::string& name,
                                             std::function<Result<T>(std::stop_token)> work,
                                             uint32_t retries) {
  if (!p_.jobs.Has(name) && !MayTry(name)) return std::nullopt;
  auto result = p_.jobs.Run<T>(name, std::move(work));
  if (!result) return std::nullopt;
  if (!result->ok() && TryLater(name, result->error(), retries)) return std::nullopt;
  retries_.erase(name);
  return result;
}

}  // namespace umbel::manager
