#include "superlink/superlink.h"

#include <sys/random.h>

#include <google/protobuf/stubs/logging.h>
#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <unordered_map>

#include "base/file.h"
#include "base/lock_file.h"
#include "base/log.h"
#include "http/server.h"
#include "superlink/door.h"
#include "superlink/launcher.h"
#include "superlink/rounds/service.h"

namespace umbel::superlink {
namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds kTickEvery{1};

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  return !error && address.is_loopback();
}

/// What a program on this machine dials to reach a server bound to `host`.
std::string DialHost(const std::string& host) {
  if (host == "0.0.0.0") return "127.0.0.1";
  if (host == "::" || host == "[::]") return "[::1]";
  if (host.find(':') != std::string::npos && host.front() != '[') return "[" + host + "]";
  return host;
}

std::string Trimmed(std::string host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    return host.substr(1, host.size() - 2);
  return host;
}

class SuperLinkImpl final : public SuperLink {
 public:
  explicit SuperLinkImpl(const Options& options) : options_(options) {}
  ~SuperLinkImpl() override { Stop(); }

  Status Open() {
    UMBEL_TRY(Validate(options_));
    // protobuf prints a line for every string that is not UTF-8: strangers would write our log.
    google::protobuf::SetLogHandler(nullptr);
    store::StoreOptions store;
    store.directory = options_.state_directory;
    store.database = options_.database;
    store.durability = options_.durability;
    UMBEL_ASSIGN(engine_, Engine::Open(store, clock_, rng_));
    site_ = std::make_unique<Site>(options_, *engine_);
    if (!options_.superexec_secret_file.empty()) {
      UMBEL_ASSIGN(std::string secret, ReadFile(options_.superexec_secret_file, 1 << 20));
      if (secret.empty())
        return Fail(Code::kInvalidArgument, fmt::format("superexec secret file '{}' is empty",
                                                        options_.superexec_secret_file));
      site_->superexec = std::make_unique<flower::SuperExecAuth>(std::move(secret));
    }
    for (const auto routes : {FleetRoutes(), RuntimeRoutes(), ControlRoutes(), UmbelRoutes()}) {
      for (const Route& route : routes) {
        routes_.emplace(route.path, route.handler);
        site_->metrics.AddRoute(route.path);
      }
    }
    http::ServerOptions server;
    server.host = Trimmed(options_.host);
    server.port = options_.port;
    server.threads = std::max<size_t>(options_.threads, 1);
    if (!options_.insecure)
      server.tls = http::TlsOptions{options_.ssl_certfile, options_.ssl_keyfile};
    UMBEL_ASSIGN(server_, http::Server::Start(std::move(server), [this](Exchange& exchange) {
                   return Serve(exchange);
                 }));
    UMBEL_TRY(StartLauncher());
    UMBEL_ASSIGN(rounds_, rounds::Service::Start(*engine_, options_.state_directory));
    asio::co_spawn(server_->context(), Tick(), asio::detached);
    ready_.store(true, std::memory_order_release);
    return {};
  }

  uint16_t port() const override { return server_->port(); }

  void Stop() override {
    if (stopped_) return;
    stopped_ = true;
    if (server_) server_->Stop(options_.shutdown_grace);
    if (engine_) engine_->OnTasksChanged({});
    if (rounds_) rounds_->Stop();
    if (launcher_) launcher_->Stop(options_.state_directory.empty());
    if (site_) {
      site_->pool.join();
      site_->hashes.Drop();
    }
    rounds_.reset();
    launcher_.reset();
    server_.reset();
    site_.reset();
    engine_.reset();
    if (!scratch_.empty()) {
      std::error_code ignored;
      std::filesystem::remove_all(scratch_, ignored);
    }
  }

 private:
  Status StartLauncher() {
    std::string directory = options_.state_directory;
    if (directory.empty()) {
      std::string name = (std::filesystem::temp_directory_path() / "umbel-XXXXXX").string();
      if (::mkdtemp(name.data()) == nullptr) return Fail(SystemError("create", name));
      directory = scratch_ = name;
      // Guards look at this lock; without a state directory no store holds it for us.
      UMBEL_ASSIGN(scratch_lock_, LockFile::Take(directory + "/lock", directory));
    }
    UMBEL_ASSIGN(launcher_, Launcher::Start(options_, *engine_,
                                            fmt::format("{}:{}", DialHost(options_.host), port()),
                                            directory + "/runs", directory + "/lock"));
    site_->output_flush = [this](RunId run_id) { launcher_->Flush(run_id); };
    engine_->OnTasksChanged([this] { launcher_->Notify(); });
    launcher_->Notify();
    return {};
  }

