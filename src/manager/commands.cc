#include "manager/commands.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "dataset/names.h"
#include "manager/child.h"
#include "manager/names.h"
#include "process/python.h"

namespace umbel::manager {
namespace {

using nlohmann::json;

constexpr uint64_t kMegabyte = 1'000'000;
constexpr const char* kLoopback = "127.0.0.1";

std::string Fact(const Project& project, const char* key) {
  const json facts = json::parse(project.environment, nullptr, false);
  return facts.is_object() ? facts.value(key, "") : "";
}

/// What user code may know of this machine.
std::vector<std::string> PlainEnvironment(const std::string& home) {
  std::vector<std::string> kept;
  for (std::string& entry : ChildEnvironment()) {
    const std::string_view name = std::string_view(entry).substr(0, entry.find('='));
    for (const std::string_view plain :
         {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "FLWR_TELEMETRY_ENABLED",
          "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "FLWR_DISABLE_UPDATE_CHECK",
          "PYTHONUNBUFFERED"})
      if (name == plain) kept.push_back(std::move(entry));
  }
  kept.push_back("HOME=" + home);
  return kept;
}

/// Linear algebra starts as many threads as there are cores, unless it is told.
void LimitThreads(std::vector<std::string>& environment, uint64_t threads) {
  for (const char* name : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                           "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"})
    environment.push_back(fmt::format("{}={}", name, threads));
}

void FindFirst(std::vector<std::string>& environment, const std::string& folder) {
  for (std::string& entry : environment)
    if (entry.starts_with("PATH=")) entry = fmt::format("PATH={}:{}", folder, entry.substr(5));
}

InstanceSpec Base(const Service& service, uint32_t number) {
  InstanceSpec spec;
  spec.name = fmt::format("{}.{}", service.name, number);
  spec.one_shot = NamesOf(service.kind).one_shot;
  return spec;
}

/// `python -m umbel.flops STEP …`.
InstanceSpec Step(const Options& options, const Project& project, const Sla& sla,
                  const Service& service, uint32_t number, const std::string& python,
                  const std::string& step) {
  InstanceSpec spec = Base(service, number);
  spec.arguments = {
      python,         "-m",       "umbel.flops", step,    "--source",
      project.source, "--flavor", sla.flavor,    "--out", ResultFile(options, project.id, step)};
  spec.resources.memory_bytes = std::max(sla.memory_mb, options.python_memory_mb) * kMegabyte;
  return spec;
}
void AddVariables(InstanceSpec& spec, const Options& options, const Sla& sla) {
  spec.environment.push_back("PYTHONPATH=" + options.flops);
  spec.environment.push_back("ML_MODEL_FLAVOR=" + sla.flavor);
  FindFirst(spec.environment, std::filesystem::path(spec.arguments[0]).parent_path().native());
}

/// A step that runs user code: it gets no more than it needs, as far as this machine allows.
void Isolate(InstanceSpec& spec, const Options& options, const Project& project,
             const std::string& folder) {
  spec.environment = PlainEnvironment(folder);
  spec.isolated = options.isolated;
  if (!spec.isolated) return;
  spec.shown = process::PythonFolders(spec.arguments[0]);
  spec.shown.push_back(options.flops);
  spec.shown.push_back(project.source);
  spec.writable = {folder};
}

}  // namespace

std::string FolderOf(const Options& options, const std::string& project) {
  return fmt::format("{}/projects/{}", options.state, project);
}
std::string FolderOfTracking(const Options& options, const std::string& customer) {
  return fmt::format("{}/tracking/{}", options.state, ShortHash(customer));
}
std::string FolderOfStep(const Options& options, const std::string& project,
                         const std::string& step) {
  return fmt::format("{}/steps/{}", FolderOf(options, project), step);
}
std::string ResultFile(const Options& options, const std::string& project,
                       const std::string& step) {
  return FolderOfStep(options, project, step) + "/result.json";
}

std::string MockFile(const Options& options, const Service& service) {
  return fmt::format("{}/mocks/{}.json", options.state, service.id);
}

InstanceSpec BuilderSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service) {
  InstanceSpec spec = Step(options, project, sla, service, 0, options.python, "build");
  spec.resources.memory_bytes = options.python_memory_mb * kMegabyte;  // it holds no model
  spec.arguments.insert(spec.arguments.end(), {"--commit", project.commit, "--environments",
                                               options.state + "/environments", "--import-seconds",
                                               std::to_string(options.limits.import.count())});
  // What uv needs of ours: its settings, its cache, proxies.
  spec.environment = ChildEnvironment();
  AddVariables(spec, options, sla);
  return spec;
}

