#include "doors/api/api.h"

#include <nlohmann/json.hpp>

#include "base/version.h"
#include "doors/api/openapi.h"
#include "doors/api/views.h"
#include "doors/rest.h"
#include "manager/sla.h"

namespace umbel::doors {
namespace {

using http::Exchange;
using http::Task;
using manager::Manager;
using nlohmann::json;
using Steady = std::chrono::steady_clock;

constexpr size_t kBodyMax = 64 * 1024;
constexpr size_t kLogPartMax = size_t{256} << 10;
constexpr uint64_t kEntriesMax = 1000;
constexpr std::chrono::seconds kWaitMax{60};
/// The ground tells of states, not of output: a log that is followed is looked at so often.
constexpr std::chrono::milliseconds kLogLook{200};

Answer Json(const json& body, int status = 200) {
  return Answer(body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n", status);
}
Answer Keyed(const char* key, json value) {
  json body = json::object();
  body[key] = std::move(value);
  return Json(body);
}

Answer Refusal(const Error& error) {
  const json problem = Problem(error);
  Answer answer = Json(problem, problem["status"].get<int>());
  answer.content_type = "application/problem+json";
  if (answer.status == 401) answer.extra_headers = "WWW-Authenticate: Bearer\r\n";
  return answer;
}

class ApiImpl final : public Api {
 public:
  ApiImpl(Manager& manager, Accounts& accounts) : manager_(manager), accounts_(accounts) {}
  ~ApiImpl() override { Stop(); }

  Status Open(const ApiOptions& options) {
    const auto handle = [this](Exchange& exchange, const Request& request) {
      return Handle(exchange, request);
    };
    UMBEL_ASSIGN(rest_, Rest::Start({options.host, options.port}, handle, Refusal));
    return {};
  }
  uint16_t port() const override { return rest_->port(); }
  void Stop() override {
    if (rest_) rest_->Stop();
  }

 private:
  Task<Result<Answer>> Handle(Exchange& exchange, const Request& request) {
    const std::string_view method = exchange.method();
    const bool get = method == "GET" || method == "HEAD";
    const size_t parts = request.parts().size();
    if (parts == 1 && request.part(0) == "health" && get) co_return Keyed("status", "ok");
    const std::string& what = request.part(2);
    const auto nothing = [&exchange] {
      return Fail(Code::kNotFound,
                  fmt::format("there is nothing at '{}'", exchange.path().substr(0, 100)));
    };
    if (request.part(0) != "api" || request.part(1) != "v1") co_return nothing();
    if (what == "login" && parts == 3 && method == "POST") co_return co_await LogIn(exchange);
    if (what == "renew" && parts == 3 && method == "POST") co_return Renew(exchange);
    if (what == "openapi.json" && parts == 3 && get) co_return Answer(std::string(OpenApi()));
    UMBEL_CO_ASSIGN(const Account who, accounts_.Who(BearerOf(exchange)));
    if (what == "projects") co_return co_await Projects(exchange, request, who);
    if (what == "mocks" && parts == 3 && method == "POST") {
      UMBEL_CO_ASSIGN(const std::string body,
                      co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
      UMBEL_CO_TRY(MaySubmit(body, who));
      const auto mock = [this, body] { return manager_.Mock(body); };
      UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, mock));
      co_return Json({{"service", service.name}}, 201);
    }
    if (what == "accounts") co_return co_await AskAccounts(exchange, request, who);
    const bool known = what == "services" || what == "nodes" || what == "tracking" ||
                       what == "changes" || what == "version";
    if (!known) co_return nothing();
    if (!get)
      co_return Fail(Code::kInvalidArgument,
                     fmt::format("'{}' only answers GET", exchange.path().substr(0, 100)), 405);
    if (what == "services") co_return co_await Services(exchange, request, who);
    if (parts != 3) co_return nothing();
    if (what == "nodes") {
      json nodes = json::array();
      for (const auto& node : manager_.Nodes()) nodes.push_back(ToJson(node));
      co_return Keyed("nodes", std::move(nodes));
    }
    if (what == "tracking") {
      const std::string customer = request.Text("customer").value_or(who.name);
      if (!who.MayUse(customer))
        co_return Fail(Code::kPermissionDenied,
                       fmt::format("{} may not see what is of another customer", who.name));
      const auto look = [this, customer] { return manager_.Tracking(customer); };
      UMBEL_CO_ASSIGN(const std::string url, co_await rest_->OnPool(exchange, look));
      co_return Json({{"customer", customer}, {"url", url}});
    }
    if (what == "changes") co_return co_await Changes(exchange, request);
    co_return Keyed("version", std::string(kVersion));
  }

  static Answer Told(const Tokens& tokens) {
    return Json({{"token", tokens.token},
                 {"refresh_token", tokens.refresh_token},
                 {"expires_in", tokens.lives.count()}});
  }

  Task<Result<Answer>> LogIn(Exchange& exchange) {
    UMBEL_CO_ASSIGN(const json told, co_await Body(exchange));
    UMBEL_CO_ASSIGN(const std::string name, TextOf(told, "name"));
    UMBEL_CO_ASSIGN(const std::string password, TextOf(told, "password"));
    const auto log_in = [this, name, password] { return accounts_.LogIn(name, password); };
    UMBEL_CO_ASSIGN(const Tokens tokens, co_await rest_->OnPool(exchange, log_in));
    co_return Told(tokens);
  }

  Result<Answer> Renew(Exchange& exchange) {
    UMBEL_ASSIGN(const Tokens tokens, accounts_.Renew(BearerOf(exchange)));
    return Told(tokens);
  }

  static Task<Result<json>> Body(Exchange& exchange) {
    UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kBodyMax));
    json told = json::parse(body, nullptr, false);
    if (!told.is_object()) co_return Fail(Code::kInvalidArgument, "the body is no JSON object");
    co_return told;
  }
  static Result<std::string> TextOf(const json& told, const char* key) {
    if (told.contains(key) && told[key].is_string()) return told[key].get<std::string>();
    return Fail(Code::kInvalidArgument,
                fmt::format("{}: it is {}", key, told.contains(key) ? "no text" : "missing"));
  }

