// How the API shows what the manager knows, as JSON. Functions; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "doors/accounts.h"
#include "manager/manager.h"

namespace umbel::doors {

nlohmann::json ToJson(const manager::Project& project);
nlohmann::json ToJson(const manager::ProjectView& view);
nlohmann::json ToJson(const manager::Entry& entry);
nlohmann::json ToJson(const manager::ServiceView& view);
nlohmann::json ToJson(const orchestrator::Node& node);
nlohmann::json ToJson(const orchestrator::LogPart& part);
nlohmann::json ToJson(const Account& account);

/// RFC 9457, with `errors` where the message names a field.
nlohmann::json Problem(const Error& error);
int HttpStatusOf(Code code);

}  // namespace umbel::doors