  Task<void> Serve(Exchange& exchange) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string path(exchange.path());
    if (!ready_.load(std::memory_order_acquire)) {
      static_cast<void>(co_await exchange.Reply(
          {503, "application/json", "{\"detail\":\"The SuperLink is starting.\"}", ""}));
      co_return;
    }
    const auto found = routes_.find(path);
    if (path.starts_with("/v1/control/") || path.starts_with("/v1/umbel/")) {
      if (const Status allowed = CheckControl(exchange); !allowed.ok()) {
        co_await ReplyError(exchange, allowed.error());
        co_return;
      }
    }
    if (found == routes_.end()) {
      co_await ServeOther(exchange, path);
      co_return;
    }
    Status status;
    if (exchange.method() != "POST") {
      static_cast<void>(co_await exchange.Reply(
          {405, "application/json", "{\"detail\":\"Method Not Allowed\"}", "Allow: POST\r\n"}));
    } else if (engine_->Overloaded()) {
      status = Fail(Code::kUnavailable, "the store cannot keep up; try again", 503);
    } else {
      status = co_await found->second(*site_, exchange);
    }
    if (!status.ok()) co_await ReplyError(exchange, status.error());
    if (path.starts_with("/v1/control/") && !AuditsItself(path))
      site_->Audit(exchange, path, RunId{}, "", fmt::format("{}", exchange.replied()));
    const bool held = path.ends_with("/pull-messages") || path.ends_with("/acquire-task") ||
                      path.ends_with("/stream-logs") || path.ends_with("/watch-rounds") ||
                      path.ends_with("/watch-nodes");
    site_->metrics.Record(path, exchange.replied(), std::chrono::steady_clock::now() - begin, held);
  }

  /// These put the run and the FAB on record too, in their own handlers.
  static bool AuditsItself(std::string_view path) {
    for (const std::string_view name :
         {"start-run", "stop-run", "register-node", "unregister-node"})
      if (path.ends_with(name)) return true;
    return false;
  }

  /// Who may command comes before everything else, even before whether there is such a route.
  Status CheckControl(Exchange& exchange) {
    if (!site_->MayCommand(exchange)) {
      site_->Audit(exchange, exchange.path(), RunId{}, "", "refused: peer may not command");
      return Fail(Code::kUnauthenticated, "Not authenticated");
    }
    // Whoever asks how to log in need not be.
    const std::string_view path = exchange.path();
    if (path.ends_with("/get-login-details") || path.ends_with("/get-auth-tokens") ||
        path.ends_with("/refresh-auth-tokens"))
      return {};
    // There are no accounts, so any bearer token will do, but nothing else.
    const size_t count = exchange.HeaderCount("authorization");
    if (count == 0) return {};
    const std::string_view value = exchange.Header("authorization");
    const size_t space = value.find(' ');
    std::string scheme(value.substr(0, space));
    for (char& c : scheme) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const bool bearer = scheme == "bearer" && space != std::string_view::npos &&
                        value.find_first_not_of(' ', space) != std::string_view::npos;
    if (count == 1 && bearer) return {};
    return Fail(Code::kUnauthenticated, "Not authenticated");
  }

  Task<void> ServeOther(Exchange& exchange, const std::string& path) {
    const bool get = exchange.method() == "GET" || exchange.method() == "HEAD";
    http::Response response{404, "application/json", "{\"detail\":\"Not Found\"}", ""};
    if (get && (path == "/health" || path == "/livez")) {
      response = {200, "", "", ""};
    } else if (get && path == "/readyz") {
      const bool ready = !stopped_ && !engine_->Overloaded();
      response = {ready ? 200 : 503, "text/plain", ready ? "ready\n" : "not ready\n", ""};
    } else if (get && path == "/metrics") {
      if (site_->MayCommand(exchange)) {
        response = {200, "text/plain; version=0.0.4", "", ""};
        RenderMetrics(&response.body);
      } else {
        response = {401, "application/json", "{\"detail\":\"Not authenticated\"}", ""};
      }
    } else if (path == "/health" || path == "/metrics") {
      response = {405, "application/json", "{\"detail\":\"Method Not Allowed\"}",
                  "Allow: GET, HEAD\r\n"};
    }
    static_cast<void>(co_await exchange.Reply(std::move(response)));
  }

  void RenderMetrics(std::string* out) {
    struct Counts {
      size_t nodes, online, pending, starting, running, messages, objects;
    };
    const Counts counts = engine_->Read([](State& state, WallTime) {
      Counts c{state.node_count(), state.online_nodes(), 0, 0, 0, 0, 0};
      for (const auto& [id, run] : state.runs()) {
        c.pending += run.task.status == TaskStatus::kPending;
        c.starting += run.task.status == TaskStatus::kStarting;
        c.running += run.task.status == TaskStatus::kRunning;
        c.messages += run.messages.size();
        c.objects += run.objects.size();
      }
      return c;
    });
    const auto gauge = [&](std::string_view name, std::string_view help, uint64_t value) {
      *out += fmt::format("# HELP {} {}\n# TYPE {} gauge\n{} {}\n", name, help, name, name, value);
    };
    gauge("umbel_nodes", "SuperNodes ever registered.", counts.nodes);
    gauge("umbel_nodes_online", "SuperNodes online.", counts.online);
    gauge("umbel_runs_pending", "Runs waiting for a ServerApp.", counts.pending);
    gauge("umbel_runs_starting", "Runs whose ServerApp is starting.", counts.starting);
    gauge("umbel_runs_running", "Runs in progress.", counts.running);
    gauge("umbel_messages", "Messages kept.", counts.messages);
    gauge("umbel_objects", "Objects known.", counts.objects);
    gauge("umbel_object_disk_bytes", "Bytes of segment files.",
          engine_->segments().bytes_on_disk());
    const http::ServerCounters& server = server_->counters();
    gauge("umbel_connections_open", "Open connections.", server.connections_open);
    gauge("umbel_connections_shed", "Connections closed to make room.", server.connections_shed);
    gauge("umbel_http_received_bytes", "Bytes received.", server.bytes_in);
    gauge("umbel_http_sent_bytes", "Bytes sent.", server.bytes_out);
    site_->metrics.Render(out);
  }

  Task<void> Tick() {
    asio::steady_timer timer(server_->context());
    for (;;) {
      timer.expires_after(kTickEvery);
      auto [error] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
      if (error || stopped_) co_return;
      engine_->Apply([](State& state, WallTime now, Changes& changes) {
        state.Tick(now, changes);
        state.FlushTraffic(changes);
      });
    }
  }

  const Options options_;
  SystemClock clock_;
  SystemRng rng_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Site> site_;
  std::unordered_map<std::string_view, RouteHandler> routes_;
  std::unique_ptr<http::Server> server_;
  std::unique_ptr<Launcher> launcher_;
  std::unique_ptr<rounds::Service> rounds_;
  std::string scratch_;
  std::optional<LockFile> scratch_lock_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> stopped_{false};
};

}  // namespace

