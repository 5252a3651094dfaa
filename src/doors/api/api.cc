#include "doors/api/api.h"

#include <nlohmann/json.hpp>

#include "base/version.h"
#include "doors/api/openapi.h"
#include "doors/api/views.h"
#include "doors/customers.h"
#include "doors/known.h"
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
/// Where a ground cannot tell of output, a log that is followed is looked at so often.
constexpr std::chrono::milliseconds kLogLook{200};
/// Nobody tells when a server that was started begins to answer.
constexpr std::chrono::milliseconds kHealthLook{250};

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
    UMBEL_ASSIGN(rest_, Rest::Start({options.host, options.port}, Routes(), Refusal));
    return {};
  }
  uint16_t port() const override { return rest_->port(); }
  void Stop() override {
    if (rest_) rest_->Stop();
  }

 private:
  using Act = Task<Result<Answer>> (ApiImpl::*)(Exchange&, const Request&, const Account&);

  /// For whom has a token.
  Rest::Handle Known(Act act) { return ForKnown(accounts_, this, act); }

  /// As openapi.json has them.
  std::vector<Rest::Route> Routes() {
    return {
        {"GET", "/health", Rest::Always(Keyed("status", "ok"))},
        {"GET", "/api/v1/openapi.json", Rest::Always(Answer(std::string(OpenApi())))},
        {"POST", "/api/v1/login", [this](Exchange& e, const Request&) { return LogIn(e); }},
        {"POST", "/api/v1/renew", [this](Exchange& e, const Request&) { return Renew(e); }},
        {"GET", "/api/v1/version", Known(&ApiImpl::Version)},
        {"GET", "/api/v1/projects", Known(&ApiImpl::ListProjects)},
        {"POST", "/api/v1/projects", Known(&ApiImpl::Submit)},
        {"GET", "/api/v1/projects/{project}", Known(&ApiImpl::ShowProject)},
        {"DELETE", "/api/v1/projects/{project}", Known(&ApiImpl::Order<&Manager::Delete>)},
        {"POST", "/api/v1/projects/{project}/stop", Known(&ApiImpl::Order<&Manager::Stop>)},
        {"POST", "/api/v1/projects/{project}/resume", Known(&ApiImpl::Order<&Manager::Resume>)},
        {"GET", "/api/v1/projects/{project}/timeline", Known(&ApiImpl::Timeline)},
        {"POST", "/api/v1/mocks", Known(&ApiImpl::Mock)},
        {"DELETE", "/api/v1/mocks/{mock}", Known(&ApiImpl::RemoveMock)},
        {"GET", "/api/v1/services", Known(&ApiImpl::Services)},
        {"GET", "/api/v1/services/{service}/logs", Known(&ApiImpl::Logs)},
        {"GET", "/api/v1/nodes", Known(&ApiImpl::Nodes)},
        {"GET", "/api/v1/tracking", Known(&ApiImpl::Tracking)},
        {"GET", "/api/v1/changes", Known(&ApiImpl::Changes)},
        {"GET", "/api/v1/accounts", Known(&ApiImpl::ListAccounts)},
        {"POST", "/api/v1/accounts", Known(&ApiImpl::AddAccount)},
        {"PUT", "/api/v1/accounts/{name}", Known(&ApiImpl::PutAccount)},
        {"DELETE", "/api/v1/accounts/{name}", Known(&ApiImpl::RemoveAccount)},
    };
  }

  Task<Result<Answer>> Version(Exchange&, const Request&, const Account&) {
    co_return Keyed("version", std::string(kVersion));
  }

  Task<Result<Answer>> Nodes(Exchange&, const Request&, const Account&) {
    json nodes = json::array();
    for (const auto& node : manager_.Nodes()) nodes.push_back(ToJson(node));
    co_return Keyed("nodes", std::move(nodes));
  }

  Task<Result<Answer>> Mock(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
    UMBEL_CO_TRY(MaySubmit(body, who));
    const auto mock = [this, body] { return manager_.Mock(body); };
    UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, mock));
    co_return Json({{"service", service.name}}, 201);
  }

  Task<Result<Answer>> RemoveMock(Exchange& exchange, const Request& request, const Account& who) {
    const auto remove = [this, who, name = request.part(3)] {
      return manager_.RemoveMock(name, who.scope());
    };
    UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, remove));
    co_return Json({{"service", service.name}}, 202);
  }

  Task<Result<Answer>> Tracking(Exchange& exchange, const Request& request, const Account& who) {
    const std::string customer = request.Text("customer").value_or(who.name);
    struct Found : manager::TrackingView {
      explicit Found(manager::TrackingView view) : manager::TrackingView(std::move(view)) {}
      bool empty() const { return !words.empty(); }  // not what was waited for
      std::chrono::milliseconds again = kHealthLook;
    };
    const auto look = [this, who, customer]() -> Result<Found> {
      UMBEL_TRY(MayTrack(manager_, accounts_, who, customer));
      UMBEL_ASSIGN(manager::TrackingView view, manager_.Tracking(customer));
      return Found(std::move(view));
    };
    UMBEL_CO_ASSIGN(const Found found, co_await Held(exchange, request, look));
    co_return Json({{"customer", customer},
                    {"url", found.url},
                    {"ready", found.words.empty()},
                    {"waiting_for", found.words}});
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

  Task<Result<Answer>> Renew(Exchange& exchange) {
    UMBEL_CO_ASSIGN(const Tokens tokens, accounts_.Renew(BearerOf(exchange)));
    co_return Told(tokens);
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

  static Status ForAdmins(const Account& who) {
    if (who.admin) return {};
    return Fail(Code::kPermissionDenied,
                fmt::format("accounts are for admins, and {} is none; the password of one's own "
                            "is not: PUT /api/v1/accounts/{}",
                            who.name, who.name));
  }
  /// What a body says an account is to be.
  static Result<std::optional<bool>> AdminOf(const json& told) {
    if (!told.contains("admin")) return std::optional<bool>();
    if (told["admin"].is_boolean()) return std::optional(told["admin"].get<bool>());
    return Fail(Code::kInvalidArgument, "admin: it is neither true nor false");
  }

  Task<Result<Answer>> ListAccounts(Exchange&, const Request&, const Account& who) {
    UMBEL_CO_TRY(ForAdmins(who));
    json list = json::array();
    for (const Account& each : accounts_.List()) list.push_back(ToJson(each));
    co_return Keyed("accounts", std::move(list));
  }

  Task<Result<Answer>> AddAccount(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_TRY(ForAdmins(who));
    UMBEL_CO_ASSIGN(const json told, co_await Body(exchange));
    UMBEL_CO_ASSIGN(const std::string name, TextOf(told, "name"));
    UMBEL_CO_ASSIGN(const std::string password, TextOf(told, "password"));
    UMBEL_CO_ASSIGN(const std::optional<bool> admin, AdminOf(told));
    const Account account{name, admin.value_or(false)};
    const auto add = [this, account, password]() -> Result<Account> {
      UMBEL_TRY(accounts_.Add(account, password));
      return account;
    };
    UMBEL_CO_ASSIGN(const Account added, co_await rest_->OnPool(exchange, add));
    co_return Json(ToJson(added), 201);
  }

  Task<Result<Answer>> PutAccount(Exchange& exchange, const Request& request, const Account& who) {
    const std::string name = request.part(3);
    if (name != who.name) UMBEL_CO_TRY(ForAdmins(who));
    UMBEL_CO_ASSIGN(const json told, co_await Body(exchange));
    UMBEL_CO_ASSIGN(const std::string password, TextOf(told, "password"));
    UMBEL_CO_ASSIGN(const std::optional<bool> admin, AdminOf(told));
    if (admin.value_or(false) && !who.admin)
      co_return Fail(Code::kPermissionDenied, "admin: only an admin makes admins");
    const auto put = [this, name, admin, password]() -> Result<Account> {
      const auto before = accounts_.Get(name);
      const Account account{name, admin.value_or(before && before->admin)};
      UMBEL_TRY(accounts_.Put(account, password));
      return account;
    };
    UMBEL_CO_ASSIGN(const Account account, co_await rest_->OnPool(exchange, put));
    co_return Json(ToJson(account));
  }

  Task<Result<Answer>> RemoveAccount(Exchange&, const Request& request, const Account& who) {
    UMBEL_CO_TRY(ForAdmins(who));
    UMBEL_CO_TRY(accounts_.Remove(request.part(3)));
    co_return Keyed("name", request.part(3));
  }

  Task<Result<Answer>> Submit(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
    UMBEL_CO_TRY(MaySubmit(body, who));
    const auto submit = [this, body] { return manager_.Submit(body); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, submit));
    co_return Json(ToJson(project), 201);
  }

  Task<Result<Answer>> ListProjects(Exchange& exchange, const Request&, const Account& who) {
    const auto look = [this] { return manager_.List(); };
    UMBEL_CO_ASSIGN(const auto projects, co_await rest_->OnPool(exchange, look));
    json list = json::array();
    for (const auto& project : projects)
      if (who.MayUse(project.customer)) list.push_back(ToJson(project));
    co_return Keyed("projects", std::move(list));
  }

  /// The project a request's path names, if it is the caller's; others are not there for it.
  Task<Result<manager::ProjectView>> Find(Exchange& exchange, const Request& request,
                                          const Account& who) {
    const auto find = [this, who, name = request.part(3)] {
      return manager_.Find(name, who.scope());
    };
    co_return co_await rest_->OnPool(exchange, find);
  }

  Task<Result<Answer>> ShowProject(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await Find(exchange, request, who));
    co_return Json(ToJson(view));
  }

  template <Result<manager::Project> (Manager::*kAct)(std::string_view)>
  Task<Result<Answer>> Order(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await Find(exchange, request, who));
    const auto order = [this, id = view.project.id] { return (manager_.*kAct)(id); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, order));
    co_return Json(ToJson(project), 202);
  }

  /// Until `look` gives something, or the wait the request asks for is over. What it gives is
  /// looked at again when the manager tells of a change; with a member `again`, after that, too.
  template <typename F>
  auto Held(Exchange& exchange, const Request& request, F look) -> Task<std::invoke_result_t<F>> {
    UMBEL_CO_ASSIGN(const uint64_t wait,
                    request.Number("wait", 0, static_cast<uint64_t>(kWaitMax.count())));
    const auto deadline = Steady::now() + std::chrono::seconds(wait);
    for (;;) {
      const uint64_t seen = manager_.version();
      auto found = co_await rest_->OnPool(exchange, look);
      if (!found.ok() || !found->empty() || Steady::now() >= deadline) co_return found;
      manager_.Watch(seen, exchange.waker());
      auto until = deadline;
      if constexpr (requires { found->again; })
        if (found->again.count() > 0) until = std::min(until, Steady::now() + found->again);
      const auto end = co_await exchange.Hold(until, false);
      if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
      if (end == http::HoldEnd::kStopping) co_return found;
    }
  }

  Task<Result<Answer>> Timeline(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await Find(exchange, request, who));
    const std::string name = view.project.id;
    UMBEL_CO_ASSIGN(const uint64_t after, request.Number("after", 0, uint64_t{1} << 62));
    const auto look = [this, name, after] { return manager_.Timeline(name, after, kEntriesMax); };
    UMBEL_CO_ASSIGN(const auto entries, co_await Held(exchange, request, look));
    json list = json::array();
    for (const auto& entry : entries) list.push_back(ToJson(entry));
    co_return Keyed("entries", std::move(list));
  }

  Task<Result<Answer>> Services(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const uint64_t all, request.Number("all", 0, 1));
    const auto look = [this, all] { return manager_.Services(all == 1); };
    UMBEL_CO_ASSIGN(const auto services, co_await rest_->OnPool(exchange, look));
    json list = json::array();
    for (const auto& view : services)
      if (who.MayUse(view.service.customer)) list.push_back(ToJson(view));
    co_return Keyed("services", std::move(list));
  }

  Task<Result<Answer>> Logs(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const uint64_t offset, request.Number("offset", 0, uint64_t{1} << 62));
    struct Part : orchestrator::LogPart {
      Part(orchestrator::LogPart part, bool told)
          : orchestrator::LogPart(std::move(part)), again(told ? 0 : kLogLook.count()) {}
      bool empty() const { return bytes.empty() && !ended; }
      std::chrono::milliseconds again;
    };
    const auto waker = request.Text("wait") ? exchange.waker() : nullptr;
    const auto look = [this, who, name = request.part(3), offset, waker]() -> Result<Part> {
      UMBEL_TRY(MaySeeLogs(name, who));
      const bool told = waker && manager_.WatchLog(name, waker);
      UMBEL_ASSIGN(orchestrator::LogPart part, manager_.Logs(name, offset, kLogPartMax));
      return Part(std::move(part), told);
    };
    UMBEL_CO_ASSIGN(const Part part, co_await Held(exchange, request, look));
    co_return Json(ToJson(static_cast<const orchestrator::LogPart&>(part)));
  }

  Task<Result<Answer>> Changes(Exchange& exchange, const Request& request, const Account&) {
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
    UMBEL_CO_ASSIGN(const Version version, co_await Held(exchange, request, look));
    co_return Keyed("version", version.number);
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
