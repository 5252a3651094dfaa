// What a SuperNode was asked to be: parsed once, then const.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "supernode/limits.h"

namespace umbel::supernode {

enum class HostKind { kWorker, kResident, kStock, kProcess };

struct Options {
  std::string superlink = "127.0.0.1:8000";
  bool insecure = false;
  std::string root_certificates;  // PEM file; "" with TLS: the system's
  std::optional<int64_t> max_retries;
  std::optional<double> max_wait_time;  // seconds
  std::string private_key;              // file; "": a key of our own, kept in the state
  std::string node_config;              // may hold {i} and {n}
  int64_t count = 1;                    // sites in this process

  std::string host = "127.0.0.1";  // of the Runtime API, /health and /metrics
  uint16_t port = 9094;
  std::string ssl_certfile, ssl_keyfile, ssl_ca_certfile;
  std::string superexec_secret_file;

  HostKind host_kind = HostKind::kWorker;
  std::string python;  // "": the first python3 on PATH
  size_t max_parallel = 1;
  bool install_dependencies = false;
  Limits limits;
  bool isolated = false;           // user code sees only itself; implies limits.network = false
  std::vector<std::string> shown;  // what isolated user code sees beside that, read-only
  bool unlimited = false;          // run even where the limits cannot be enforced
  std::string preload;  // file of a FAB that is loaded before the sites connect; "": none

  std::string trusted_entities;  // file
  std::vector<std::string> allow_fabs;
  std::vector<std::string> allow_publishers;

  std::string wait_for;         // a path; connect and start user code once it is there; "": at once
  std::string state_directory;  // absolute
  std::string log_file;
  int log_rotation_interval_hours = 24;
  int log_rotation_backup_count = 7;
  std::string log_level = "info";
  std::chrono::seconds shutdown_grace{5};
};

}  // namespace umbel::supernode
