// The umbel binary: the first word picks the command.
#include <fmt/core.h>

#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/version.h"
#include "cli/commands.h"
#include "orchestrator/local/keeper.h"
#include "process/confined.h"
#include "process/process.h"

namespace {

constexpr const char* kHelp = R"(umbel - federated learning as an operation

Usage: umbel COMMAND [options]

Projects:
  up          Run projects on this machine: manager, nodes and API in one process
  project     Submit, list, show, stop, resume and remove projects
  ps          Services and their instances
  logs        What a service says
  nodes       Nodes and what is set aside on them
  tracking    Where the tracking server is, with its GUI
  data        Data servers of learner nodes, and mock data
  models      Models that projects have logged
  predict     Ask a served model
  accounts    Who may log in: customers and admins

Training:
  superlink   Serve SuperNodes, ServerApps and the flwr command (in place of flower-superlink)
  supernode   Run ClientApps at a site (in place of flower-supernode)
  run         Train an app by native rounds, without a ServerApp (in place of flwr run)

Other:
  umbel COMMAND --help    what a command takes, with examples
  umbel --version
)";

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "--help";
  if (command == "superlink") return umbel::cli::SuperLinkCommand(argc - 1, argv + 1);
  if (command == "supernode") return umbel::cli::SuperNodeCommand(argc - 1, argv + 1);
  if (command == "run") return umbel::cli::RunCommand(argc - 1, argv + 1);
  if (command == "up") return umbel::cli::UpCommand(argc - 1, argv + 1);
  if (command == "project") return umbel::cli::ProjectCommand(argc - 1, argv + 1);
  if (command == "ps") return umbel::cli::PsCommand(argc - 1, argv + 1);
  if (command == "logs") return umbel::cli::LogsCommand(argc - 1, argv + 1);
  if (command == "nodes") return umbel::cli::NodesCommand(argc - 1, argv + 1);
  if (command == "tracking") return umbel::cli::TrackingCommand(argc - 1, argv + 1);
  if (command == "data") return umbel::cli::DataCommand(argc - 1, argv + 1);
  if (command == "models") return umbel::cli::ModelsCommand(argc - 1, argv + 1);
  if (command == "predict") return umbel::cli::PredictCommand(argc - 1, argv + 1);
  if (command == "accounts") return umbel::cli::AccountsCommand(argc - 1, argv + 1);
  if (command == "keeper") return umbel::orchestrator::KeeperMain(argc, argv);  // not for people
  if (command == "guard") return umbel::process::GuardMain(argc, argv);         // not for people
  if (command == "confine") return umbel::process::ConfineMain(argc, argv);     // nor this
  if (command == "--version" || command == "-V") {
    fmt::print("umbel {} (speaks Flower 1.41)\n", umbel::kVersion);
    return 0;
  }
  const bool asked = command == "--help" || command == "-h" || command == "help";
  std::fputs(kHelp, asked ? stdout : stderr);
  if (!asked) std::fprintf(stderr, "umbel: there is no command '%s'\n", argv[1]);
  return asked ? 0 : 2;
}
