// `umbel up`: all that one machine needs, in one process: manager, local ground, REST door.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/daemon.h"
#include "cli/programs.h"
#include "cli/settings.h"
#include "dataset/names.h"
#include "doors/accounts.h"
#include "doors/api/api.h"
#include "doors/flops/flops.h"
#include "doors/oakestra/oakestra.h"
#include "manager/flops_sources.h"
#include "manager/manager.h"
#include "manager/names.h"
#include "orchestrator/local/local_ground.h"
#include "process/confined.h"
#include "supernode/environment.h"

namespace umbel::cli {
namespace {

using orchestrator::LocalGround;

constexpr const char* kFooter = R"(Examples:
  umbel up
      Runs projects on this machine; Ctrl-C ends all that runs, and the next `umbel up` takes it up.
  umbel up --python .venv/bin/python --state /srv/umbel --port 5070
      With the interpreter that has Flower, uv and PyYAML; state in a folder of its own.
  umbel up --mlflow-python /opt/mlflow/bin/python
      MLflow from an environment that is there, instead of one that is made at the first project.
  umbel up --oak-login 127.0.0.0/8
      Also for the `oak` command line: submits, shows and ends projects of this machine.
  umbel up --node edge-0 --node edge-1:FLOps-learner --node edge-2:FLOps-learner
      Other nodes; learners go only to those with the add-on.

Settings also come from --config FILE ([up] table) and from the environment (UMBEL_UP_PORT, ...).
A flag wins over the environment, the environment over the file.)";

struct Values {
  std::string state;
  std::string host = "127.0.0.1";
  int64_t port = doors::ApiOptions().port;
  std::string dataserver;
  int64_t data_port = manager::Options().data_port;
  bool allow_unisolated = false;
  std::vector<std::string> shown;
  int64_t flops_port = doors::FlopsOptions().port;
  int64_t oakestra_port = doors::OakestraOptions().port;
  std::string oak_login;
  std::string python = "python3";
  std::string mlflow_python;
  int64_t tracking_port = manager::Options().tracking_port;
  int64_t aggregator_port = manager::Options().aggregator_port;
  int64_t serving_port = manager::Options().serving_port;
  int64_t learner_memory = static_cast<int64_t>(manager::Options().python_memory_mb);
  int64_t environment_days = manager::Options().environment_days;
  int64_t round_timeout = manager::Limits().round.count();
  int64_t import_timeout = manager::Limits().import.count();
  std::vector<std::string> nodes;
  std::string log_file;
  std::string log_level = "info";
};

void Declare(Settings& s, Values& v) {
  s.Text(&v.state, "state", "Folder of all state [$UMBEL_HOME/up]");
  s.Text(&v.host, "host", "Address of the API; loopback only, for now");
  s.Number(&v.port, "port", "Port of the API; 0 lets the system pick", 0, 65535);
  s.Number(&v.flops_port, "flops-port", "Port of FLOps's REST door; 0 lets the system pick", 0,
           65535);
  s.Number(&v.oakestra_port, "oakestra-port",
           "Port of the door that `oak` calls Oakestra; 0 lets the system pick", 0, 65535);
  s.Text(&v.oak_login, "oak-login",
         "Network, such as 127.0.0.0/8, from which Admin logs in with the password Admin, all that "
         "`oak` can say");
  s.Text(&v.python, "python", "Interpreter with Flower, uv and PyYAML, which builds projects");
  s.Text(&v.mlflow_python, "mlflow-python",
         "Interpreter with MLflow; without it an environment is made");
  s.Number(&v.tracking_port, "tracking-port", "First port of tracking servers", 1, 65535);
  s.Number(&v.aggregator_port, "aggregator-port", "First port of aggregators", 1, 65535);
  s.Number(&v.serving_port, "serving-port", "First port of served models", 1, 65535);
  s.Number(&v.data_port, "data-port", "First port of learner nodes' data servers", 1, 65535);
  s.Text(&v.dataserver, "dataserver", "The umbel-dataserver program [the one beside umbel]");
  s.Flag(&v.allow_unisolated, "allow-unisolated",
         "Let user code reach network, files and processes where this machine cannot keep it away");
  s.Texts(&v.shown, "show",
          "File, folder or device that learners' user code sees too, read-only, such as data of "
          "this site; may be repeated");
  s.Number(&v.learner_memory, "learner-memory-min",
           "MB that are set aside for a process of user code at least", 64, 1 << 24);
  s.Number(&v.environment_days, "environment-days",
           "Days after which environments that no project uses are removed; 0: never", 0, 36500);
  s.Number(&v.round_timeout, "round-timeout", "Seconds a round waits for its learners", 1,
           30 * 24 * 3600);
  s.Number(&v.import_timeout, "import-timeout",
           "Seconds that importing a repository's code may take", 1, 24 * 3600);
  s.Texts(&v.nodes, "node",
          "NAME or NAME:ADD-ON,... of a node; may be repeated [node-0, and node-1 and node-2 with "
          "FLOps-learner]");
  s.Text(&v.log_file, "log-file", "Also write the log to this file");
  s.Choice(&v.log_level, "log-level", "Least severe messages to log",
           {"debug", "info", "warning", "error"});
}

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel up: %s\n", error.message.c_str());
  return error.code == Code::kInvalidArgument ? kBadUsage : 1;
}

