// What a SuperLink was asked to be: parsed once, then const.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "store/store.h"

namespace umbel::superlink {

enum class Isolation { kSubprocess, kProcess };

struct Options {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  bool insecure = false;
  std::string ssl_certfile;
  std::string ssl_keyfile;
  std::string ssl_ca_certfile;
  Isolation isolation = Isolation::kSubprocess;
  std::string state_directory;  // "" keeps nothing
  std::string database;         // "" is inside state_directory
  store::Durability durability = store::Durability::kProcess;
  bool supernode_auth = false;
  std::string superexec_secret_file;
  bool install_dependencies = false;
  std::vector<std::string> control_from{"127.0.0.0/8", "::1/128"};
  std::string log_file;
  int log_rotation_interval_hours = 24;
  int log_rotation_backup_count = 7;
  std::string log_level = "info";
  std::string serverapp_command = "flwr-serverapp";
  size_t threads = 2;
  std::chrono::seconds shutdown_grace{5};
  std::chrono::seconds orphan_grace{600};  // a ServerApp without any SuperLink
};

}  // namespace umbel::superlink
