// What is read from a FAB's pyproject.toml. Functions; safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "flower/config.h"

namespace umbel::flower {

struct FabConfig {
  std::string publisher;
  std::string name;
  std::string version;
  // "module:attribute"; "" when absent.
  std::string serverapp;
  std::string clientapp;
  std::string agentapp;
  ConfigMap config;  // [tool.flwr.app.config], nested keys joined by '.'
};

/// errors  kInvalidArgument with wire code 15 for whatever is wrong; the message names the key.
Result<FabConfig> ParseFabConfig(std::string_view toml);

}  // namespace umbel::flower
