// What user code sees of our environment. Functions; call before threads change it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::supernode {

/// "KEY=value" of what an interpreter and numeric libraries need; none of the node's own settings
/// or secrets. Telemetry and update checks of Flower are off.
std::vector<std::string> ClientAppEnvironment();

/// The same and what uv needs to install an app's dependencies as this site wants it: its own
/// settings (UV_*, but for publishing) and proxies. They may hold the password of an index or a
/// proxy, which what is built then sees.
std::vector<std::string> InstallerEnvironment();

bool HasVariable(const std::vector<std::string>& environment, std::string_view name);
/// In place of what it was, if it was set.
void SetVariable(std::vector<std::string>& environment, std::string_view name,
                 std::string_view value);

/// The program of that name in PATH, or the path itself.
/// errors  kNotFound: no such program, or it cannot be executed; the message names where was
/// looked.
Result<std::string> FindProgram(const std::string& name);

}  // namespace umbel::supernode