  Task<Result<Answer>> AskAccounts(Exchange& exchange, const Request& request, const Account& who) {
    const std::string_view method = exchange.method();
    const std::string name = request.part(3);
    const size_t parts = request.parts().size();
    const bool own = parts == 4 && method == "PUT" && name == who.name;
    if (!who.admin && !own)
      co_return Fail(Code::kPermissionDenied,
                     "accounts are for admins; the password of one's own "
                     "is not");
    if (parts == 3 && method == "GET") {
      json list = json::array();
      for (const Account& each : accounts_.List())
        list.push_back({{"name", each.name}, {"admin", each.admin}});
      co_return Keyed("accounts", std::move(list));
    }
    if (parts == 4 && method == "PUT") {
      UMBEL_CO_ASSIGN(const json told, co_await Body(exchange));
      UMBEL_CO_ASSIGN(const std::string password, TextOf(told, "password"));
      Account account{name, who.admin && own};
      if (told.contains("admin")) {
        if (!told["admin"].is_boolean())
          co_return Fail(Code::kInvalidArgument, "admin: it is neither true nor false");
        account.admin = told["admin"].get<bool>();
        if (account.admin && !who.admin)
          co_return Fail(Code::kPermissionDenied, "admin: only an admin makes admins");
      }
      const auto put = [this, account, password]() -> Result<bool> {
        UMBEL_TRY(accounts_.Put(account, password));
        return true;
      };
      UMBEL_CO_ASSIGN(const bool done, co_await rest_->OnPool(exchange, put));
      static_cast<void>(done);
      co_return Json({{"name", account.name}, {"admin", account.admin}});
    }
    if (parts == 4 && method == "DELETE") {
      UMBEL_CO_TRY(accounts_.Remove(name));
      co_return Keyed("name", name);
    }
    co_return Fail(Code::kInvalidArgument,
                   fmt::format("{} is nothing accounts can be asked", method), 405);
  }

  /// The view of a project that is the caller's; others are not there for it.
  Result<manager::ProjectView> Find(const std::string& name, const Account& who) {
    UMBEL_ASSIGN(manager::ProjectView view, manager_.Find(name));
    if (who.MayUse(view.project.customer)) return view;
    return Fail(Code::kNotFound, fmt::format("there is no project '{}'", name.substr(0, 80)));
  }

