#include "supernode/supernode.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/lock_file.h"
#include "base/log.h"
#include "flower/auth.h"
#include "flower/door.h"
#include "flower/fab_install.h"
#include "flower/node_config.h"
#include "http/server.h"
#include "http/tasks.h"
#include "process/cgroup.h"
#include "process/python.h"
#include "supernode/environment.h"
#include "supernode/environments.h"
#include "supernode/hosts/process_host.h"
#include "supernode/hosts/stock_host.h"
#include "supernode/hosts/worker_host.h"
#include "supernode/hosts/worker_sources.h"
#include "supernode/node.h"
#include "supernode/parallel.h"
#include "supernode/runtime/door.h"
#include "supernode/runtime/task_table.h"
#include "supernode/slots.h"
#include "tensor/sha256.h"

namespace umbel::supernode {
namespace asio = boost::asio;
using http::Exchange;
using http::Task;

namespace {

/// host:port, the host perhaps in brackets.
Result<std::pair<std::string, uint16_t>> SplitAddress(const std::string& address) {
  const auto bad = [&] {
    return Fail(Code::kInvalidArgument, fmt::format("--superlink '{}' is not HOST:PORT", address));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad();
  std::string host = address.substr(0, colon);
  const std::string digits = address.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (digits.empty() || digits.size() > 5 ||
      digits.find_first_not_of("0123456789") != std::string::npos || host.empty())
    return bad();
  const int port = std::atoi(digits.c_str());
  if (port < 1 || port > 65535) return bad();
  return std::pair(host, static_cast<uint16_t>(port));
}

/// flwr-clientapp beside the interpreter, where a virtual environment has it; else that in PATH.
std::string StockProgram(const std::string& python) {
  const size_t slash = python.rfind('/');
  const std::string beside =
      slash == std::string::npos ? "" : python.substr(0, slash) + "/flwr-clientapp";
  return !beside.empty() && ::access(beside.c_str(), X_OK) == 0 ? beside : "flwr-clientapp";
}

/// Where processes of this machine find a server that listens on `host`.
std::string DialAddress(const std::string& host, uint16_t port) {
  const std::string to = host == "0.0.0.0" ? "127.0.0.1" : host == "::" ? "::1" : host;
  return to.find(':') == std::string::npos ? fmt::format("{}:{}", to, port)
                                           : fmt::format("[{}]:{}", to, port);
}

/// What limits ask for must be there.
Status CheckLimits(const Options& options, const process::CgroupParent& groups) {
  const Limits& limits = options.limits;
  if (options.unlimited) return {};
  const bool memory = limits.memory_bytes == 0 || groups.memory();
  const bool processes = limits.processes == 0 || groups.processes();
  if (memory && processes) return {};
  if (limits.uid != 0) return {};  // limits of its own user hold
  return Fail(
      Code::kFailedPrecondition,
      fmt::format("limits on memory and processes cannot be kept here: {}. Run as root, give "
                  "this process a cgroup, name a user for ClientApps with --clientapp-uid, "
                  "or go without them with --unlimited",
                  groups.found()));
}

class SuperNodeImpl final : public SuperNode {
 public:
  SuperNodeImpl(const Options& options, std::function<void()> on_end, HostFactory make_host)
      : options_(options), on_end_(std::move(on_end)), make_host_(std::move(make_host)), pool_(2) {}
  ~SuperNodeImpl() override { static_cast<void>(Stop()); }

  Status Open() {
    UMBEL_ASSIGN(const auto address, SplitAddress(options_.superlink));
    UMBEL_TRY(MakeDirectories(options_.state_directory));
    UMBEL_ASSIGN(lock_, LockFile::Take(options_.state_directory + "/lock",
                                       fmt::format("the state in '{}'", options_.state_directory)));
    UMBEL_ASSIGN(journal_, Journal::Open(options_.state_directory + "/journal.db"));
    const std::string spools = options_.state_directory + "/spool";
    UMBEL_TRY(MakeDirectories(spools));
    UMBEL_TRY(ClearSpools(spools));
    groups_ = process::CgroupParent::Open();
    UMBEL_TRY(CheckLimits(options_, *groups_));
    const auto stale = groups_->ClearStale();
    if (!stale.ok()) {  // another node's: no reason not to work
      LogWarn("what a killed node had left cannot be cleared away",
              {{"error", stale.error().message}});
    } else if (*stale > 0) {
      LogInfo("cleared away what killed nodes had left", {{"nodes", *stale}});
    }

    http::ServerOptions server;
    server.host = options_.host;
    server.port = options_.port;
    server.threads = 1;  // which runs all of this
    if (!options_.ssl_certfile.empty())
      server.tls = http::TlsOptions{options_.ssl_certfile, options_.ssl_keyfile};
    auto started = http::Server::Start(
        server, [this](Exchange& exchange) -> Task<void> { return Handle(exchange); });
    if (!started.ok()) return Fail(std::move(started).error());
    server_ = std::move(*started);

    http::ClientOptions client;
    client.host = address.first;
    client.port = address.second;
    client.tls = !options_.insecure;
    client.root_certificates = options_.root_certificates;
    // A held poll and a heartbeat of each site, and what is being moved.
    client.connections_max = static_cast<size_t>(2 * options_.count + 32);
    auto made = http::Client::Make(server_->context(), client);
    if (!made.ok()) return Fail(std::move(made).error());
    client_ = std::move(*made);

    UMBEL_TRY(MakeApps());
    UMBEL_TRY(OnThread([this] { return make_host_ ? TakeHost() : MakeHost(); }));
    return OnThread([this, &spools]() -> Status {
      UMBEL_TRY(MakeNodes(spools));
      ready_ = true;
      return {};
    });
  }

  uint16_t port() const override { return server_->port(); }

  Status Stop() override {
    if (std::exchange(stopped_, true)) return end_;
    if (server_ && host_) {
      auto done = std::make_shared<std::promise<void>>();
      auto future = done->get_future();
      auto leave = [this, done]() -> Task<void> {
        co_await Leave();
        done->set_value();
      };
      asio::co_spawn(server_->context(), std::move(leave), asio::detached);
      if (future.wait_for(options_.shutdown_grace + std::chrono::seconds(15)) !=
          std::future_status::ready)
        LogWarn("some of what was under way did not end in time", {});
    }
    pool_.join();
    if (server_) server_->Stop(std::chrono::milliseconds(200));
    all_ended_.reset();
    nodes_.clear();
    slots_.reset();
    host_.reset();
    door_.reset();
    tasks_.reset();
    client_.reset();
    server_.reset();
    return end_;
  }

 private:
  /// What the io_context owns is made on its thread; user code's processes, too, end with the
  /// thread that started them.
  Status OnThread(std::function<Status()> work) {
    auto done = std::make_shared<std::promise<Status>>();
    auto future = done->get_future();
    asio::post(server_->context(), [done, work = std::move(work)] { done->set_value(work()); });
    return future.get();
  }

  /// Files of messages that the journal does not know.
  Status ClearSpools(const std::string& directory) {
    std::set<std::string> known;
    for (int64_t site = 0; site < options_.count; ++site) {
      UMBEL_ASSIGN(const auto rows, journal_->Unfinished(site));
      for (const InstructionRow& row : rows)
        for (const char* what : {"in", "out"})
          known.insert(fmt::format("{}-{}.{}", site, row.message_id.Hex(), what));
    }
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error))
      if (!known.contains(entry.path().filename().native()))
        std::filesystem::remove(entry.path(), error);
    return {};
  }

