#include "doors/api/api.h"

#include <openssl/crypto.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <charconv>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "base/random.h"
#include "base/version.h"
#include "doors/api/views.h"
#include "http/server.h"
#include "manager/sla.h"

namespace umbel::doors {
namespace {

using http::Exchange;
using http::Task;
using manager::Manager;
using nlohmann::json;
using Steady = std::chrono::steady_clock;

constexpr size_t kPoolThreads = 2;
constexpr size_t kLogPartMax = size_t{256} << 10;
constexpr uint64_t kEntriesMax = 1000;
constexpr std::chrono::seconds kWaitMax{60};
/// The ground tells of states, not of output: a log that is followed is looked at so often.
constexpr std::chrono::milliseconds kLogLook{200};
constexpr std::chrono::milliseconds kGrace{1000};

/// "a=1&b=2", for keys and values that need no decoding, or decoded where they do.
std::string Decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr ==
            text.data() + i + 3) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

/// Cuts off what stands before the first `mark`, and the mark.
std::string_view Cut(std::string_view& text, char mark) {
  const size_t end = text.find(mark);
  const std::string_view head = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return head;
}

class Request {
 public:
  Request(std::string_view path, std::string_view query) : query_(query) {
    while (!path.empty())
      if (const std::string_view part = Cut(path, '/'); !part.empty())
        parts.push_back(Decode(part));
  }

  std::optional<std::string> Text(std::string_view key) const {
    for (std::string_view rest = query_; !rest.empty();) {
      std::string_view value = Cut(rest, '&');
      if (Decode(Cut(value, '=')) == key) return Decode(value);
    }
    return std::nullopt;
  }
  Result<uint64_t> Number(std::string_view key, uint64_t otherwise, uint64_t max) const {
    const auto text = Text(key);
    if (!text) return otherwise;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || value > max)
      return Fail(Code::kInvalidArgument,
                  fmt::format("{}: '{}' is not in 0 to {}", key, text->substr(0, 40), max));
    return value;
  }

  std::vector<std::string> parts;  // of the path, decoded

 private:
  std::string_view query_;
};

/// Not an aggregate: see http::Response.
struct Answer {
  explicit Answer(json b, int s = 200) : body(std::move(b)), status(s) {}
  static Answer Of(const char* key, json value) {
    json object = json::object();
    object[key] = std::move(value);
    return Answer(std::move(object));
  }

  json body;
  int status = 200;
};

class ApiImpl final : public Api {
 public:
  ApiImpl(const ApiOptions& options, Manager& manager) : options_(options), manager_(manager) {}
  ~ApiImpl() override { Stop(); }

  Status Open() {
    if (options_.token.size() < 16)
      return Fail(Code::kInvalidArgument, "the API's token is shorter than 16 bytes");
    http::ServerOptions server;
    server.host = options_.host;
    server.port = options_.port;
    server.threads = 1;
    UMBEL_ASSIGN(server_, http::Server::Start(std::move(server), [this](Exchange& exchange) {
                   return Serve(exchange);
                 }));
    return {};
  }
  uint16_t port() const override { return server_->port(); }
  void Stop() override {
    if (server_) server_->Stop(kGrace);
    pool_.join();
  }

 private:
  /// Blocking work on a thread of its own while the exchange waits.
  template <typename F>
  Task<std::invoke_result_t<F>> OnPool(Exchange& exchange, F work) {
    using R = std::invoke_result_t<F>;
    struct Job {
      std::optional<R> result;
      std::atomic<bool> done{false};
    };
    auto job = std::make_shared<Job>();
    boost::asio::post(pool_, [job, work = std::move(work), waker = exchange.waker()]() mutable {
      job->result.emplace(work());
      job->done.store(true, std::memory_order_release);
      waker->Wake();
    });
    while (!job->done.load(std::memory_order_acquire)) {
      const auto end = co_await exchange.Hold(Steady::now() + std::chrono::hours(1), false);
      if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
      if (end == http::HoldEnd::kStopping && !job->done.load(std::memory_order_acquire))
        co_return Fail(Code::kUnavailable, "umbel is stopping");
    }
    co_return std::move(*job->result);
  }

  Task<void> Serve(Exchange& exchange) {
    auto answer = co_await Handle(exchange);
    http::Response response;
    if (answer.ok()) {
      response.status = answer->status;
      response.content_type = "application/json";
      response.body = answer->body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    } else {
      if (answer.error().code == Code::kCancelled) co_return;
      const json problem = Problem(answer.error());
      response.status = problem["status"].get<int>();
      response.content_type = "application/problem+json";
      response.body = problem.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
      if (response.status == 401) response.extra_headers = "WWW-Authenticate: Bearer\r\n";
    }
    static_cast<void>(co_await exchange.Reply(std::move(response)));
  }