Result<std::vector<orchestrator::Node>> ToNodes(const std::vector<std::string>& texts) {
  std::vector<orchestrator::Node> nodes;
  for (const std::string& text : texts) {
    orchestrator::Node node;
    node.name = text.substr(0, text.find(':'));
    node.cluster = "cluster-0";
    node.address = "127.0.0.1";
    std::string_view rest(text);
    rest.remove_prefix(std::min(rest.size(), node.name.size() + 1));
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(','), rest.size());
      node.addons.emplace(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (node.name.empty())
      return Fail(Code::kInvalidArgument, fmt::format("--node '{}' has no name", text));
    for (const auto& other : nodes)
      if (other.name == node.name)
        return Fail(Code::kInvalidArgument, fmt::format("--node '{}' is there twice", node.name));
    nodes.push_back(std::move(node));
  }
  return nodes;
}

/// "": there is none, and learners bring their own data.
Result<std::string> DataServer(const Values& v, const std::string& own) {
  if (!v.dataserver.empty()) {
    auto program = supernode::FindProgram(v.dataserver);
    if (program.ok()) return program;
    return Fail(Code::kInvalidArgument, "--dataserver: " + program.error().message);
  }
  return DataServerBeside(own);
}

/// Sockets' paths are short; a state folder's may be long.
Result<std::string> SocketsFolder(const std::string& state,
                                  const std::vector<orchestrator::Node>& nodes) {
  std::string folder = state + "/sockets";
  size_t longest = std::string_view("node-0").size();  // as the ground calls its own
  for (const auto& node : nodes) longest = std::max(longest, node.name.size());
  const auto fits = [&] {
    return dataset::LearnerSocketsFit(folder + std::string(longest + 1, '/'));
  };
  if (!fits()) {
    folder = "/tmp/umbel-" + manager::ShortHash(state);
    struct stat about {};
    if (::mkdir(folder.c_str(), 0711) != 0 && errno != EEXIST)
      return Fail(SystemError("create folder", folder));
    if (::lstat(folder.c_str(), &about) != 0 || !S_ISDIR(about.st_mode) ||
        about.st_uid != ::geteuid())
      return Fail(Code::kPermissionDenied, fmt::format("'{}' is somebody else's", folder));
    if (!fits())
      return Fail(Code::kInvalidArgument,
                  fmt::format("--node: a name of {} characters is too long for sockets below '{}'",
                              longest, folder));
  }
  UMBEL_TRY(MakeDirectories(folder));
  return folder;
}