  Status MakeApps() {
    Apps::Rules rules;
    if (!options_.trusted_entities.empty()) {
      UMBEL_ASSIGN(rules.trusted, flower::TrustedEntities::FromFile(options_.trusted_entities));
    }
    UMBEL_ASSIGN(rules.allow,
                 flower::AllowRules::Parse(options_.allow_fabs, options_.allow_publishers));
    const std::string root = options_.state_directory + "/apps";
    UMBEL_TRY(MakeDirectories(root));
    UMBEL_TRY(flower::CleanInstalls(root));
    std::optional<gid_t> readable_by;
    if (options_.limits.uid != 0) {
      readable_by = options_.limits.uid;
      ::chmod(options_.state_directory.c_str(), 0711);
      ::chmod(root.c_str(), 0711);
    }
    apps_ = std::make_unique<Apps>(root, readable_by, std::move(rules), pool_);
    return {};
  }

  Status MakeHost() {
    const HostKind kind = options_.host_kind;
    const std::vector<std::string> environment = ClientAppEnvironment();
    if (kind == HostKind::kStock || kind == HostKind::kProcess) {
      OutputSink output = [](RunId run, const std::string& message, std::string_view line) {
        LogInfo("ClientApp", {{"of", fmt::format("run {} message {}", run, message.substr(0, 12))},
                              {"text", line}});
      };
      tasks_ = std::make_unique<TaskTable>(server_->context(), pool_, clock_, rng_);
      RuntimeDoorOptions door;
      door.external = kind == HostKind::kProcess;
      if (!options_.superexec_secret_file.empty()) {
        UMBEL_ASSIGN(std::string secret, ReadFile(options_.superexec_secret_file, 1 << 20));
        if (secret.empty())
          return Fail(Code::kInvalidArgument,
                      fmt::format("the secret file '{}' is empty", options_.superexec_secret_file));
        superexec_ = std::make_unique<flower::SuperExecAuth>(std::move(secret));
        door.superexec = superexec_.get();
      }
      door.output = output;
      door_ = std::make_unique<RuntimeDoor>(*tasks_, std::move(door));
      if (kind == HostKind::kProcess) {
        host_ = MakeProcessHost(*tasks_);
        return {};
      }
      StockOptions stock;
      UMBEL_ASSIGN(stock.program, FindProgram(StockProgram(options_.python)));
      stock.runtime_address = DialAddress(options_.host, server_->port());
      if (!options_.ssl_certfile.empty()) stock.root_certificates = options_.ssl_ca_certfile;
      stock.allow_runtime_dependency_installation = options_.install_dependencies;
      stock.environment = options_.install_dependencies ? InstallerEnvironment() : environment;
      UMBEL_TRY(GiveFlowerHome(stock.environment));
      stock.spares = options_.max_parallel;
      stock.limits = options_.limits;
      stock.output = std::move(output);
      host_ = MakeStockHost(server_->context(), pool_, *tasks_, std::move(stock), Groups());
      return {};
    }
    WorkerOptions worker;
    worker.python = options_.python;
    UMBEL_ASSIGN(worker.sources, WriteWorkerSources(options_.state_directory + "/worker"));
    worker.environment = environment;
    worker.limits = options_.limits;
    worker.uid = options_.limits.uid;
    std::unique_ptr<Environments> environments;
    if (options_.install_dependencies) {
      EnvironmentOptions own;
      own.root = options_.state_directory + "/environments";
      own.python = options_.python;
      own.variables = InstallerEnvironment();
      own.limits = options_.limits;
      UMBEL_ASSIGN(environments,
                   Environments::Open(server_->context(), pool_, std::move(own), Groups()));
    }
    if (options_.isolated) UMBEL_TRY(Isolate(worker));
    host_ = MakeWorkerHost(server_->context().get_executor(), pool_, std::move(worker), Groups(),
                           kind == HostKind::kResident, clock_, options_.max_parallel,
                           std::move(environments), [this](const Error& why) {
                             if (end_.ok()) end_ = Fail(why);
                             if (!leaving_) on_end_();
                           });
    return {};
  }