Status Validate(const Options& options) {
  if (!options.insecure && (options.ssl_certfile.empty() || options.ssl_keyfile.empty() ||
                            options.ssl_ca_certfile.empty())) {
    return Fail(Code::kInvalidArgument,
                IsLoopback(Trimmed(options.host))
                    ? "TLS needs --ssl-certfile, --ssl-keyfile and --ssl-ca-certfile; "
                      "or say --insecure to go without"
                    : fmt::format("--host {} is beyond loopback, which needs TLS: give "
                                  "--ssl-certfile, --ssl-keyfile and --ssl-ca-certfile, or say "
                                  "--insecure to go without",
                                  options.host));
  }
  if (options.insecure && options.supernode_auth)
    return Fail(Code::kInvalidArgument, "--enable-supernode-auth needs TLS, not --insecure");
  if (!options.superexec_secret_file.empty() && options.isolation != Isolation::kProcess)
    return Fail(Code::kInvalidArgument,
                "--superexec-auth-secret-file needs --isolation process: this SuperLink starts "
                "ServerApps itself otherwise");
  for (const std::string& cidr : options.control_from) {
    boost::system::error_code v4;
    boost::system::error_code v6;
    asio::ip::make_network_v4(cidr, v4);
    asio::ip::make_network_v6(cidr, v6);
    if (v4 && v6)
      return Fail(Code::kInvalidArgument,
                  fmt::format("--control-from '{}' is not a network like 10.0.0.0/8", cidr));
  }
  return {};
}

Result<std::unique_ptr<SuperLink>> SuperLink::Start(const Options& options) {
  auto superlink = std::make_unique<SuperLinkImpl>(options);
  UMBEL_TRY(superlink->Open());
  return std::unique_ptr<SuperLink>(std::move(superlink));
}

}  // namespace umbel::superlink
