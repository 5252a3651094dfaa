#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <thread>

#include "base/cpu.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/daemon.h"
#include "cli/settings.h"
#include "superlink/superlink.h"

namespace umbel::cli {
namespace {

using superlink::Isolation;
using superlink::Options;

constexpr const char* kFooter = R"(Examples:
  umbel superlink --insecure
      Serve SuperNodes and the flwr command on 127.0.0.1:8000, keeping state in ~/.umbel.
  umbel superlink --host 0.0.0.0 --ssl-certfile server.pem --ssl-keyfile server.key \
      --ssl-ca-certfile ca.pem --enable-supernode-auth --control-from 10.1.0.0/16
      Serve a network by TLS to registered SuperNodes; one network may command.
  umbel superlink --insecure --database :memory: --port 9000
      Keep nothing.
  umbel superlink gc --port 8000 --older-than 30 --dry-run
      Show which ended runs and logs would go; `umbel superlink gc --help` tells more.

Settings also come from --config FILE ([superlink] table) and from the environment
(UMBEL_SUPERLINK_PORT, ...). A flag wins over the environment, the environment over the file.)";

/// Flags of flower-superlink that have no meaning here, and the sentence that says why.
const std::map<std::string, std::string> kUnserved = {
    {"--simulation", "simulation is not served: run `flower-superlink --simulation` for it"},
    {"--fleet-api-address",
     "the gRPC Fleet API is not served: SuperNodes of Flower 1.40 and later dial --host:--port"},
    {"--fleet-api-type", "only the HTTP Fleet API is served: leave --fleet-api-type away"},
    {"--control-api-address",
     "the gRPC Control API is not served: the flwr command dials --host:--port"},
    {"--serverappio-api-address",
     "the gRPC ServerAppIo API is not served: apps dial --host:--port"},
    {"--exec-api-address", "the gRPC Exec API is not served: the flwr command dials --host:--port"},
    {"--health-server-address",
     "the gRPC health server is not served: ask GET /health, /livez or /readyz on --host:--port"},
};

/// What the flags fill; turned into Options once everything is known.
struct Values {
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  bool insecure = false;
  std::string ssl_certfile, ssl_keyfile, ssl_ca_certfile;
  std::string isolation = "subprocess";
  std::string database;
  std::string state_dir;
  std::string durability = "process";
  bool supernode_auth = false;
  std::string superexec_secret;
  bool allow_install = false;
  bool disable_install = false;
  std::vector<std::string> control_from = Options().control_from;
  std::string log_file;
  int64_t log_hours = 24;
  int64_t log_backups = 7;
  std::string log_level = "info";
  std::string serverapp_command = "flwr-serverapp";
  int64_t threads = std::max<int64_t>(2, std::thread::hardware_concurrency());
};

void Declare(Settings& s, Values& v) {
  s.Text(&v.host, "host", "Address to listen on");
  s.Number(&v.port, "port", "Port to listen on; 0 lets the system pick", 0, 65535);
  s.Flag(&v.insecure, "insecure", "Serve plain HTTP");
  s.Text(&v.ssl_certfile, "ssl-certfile", "PEM certificate of this server");
  s.Text(&v.ssl_keyfile, "ssl-keyfile", "PEM private key of this server");
  s.Text(&v.ssl_ca_certfile, "ssl-ca-certfile", "PEM CA certificate, which ServerApps trust");
  s.Choice(&v.isolation, "isolation",
           "subprocess: start ServerApps here; process: an external flower-superexec does",
           {"subprocess", "process"});
  s.Text(&v.database, "database", "Database file; :memory: keeps nothing");
  s.Text(&v.state_dir, "state-dir", "Folder of all state [$UMBEL_HOME/superlink/<port>]");
  s.Choice(&v.durability, "durability",
           "What an accepted message survives: process (any crash of a process) or power",
           {"process", "power"});
  s.Flag(&v.supernode_auth, "enable-supernode-auth",
         "Only SuperNodes registered by `flwr supernode register` may join");
  s.Text(&v.superexec_secret, "superexec-auth-secret-file",
         "File with the secret shared with flower-superexec (--isolation process)");
  s.Flag(&v.allow_install, "allow-runtime-dependency-installation",
         "Let ServerApps install their app's dependencies");
  s.Flag(&v.disable_install, "disable-runtime-dependency-installation",
         "Accepted for compatibility: it is the default");
  s.Texts(&v.control_from, "control-from",
          "Networks whose peers may start and stop runs and read /metrics");
  s.Text(&v.log_file, "log-file", "Also write the log to this file");
  s.Number(&v.log_hours, "log-rotation-interval-hours", "Hours until the log file is rotated", 1,
           24 * 366);
  s.Number(&v.log_backups, "log-rotation-backup-count", "Rotated log files that are kept", 0,
           10'000);
  s.Choice(&v.log_level, "log-level", "Least severe messages to log",
           {"debug", "info", "warning", "error"});
  s.Text(&v.serverapp_command, "serverapp-command", "Program that runs a ServerApp");
  s.Number(&v.threads, "threads", "Threads that serve connections", 1, 256);
}

Options ToOptions(const Values& v) {
  Options o;
  o.host = v.host;
  o.port = static_cast<uint16_t>(v.port);
  o.insecure = v.insecure;
  o.ssl_certfile = v.ssl_certfile;
  o.ssl_keyfile = v.ssl_keyfile;
  o.ssl_ca_certfile = v.ssl_ca_certfile;
  o.isolation = v.isolation == "process" ? Isolation::kProcess : Isolation::kSubprocess;
  const bool keeps_nothing = v.database == ":memory:" || v.database == ":flwr-in-memory:";
  if (!keeps_nothing) {
    o.state_directory = v.state_dir.empty() ? StateDirectory(v.port) : v.state_dir;
    o.database = v.database;
  }
  o.durability = v.durability == "power" ? store::Durability::kPower : store::Durability::kProcess;
  o.supernode_auth = v.supernode_auth;
  o.superexec_secret_file = v.superexec_secret;
  o.install_dependencies = v.allow_install && !v.disable_install;
  o.control_from = v.control_from;
  o.log_file = v.log_file;
  o.log_rotation_interval_hours = static_cast<int>(v.log_hours);
  o.log_rotation_backup_count = static_cast<int>(v.log_backups);
  o.log_level = v.log_level;
  o.serverapp_command = v.serverapp_command;
  o.threads = static_cast<size_t>(v.threads);
  return o;
}

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel superlink: %s\n", error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

/// Serves until SIGTERM or SIGINT; a second signal ends the process at once.
int Serve(const Options& options) {
  LogOptions log;
  log.level = LevelOf(options.log_level);
  log.file = options.log_file;
  log.rotation_interval = std::chrono::hours(options.log_rotation_interval_hours);
  log.rotation_backup_count = options.log_rotation_backup_count;
  if (const Status started = BecomeDaemon(log); !started.ok()) return Complain(started.error());
  auto server = superlink::SuperLink::Start(options);
  if (!server.ok()) return Complain(server.error());
  LogInfo("SuperLink is ready",
          {{"address", fmt::format("{}://{}:{}", options.insecure ? "http" : "https", options.host,
                                   (*server)->port())},
           {"state", options.state_directory.empty() ? "none" : options.state_directory}});
  AwaitSignal();
  (*server)->Stop();
  LogInfo("stopped", {});
  return 0;
}

}  // namespace

std::string StateDirectory(int64_t port) {
  return fmt::format("{}/superlink/{}", UmbelHome(), port);
}

int SuperLinkCommand(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "gc") return SuperLinkGcCommand(argc - 1, argv + 1);
  for (int i = 1; i < argc; ++i) {
    const std::string flag = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (const auto found = kUnserved.find(flag); found != kUnserved.end())
      return Complain({Code::kInvalidArgument, flag + ": " + found->second, 0});
  }
  CLI::App app("Serve a federation: SuperNodes, ServerApps and the flwr command.",
               "umbel superlink");
  app.footer(kFooter);
  app.get_formatter()->column_width(44);
  Values values;
  Settings settings(app, "superlink");
  Declare(settings, values);
  std::string config;
  bool print = false;
  app.add_option("--config", config, "TOML file with a [superlink] table")->take_last();
  app.add_flag("--print-config", print, "Show every setting and where it came from, then end");
  if (const auto status = Parse(app, argc, argv)) return *status;
  if (const Status resolved = settings.Resolve(config); !resolved.ok())
    return Complain(resolved.error());
  if (const Status cpu = CheckCpuPath(); !cpu.ok()) return Complain(cpu.error());
  const Options options = ToOptions(values);
  if (print) {
    std::fputs(settings.Print().c_str(), stdout);
    return 0;
  }
  if (const Status valid = superlink::Validate(options); !valid.ok())
    return Complain(valid.error());
  return Serve(options);
}

}  // namespace umbel::cli
