#include "doors/api/views.h"

#include <algorithm>
#include <cmath>

namespace umbel::doors {
namespace {

using manager::Level;
using nlohmann::json;
using orchestrator::InstanceState;

json Time(WallTime time) { return time == WallTime{} ? json(nullptr) : json(IsoFormat(time)); }
json Time(double seconds) { return Time(FromUnixSeconds(seconds)); }
json Measured(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? json(*value) : json(nullptr);
}

const char* NameOf(InstanceState state) {
  switch (state) {
    case InstanceState::kWaiting:
      return "waiting";
    case InstanceState::kStarting:
      return "starting";
    case InstanceState::kRunning:
      return "running";
    case InstanceState::kCompleted:
      return "completed";
    case InstanceState::kFailed:
      return "failed";
  }
  return "";
}

const char* Title(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 422:
      return "Unprocessable Content";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

/// "training_configuration.data_tags[0]: …": what stands before the colon.
std::string FieldOf(const std::string& message) {
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return "";
  const std::string field = message.substr(0, colon);
  const bool plain = !field.empty() && std::all_of(field.begin(), field.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '[' ||
           c == ']';
  });
  return plain ? field : "";
}

json Resources(const orchestrator::Resources& resources) {
  return {{"memory_bytes", resources.memory_bytes},
          {"cpu_millicores", resources.cpu_millicores},
          {"storage_bytes", resources.storage_bytes}};
}

}  // namespace

json ToJson(const manager::Project& p) {
  const bool stopping = p.live() && p.wanted == manager::Wanted::kStop;
  const bool deleting = p.wanted == manager::Wanted::kDelete;
  json out = {{"id", p.id},
              {"app_id", p.app_id},
              {"app_name", p.app_name},
              {"customer", p.customer},
              {"stage", Name(p.stage)},
              {"live", p.live()},
              {"pending", deleting   ? json("delete")
                          : stopping ? json("stop")
                                     : json(nullptr)},
              {"waiting_for", p.waiting},
              {"failure", p.failure},
              {"created_at", Time(p.created_at)},
              {"stage_since", Time(p.stage_since)},
              {"ended_at", Time(p.ended_at)},
              {"commit", p.commit},
              {"sla", json::parse(p.sla, nullptr, false)},
              {"best", nullptr},
              {"model", nullptr}};
  if (p.best_round > 0)
    out["best"] = {{"round", p.best_round},
                   {"accuracy", Measured(p.best_accuracy)},
                   {"loss", Measured(p.best_loss)}};
  if (!p.model.empty()) out["model"] = json::parse(p.model, nullptr, false);
  return out;
}

json ToJson(const manager::ProjectView& view) {
  json out = ToJson(view.project);
  out["rounds"] = json::array();
  for (const manager::Round& round : view.rounds)
    out["rounds"].push_back({{"round", round.round},
                             {"began_at", Time(round.began_at)},
                             {"ended_at", Time(round.ended_at)},
                             {"accuracy", Measured(round.accuracy)},
                             {"loss", Measured(round.loss)},
                             {"trained", round.trained},
                             {"evaluated", round.evaluated},
                             {"received_bytes", round.bytes}});
  return out;
}

json ToJson(const manager::Entry& entry) {
  return {{"sequence", entry.sequence},
          {"at", Time(entry.at)},
          {"stage", Name(entry.stage)},
          {"level", entry.level == Level::kError  ? "error"
                    : entry.level == Level::kWarn ? "warning"
                                                  : "info"},
          {"text", entry.text}};
}

json ToJson(const manager::ServiceView& view) {
  json instances = json::array();
  for (const manager::Instance& instance : view.instances)
    instances.push_back({{"number", instance.number},
                         {"name", instance.name},
                         {"state", NameOf(instance.state)},
                         {"node", instance.node},
                         {"address", instance.address},
                         {"detail", instance.detail},
                         {"starts", instance.starts},
                         {"since", Time(instance.since)}});
  const manager::Service& service = view.service;
  return {{"id", service.id},
          {"name", service.name},
          {"namespace", NamesOf(service.kind).space},
          {"app_id", service.app_id},
          {"app_name", view.app_name},
          {"project", service.project.empty() ? json(nullptr) : json(service.project)},
          {"customer", service.customer},
          {"port", service.port},
          {"url", view.url},
          {"gone", service.gone},
          {"created_at", Time(service.created_at)},
          {"instances", instances}};
}

json ToJson(const orchestrator::Node& node) {
  return {{"name", node.name},
          {"cluster", node.cluster},
          {"address", node.address},
          {"addons", node.addons},
          {"up", node.up},
          {"capacity", Resources(node.capacity)},
          {"reserved", Resources(node.reserved)}};
}

json ToJson(const orchestrator::LogPart& part) {
  return {{"text", part.bytes}, {"next", part.next}, {"ended", part.ended}};
}

json ToJson(const Account& account) { return {{"name", account.name}, {"admin", account.admin}}; }

int HttpStatusOf(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 422;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kUnimplemented:
      return 501;
    case Code::kFailedPrecondition:
    case Code::kAlreadyExists:
      return 409;
    case Code::kUnavailable:
    case Code::kResourceExhausted:
    case Code::kDeadlineExceeded:
      return 503;
    default:
      return 500;
  }
}

json Problem(const Error& error) {
  const int status = error.wire_code != 0 ? error.wire_code : HttpStatusOf(error.code);
  json out = {{"type", "about:blank"},
              {"title", Title(status)},
              {"status", status},
              {"detail", error.message}};
  if (const std::string field = FieldOf(error.message); status == 422 && !field.empty())
    out["errors"] =
        json::array({{{"field", field}, {"detail", error.message.substr(field.size() + 2)}}});
  return out;
}

}  // namespace umbel::doors