Result<manager::Options> ToOptions(const Values& v) {
  manager::Options o;
  std::error_code error;
  o.state = std::filesystem::absolute(v.state.empty() ? UpDirectory() : v.state, error).native();
  UMBEL_TRY(MakeDirectories(o.state));
  UMBEL_ASSIGN(o.program, OwnProgram());
  const auto python = supernode::FindProgram(v.python);
  if (!python.ok()) return Fail(Code::kInvalidArgument, "--python: " + python.error().message);
  o.python = *python;
  if (!v.mlflow_python.empty()) {
    const auto mlflow = supernode::FindProgram(v.mlflow_python);
    if (!mlflow.ok())
      return Fail(Code::kInvalidArgument, "--mlflow-python: " + mlflow.error().message);
    o.mlflow_python = *mlflow;
  }
  UMBEL_ASSIGN(o.flops, manager::WriteFlopsSources(o.state + "/python"));
  UMBEL_ASSIGN(o.dataserver, DataServer(v, o.program));
  if (!o.dataserver.empty()) {
    UMBEL_ASSIGN(const auto nodes, ToNodes(v.nodes));
    UMBEL_ASSIGN(o.sockets, SocketsFolder(o.state, nodes));
  }
  const Status isolation = process::TryIsolation();
  o.isolated = isolation.ok();
  if (!o.isolated && !v.allow_unisolated)
    return Fail(Code::kFailedPrecondition,
                fmt::format("learners' user code could reach what it should not (neighbours' data, "
                            "the tracking server, other projects' files, this API), as this "
                            "machine does not give it namespaces of its own: {}. Run as root, "
                            "allow user namespaces, or go on with --allow-unisolated",
                            isolation.error().message));
  for (const std::string& path : v.shown) {
    if (::access(path.c_str(), F_OK) != 0)
      return Fail(Code::kInvalidArgument, fmt::format("--show: there is no '{}'", path));
    o.shown.push_back(std::filesystem::absolute(path, error).native());
  }
  o.environment_days = static_cast<uint32_t>(v.environment_days);
  o.data_port = static_cast<uint16_t>(v.data_port);
  o.tracking_port = static_cast<uint16_t>(v.tracking_port);
  o.aggregator_port = static_cast<uint16_t>(v.aggregator_port);
  o.serving_port = static_cast<uint16_t>(v.serving_port);
  o.python_memory_mb = static_cast<uint64_t>(v.learner_memory);
  o.limits.round = std::chrono::seconds(v.round_timeout);
  o.limits.import = std::chrono::seconds(v.import_timeout);
  return o;
}

struct Doors {
  std::string api;
  std::string flops;
  std::string oakestra;
};

void ShowReady(const manager::Options& options, const Values& v, const Doors& doors,
               LocalGround& ground) {
  std::string nodes;
  for (const auto& node : ground.Nodes()) {
    nodes += (nodes.empty() ? "" : ", ") + node.name;
    for (const std::string& addon : node.addons) nodes += " (" + addon + ")";
  }
  std::error_code ignored;
  const bool first = std::filesystem::exists(options.state + "/admin.password", ignored);
  fmt::print(
      "umbel up\n"
      "  state      {}\n"
      "  API        {}  (described at /api/v1/openapi.json)\n"
      "  log in     as {}{}\n"
      "  FLOps      {}\n"
      "  Oakestra   {}{}\n"
      "  tracking   MLflow's GUI at http://127.0.0.1:{}, the first customer's; `umbel tracking` "
      "starts it\n"
      "  nodes      {}\n"
      "  limits     {}\n"
      "  next       umbel project submit SLA.json --follow\n",
      options.state, doors.api, doors::kAdmin,
      first ? fmt::format(" with the password in {}/admin.password", options.state)
            : ", with the password it was given; `umbel accounts list` shows the others",
      doors.flops, doors.oakestra,
      v.oak_login.empty() ? "  (`oak` itself can log in only with --oak-login)"
                          : fmt::format("  (anybody in {} is an admin: --oak-login)", v.oak_login),
      options.tracking_port, nodes, ground.Limits());
  std::fflush(stdout);
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" ||
         doors::Network::Parse("127.0.0.0/8").value().Has(host);
}

uint16_t Port(int64_t value) { return static_cast<uint16_t>(value); }
std::string Url(const std::string& host, uint16_t port) {
  return fmt::format("http://{}:{}", host.find(':') == std::string::npos ? host : "[" + host + "]",
                     port);
}

