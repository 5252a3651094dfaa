// The programs that services are made of. Pure functions; any thread.
#pragma once

#include <string>
#include <vector>

#include "manager/model.h"
#include "manager/options.h"
#include "manager/sla.h"
#include "orchestrator/ground.h"

namespace umbel::manager {

using orchestrator::InstanceSpec;

/// Where what belongs to a project lies.
std::string FolderOf(const Options& options, const std::string& project);
std::string FolderOfTracking(const Options& options, const std::string& customer);
/// Of a Python step of the project, which may write there and nowhere else.
std::string FolderOfStep(const Options& options, const std::string& project,
                         const std::string& step);
/// JSON that a Python step of the project writes: "build", "initial", "log".
std::string ResultFile(const Options& options, const std::string& project, const std::string& step);

/// The document of a mock data provider.
std::string MockFile(const Options& options, const Service& service);

InstanceSpec BuilderSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service);
InstanceSpec InitialSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service);
struct LogWish {
  std::string tracking_url;
  uint16_t tracking_port = 0;
  std::string run_id;  // MLflow's
};
InstanceSpec LogSpec(const Options& options, const Project& project, const Sla& sla,
                     const Service& service, const LogWish& wish);
InstanceSpec AggregatorSpec(const Options& options, const Project& project, const Service& service);
/// superlink  "host:port".
InstanceSpec LearnerSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service, uint32_t number, const std::string& superlink);
/// A node's data server.
InstanceSpec DataSpec(const Options& options, const Service& service, const std::string& node);
std::string DataLocation(const Service& service);
/// What fills data servers with a known data set.
InstanceSpec MockSpec(const Options& options, const MockSla& mock, const Service& service,
                      const std::vector<std::string>& locations);
InstanceSpec TrackingSpec(const Options& options, const Service& service,
                          const std::string& python);
InstanceSpec ServingSpec(const Options& options, const Project& project, const Service& service,
                         const std::string& tracking_url);

/// As it is stored, and back.
std::string ToJson(const InstanceSpec& spec);
Result<InstanceSpec> SpecFromJson(const std::string& json);

}  // namespace umbel::manager