  /// User code sees its interpreter, its app, and folders of its own in the place of home and /tmp.
  Status Isolate(WorkerOptions& worker) const {
    std::error_code error;
    const std::string& state = options_.state_directory;
    const std::string home = state + "/home";
    const std::string temporary = state + "/tmp";
    std::filesystem::remove_all(temporary, error);  // of processes that are gone
    for (const std::string& folder : {home, temporary}) {
      UMBEL_TRY(MakeDirectories(folder));
      if (worker.uid != 0 && ::chown(folder.c_str(), worker.uid, worker.uid) != 0)
        return Fail(SystemError("give away", folder));
    }
    process::View view;
    view.shown = process::PythonFolders(options_.python);
    view.shown.insert(view.shown.end(), options_.shown.begin(), options_.shown.end());
    view.shown.push_back(state + "/worker");
    view.shown.push_back(state + "/apps");
    if (options_.install_dependencies) view.shown.push_back(state + "/environments");
    view.writable = {home};
    view.temporary = temporary;
    worker.view = std::move(view);
    SetVariable(worker.environment, "HOME", home);
    SetVariable(worker.environment, "TMPDIR", "/tmp");
    return {};
  }

  /// Another user cannot write to our home, and flwr-clientapp unpacks its app there.
  Status GiveFlowerHome(std::vector<std::string>& environment) const {
    const uint32_t uid = options_.limits.uid;
    if (uid == 0) return {};
    const std::string home = options_.state_directory + "/flwr";
    UMBEL_TRY(MakeDirectories(home));
    if (::chown(home.c_str(), uid, uid) != 0) return Fail(SystemError("give away", home));
    SetVariable(environment, "FLWR_HOME", home);
    if (!HasVariable(environment, "UV_CACHE_DIR"))
      SetVariable(environment, "UV_CACHE_DIR", home + "/uv-cache");
    return {};
  }