  Task<Result<Answer>> Projects(Exchange& exchange, const Request& request, const Account& who) {
    const size_t parts = request.parts().size();
    const std::string_view method = exchange.method();
    if (parts == 3 && method == "POST") {
      UMBEL_CO_ASSIGN(const std::string body,
                      co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
      UMBEL_CO_TRY(MaySubmit(body, who));
      const auto submit = [this, body] { return manager_.Submit(body); };
      UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, submit));
      co_return Json(ToJson(project), 201);
    }
    if (parts == 3 && method == "GET") {
      const auto look = [this] { return manager_.List(); };
      UMBEL_CO_ASSIGN(const auto projects, co_await rest_->OnPool(exchange, look));
      json list = json::array();
      for (const auto& project : projects)
        if (who.MayUse(project.customer)) list.push_back(ToJson(project));
      co_return Keyed("projects", std::move(list));
    }
    const auto find = [this, who, name = request.part(3)] { return Find(name, who); };
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await rest_->OnPool(exchange, find));
    const std::string& part = request.part(4);
    const std::string id = view.project.id;
    if (parts == 4 && method == "GET") co_return Json(ToJson(view));
    if (parts == 5 && part == "timeline" && method == "GET")
      co_return co_await Timeline(exchange, request, id);
    Result<manager::Project> (Manager::*act)(std::string_view) = nullptr;
    if (parts == 4 && method == "DELETE") act = &Manager::Delete;
    if (parts == 5 && part == "stop" && method == "POST") act = &Manager::Stop;
    if (parts == 5 && part == "resume" && method == "POST") act = &Manager::Resume;
    if (act == nullptr)
      co_return Fail(Code::kInvalidArgument,
                     fmt::format("{} is nothing a project can be asked", method), 405);
    const auto order = [this, act, id] { return (manager_.*act)(id); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, order));
    co_return Json(ToJson(project), 202);
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
      auto found = co_await rest_->OnPool(exchange, look);
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
    co_return Keyed("entries", std::move(list));
  }

  Task<Result<Answer>> Services(Exchange& exchange, const Request& request, const Account& who) {
    if (request.parts().size() == 3) {
      const bool all = request.Text("all").value_or("") == "1";
      const auto look = [this, all] { return manager_.Services(all); };
      UMBEL_CO_ASSIGN(const auto services, co_await rest_->OnPool(exchange, look));
      json list = json::array();
      for (const auto& view : services)
        if (who.MayUse(view.service.customer)) list.push_back(ToJson(view));
      co_return Keyed("services", std::move(list));
    }
    if (request.parts().size() != 5 || request.part(4) != "logs")
      co_return Fail(Code::kNotFound, "a service has logs: /api/v1/services/NAME/logs");
    UMBEL_CO_ASSIGN(const uint64_t offset, request.Number("offset", 0, uint64_t{1} << 62));
    struct Part : orchestrator::LogPart {
      explicit Part(orchestrator::LogPart part) : orchestrator::LogPart(std::move(part)) {}
      bool empty() const { return bytes.empty() && !ended; }
    };
    const auto look = [this, who, name = request.part(3), offset]() -> Result<Part> {
      UMBEL_TRY(MaySeeLogs(name, who));
      UMBEL_ASSIGN(orchestrator::LogPart part, manager_.Logs(name, offset, kLogPartMax));
      return Part(std::move(part));
    };
    UMBEL_CO_ASSIGN(const Part part, co_await Held(exchange, request, look, kLogLook));
    co_return Json(ToJson(static_cast<const orchestrator::LogPart&>(part)));
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
    co_return Keyed("version", version.number);
  }

  /// A caller speaks for itself; an admin for anybody.
  static Status MaySubmit(const std::string& body, const Account& who) {
    const json sla = json::parse(body, nullptr, false);
    if (!sla.is_object() || !sla.contains("customerID") || !sla["customerID"].is_string() ||
        who.MayUse(sla["customerID"].get<std::string>()))
      return {};  // or the manager says what is wrong with it
    return Fail(Code::kPermissionDenied,
                fmt::format("customerID: {} may not act for another customer", who.name));
  }

  /// Of a service, or an instance: the name of its service, '.', its number.
  Status MaySeeLogs(const std::string& name, const Account& who) {
    if (who.admin) return {};
    UMBEL_ASSIGN(const auto services, manager_.Services(true));
    const std::string_view service = std::string_view(name).substr(0, name.find('.'));
    for (const auto& view : services)
      if (view.service.name == service && who.MayUse(view.service.customer)) return {};
    return Fail(Code::kNotFound, fmt::format("there is no service '{}'", name.substr(0, 80)));
  }

  Manager& manager_;
  Accounts& accounts_;
  std::unique_ptr<Rest> rest_;
};

}  // namespace

Result<std::unique_ptr<Api>> Api::Start(const ApiOptions& options, Manager& manager,
                                        Accounts& accounts) {
  auto api = std::make_unique<ApiImpl>(manager, accounts);
  UMBEL_TRY(api->Open(options));
  return std::unique_ptr<Api>(std::move(api));
}

}  // namespace umbel::doors
