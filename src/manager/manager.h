// The operations plane: takes projects, carries them through their stages, tells how they are. Any
// thread may call; calls are short. One thread of its own reconciles.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "base/wake.h"
#include "manager/model.h"
#include "manager/options.h"
#include "manager/peers.h"
#include "orchestrator/ground.h"

namespace umbel::manager {

/// A service with its instances, as people see it.
struct ServiceView {
  Service service;
  std::string app_name;
  std::vector<Instance> instances;
  std::string url;  // where it is reached; "": nowhere
};

/// A customer's tracking server.
struct TrackingView {
  std::string url;
  std::string words;  // why it does not answer yet; "": it does
};

struct ProjectView {
  Project project;
  std::vector<Round> rounds;
};

class Manager {
 public:
  /// errors  kAlreadyExists: another manager owns the state; kUnavailable, kDataLoss: the state.
  static Result<std::unique_ptr<Manager>> Start(const Options& options,
                                                orchestrator::Ground& ground, Peers& peers,
                                                const Clock& clock, Rng& rng);
  /// Ends the thread. What runs on the ground goes on.
  virtual ~Manager() = default;

  /// sla     FLOps's document, as JSON.
  /// errors  kInvalidArgument: the field, its value and the rule.
  virtual Result<Project> Submit(std::string_view sla) = 0;
  /// mock    FLOps's mock data SLA: a provider that fills the learner nodes' data servers.
  /// errors  kInvalidArgument: as Submit's; kFailedPrecondition: there are no data servers here.
  virtual Result<Service> Mock(std::string_view mock) = 0;
  /// Ends a mock data provider and forgets it; what it has put stays on the nodes. Done when it is
  /// no longer listed.
  /// customer  whose alone; "": anybody's.
  /// errors    kNotFound.
  virtual Result<Service> RemoveMock(std::string_view name, std::string_view customer) = 0;
  virtual Result<std::vector<Project>> List() = 0;
  /// name      an id, the beginning of one that no other has, or the name of its app.
  /// customer  whose alone, others are as if they were not there; "": anybody's.
  /// errors    kNotFound; kInvalidArgument: more than one.
  virtual Result<ProjectView> Find(std::string_view name, std::string_view customer) = 0;
  /// Undeploys; what is done stays done.
  virtual Result<Project> Stop(std::string_view name) = 0;
  /// errors  kFailedPrecondition: it is done already.
  virtual Result<Project> Resume(std::string_view name) = 0;
  /// Undeploys and forgets it; done when it is no longer listed.
  virtual Result<Project> Delete(std::string_view name) = 0;
  virtual Result<std::vector<Entry>> Timeline(std::string_view name, uint64_t after,
                                              uint64_t limit) = 0;

  /// gone  also those that have been removed, whose logs are kept.
  virtual Result<std::vector<ServiceView>> Services(bool gone) = 0;
  virtual std::vector<orchestrator::Node> Nodes() = 0;
  /// name    of a service with one instance, or of an instance: "flearner11e3c5ca7c4c.1".
  /// errors  kNotFound: with those there are.
  virtual Result<orchestrator::LogPart> Logs(std::string_view name, uint64_t offset,
                                             size_t limit) = 0;
  /// Woken once, when something may have been added to that log since: ask before Logs. What else
  /// there is to see of it comes with Watch. False: it cannot be told.
  virtual bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) = 0;
  /// Where a customer's tracking server is. It is made if there is none, and may be asked for again
  /// while it starts.
  virtual Result<TrackingView> Tracking(const std::string& customer) = 0;

  /// Grows with each change of what these calls tell, but for logs.
  virtual uint64_t version() const = 0;
  /// Woken once, after a change; at once if there has been one since `seen`.
  virtual void Watch(uint64_t seen, const std::shared_ptr<Wakeable>& waker) = 0;
};

}  // namespace umbel::manager
