// What the manager knows, as Oakestra's clients want to read it. They show what they get through
// `rich`, fail on a status that is not in Oakestra's set, and on ids and logs that are no strings.
// Functions; any thread.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "manager/manager.h"
#include "orchestrator/ground.h"

namespace umbel::doors::oakestra {

/// One of Oakestra's: "RUNNING".
std::string_view StatusOf(orchestrator::InstanceState state);

/// Text of programs as `rich` prints it unchanged: without the codes of terminals, and with '\'
/// before what it would take for markup.
std::string Escape(std::string_view text);

/// clusters  of each node, by its name.
/// logs      of each instance, escaped already; missing ones are "".
nlohmann::json Service(const manager::ServiceView& view,
                       const std::map<std::string, std::string>& clusters,
                       const std::vector<std::string>& logs);

/// An app: what its services say of it. services  all of the same app, at least one.
nlohmann::json Application(const std::vector<const manager::ServiceView*>& services);

/// The nodes of one cluster, at least one, as Oakestra sums them up.
nlohmann::json Cluster(const std::vector<const orchestrator::Node*>& nodes);
/// Of a name, always the same: 24 hexadecimal digits.
std::string ClusterId(std::string_view name);

}  // namespace umbel::doors::oakestra
