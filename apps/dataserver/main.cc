// The umbel-dataserver binary: the first word picks the command.
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "base/version.h"
#include "commands.h"

namespace {

constexpr const char* kHelp = R"(umbel-dataserver - the data of a learner node, by Arrow Flight

Usage: umbel-dataserver COMMAND [options]

Commands:
  serve    Keep Parquet files, give them to learners (in place of FLOps' ml-data-server)
  put      Send a .parquet or .csv file to a data server, under a tag
  list     Show what a data server has
  drop     Remove a file from a data server
  assign   Give a learner its part of the data, by a socket of its own
  release  Take a learner's part back
  mock     Cut Fashion-MNIST or digits into partitions and send them to data servers

Other:
  umbel-dataserver COMMAND --help    what a command takes, with examples
  umbel-dataserver --version
)";

}  // namespace

int main(int argc, char** argv) {
  using namespace umbel::dataserver;  // NOLINT: its commands
  const std::string_view command = argc > 1 ? argv[1] : "--help";
  if (command == "serve") return ServeCommand(argc - 1, argv + 1);
  if (command == "put") return PutCommand(argc - 1, argv + 1);
  if (command == "list") return ListCommand(argc - 1, argv + 1);
  if (command == "drop") return DropCommand(argc - 1, argv + 1);
  if (command == "mock") return MockCommand(argc - 1, argv + 1);
  if (command == "assign") return AssignCommand(argc - 1, argv + 1);
  if (command == "release") return ReleaseCommand(argc - 1, argv + 1);
  if (command == "--version" || command == "-V") {
    fmt::print("umbel-dataserver {}\n", umbel::kVersion);
    return 0;
  }
  const bool asked = command == "--help" || command == "-h" || command == "help";
  std::fputs(kHelp, asked ? stdout : stderr);
  if (!asked) std::fprintf(stderr, "umbel-dataserver: there is no command '%s'\n", argv[1]);
  return asked ? 0 : 2;
}
