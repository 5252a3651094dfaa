// `umbel up`: all that one machine needs, in one process: manager, local ground, REST door.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdio>
#include <filesystem>

#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/api_client.h"
#include "cli/commands.h"
#include "cli/daemon.h"
#include "cli/settings.h"
#include "doors/api/api.h"
#include "manager/flops_sources.h"
#include "manager/manager.h"
#include "orchestrator/local/local_ground.h"
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
  umbel up --node edge-0 --node edge-1:FLOps-learner --node edge-2:FLOps-learner
      Other nodes; learners go only to those with the add-on.

Settings also come from --config FILE ([up] table) and from the environment (UMBEL_UP_PORT, ...).
A flag wins over the environment, the environment over the file.)";

struct Values {
  std::string state;
  std::string host = "127.0.0.1";
  int64_t port = doors::ApiOptions().port;
  std::string python = "python3";
  std::string mlflow_python;
  int64_t tracking_port = manager::Options().tracking_port;
  int64_t aggregator_port = manager::Options().aggregator_port;
  int64_t serving_port = manager::Options().serving_port;
  int64_t learner_memory = static_cast<int64_t>(manager::Options().python_memory_mb);
  int64_t round_timeout = manager::Limits().round.count();
  std::vector<std::string> nodes;
  std::string log_file;
  std::string log_level = "info";
};

void Declare(Settings& s, Values& v) {
  s.Text(&v.state, "state", "Folder of all state [$UMBEL_HOME/up]");
  s.Text(&v.host, "host", "Address of the API; loopback only, for now");
  s.Number(&v.port, "port", "Port of the API; 0 lets the system pick", 0, 65535);
  s.Text(&v.python, "python", "Interpreter with Flower, uv and PyYAML, which builds projects");
  s.Text(&v.mlflow_python, "mlflow-python",
         "Interpreter with MLflow; without it an environment is made");
  s.Number(&v.tracking_port, "tracking-port", "First port of tracking servers", 1, 65535);
  s.Number(&v.aggregator_port, "aggregator-port", "First port of aggregators", 1, 65535);
  s.Number(&v.serving_port, "serving-port", "First port of served models", 1, 65535);
  s.Number(&v.learner_memory, "learner-memory-min",
           "MB that are set aside for a process of user code at least", 64, 1 << 24);
  s.Number(&v.round_timeout, "round-timeout", "Seconds a round waits for its learners", 1,
           30 * 24 * 3600);
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
    node.cluster = "local";
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

Result<std::string> OwnProgram() {
  char path[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) return Fail(SystemError("read", "/proc/self/exe"));
  return std::string(path, static_cast<size_t>(size));
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
  o.tracking_port = static_cast<uint16_t>(v.tracking_port);
  o.aggregator_port = static_cast<uint16_t>(v.aggregator_port);
  o.serving_port = static_cast<uint16_t>(v.serving_port);
  o.python_memory_mb = static_cast<uint64_t>(v.learner_memory);
  o.limits.round = std::chrono::seconds(v.round_timeout);
  return o;
}

void ShowReady(const manager::Options& options, const std::string& url, LocalGround& ground) {
  std::string nodes;
  for (const auto& node : ground.Nodes()) {
    nodes += (nodes.empty() ? "" : ", ") + node.name;
    for (const std::string& addon : node.addons) nodes += " (" + addon + ")";
  }
  fmt::print(
      "umbel up\n"
      "  state      {}\n"
      "  API        {}  (token in {}/token)\n"
      "  tracking   MLflow's GUI at http://127.0.0.1:{} with the first project; `umbel tracking`\n"
      "  nodes      {}\n"
      "  limits     {}\n"
      "  next       umbel project submit SLA.json --follow\n",
      options.state, url, options.state, options.tracking_port, nodes, ground.Limits());
  std::fflush(stdout);
}

Status Serve(const Values& v) {
  UMBEL_ASSIGN(const manager::Options options, ToOptions(v));
  SystemClock clock;
  SystemRng rng;
  orchestrator::LocalGroundOptions local;
  local.folder = options.state + "/ground";
  UMBEL_ASSIGN(local.nodes, ToNodes(v.nodes));
  UMBEL_ASSIGN(const auto ground, LocalGround::Open(std::move(local), clock));
  const auto peers = manager::MakeRealPeers({options.state + "/repositories", options.python});
  UMBEL_ASSIGN(auto manager, manager::Manager::Start(options, *ground, *peers, clock, rng));
  doors::ApiOptions door;
  door.host = v.host;
  door.port = static_cast<uint16_t>(v.port);
  UMBEL_ASSIGN(door.token, doors::TokenIn(options.state + "/token"));
  UMBEL_ASSIGN(const auto api, doors::Api::Start(door, *manager));
  const std::string url = fmt::format("http://{}:{}", v.host, api->port());
  UMBEL_TRY(WriteFileAtomic(options.state + "/address", url + "\n"));
  ShowReady(options, url, *ground);
  LogInfo("umbel is up", {{"api", url}, {"state", options.state}});
  AwaitSignal();
  LogInfo("ending what runs; the next `umbel up` takes it up again", {});
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
  if (values.host != "127.0.0.1" && values.host != "localhost" && values.host != "::1")
    return Complain({Code::kInvalidArgument,
                     fmt::format("--host '{}' is not of this machine alone: the API has no TLS and "
                                 "no accounts yet; use 127.0.0.1",
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
