#include "target.h"

#include <cstdio>

#include "cli/settings.h"
#include "dataset/tokens.h"

namespace umbel::dataserver {

void TargetFlags::Declare(CLI::App& app) {
  app.add_option("--token-file", token_file, "Send the first token of this file")
      ->envname("UMBEL_DATA_TOKEN_FILE");
  app.add_option("--ssl-ca-certfile", ca_file, "PEM certificate that signs the server's (grpc+tls)")
      ->envname("UMBEL_DATA_CA_CERTFILE");
}

Result<Target> TargetFlags::For(const std::string& location) const {
  Target target{location, "", ca_file};
  if (!token_file.empty()) {
    UMBEL_ASSIGN(target.token, dataset::FirstToken(token_file));
  }
  return target;
}

int Complain(const CLI::App& app, const Error& error) {
  std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.message.c_str());
  return error.code == Code::kInvalidArgument ? cli::kBadUsage : 1;
}

}  // namespace umbel::dataserver