  /// Null where they cannot hold all of it.
  process::CgroupParent* Groups() const {
    return groups_->memory() && groups_->processes() && groups_->kill() ? groups_.get() : nullptr;
  }

  Status TakeHost() {
    host_ = make_host_(server_->context().get_executor(), options_);
    return {};
  }

  Status MakeNodes(const std::string& spools) {
    const auto executor = server_->context().get_executor();
    slots_ = std::make_unique<Slots>(executor, options_.max_parallel);
    RetryRules retry;
    retry.tries_max = options_.max_retries;
    retry.seconds_max = options_.max_wait_time;
    shared_ = std::unique_ptr<Shared>(new Shared{*client_, *journal_, *apps_, *host_, *slots_,
                                                 pool_, clock_, rng_, retry, spools});
    for (int64_t site = 0; site < options_.count; ++site) {
      UMBEL_ASSIGN(flower::ConfigMap config, flower::ParseNodeConfig(flower::ExpandNodeConfig(
                                                 options_.node_config, static_cast<uint64_t>(site),
                                                 static_cast<uint64_t>(options_.count))));
      UMBEL_ASSIGN(auto node,
                   Node::Make(*shared_, site, options_.private_key, std::move(config), executor));
      nodes_.push_back(std::move(node));
    }
    live_ = nodes_.size();
    asio::co_spawn(executor, RunNodes(), asio::detached);
    return {};
  }

  Task<void> RunNodes() {
    if (!options_.preload.empty()) co_await Preload();
    for (const auto& node : nodes_)
      asio::co_spawn(server_->context(), RunNode(*node), asio::detached);
  }

