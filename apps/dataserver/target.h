// Flags of the commands that call a data server.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "dataserver/client.h"

namespace umbel::dataserver {

struct TargetFlags {
  std::string token_file;
  std::string ca_file;

  void Declare(CLI::App& app);
  Result<Target> For(const std::string& location) const;
};

/// "umbel-dataserver COMMAND: what was wrong", and the status to end with.
int Complain(const CLI::App& app, const Error& error);

}  // namespace umbel::dataserver