InstanceSpec InitialSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service) {
  InstanceSpec spec = Step(options, project, sla, service, 0, Fact(project, "python"), "initial");
  const std::string folder = FolderOfStep(options, project.id, "initial");
  spec.arguments.insert(spec.arguments.end(), {"--model", folder + "/initial.npz"});
  Isolate(spec, options, project, folder);
  spec.network = !options.isolated;
  AddVariables(spec, options, sla);
  LimitThreads(spec.environment, sla.vcpus);
  return spec;
}

InstanceSpec LogSpec(const Options& options, const Project& project, const Sla& sla,
                     const Service& service, const LogWish& wish) {
  InstanceSpec spec = Step(options, project, sla, service, 1, Fact(project, "python"), "log");
  const json metrics = {{"accuracy", project.best_accuracy}, {"loss", project.best_loss}};
  spec.arguments.insert(
      spec.arguments.end(),
      {"--model", project.best_model, "--tracking", wish.tracking_url, "--run-id", wish.run_id,
       "--registered-name", project.app_name, "--metrics", metrics.dump()});
  Isolate(spec, options, project, FolderOfStep(options, project.id, "log"));
  AddVariables(spec, options, sla);
  LimitThreads(spec.environment, sla.vcpus);
  if (!spec.isolated) return spec;
  // Of the network only the tracking server of its own customer.
  spec.network = false;
  spec.reached = {wish.tracking_port};
  spec.shown.push_back(project.best_model);
  return spec;
}

InstanceSpec AggregatorSpec(const Options& options, const Project& project,
                            const Service& service) {
  InstanceSpec spec = Base(service, 0);
  const std::string folder = FolderOf(options, project.id) + "/aggregator";
  spec.arguments = {options.program,
                    "superlink",
                    "--insecure",
                    "--host",
                    kLoopback,
                    "--port",
                    std::to_string(service.port),
                    "--state-dir",
                    folder};
  spec.environment = PlainEnvironment(folder);
  return spec;
}

InstanceSpec LearnerSpec(const Options& options, const Project& project, const Sla& sla,
                         const Service& service, uint32_t number, const std::string& superlink) {
  InstanceSpec spec = Base(service, number);
  const std::string folder = fmt::format("{}/learner-{}", FolderOf(options, project.id), number);
  spec.arguments = {options.program,
                    "supernode",
                    "--insecure",
                    "--superlink",
                    superlink,
                    "--port",
                    "0",
                    "--clientapp-host",
                    "resident",
                    "--max-parallel",
                    "1",
                    "--python",
                    Fact(project, "python"),
                    "--preload",
                    Fact(project, "fab"),
                    "--node-config",
                    fmt::format("partition-id={} num-partitions={}", number, sla.min_available),
                    "--state-dir",
                    folder};
  spec.environment = PlainEnvironment(folder);
  LimitThreads(spec.environment, sla.vcpus);
  std::string tags;
  for (const std::string& tag : sla.data_tags) tags += (tags.empty() ? "" : ",") + tag;
  spec.environment.push_back("ML_MODEL_FLAVOR=" + sla.flavor);
  spec.environment.push_back("UMBEL_DATA_TAGS=" + tags);
  std::vector<std::string> shown = options.shown;
  if (!options.dataserver.empty() && !sla.data_tags.empty()) {
    const std::string socket =
        dataset::LearnerSocket(options.sockets + "/{node}", project.id, spec.name);
    spec.environment.push_back("UMBEL_DATA=grpc+unix://" + socket);
    spec.arguments.insert(spec.arguments.end(), {"--wait-for", socket});
    // The folder, as a data server that is started again makes another socket in it.
    shown.push_back(std::filesystem::path(socket).parent_path());
  }
  if (options.isolated) {
    spec.arguments.push_back("--isolated");
    for (const std::string& path : shown)
      spec.arguments.insert(spec.arguments.end(), {"--show", path});
  }
  spec.environment.push_back(fmt::format("UMBEL_LEARNER={}", number));
  spec.addons = {"FLOps-learner"};
  spec.resources.memory_bytes = std::max(sla.memory_mb, options.python_memory_mb) * kMegabyte;
  spec.resources.cpu_millicores = sla.vcpus * 1000;
  spec.resources.storage_bytes = sla.storage_mb * kMegabyte;
  return spec;
}

InstanceSpec DataSpec(const Options& options, const Service& service, const std::string& node) {
  InstanceSpec spec = Base(service, 0);
  const std::string folder = fmt::format("{}/data/{}", options.state, node);
  spec.arguments = {options.dataserver,
                    "serve",
                    "--host",
                    kLoopback,
                    "--port",
                    std::to_string(service.port),
                    "--data-dir",
                    folder,
                    "--learner-sockets",
                    options.sockets + "/" + node};
  spec.environment = PlainEnvironment(folder);
  spec.node = node;
  return spec;
}

