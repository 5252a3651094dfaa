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
#include "supernode/environment.h"
#include "supernode/supernode.h"

namespace umbel::cli {
namespace {

using supernode::HostKind;
using supernode::Options;

constexpr const char* kFooter = R"(Examples:
  umbel supernode --insecure --superlink 127.0.0.1:8000 --node-config 'data-from=0.0 data-to=0.7'
      One site of a federation on this machine.
  umbel supernode --superlink fl.example.org:8000 --root-certificates ca.crt \
      --auth-supernode-private-key site.key --trusted-entities reviewers.yaml
      A registered site that runs only apps which a trusted reviewer has signed.
  umbel supernode --insecure --count 50 --node-config 'partition-id={i} num-partitions={n}'
      Fifty sites in one process.
  umbel supernode --insecure --limit-memory 2048 --limit-time 600
      User code gets 2 GiB and ten minutes a message.
  umbel supernode status
      What the SuperNode on port 9094 is doing.

Settings also come from --config FILE ([supernode] table) and from the environment
(UMBEL_SUPERNODE_SUPERLINK, ...). A flag wins over the environment, the environment over the file.)";

/// Flags of flower-supernode that have no meaning here, and the sentence that says why.
const std::map<std::string, std::string> kUnserved = {
    {"--health-server-address",
     "the gRPC health server is not served: ask GET /health, /livez or /readyz on --host:--port"},
    {"--clientappio-api-address",
     "the gRPC ClientAppIo API is not served: apps dial --host:--port"},
    {"--rest", "only the HTTP Fleet API is spoken: leave --rest away"},
    {"--grpc-rere", "only the HTTP Fleet API is spoken: leave --grpc-rere away"},
    {"--grpc-adapter", "only the HTTP Fleet API is spoken: leave --grpc-adapter away"},
};

/// What the flags fill; turned into Options once everything is known.
struct Values {
  std::string superlink = Options().superlink;
  bool insecure = false;
  std::string root_certificates, private_key, node_config;
  int64_t max_retries = -1;
  int64_t max_wait_time = -1;
  int64_t count = 1;
  std::string host = "127.0.0.1";
  int64_t port = 9094;
  std::string ssl_certfile, ssl_keyfile, ssl_ca_certfile;
  std::string isolation = "subprocess";
  std::string superexec_secret;
  std::string clientapp_host = "worker";
  std::string python = "python3";
  int64_t max_parallel = std::max<int64_t>(1, std::thread::hardware_concurrency());
  bool allow_install = false;
  std::string preload;
  int64_t limit_time = 0, limit_memory = 0, limit_processes = 0, limit_files = 0;
  int64_t limit_output = 16;
  bool no_network = false;
  bool isolated = false;
  std::vector<std::string> shown;
  bool unlimited = false;
  int64_t clientapp_uid = 0;
  std::string trusted_entities;
  std::vector<std::string> allow_fabs, allow_publishers;
  std::string wait_for;
  std::string state_dir;
  std::string log_file;
  int64_t log_hours = 24;
  int64_t log_backups = 7;
  std::string log_level = "info";
};

void Declare(Settings& s, Values& v) {
  s.Text(&v.superlink, "superlink", "SuperLink to connect to, HOST:PORT");
  s.Flag(&v.insecure, "insecure", "Connect by plain HTTP");
  s.Text(&v.root_certificates, "root-certificates",
         "PEM file of the CAs that are trusted; without it the system's");
  s.Number(&v.max_retries, "max-retries", "Further attempts of a call; -1: for ever", -1, 1 << 30);
  s.Number(&v.max_wait_time, "max-wait-time", "Seconds a call is tried for; -1: for ever", -1,
           1 << 30);
  s.Text(&v.private_key, "auth-supernode-private-key",
         "EC private key, OpenSSH or PEM, of a node registered with `flwr supernode register`");
  s.Text(&v.node_config, "node-config",
         "What ClientApps see as node_config: 'key=1 other=\"text\"', or a .toml file");
  s.Number(&v.count, "count", "Sites in this process; {i} and {n} in --node-config tell them apart",
           1, 10'000);
  s.Text(&v.host, "host", "Address of the Runtime API, /health and /metrics");
  s.Number(&v.port, "port", "Their port; 0 lets the system pick", 0, 65535);
  s.Text(&v.ssl_certfile, "ssl-certfile", "PEM certificate of the Runtime API");
  s.Text(&v.ssl_keyfile, "ssl-keyfile", "PEM private key of the Runtime API");
  s.Text(&v.ssl_ca_certfile, "ssl-ca-certfile", "PEM CA certificate, which ClientApps trust");
  s.Choice(&v.isolation, "isolation",
           "subprocess: run ClientApps here; process: an external flower-superexec does",
           {"subprocess", "process"});
  s.Text(&v.superexec_secret, "superexec-auth-secret-file",
         "File with the secret shared with flower-superexec (--isolation process)");
  s.Choice(&v.clientapp_host, "clientapp-host",
           "worker: a fork for each message; resident: a process that stays for each run series; "
           "stock: Flower's own flwr-clientapp",
           {"worker", "resident", "stock"});
  s.Text(&v.python, "python", "Interpreter with Flower and what the apps need");
  s.Text(&v.preload, "preload",
         "FAB that is loaded before this node connects, so that its first message finds it ready");
  s.Number(&v.max_parallel, "max-parallel", "Messages that are worked on at one time", 1, 4096);
  s.Flag(&v.allow_install, "allow-runtime-dependency-installation",
         "Install what an app needs, with the interpreter's uv");
  s.Number(&v.limit_time, "limit-time", "Seconds a message may take; 0: no limit", 0, 1 << 30);
  s.Number(&v.limit_memory, "limit-memory", "MiB a ClientApp may use; 0: no limit", 0, 1 << 30);
  s.Number(&v.limit_processes, "limit-processes",
           "Processes and threads a ClientApp may have; 0: no limit", 0, 1 << 22);
  s.Number(&v.limit_files, "limit-open-files", "Open files of a ClientApp; 0: no limit", 0,
           1 << 20);
  s.Number(&v.limit_output, "limit-output",
           "MiB of a message's output that go to the log; 0: no limit", 0, 1 << 20);
  s.Flag(&v.no_network, "no-network", "ClientApps get no network (needs root or user namespaces)");
  s.Flag(&v.isolated, "isolated",
         "ClientApps get no network, see no processes but theirs and no files but the system's "
         "programs, their interpreter, their app and folders of their own");
  s.Texts(&v.shown, "show",
          "File, folder, socket or device that isolated ClientApps see too, read-only");
  s.Number(&v.clientapp_uid, "clientapp-uid", "User ClientApps run as (needs root); 0: ours", 0,
           (int64_t{1} << 32) - 2);
  s.Flag(&v.unlimited, "unlimited", "Run even where the limits cannot be enforced");
  s.Text(&v.trusted_entities, "trusted-entities",
         "YAML file of key ids and public keys: only FABs one of them has signed run here");
  s.Texts(&v.allow_fabs, "allow-fab", "SHA-256 of a FAB that may run here; others are refused");
  s.Texts(&v.allow_publishers, "allow-publisher",
          "Publisher whose FABs may run here; others are refused");
  s.Text(&v.wait_for, "wait-for",
         "Connect only when this path is there, such as the socket that gives this site its data");
  s.Text(&v.state_dir, "state-dir",
         "Folder of all state [$UMBEL_HOME/supernode/<hash of superlink, node config and port>]");
  s.Text(&v.log_file, "log-file", "Also write the log to this file");
  s.Number(&v.log_hours, "log-rotation-interval-hours", "Hours until the log file is rotated", 1,
           24 * 366);
  s.Number(&v.log_backups, "log-rotation-backup-count", "Rotated log files that are kept", 0,
           10'000);
  s.Choice(&v.log_level, "log-level", "Least severe messages to log",
           {"debug", "info", "warning", "error"});
}

Options ToOptions(const Values& v) {
  Options o;
  o.superlink = v.superlink;
  o.insecure = v.insecure;
  o.root_certificates = v.root_certificates;
  if (v.max_retries >= 0) o.max_retries = v.max_retries;
  if (v.max_wait_time >= 0) o.max_wait_time = static_cast<double>(v.max_wait_time);
  o.private_key = v.private_key;
  o.node_config = v.node_config;
  o.count = v.count;
  o.host = v.host;
  o.port = static_cast<uint16_t>(v.port);
  o.ssl_certfile = v.ssl_certfile;
  o.ssl_keyfile = v.ssl_keyfile;
  o.ssl_ca_certfile = v.ssl_ca_certfile;
  o.superexec_secret_file = v.superexec_secret;
  o.host_kind = v.isolation == "process"         ? HostKind::kProcess
                : v.clientapp_host == "stock"    ? HostKind::kStock
                : v.clientapp_host == "resident" ? HostKind::kResident
                                                 : HostKind::kWorker;
  o.python = v.python;
  o.max_parallel = static_cast<size_t>(v.max_parallel);
  o.install_dependencies = v.allow_install;
  o.preload = v.preload;
  o.limits.wall_time = std::chrono::seconds(v.limit_time);
  o.limits.memory_bytes = static_cast<uint64_t>(v.limit_memory) << 20;
  o.limits.processes = static_cast<uint64_t>(v.limit_processes);
  o.limits.open_files = static_cast<uint64_t>(v.limit_files);
  o.limits.output_bytes = static_cast<uint64_t>(v.limit_output) << 20;
  o.limits.network = !v.no_network && !v.isolated;
  o.isolated = v.isolated;
  o.shown = v.shown;
  o.limits.uid = static_cast<uint32_t>(v.clientapp_uid);
  o.unlimited = v.unlimited;
  o.trusted_entities = v.trusted_entities;
  o.allow_fabs = v.allow_fabs;
  o.allow_publishers = v.allow_publishers;
  o.log_file = v.log_file;
  o.log_rotation_interval_hours = static_cast<int>(v.log_hours);
  o.log_rotation_backup_count = static_cast<int>(v.log_backups);
  o.log_level = v.log_level;
  o.wait_for = v.wait_for;
  // What isolated user code is told of it does not depend on where we are.
  o.state_directory = std::filesystem::absolute(
      v.state_dir.empty() ? supernode::StateDirectory(o, UmbelHome()) : v.state_dir);
  return o;
}

/// What cannot be had where the ClientApp is part of the program.
Status CheckInProcess(const Options& options) {
  if (options.host_kind != HostKind::kWorker)
    return Fail(Code::kInvalidArgument,
                "the ClientApp is part of this program: leave --clientapp-host and --isolation "
                "away");
  const supernode::Limits& limits = options.limits;
  const bool limited = limits.wall_time.count() > 0 || limits.memory_bytes > 0 ||
                       limits.processes > 0 || limits.open_files > 0 || limits.uid != 0 ||
                       !limits.network;
  if (!limited || options.unlimited) return {};
  return Fail(Code::kFailedPrecondition,
              "a ClientApp that is part of this program cannot be limited: leave --limit-..., "
              "--no-network and --clientapp-uid away, or go without them with --unlimited");
}

/// What messages call this program.
std::string g_program = "umbel supernode";

int Complain(const Error& error) {
  std::fprintf(stderr, "%s: %s\n", g_program.c_str(), error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

/// Works until SIGTERM or SIGINT, or until no site is left; a second signal ends the process at
/// once.
int Serve(const Options& options, const supernode::HostFactory& make_host) {
  LogOptions log;
  log.level = LevelOf(options.log_level);
  log.file = options.log_file;
  log.rotation_interval = std::chrono::hours(options.log_rotation_interval_hours);
  log.rotation_backup_count = options.log_rotation_backup_count;
  if (const Status started = BecomeDaemon(log); !started.ok()) return Complain(started.error());
  if (!options.wait_for.empty()) {
    const auto there = AwaitFileOrSignal(options.wait_for);
    if (!there.ok()) return Complain(there.error());
    if (!*there) return 0;
  }
  auto node = supernode::SuperNode::Start(options, EndDaemon, make_host);
  if (!node.ok()) return Complain(node.error());
  LogInfo("SuperNode is starting", {{"superlink", options.superlink},
                                    {"port", (*node)->port()},
                                    {"state", options.state_directory}});
  AwaitSignal();
  const Status end = (*node)->Stop();
  LogInfo("stopped", {});
  return end.ok() ? 0 : Complain(end.error());
}

}  // namespace

int SuperNodeCommand(int argc, char** argv, const supernode::HostFactory& make_host) {
  if (make_host && argc > 0) g_program = std::filesystem::path(argv[0]).filename().native();
  if (argc > 1 && std::string_view(argv[1]) == "status")
    return SuperNodeStatusCommand(argc - 1, argv + 1);
  for (int i = 1; i < argc; ++i) {
    const std::string flag = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (const auto found = kUnserved.find(flag); found != kUnserved.end())
      return Complain({Code::kInvalidArgument, flag + ": " + found->second, 0});
  }
  CLI::App app("Run ClientApps at a site of a federation.", g_program);
  app.footer(kFooter);
  app.get_formatter()->column_width(44);
  Values values;
  Settings settings(app, "supernode");
  Declare(settings, values);
  std::string config;
  bool print = false;
  app.add_option("--config", config, "TOML file with a [supernode] table")->take_last();
  app.add_flag("--print-config", print, "Show every setting and where it came from, then end");
  if (const auto status = Parse(app, argc, argv)) return *status;
  if (const Status resolved = settings.Resolve(config); !resolved.ok())
    return Complain(resolved.error());
  if (const Status cpu = CheckCpuPath(); !cpu.ok()) return Complain(cpu.error());
  Options options = ToOptions(values);
  if (print) {
    std::fputs(settings.Print().c_str(), stdout);
    return 0;
  }
  if (const Status valid = supernode::Validate(options); !valid.ok())
    return Complain(valid.error());
  if (make_host) {
    const Status possible = CheckInProcess(options);
    return possible.ok() ? Serve(options, make_host) : Complain(possible.error());
  }
  auto python = supernode::FindProgram(options.python);
  if (!python.ok())
    return Complain({Code::kInvalidArgument, "--python: " + python.error().message, 0});
  options.python = std::move(*python);
  return Serve(options, nullptr);
}

}  // namespace umbel::cli
