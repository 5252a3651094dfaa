// umbel_load: speaks Flower's wire to a SuperLink of this machine, as many clients at once.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "identity.h"

namespace {

using namespace umbel;
using namespace umbel::bench;

constexpr const char* kFooter = R"(Examples:
  umbel_load objects --port 8000 --fab toy.fab --direction down
  umbel_load roof --folder /var/tmp --objects 160
  umbel_load idle --port 8000 --nodes 1000 --seconds 60
Servers need --isolation process; only addresses in 127.0.0.0/8 are dialled.
Every command prints its figures as one line of JSON.)";

struct Server {
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string fab;
};

void AddServer(CLI::App* command, Server& server, bool needs_fab) {
  command->add_option("--host", server.host, "Loopback address of the server");
  command->add_option("--port", server.port, "Its port")->check(CLI::Range(1, 65535));
  if (needs_fab) command->add_option("--fab", server.fab, "Bundle to start a run with")->required();
}

Status SignatureSpeed() {
  fmt::print("{}\n", nlohmann::json{{"verify_seconds", SecondsPerVerification()}}.dump());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  CLI::App app("Loads a SuperLink as many clients at once.", "umbel_load");
  app.footer(kFooter);
  app.require_subcommand(1);
  Server server;
  ObjectsOptions objects;
  RoofOptions roof;
  MessagesOptions messages;
  IdleOptions idle;
  HostileOptions hostile;
  TrainOptions train;
  std::string order = "native";
  std::string direction = "up";

  CLI::App* command = app.add_subcommand("objects", "Push, then pull distinct large objects");
  AddServer(command, server, true);
  command->add_option("--direction", direction, "up: nodes push; down: the ServerApp pushes")
      ->check(CLI::IsMember({"up", "down"}));
  command->add_option("--connections", objects.connections)->check(CLI::Range(1, 64));
  command->add_option("--objects", objects.objects)->check(CLI::Range(1, 10'000));
  command->add_option("--bytes", objects.object_bytes)->check(CLI::Range(1024, 5 << 20));

  command = app.add_subcommand("roof", "The same bytes without a server");
  command->add_option("--folder", roof.folder, "On the file system to compare with")->required();
  command->add_option("--connections", roof.connections)->check(CLI::Range(1, 64));
  command->add_option("--objects", roof.objects)->check(CLI::Range(1, 10'000));
  command->add_option("--bytes", roof.object_bytes)->check(CLI::Range(1024, 5 << 20));
  command->add_flag("--sync", roof.sync, "fdatasync each object");

  command = app.add_subcommand("messages", "Push messages with trees of 24 small objects");
  AddServer(command, server, true);
  command->add_option("--connections", messages.connections)->check(CLI::Range(1, 64));
  command->add_option("--messages", messages.messages)->check(CLI::Range(1, 100'000));
  command->add_option("--batch", messages.batch, "Messages in one request")
      ->check(CLI::Range(1, 10'000));

  command = app.add_subcommand("idle", "Nodes that wait for work and heartbeat");
  AddServer(command, server, false);
  command->add_option("--nodes", idle.nodes)->check(CLI::Range(1, 20'000));
  command->add_option("--warm", idle.warm_seconds)->check(CLI::Range(0, 600));
  command->add_option("--seconds", idle.seconds)->check(CLI::Range(1, 3600));
  command->add_option("--close-after", idle.close_after)->check(CLI::Range(0, 3600));

  command = app.add_subcommand("train", "Nodes that train: every reply another one");
  AddServer(command, server, false);
  command->add_option("--nodes", train.nodes)->check(CLI::Range(1, 20'000));
  command->add_option("--threads", train.threads)->check(CLI::Range(1, 64));
  command->add_option("--phases", train.phases)->check(CLI::Range(1, 1000));
  command->add_option("--order", order, "Of a reply's objects, as Umbel's or Flower's nodes send")
      ->check(CLI::IsMember({"native", "stock"}));
  command->add_flag("--hostile", train.hostile, "One node sends numbers of all magnitudes");
  command->add_option("--patience", train.patience)->check(CLI::Range(1, 36'000));

  for (const auto& [name, help] :
       {std::pair("half-open", "Connections that never send a whole request"),
        std::pair("slow", "Heads and bodies sent byte by byte; replies never read"),
        std::pair("hog", "Announced bodies of nearly the largest size"),
        std::pair("lies", "Requests whose framing or content lies")}) {
    command = app.add_subcommand(name, help);
    AddServer(command, server, std::string_view(name) == "lies");
    command->add_option("--connections", hostile.connections)->check(CLI::Range(1, 20'000));
    command->add_option("--processes", hostile.processes)->check(CLI::Range(1, 16));
    command->add_option("--seconds", hostile.seconds)->check(CLI::Range(1, 600));
  }
  app.add_subcommand("signatures", "How long one check of a P-256 signature takes");
  CLI11_PARSE(app, argc, argv);

  const auto endpoint = Loopback(server.host, server.port);
  Status status;
  const std::string name = app.get_subcommands().front()->get_name();
  if (!endpoint.ok()) {
    status = Fail(endpoint.error());
  } else if (name == "objects") {
    objects.server = *endpoint;
    objects.fab = server.fab;
    objects.up = direction == "up";
    status = RunObjects(objects);
  } else if (name == "roof") {
    status = RunRoof(roof);
  } else if (name == "messages") {
    messages.server = *endpoint;
    messages.fab = server.fab;
    status = RunMessages(messages);
  } else if (name == "idle") {
    idle.server = *endpoint;
    status = RunIdle(idle);
  } else if (name == "train") {
    train.server = *endpoint;
    train.stock = order == "stock";
    status = RunTrain(train);
  } else if (name == "signatures") {
    status = SignatureSpeed();
  } else {
    hostile.server = *endpoint;
    hostile.fab = server.fab;
    status = name == "half-open" ? RunHalfOpen(hostile)
             : name == "slow"    ? RunSlow(hostile)
             : name == "hog"     ? RunHog(hostile)
                                 : RunLies(hostile);
  }
  if (status.ok()) return 0;
  fmt::print(stderr, "umbel_load {}: {}\n", name, status.error().ToString());
  return 1;
}