/// A door that cannot open names the flag that gives it another port.
template <typename T>
Result<T> Opened(const char* flag, Result<T> door) {
  if (door.ok()) return door;
  Error error = std::move(door).error();
  error.message = fmt::format("{}: {}", flag, error.message);
  return Fail(std::move(error));
}

Status Serve(const Values& v) {
  UMBEL_ASSIGN(const manager::Options options, ToOptions(v));
  SystemClock clock;
  SystemRng rng;
  orchestrator::LocalGroundOptions local;
  local.folder = options.state + "/ground";
  UMBEL_ASSIGN(local.nodes, ToNodes(v.nodes));
  UMBEL_ASSIGN(const auto ground, LocalGround::Open(std::move(local), clock));
  const auto peers =
      manager::MakeRealPeers({options.state + "/repositories", options.python, options.dataserver});
  UMBEL_ASSIGN(auto manager, manager::Manager::Start(options, *ground, *peers, clock, rng));
  UMBEL_ASSIGN(const auto accounts, doors::Accounts::Open(options.state, clock, rng));
  UMBEL_ASSIGN(const auto api,
               Opened("--port", doors::Api::Start({v.host, Port(v.port)}, *manager, *accounts)));
  UMBEL_ASSIGN(const auto flops,
               Opened("--flops-port",
                      doors::Flops::Start({v.host, Port(v.flops_port)}, *manager, *accounts)));
  doors::OakestraOptions oak{v.host, Port(v.oakestra_port), std::nullopt};
  if (!v.oak_login.empty()) {
    UMBEL_ASSIGN(oak.oak_login, doors::Network::Parse(v.oak_login));
    LogWarn(
        "whoever reaches Oakestra's door from there is an admin, with the password that `oak` "
        "knows",
        {{"oak_login", v.oak_login}});
  }
  UMBEL_ASSIGN(const auto oakestra,
               Opened("--oakestra-port", doors::Oakestra::Start(oak, *manager, *accounts)));
  const Doors doors{Url(v.host, api->port()), Url(v.host, flops->port()),
                    Url(v.host, oakestra->port())};
  UMBEL_TRY(WriteFileAtomic(options.state + "/address", doors.api + "\n"));
  UMBEL_TRY(WriteFileAtomic(options.state + "/flops.address", doors.flops + "\n"));
  UMBEL_TRY(WriteFileAtomic(options.state + "/oakestra.address", doors.oakestra + "\n"));
  ShowReady(options, v, doors, *ground);
  LogInfo("umbel is up", {{"api", doors.api}, {"state", options.state}});
  AwaitSignal();
  LogInfo("ending what runs; the next `umbel up` takes it up again", {});
  oakestra->Stop();
  flops->Stop();
  api->Stop();
  manager.reset();
  return ground->Shutdown();
}

}  // namespace

int UpCommand(int argc, char** argv) {
  CLI::App app("Run projects on this machine: manager, local ground and API in one process.",
               "umbel up");
  app.footer(kFooter);
  app.get_formatter()->column_width(44);
  Values values;
  Settings settings(app, "up");
  Declare(settings, values);
  std::string config;
  bool print = false;
  app.add_option("--config", config, "TOML file with an [up] table")->take_last();
  app.add_flag("--print-config", print, "Show every setting and where it came from, then end");
  if (const auto status = Parse(app, argc, argv)) return *status;
  if (const Status resolved = settings.Resolve(config); !resolved.ok())
    return Complain(resolved.error());
  if (const Status cpu = CheckCpuPath(); !cpu.ok()) return Complain(cpu.error());
  if (print) {
    std::fputs(settings.Print().c_str(), stdout);
    return 0;
  }
  if (!IsLoopback(values.host))
    return Complain(
        {Code::kInvalidArgument,
         fmt::format("--host '{}' is not of this machine alone: the API has no TLS yet; "
                     "use 127.0.0.1",
                     values.host),
         0});
  LogOptions log;
  log.level = LevelOf(values.log_level);
  log.file = values.log_file;
  if (const Status started = BecomeDaemon(log); !started.ok()) return Complain(started.error());
  const Status served = Serve(values);
  return served.ok() ? 0 : Complain(served.error());
}

}  // namespace umbel::cli
