// `umbel run`: trains an app's ClientApp by native rounds, without any ServerApp.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/clock.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/settings.h"
#include "flower/node_config.h"
#include "flower/record_bytes.h"
#include "flwr/control.pb.h"
#include "rounds_client/initial_model.h"
#include "rounds_client/rounds.h"
#include "tensor/sha256.h"
#include "umbel/rounds.pb.h"

namespace umbel::cli {
namespace {

namespace pb = ::umbel::rounds;
using rounds_client::SuperLinkClient;

constexpr const char* kFooter = R"(Examples:
  umbel run . --insecure --initial model.npz --rounds 10 --watch
      FedAvg over all nodes, with the ClientApp of the app in this folder; progress as it comes.
  umbel run . --insecure --initial model.npz --strategy fedprox --set proximal_mu=0.1 \
      --set fraction_train=0.5 --train-config 'lr=0.01 local-epochs=2' --out trained.npz
      Half of the nodes train in each round; the last model is written to trained.npz.
  umbel run app.fab --superlink fl.example.org:8000 --root-certificates ca.crt --plan plan.toml
      A FAB that is built already, by a plan in a file.
  umbel run . --insecure --initial model.npz --wrap ServerSideFixedClipping \
      --wrap-set noise_multiplier=1 --wrap-set clipping_norm=0.5 --wrap-set num_sampled_clients=20
      Differential privacy: replies are clipped, the result gets noise.
  umbel run . --insecure --initial model.npz --stop-metric accuracy --stop-at-least 0.95
      Ends early, once the nodes' mean accuracy is 0.95.

A model is an .npz file, as np.savez writes it, or a .safetensors file; its names are those of the
ArrayRecord.)";

constexpr std::chrono::seconds kWatchHold{20};

struct Values {
  std::string app;
  std::string superlink = "127.0.0.1:8000";
  bool insecure = false;
  std::string root_certificates;
  std::string plan_file;
  std::string initial;
  std::string out;
  std::string strategy = "FedAvg";
  uint32_t rounds = 3;
  double timeout = 3600;
  std::vector<std::string> set;
  std::string wrap;
  std::vector<std::string> wrap_set;
  std::string train_config, evaluate_config, run_config;
  std::string stop_metric;
  std::optional<double> stop_at_least, stop_at_most;
  uint32_t stop_patience = 0;
  double stop_seconds = 0;
  bool smaller_is_better = false;
  uint64_t seed = 0;
  uint32_t close_train_at = 0, close_evaluate_at = 0, min_train_replies = 0;
  std::vector<std::string> nodes;
  std::string keep = "last";
  double spool_models = 0;
  std::string flwr = "flwr";
  bool watch = false;
};

int Complain(const Error& error) {
  std::fprintf(stderr, "umbel run: %s\n", error.message.c_str());
  return 1;
}

/// What `flwr build` makes of an app's folder.
Result<std::string> BuildFab(const std::string& flwr, const std::string& app) {
  std::string scratch = (std::filesystem::temp_directory_path() / "umbel-run-XXXXXX").string();
  if (::mkdtemp(scratch.data()) == nullptr) return Fail(SystemError("create", scratch));
  const std::string folder = std::filesystem::absolute(app).string();
  const std::string log = scratch + "/build.log";
  const pid_t pid = ::fork();
  if (pid < 0) return Fail(SystemError("fork for", flwr));
  if (pid == 0) {
    if (::chdir(scratch.c_str()) != 0) ::_exit(127);
    if (std::freopen(log.c_str(), "w", stdout) == nullptr) ::_exit(127);
    ::dup2(STDOUT_FILENO, STDERR_FILENO);
    ::setenv("FLWR_TELEMETRY_ENABLED", "0", 0);
    ::setenv("FLWR_DISABLE_UPDATE_CHECK", "1", 0);
    ::execlp(flwr.c_str(), flwr.c_str(), "build", "--app", folder.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  Result<std::string> fab = Fail(Code::kNotFound, "");
  for (const auto& entry : std::filesystem::directory_iterator(scratch))
    if (entry.path().extension() == ".fab") fab = ReadFile(entry.path().string());
  if (!fab.ok()) {
    const auto said = ReadFile(log);
    const bool missing = WIFEXITED(status) && WEXITSTATUS(status) == 127;
    fab = Fail(Code::kInvalidArgument,
               missing ? fmt::format("'{}' cannot be started; it builds the app: install flwr, or "
                                     "name it with --flwr, or give a .fab file",
                                     flwr)
                       : fmt::format("'{} build' made no FAB of '{}':\n{}", flwr, app,
                                     said.ok() ? *said : ""));
  }
  std::error_code ignored;
  std::filesystem::remove_all(scratch, ignored);
  return fab;
}

Result<std::string> LoadFab(const Values& v) {
  if (std::filesystem::is_directory(v.app)) return BuildFab(v.flwr, v.app);
  if (v.app.ends_with(".fab")) return ReadFile(v.app);
  return Fail(Code::kInvalidArgument,
              fmt::format("'{}' is neither an app's folder nor a .fab file", v.app));
}

flower::ConfigRecord ToRecord(const flower::ConfigMap& map) {
  flower::ConfigRecord record;
  for (const auto& [key, value] : map)
    std::visit([&key = key, &record](const auto& held) { record.emplace_back(key, held); }, value);
  return record;
}

Status SetConfig(const std::string& text, flwr::proto::ConfigRecord* out) {
  if (text.empty()) return {};
  UMBEL_ASSIGN(const flower::ConfigMap map, flower::ParseNodeConfig(text));
  UMBEL_ASSIGN(const std::string body, flower::EncodeConfig(ToRecord(map)));
  out->ParseFromString(body);
  return {};
}

Status SetParameters(std::string_view flag, const std::vector<std::string>& pairs,
                     google::protobuf::Map<std::string, flwr::proto::Scalar>* out) {
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return Fail(Code::kInvalidArgument, fmt::format("{} '{}' is not NAME=VALUE", flag, pair));
    (*out)[pair.substr(0, equals)].set_string(pair.substr(equals + 1));
  }
  return {};
}

Result<pb::Plan> MakePlan(const Values& v) {
  pb::Plan plan;
  plan.set_strategy(v.strategy);
  UMBEL_TRY(SetParameters("--set", v.set, plan.mutable_parameters()));
  if (!v.wrap.empty()) plan.mutable_wrapper()->set_name(v.wrap);
  if (v.wrap.empty() && !v.wrap_set.empty())
    return Fail(
        Code::kInvalidArgument,
        fmt::format("--wrap-set '{}' is for a wrapper: name it with --wrap", v.wrap_set[0]));
  if (!v.wrap.empty())
    UMBEL_TRY(
        SetParameters("--wrap-set", v.wrap_set, plan.mutable_wrapper()->mutable_parameters()));
  plan.set_num_rounds(v.rounds);
  plan.set_timeout(v.timeout);
  UMBEL_TRY(SetConfig(v.train_config, plan.mutable_train_config()));
  UMBEL_TRY(SetConfig(v.evaluate_config, plan.mutable_evaluate_config()));
  plan.set_seed(v.seed);
  plan.set_close_train_at(v.close_train_at);
  plan.set_close_evaluate_at(v.close_evaluate_at);
  plan.set_min_train_replies(v.min_train_replies);
  for (const std::string& name : v.nodes) plan.add_node_names(name);
  if (!v.stop_metric.empty() || v.stop_seconds > 0) {
    pb::Plan::Stop* stop = plan.mutable_stop();
    stop->set_metric(v.stop_metric);
    if (v.stop_at_least) stop->set_at_least(*v.stop_at_least);
    if (v.stop_at_most) stop->set_at_most(*v.stop_at_most);
    stop->set_patience(v.stop_patience);
    stop->set_seconds(v.stop_seconds);
    stop->set_smaller_is_better(v.smaller_is_better);
  }
  plan.set_spool_models(v.spool_models);
  plan.set_keep_models(v.keep == "all"    ? pb::Plan::ALL
                       : v.keep == "best" ? pb::Plan::BEST
                                          : pb::Plan::LAST);
  return plan;
}

std::string Bytes(uint64_t bytes) {
  const double mb = static_cast<double>(bytes) / 1e6;
  return mb >= 1 ? fmt::format("{:.1f} MB", mb) : fmt::format("{:.1f} kB", mb * 1e3);
}

void ShowRecord(const pb::RoundRecord& record, double began) {
  if (record.kind() == "end") {
    fmt::print("{}\n", record.outcome());
    return;
  }
  const pb::Phase& phase = record.phase();
  std::string text = fmt::format("round {}/{}  {:<8}  {}/{} nodes  {:>9}  {:6.2f} s",
                                 record.round(), record.num_rounds(), record.kind(),
                                 phase.accepted(), phase.asked(), Bytes(phase.bytes_received()),
                                 phase.seconds_collected() + phase.seconds_closed());
  for (const auto& item : phase.metrics().items())
    if (item.value().has_double_())
      text += fmt::format("  {} {:.4g}", item.key(), item.value().double_());
  if (record.kind() == "evaluate" && record.round() < record.num_rounds()) {
    const double each = (record.at() - began) / record.round();
    text += fmt::format("  about {:.0f} s left", each * (record.num_rounds() - record.round()));
  }
  fmt::print("{}\n", text);
  for (const auto& node : phase.nodes())
    if (node.outcome() != "accepted")
      fmt::print("    node {}: {}{}{}\n", node.node_id(), node.outcome(),
                 node.detail().empty() ? "" : ": ", node.detail());
  std::fflush(stdout);
}

/// Until the run has ended. True: it ended well.
Result<bool> Follow(SuperLinkClient& client, RunId run_id, bool show) {
  const double began = UnixSeconds(SystemClock().Now());
  for (uint64_t after = 0;;) {
    UMBEL_ASSIGN(const auto records, rounds_client::WatchRounds(client, run_id, after, kWatchHold));
    for (const pb::RoundRecord& record : records) {
      after = record.sequence();
      if (show) ShowRecord(record, began);
    }
    if (!records.empty()) continue;
    UMBEL_ASSIGN(const auto state, rounds_client::StateOf(client, run_id));
    if (!state.finished) continue;
    if (state.well) return true;
    fmt::print(stderr, "umbel run: run {} {}: {}\n", run_id, state.outcome, state.details);
    return false;
  }
}

Status Start(SuperLinkClient& client, const Values& v, RunId* run_id) {
  UMBEL_ASSIGN(const auto spool, flower::Spool::Create(""));
  UMBEL_ASSIGN(const flower::ArrayRecord arrays, rounds_client::ReadModel(v.initial, *spool));
  pb::StartNativeRunRequest request;
  UMBEL_ASSIGN(*request.mutable_plan(), MakePlan(v));
  UMBEL_ASSIGN(std::string fab, LoadFab(v));
  request.mutable_run()->mutable_fab()->set_hash_str(tensor::Sha256Of(fab).Hex());
  request.mutable_run()->mutable_fab()->set_content(std::move(fab));
  if (!v.run_config.empty()) {
    UMBEL_ASSIGN(const flower::ConfigMap map, flower::ParseNodeConfig(v.run_config));
    for (const auto& [key, value] : map) {
      flwr::proto::Scalar& out = (*request.mutable_run()->mutable_override_config())[key];
      if (const auto* b = std::get_if<bool>(&value)) out.set_bool_(*b);
      if (const auto* i = std::get_if<int64_t>(&value)) out.set_sint64(*i);
      if (const auto* u = std::get_if<uint64_t>(&value)) out.set_uint64(*u);
      if (const auto* d = std::get_if<double>(&value)) out.set_double_(*d);
      if (const auto* s = std::get_if<std::string>(&value)) out.set_string(*s);
    }
  }
  UMBEL_ASSIGN(const auto run, rounds_client::StartRun(client, request));
  const std::string around = v.wrap.empty() ? "" : v.wrap + " around ";
  fmt::print("Successfully started run {}: {}{} over {} rounds\n", run.run_id, around, v.strategy,
             v.rounds);
  std::fflush(stdout);
  *run_id = run.run_id;
  return rounds_client::SendModel(client, run, arrays, spool, UnixSeconds(SystemClock().Now()));
}

}  // namespace

int RunCommand(int argc, char** argv) {
  CLI::App app("Train an app's ClientApp by native rounds, without a ServerApp.", "umbel run");
  app.footer(kFooter);
  Values v;
  app.add_option("APP", v.app, "Folder of the app, or a .fab file")->required();
  app.add_option("--superlink", v.superlink, "The SuperLink, HOST:PORT [127.0.0.1:8000]");
  app.add_flag("--insecure", v.insecure, "Connect by plain HTTP");
  app.add_option("--root-certificates", v.root_certificates,
                 "PEM file of the CAs that are trusted");
  app.set_config("--plan", "",
                 "TOML file with any of these flags: rounds = 10, set = [\"eta=0.1\"]");
  app.add_option("--initial", v.initial, "The initial model, an .npz or .safetensors file")
      ->required();
  app.add_option("--out", v.out,
                 "Write the last model to this .npz or .safetensors file (waits for the end)");
  app.add_option("--strategy", v.strategy, "Flower's class, in any case: fedavg, FedProx [FedAvg]");
  app.add_option("--rounds", v.rounds, "Rounds [3]");
  app.add_option("--timeout", v.timeout, "Seconds a phase waits for replies [3600]");
  app.add_option("--set", v.set, "NAME=VALUE of the strategy's constructor; may be repeated");
  app.add_option("--wrap", v.wrap,
                 "Clip replies and add noise, for differential privacy: ServerSideFixedClipping or "
                 "ServerSideAdaptiveClipping around the strategy");
  app.add_option("--wrap-set", v.wrap_set,
                 "NAME=VALUE of the wrapper's constructor; may be repeated");
  app.add_option("--train-config", v.train_config,
                 "What nodes are told in training: 'lr=0.1 epochs=2'");
  app.add_option("--evaluate-config", v.evaluate_config, "The same in evaluation");
  app.add_option("--run-config", v.run_config, "Values for the app's own configuration");
  app.add_option("--node", v.nodes, "Ask only the node of this name; may be repeated");
  app.add_option("--close-train-at", v.close_train_at,
                 "Go on with this many usable replies; 0: all");
  app.add_option("--close-evaluate-at", v.close_evaluate_at, "The same in evaluation");
  app.add_option("--min-train-replies", v.min_train_replies, "Fail the run with fewer");
  app.add_option("--stop-metric", v.stop_metric,
                 "Metric of the evaluation that decides when to stop");
  app.add_option("--stop-at-least", v.stop_at_least, "Stop when it is at least this");
  app.add_option("--stop-at-most", v.stop_at_most, "Stop when it is at most this");
  app.add_option("--stop-patience", v.stop_patience,
                 "Stop after so many rounds without a better one");
  app.add_flag("--smaller-is-better", v.smaller_is_better, "For a loss");
  app.add_option("--stop-after", v.stop_seconds, "Stop after so many seconds");
  app.add_option("--seed", v.seed, "Of sampling and noise; 0: one is drawn");
  app.add_option("--keep", v.keep, "Models to keep")->check(CLI::IsMember({"last", "best", "all"}));
  app.add_option("--spool-models", v.spool_models,
                 "Fold replies into a checkpoint when they take this many models on disk; 0: 8");
  app.add_option("--flwr", v.flwr, "Program that builds the FAB [flwr]");
  app.add_flag("--watch", v.watch, "Show each round as it ends, until the run is over");
  if (const auto status = Parse(app, argc, argv)) return *status;
  const auto client = SuperLinkClient::Make(v.superlink, v.insecure, v.root_certificates);
  if (!client.ok()) return Complain(client.error());
  RunId run_id;
  if (const Status started = Start(**client, v, &run_id); !started.ok())
    return Complain(started.error());
  if (!v.watch && v.out.empty()) return 0;
  const auto well = Follow(**client, run_id, v.watch);
  if (!well.ok()) return Complain(well.error());
  if (!*well) return 1;
  if (v.out.empty()) return 0;
  const Status saved = rounds_client::SaveModel(**client, run_id, std::nullopt, v.out);
  if (!saved.ok()) return Complain(saved.error());
  fmt::print("model of run {}: {}\n", run_id, v.out);
  return 0;
}

}  // namespace umbel::cli
