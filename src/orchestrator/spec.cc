#include "orchestrator/spec.h"

#include <algorithm>

namespace umbel::orchestrator {
namespace {

bool IsAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && IsAlnum(name[0]) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return IsAlnum(c) || c == '.' || c == '_' || c == '-'; });
}

bool HasZero(std::string_view text) { return text.find('\0') != std::string_view::npos; }

}  // namespace

Status CheckSpec(const InstanceSpec& spec) {
  if (!IsName(spec.name))
    return Fail(Code::kInvalidArgument,
                fmt::format("instance name '{}' is not 1 to {} of A-Z a-z 0-9 . _ - with a letter "
                            "or digit first",
                            spec.name.substr(0, 2 * kNameBytesMax), kNameBytesMax));
  const auto bad = [&](std::string_view what) {
    return Fail(Code::kInvalidArgument, fmt::format("instance '{}': {}", spec.name, what));
  };
  if (spec.arguments.empty() || spec.arguments[0].empty()) return bad("no program to start");
  if (std::any_of(spec.arguments.begin(), spec.arguments.end(), HasZero))
    return bad("an argument holds a zero byte");
  std::set<std::string_view> keys;
  for (const std::string& entry : spec.environment) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0 || HasZero(entry))
      return bad(fmt::format("entry {} of the environment is not KEY=value", keys.size()));
    const std::string_view key = std::string_view(entry).substr(0, equals);
    if (!keys.insert(key).second) return bad(fmt::format("'{}' is twice in the environment", key));
  }
  if (!spec.isolated && !(spec.shown.empty() && spec.writable.empty() && spec.reached.empty()))
    return bad("what it is shown and what it reaches is for isolated ones");
  if (!spec.reached.empty() && spec.network) return bad("it reaches every port already");
  if (!spec.directory.empty() && (spec.directory[0] != '/' || HasZero(spec.directory)))
    return bad("its directory is not an absolute path");
  return {};
}

Status CheckNode(const InstanceSpec& spec, const std::vector<Node>& nodes) {
  if (spec.node.empty()) return {};
  std::vector<std::string> names;
  for (const Node& node : nodes) {
    if (node.name == spec.node) return {};
    names.push_back(node.name);
  }
  return Fail(Code::kInvalidArgument,
              fmt::format("instance '{}' belongs on node '{}', but there are only: {}", spec.name,
                          spec.node, fmt::join(names, ", ")));
}

std::vector<Node> DefaultNodes() {
  std::vector<Node> nodes;
  for (const char* name : {"node-0", "node-1", "node-2"}) {
    Node node;
    node.name = name;
    node.cluster = "cluster-0";
    node.address = "127.0.0.1";
    if (!nodes.empty()) node.addons = {"FLOps-learner"};
    nodes.push_back(std::move(node));
  }
  return nodes;
}

std::string_view StateName(InstanceState state) {
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

}  // namespace umbel::orchestrator