  bool Knows(const Exchange& exchange) const {
    const std::string_view header = exchange.Header("authorization");
    constexpr std::string_view kBearer = "Bearer ";
    if (!header.starts_with(kBearer)) return false;
    const std::string_view token = header.substr(kBearer.size());
    return token.size() == options_.token.size() &&
           CRYPTO_memcmp(token.data(), options_.token.data(), token.size()) == 0;
  }

  Task<Result<Answer>> Handle(Exchange& exchange) {
    const std::string path(exchange.path());
    const std::string query(exchange.query());
    const bool get = exchange.method() == "GET" || exchange.method() == "HEAD";
    if (path == "/health" && get) co_return Answer::Of("status", "ok");
    constexpr std::string_view kRoot = "/api/v1/";
    if (!path.starts_with(kRoot))
      co_return Fail(Code::kNotFound, fmt::format("there is nothing at '{}'", path.substr(0, 100)));
    if (!Knows(exchange))
      co_return Fail(Code::kUnauthenticated,
                     "the token is missing or wrong: `umbel up` says in which file it is");
    const Request request(std::string_view(path).substr(kRoot.size()), query);
    const std::string what = request.parts.empty() ? "" : request.parts[0];
    if (what == "projects") co_return co_await Projects(exchange, request);
    if (!get)
      co_return Fail(Code::kInvalidArgument,
                     fmt::format("'{}' only answers GET", path.substr(0, 100)), 405);
    if (what == "services") co_return co_await Services(exchange, request);
    if (what == "nodes" && request.parts.size() == 1) {
      json nodes = json::array();
      for (const auto& node : manager_.Nodes()) nodes.push_back(ToJson(node));
      co_return Answer::Of("nodes", std::move(nodes));
    }
    if (what == "tracking" && request.parts.size() == 1) {
      const std::string customer = request.Text("customer").value_or("Admin");
      const auto look = [this, customer] { return manager_.Tracking(customer); };
      UMBEL_CO_ASSIGN(const std::string url, co_await OnPool(exchange, look));
      json told = json::object();
      told["customer"] = customer;
      told["url"] = url;
      co_return Answer(std::move(told));
    }
    if (what == "changes" && request.parts.size() == 1)
      co_return co_await Changes(exchange, request);
    if (what == "version" && request.parts.size() == 1)
      co_return Answer::Of("version", std::string(kVersion));
    co_return Fail(Code::kNotFound, fmt::format("there is nothing at '{}'", path.substr(0, 100)));
  }

  Task<Result<Answer>> Projects(Exchange& exchange, const Request& request) {
    const auto& parts = request.parts;
    const std::string_view method = exchange.method();
    if (parts.size() == 1 && method == "POST") {
      UMBEL_CO_ASSIGN(const std::string body,
                      co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
      const auto submit = [this, body] { return manager_.Submit(body); };
      UMBEL_CO_ASSIGN(const manager::Project project, co_await OnPool(exchange, submit));
      co_return Answer(ToJson(project), 201);
    }
    if (parts.size() == 1 && method == "GET") {
      const auto look = [this] { return manager_.List(); };
      UMBEL_CO_ASSIGN(const auto projects, co_await OnPool(exchange, look));
      json list = json::array();
      for (const auto& project : projects) list.push_back(ToJson(project));
      co_return Answer::Of("projects", std::move(list));
    }
    const std::string name = parts.size() > 1 ? parts[1] : "";
    const std::string part = parts.size() > 2 ? parts[2] : "";
    if (parts.size() == 2 && method == "GET") {
      const auto look = [this, name] { return manager_.Find(name); };
      UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await OnPool(exchange, look));
      co_return Answer(ToJson(view));
    }
    if (parts.size() == 3 && part == "timeline" && method == "GET")
      co_return co_await Timeline(exchange, request, name);
    Result<manager::Project> (Manager::*act)(std::string_view) = nullptr;
    if (parts.size() == 2 && method == "DELETE") act = &Manager::Delete;
    if (parts.size() == 3 && part == "stop" && method == "POST") act = &Manager::Stop;
    if (parts.size() == 3 && part == "resume" && method == "POST") act = &Manager::Resume;
    if (act == nullptr)
      co_return Fail(Code::kInvalidArgument,
                     fmt::format("{} is nothing a project can be asked", method), 405);
    const auto order = [this, act, name] { return (manager_.*act)(name); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await OnPool(exchange, order));
    co_return Answer(ToJson(project), 202);
  }

