#include "doors/oakestra/views.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/utf8.h"
#include "base/version.h"
#include "manager/names.h"

namespace umbel::doors::oakestra {
namespace {

using manager::Instance;
using nlohmann::json;
using orchestrator::InstanceState;

constexpr double kMegabyte = 1 << 20;

/// Length of an ANSI escape sequence at the front of `text`, 0 if there is none.
size_t EscapeSequence(std::string_view text) {
  if (text.size() < 2 || text[0] != '\x1b') return 0;
  if (text[1] != '[') return 2;
  size_t end = 2;
  while (end < text.size() && (text[end] < '@' || text[end] > '~')) ++end;
  return std::min(end + 1, text.size());
}

bool MayBeMarkup(std::string_view rest) {
  if (rest.size() < 2) return false;
  const char next = rest[1];
  return (next >= 'a' && next <= 'z') || next == '#' || next == '/' || next == '@';
}

std::string ImageOf(const manager::Service& service) {
  return fmt::format("umbel/{}:{}", manager::NamesOf(service.kind).prefix, kVersion);
}

/// The program and its arguments, without folders before the program's name.
json CommandOf(const Instance& instance) {
  const json spec = json::parse(instance.spec, nullptr, false);
  if (!spec.is_object() || !spec.contains("arguments") || !spec["arguments"].is_array())
    return json::array();
  json command = spec["arguments"];
  if (!command.empty() && command[0].is_string()) {
    const std::string program = command[0].get<std::string>();
    command[0] = program.substr(program.rfind('/') + 1);
  }
  return command;
}

}  // namespace

std::string_view StatusOf(InstanceState state) {
  switch (state) {
    case InstanceState::kWaiting:
      return "NO_WORKER_CAPACITY";
    case InstanceState::kStarting:
      return "NODE_SCHEDULED";
    case InstanceState::kRunning:
      return "RUNNING";
    case InstanceState::kCompleted:
      return "COMPLETED";
    case InstanceState::kFailed:
      return "FAILED";
  }
  return "REQUESTED";
}

std::string Escape(std::string_view text) {
  std::string out;
  size_t slashes = 0;  // that stand before this place
  for (size_t i = 0; i < text.size();) {
    if (const size_t sequence = EscapeSequence(text.substr(i)); sequence > 0) {
      i += sequence;
      continue;
    }
    const char c = text[i];
    const bool control = static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t';
    if (c == '[' && MayBeMarkup(text.substr(i))) out.append(slashes + 1, '\\');
    if (!control) out.push_back(c);
    slashes = c == '\\' ? slashes + 1 : 0;
    ++i;
  }
  // A '\' at the end would be taken for one before what the client prints next.
  if (slashes > 0) out.push_back(' ');
  return ValidUtf8(out);
}

json Service(const manager::ServiceView& view, const std::map<std::string, std::string>& clusters,
             const std::vector<std::string>& logs) {
  const manager::Service& service = view.service;
  json instances = json::array();
  for (size_t i = 0; i < view.instances.size(); ++i) {
    const Instance& instance = view.instances[i];
    const bool placed = !instance.node.empty();
    const auto cluster = clusters.find(instance.node);
    const bool known = cluster != clusters.end();
    instances.push_back({{"instance_number", instance.number},
                         {"status", service.gone ? "UNDEPLOYED" : StatusOf(instance.state)},
                         {"status_detail", Escape(instance.detail)},
                         {"publicip", placed ? instance.address : "-"},
                         {"host_ip", placed ? instance.address : ""},
                         {"host_port", service.port},
                         {"worker_id", instance.node},
                         {"cluster_id", known ? ClusterId(cluster->second) : "-"},
                         {"cluster_location", known ? cluster->second : "-"},
                         {"cpu_percent", "0"},
                         {"memory_percent", "0"},
                         {"disk", "0"},
                         {"logs", i < logs.size() ? logs[i] : ""}});
  }
  const auto running = [](const Instance& one) { return one.state == InstanceState::kRunning; };
  const bool well = std::any_of(view.instances.begin(), view.instances.end(), running);
  const std::string_view status = service.gone             ? "UNDEPLOYED"
                                  : view.instances.empty() ? "REQUESTED"
                                  : well                   ? "RUNNING"
                                                           : StatusOf(view.instances[0].state);
  const std::string space(manager::NamesOf(service.kind).space);
  return {
      {"_id", {{"$oid", service.id}}},
      {"microserviceID", service.id},
      {"microservice_name", service.name},
      {"microservice_namespace", space},
      {"job_name", fmt::format("{}.{}.{}.{}", view.app_name, view.app_name, service.name, space)},
      {"app_name", view.app_name},
      {"app_ns", view.app_name},
      {"applicationID", service.app_id},
      {"status", status},
      {"instance_list", std::move(instances)},
      {"image", ImageOf(service)},
      {"code", ImageOf(service)},
      {"cmd", view.instances.empty() ? json::array() : CommandOf(view.instances[0])},
      {"port", service.port == 0 ? "" : fmt::format("{}", service.port)},
      {"virtualization", "native"},
      {"environment", json::array()},
      {"RR_ip", ""}};
}

json Application(const std::vector<const manager::ServiceView*>& services) {
  const manager::ServiceView& first = *services.front();
  json ids = json::array();
  for (const manager::ServiceView* each : services)
    if (!each->service.gone) ids.push_back(each->service.id);
  const bool of_project = first.app_name.starts_with("proj");
  return {{"_id", {{"$oid", first.service.app_id}}},
          {"applicationID", first.service.app_id},
          {"application_name", first.app_name},
          {"application_namespace", of_project ? "proj" : first.app_name},
          {"application_desc", of_project ? fmt::format("FLOps project {}", first.service.project)
                                          : fmt::format("FLOps {}", first.app_name)},
          {"userId", first.service.customer},
          {"microservices", std::move(ids)}};
}

std::string ClusterId(std::string_view name) {
  return manager::ShortHash(name) + manager::ShortHash(fmt::format("{}.", name));
}

json Cluster(const std::vector<const orchestrator::Node*>& nodes) {
  uint64_t memory = 0, cores = 0, reserved = 0, up = 0;
  std::set<std::string> addons;
  for (const orchestrator::Node* node : nodes) {
    memory += node->capacity.memory_bytes;
    cores += node->capacity.cpu_millicores;
    reserved += node->reserved.cpu_millicores;
    up += node->up;
    addons.insert(node->addons.begin(), node->addons.end());
  }
  const std::string& name = nodes.front()->cluster;
  return {{"_id", ClusterId(name)},
          {"cluster_name", name},
          {"cluster_location", name},
          {"active", up > 0},
          {"active_nodes", up},
          {"ip", nodes.front()->address},
          {"port", "0"},
          {"virtualization", json::array({"native"})},
          {"supported_addons", addons},
          {"total_cpu_cores", cores / 1000},
          {"total_gpu_cores", 0},
          {"memory_in_mb", static_cast<uint64_t>(static_cast<double>(memory) / kMegabyte)},
          {"aggregated_cpu_percent",
           cores == 0 ? 0.0 : 100.0 * static_cast<double>(reserved) / static_cast<double>(cores)},
          {"last_modified_timestamp", 0}};
}

}  // namespace umbel::doors::oakestra
