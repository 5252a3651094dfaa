#include <fmt/core.h>

#include "cli/settings.h"
#include "commands.h"
#include "target.h"

namespace umbel::dataserver {
namespace {

constexpr const char* kFooter = R"(Example:
  umbel-dataserver drop mnist.0123456789abcdef0123456789abcdef.parquet --from grpc://127.0.0.1:11027

Learners that were given a part of the file keep it until they are released.)";

}  // namespace

int DropCommand(int argc, char** argv) {
  CLI::App app("Remove a file from a data server.", "umbel-dataserver drop");
  app.footer(kFooter);
  std::string name, location;
  TargetFlags flags;
  app.add_option("name", name, "The file, as `list` shows it")->required();
  app.add_option("--from", location, "Location of the data server")->required();
  flags.Declare(app);
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  const auto target = flags.For(location);
  if (!target.ok()) return Complain(app, target.error());
  const auto client = Client::Connect(*target);
  if (!client.ok()) return Complain(app, client.error());
  const auto dropped = (*client)->Act("drop_dataset", name);
  if (!dropped.ok()) return Complain(app, dropped.error());
  fmt::print("dropped {}\n", name);
  return 0;
}

}  // namespace umbel::dataserver