  /// Until `look` gives something, or the wait the request asks for is over.
  template <typename F>
  auto Held(Exchange& exchange, const Request& request, F look, std::chrono::milliseconds again)
      -> Task<std::invoke_result_t<F>> {
    UMBEL_CO_ASSIGN(const uint64_t wait,
                    request.Number("wait", 0, static_cast<uint64_t>(kWaitMax.count())));
    const auto deadline = Steady::now() + std::chrono::seconds(wait);
    for (;;) {
      const uint64_t seen = manager_.version();
      auto found = co_await OnPool(exchange, look);
      if (!found.ok() || !found->empty() || Steady::now() >= deadline) co_return found;
      manager_.Watch(seen, exchange.waker());
      const auto until = again.count() > 0 ? std::min(deadline, Steady::now() + again) : deadline;
      const auto end = co_await exchange.Hold(until, false);
      if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
      if (end == http::HoldEnd::kStopping) co_return found;
    }
  }

  Task<Result<Answer>> Timeline(Exchange& exchange, const Request& request,
                                const std::string& name) {
    UMBEL_CO_ASSIGN(const uint64_t after, request.Number("after", 0, uint64_t{1} << 62));
    const auto look = [this, name, after] { return manager_.Timeline(name, after, kEntriesMax); };
    UMBEL_CO_ASSIGN(const auto entries,
                    co_await Held(exchange, request, look, std::chrono::milliseconds(0)));
    json list = json::array();
    for (const auto& entry : entries) list.push_back(ToJson(entry));
    co_return Answer::Of("entries", std::move(list));
  }

  Task<Result<Answer>> Services(Exchange& exchange, const Request& request) {
    if (request.parts.size() == 1) {
      const bool all = request.Text("all").value_or("") == "1";
      const auto look = [this, all] { return manager_.Services(all); };
      UMBEL_CO_ASSIGN(const auto services, co_await OnPool(exchange, look));
      json list = json::array();
      for (const auto& view : services) list.push_back(ToJson(view));
      co_return Answer::Of("services", std::move(list));
    }
    if (request.parts.size() != 3 || request.parts[2] != "logs")
      co_return Fail(Code::kNotFound, "a service has logs: /api/v1/services/NAME/logs");
    UMBEL_CO_ASSIGN(const uint64_t offset, request.Number("offset", 0, uint64_t{1} << 62));
    struct Part : orchestrator::LogPart {
      explicit Part(orchestrator::LogPart part) : orchestrator::LogPart(std::move(part)) {}
      bool empty() const { return bytes.empty() && !ended; }
    };
    const auto look = [this, name = request.parts[1], offset]() -> Result<Part> {
      UMBEL_ASSIGN(orchestrator::LogPart part, manager_.Logs(name, offset, kLogPartMax));
      return Part(std::move(part));
    };
    UMBEL_CO_ASSIGN(const Part part, co_await Held(exchange, request, look, kLogLook));
    co_return Answer(ToJson(static_cast<const orchestrator::LogPart&>(part)));
  }

  Task<Result<Answer>> Changes(Exchange& exchange, const Request& request) {
    UMBEL_CO_ASSIGN(const uint64_t since, request.Number("since", 0, uint64_t{1} << 62));
    struct Version {
      Version(uint64_t n, bool c) : number(n), changed(c) {}
      uint64_t number;
      bool changed;
      bool empty() const { return !changed; }
    };
    const auto look = [this, since]() -> Result<Version> {
      const uint64_t now = manager_.version();
      return Version(now, now != since);
    };
    UMBEL_CO_ASSIGN(const Version version,
                    co_await Held(exchange, request, look, std::chrono::milliseconds(0)));
    co_return Answer::Of("version", version.number);
  }

  const ApiOptions options_;
  Manager& manager_;
  boost::asio::thread_pool pool_{kPoolThreads};
  std::unique_ptr<http::Server> server_;
};

}  // namespace

Result<std::unique_ptr<Api>> Api::Start(const ApiOptions& options, Manager& manager) {
  auto api = std::make_unique<ApiImpl>(options, manager);
  UMBEL_TRY(api->Open());
  return std::unique_ptr<Api>(std::move(api));
}

Result<std::string> TokenIn(const std::string& file) {
  if (std::filesystem::exists(file)) {
    UMBEL_ASSIGN(std::string token, ReadFile(file, 4096));
    while (!token.empty() && token.back() == '\n') token.pop_back();
    if (token.size() >= 16) return token;
    return Fail(Code::kFailedPrecondition,
                fmt::format("'{}' holds no token of at least 16 characters: remove it, and another "
                            "is made",
                            file));
  }
  SystemRng rng;
  const std::string token = rng.Hex(24);
  UMBEL_TRY(WriteFileAtomic(file, token + "\n"));
  return token;
}

}  // namespace umbel::doors