std::string DataLocation(const Service& service) {
  return fmt::format("grpc://{}:{}", kLoopback, service.port);
}

InstanceSpec MockSpec(const Options& options, const MockSla& mock, const Service& service,
                      const std::vector<std::string>& locations) {
  InstanceSpec spec = Base(service, 0);
  spec.arguments = {options.dataserver,
                    "mock",
                    "--dataset",
                    mock.dataset,
                    "--partitions",
                    std::to_string(mock.partitions),
                    "--tag",
                    mock.tag,
                    "--wait",
                    "60"};
  for (const std::string& location : locations)
    spec.arguments.insert(spec.arguments.end(), {"--to", location});
  spec.environment = PlainEnvironment(options.state);
  return spec;
}

InstanceSpec TrackingSpec(const Options& options, const Service& service,
                          const std::string& python) {
  InstanceSpec spec = Base(service, 0);
  const std::string folder = FolderOfTracking(options, service.customer);
  spec.arguments = {python,
                    "-m",
                    "mlflow",
                    "server",
                    "--host",
                    kLoopback,
                    "--port",
                    std::to_string(service.port),
                    "--workers",
                    "1",
                    "--backend-store-uri",
                    "sqlite:///" + folder + "/mlflow.db",
                    "--serve-artifacts",
                    "--artifacts-destination",
                    folder + "/artifacts"};
  spec.environment = PlainEnvironment(folder);
  spec.environment.push_back("MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false");
  FindFirst(spec.environment, std::filesystem::path(python).parent_path().native());
  return spec;
}

InstanceSpec ServingSpec(const Options& options, const Project& project, const Service& service,
                         const std::string& tracking_url) {
  InstanceSpec spec = Base(service, 0);
  const std::string python = Fact(project, "python");
  const json model = json::parse(project.model, nullptr, false);
  spec.arguments = {python,
                    "-m",
                    "mlflow",
                    "models",
                    "serve",
                    "--model-uri",
                    model.is_object() ? model.value("model_uri", "") : "",
                    "--env-manager",
                    "local",
                    "--host",
                    kLoopback,
                    "--port",
                    std::to_string(service.port)};
  const std::string folder = FolderOfStep(options, project.id, "serve");
  spec.environment = PlainEnvironment(folder);
  // A model is code too. It keeps the network, as others are to reach it.
  spec.isolated = options.isolated;
  if (spec.isolated) {
    spec.shown = process::PythonFolders(python);
    spec.writable = {folder};
  }
  spec.environment.push_back("MLFLOW_TRACKING_URI=" + tracking_url);
  FindFirst(spec.environment, std::filesystem::path(python).parent_path().native());
  spec.resources.memory_bytes = options.python_memory_mb * kMegabyte;
  return spec;
}

std::string ToJson(const InstanceSpec& spec) {
  return json{{"name", spec.name},
              {"arguments", spec.arguments},
              {"environment", spec.environment},
              {"directory", spec.directory},
              {"memory", spec.resources.memory_bytes},
              {"cpu", spec.resources.cpu_millicores},
              {"storage", spec.resources.storage_bytes},
              {"addons", spec.addons},
              {"node", spec.node},
              {"one_shot", spec.one_shot},
              {"network", spec.network},
              {"isolated", spec.isolated},
              {"shown", spec.shown},
              {"writable", spec.writable},
              {"reached", spec.reached}}
      .dump();
}

Result<InstanceSpec> SpecFromJson(const std::string& text) {
  try {
    const json in = json::parse(text);
    InstanceSpec spec;
    in.at("name").get_to(spec.name);
    in.at("arguments").get_to(spec.arguments);
    in.at("environment").get_to(spec.environment);
    in.at("directory").get_to(spec.directory);
    in.at("memory").get_to(spec.resources.memory_bytes);
    in.at("cpu").get_to(spec.resources.cpu_millicores);
    in.at("storage").get_to(spec.resources.storage_bytes);
    in.at("addons").get_to(spec.addons);
    in.at("node").get_to(spec.node);
    in.at("one_shot").get_to(spec.one_shot);
    in.at("network").get_to(spec.network);
    spec.isolated = in.value("isolated", false);
    spec.shown = in.value("shown", spec.shown);
    spec.writable = in.value("writable", spec.writable);
    spec.reached = in.value("reached", spec.reached);
    return spec;
  } catch (const json::exception& error) {
    return Fail(Code::kDataLoss, fmt::format("a stored instance cannot be read: {}", error.what()));
  }
}

}  // namespace umbel::manager