  /// What goes wrong here is no reason to stay away: the first message is answered with it.
  Task<void> Preload() {
    const auto began = std::chrono::steady_clock::now();
    const auto app = co_await apps_->FromFile(options_.preload);
    Status loaded;
    if (app.ok()) {
      LogInfo("loading the app before connecting", {{"app", (*app)->fab_id}});
      loaded = co_await host_->Preload(*app);
    } else {
      loaded = Fail(app.error());
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    if (loaded.ok()) {
      LogInfo("the app is loaded", {{"seconds", fmt::format("{:.1f}", took.count())}});
    } else if (!leaving_) {
      LogWarn("the app cannot be loaded ahead",
              {{"file", options_.preload}, {"error", loaded.error().message}});
    }
  }

  Task<void> RunNode(Node& node) {
    const Status end = co_await node.Run();
    if (!end.ok() && end.error().code != Code::kCancelled) {
      LogError("a site has ended", {{"node_id", node.id()}, {"error", end.error().message}});
      if (end_.ok()) end_ = end;
    }
    --live_;
    if (all_ended_) all_ended_->Ring();
    if (live_ == 0 && !leaving_) on_end_();
  }

  Task<void> Leave() {
    leaving_ = true;
    // A SuperLink that does not answer costs all sites together the time of one.
    auto stop = [this](size_t i) -> Task<Status> {
      co_await nodes_[i]->Stop();
      co_return Status{};
    };
    static_cast<void>(co_await ForEach(nodes_.size(), nodes_.size(), std::move(stop)));
    co_await host_->Stop(options_.shutdown_grace);
    client_->Close();
    all_ended_ = std::make_unique<http::Bell>(server_->context().get_executor());
    while (live_ > 0) co_await all_ended_->Wait();
  }

  Task<void> Handle(Exchange& exchange) {
    if (!ready_) {  // the rest of it is being made, perhaps on another thread
      http::Response early;
      early.status = 503;
      static_cast<void>(co_await exchange.Reply(std::move(early)));
      co_return;
    }
    const std::string path(exchange.path());
    if (door_ && RuntimeDoor::Serves(path)) {
      const Status done = co_await door_->Handle(exchange);
      if (!done.ok()) co_await flower::ReplyError(exchange, done.error());
      co_return;
    }
    const bool reads = exchange.method() == "GET" || exchange.method() == "HEAD";
    http::Response answer;
    if (path == "/health" || path == "/livez") {
      answer.status = reads ? 200 : 405;
    } else if (path == "/readyz") {
      answer.status = Connected() == nodes_.size() ? 200 : 503;
    } else if (path == "/metrics" && reads) {
      answer = http::Response(200, "text/plain; version=0.0.4", MetricsText());
    } else if (path == "/v1/umbel/node-status" && reads) {
      answer = http::Response(200, "application/json", StatusText());
    } else {
      answer = http::Response(404, "application/json", R"({"detail":"Not Found"})");
    }
    static_cast<void>(co_await exchange.Reply(std::move(answer)));
  }

  size_t Connected() const {
    size_t count = 0;
    for (const auto& node : nodes_) count += node->connected();
    return count;
  }

  std::string MetricsText() const {
    NodeCounters sum;
    for (const auto& node : nodes_) {
      const NodeCounters& one = node->counters();
      sum.instructions += one.instructions;
      sum.replies += one.replies;
      sum.error_replies += one.error_replies;
      sum.dropped += one.dropped;
      sum.bytes_in += one.bytes_in;
      sum.bytes_out += one.bytes_out;
    }
    std::string out;
    const auto line = [&](std::string_view name, std::string_view kind, uint64_t value) {
      out += fmt::format("# TYPE umbel_supernode_{0} {1}\numbel_supernode_{0} {2}\n", name, kind,
                         value);
    };
    line("sites", "gauge", nodes_.size());
    line("sites_connected", "gauge", Connected());
    line("runs", "gauge", apps_->runs().size());
    line("jobs_waiting", "gauge", slots_->waiting());
    line("instructions_total", "counter", sum.instructions);
    line("replies_total", "counter", sum.replies);
    line("error_replies_total", "counter", sum.error_replies);
    line("replies_dropped_total", "counter", sum.dropped);
    line("object_bytes_received_total", "counter", sum.bytes_in);
    line("object_bytes_sent_total", "counter", sum.bytes_out);
    return out;
  }

  std::string StatusText() const {
    nlohmann::json out;
    out["superlink"] = options_.superlink;
    out["state"] = options_.state_directory;
    out["host"] = host_->name();
    out["host_state"] = host_->Describe();
    out["confinement"] = groups_->found();
    out["sites"] = nlohmann::json::array();
    for (const auto& node : nodes_)
      out["sites"].push_back(nlohmann::json::parse(node->Describe(), nullptr, false));
    out["runs"] = nlohmann::json::array();
    for (const auto& [id, run] : apps_->runs())
      out["runs"].push_back({{"run_id", id.value}, {"app", run->app->fab_id}});
    return out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  const Options options_;
  const std::function<void()> on_end_;
  const HostFactory make_host_;
  const SystemClock clock_;
  SystemRng rng_;
  std::optional<LockFile> lock_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<process::CgroupParent> groups_;
  asio::thread_pool pool_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<http::Client> client_;
  std::unique_ptr<Apps> apps_;
  std::unique_ptr<flower::SuperExecAuth> superexec_;
  std::unique_ptr<TaskTable> tasks_;
  std::unique_ptr<RuntimeDoor> door_;
  std::unique_ptr<Host> host_;
  std::unique_ptr<Slots> slots_;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::unique_ptr<http::Bell> all_ended_;
  size_t live_ = 0;
  Status end_;
  std::atomic<bool> ready_{false};
  bool leaving_ = false;
  bool stopped_ = false;
};

}  // namespace

Result<std::unique_ptr<SuperNode>> SuperNode::Start(const Options& options,
                                                    std::function<void()> on_end,
                                                    HostFactory make_host) {
  UMBEL_TRY(Validate(options));
  auto node = std::make_unique<SuperNodeImpl>(options, std::move(on_end), std::move(make_host));
  UMBEL_TRY(node->Open());
  return std::unique_ptr<SuperNode>(std::move(node));
}

Status Validate(const Options& options) {
  UMBEL_TRY(SplitAddress(options.superlink));
  if (options.insecure && !options.root_certificates.empty())
    return Fail(Code::kInvalidArgument,
                "--root-certificates is for TLS: leave it or --insecure away");
  if (options.insecure && !options.private_key.empty())
    return Fail(Code::kInvalidArgument,
                "--auth-supernode-private-key needs TLS: anybody on the way could play an insecure "
                "connection's messages. Give --root-certificates instead of --insecure");
  if (options.count > 1 && !options.private_key.empty())
    return Fail(Code::kInvalidArgument, "--count: one key cannot be the key of several sites");
  const Limits& limits = options.limits;
  if (options.host_kind == HostKind::kProcess && !options.unlimited &&
      (limits.memory_bytes != 0 || limits.processes != 0 || limits.open_files != 0 ||
       limits.uid != 0 || !limits.network))
    return Fail(Code::kInvalidArgument,
                "of the limits on ClientApps only --limit-time and --limit-output can be kept for "
                "processes that others start (--isolation process): let this node host them, or "
                "go without the others with --unlimited");
  if (!options.shown.empty() && !options.isolated)
    return Fail(Code::kInvalidArgument,
                "--show is for --isolated: other user code sees everything already");
  if (options.host_kind == HostKind::kStock && !limits.network)
    return Fail(Code::kInvalidArgument,
                "--no-network, --isolated: Flower's own flwr-clientapp needs the network to reach "
                "this node; "
                "use --clientapp-host worker or resident");
  if (options.ssl_certfile.empty() != options.ssl_keyfile.empty())
    return Fail(Code::kInvalidArgument, "--ssl-certfile and --ssl-keyfile go together");
  if (!options.preload.empty() && options.host_kind != HostKind::kWorker &&
      options.host_kind != HostKind::kResident)
    return Fail(Code::kInvalidArgument,
                fmt::format("--preload '{}': only --clientapp-host worker and resident keep apps "
                            "loaded",
                            options.preload));
  for (int64_t site = 0; site < options.count; ++site)
    UMBEL_TRY(flower::ParseNodeConfig(flower::ExpandNodeConfig(
        options.node_config, static_cast<uint64_t>(site), static_cast<uint64_t>(options.count))));
  return {};
}

std::string StateDirectory(const Options& options, const std::string& home) {
  const std::string what =
      fmt::format("{}\n{}\n{}", options.superlink, options.node_config, options.port);
  return fmt::format("{}/supernode/{}", home, tensor::Sha256Of(what).Hex().substr(0, 16));
}

}  // namespace umbel::supernode
