#include "doors/flops/flops.h"

#include <nlohmann/json.hpp>

#include "doors/api/openapi.h"
#include "doors/api/views.h"
#include "doors/customers.h"
#include "doors/flops/openapi.h"
#include "doors/known.h"
#include "doors/rest.h"
#include "manager/sla.h"

namespace umbel::doors {
namespace {

using http::Exchange;
using http::Task;
using nlohmann::json;

constexpr uint64_t kEntriesMax = 1000;
constexpr size_t kBodyMax = 4096;

Answer Json(const json& body, int status = 200) {
  return Answer(body.dump(-1, ' ', false, json::error_handler_t::replace), status);
}
Answer Message(const char* text) { return Json({{"message", text}}); }

/// FLOps's form, {"message": ...}, with the fields that are wrong.
Answer Refusal(const Error& error) {
  const json problem = Problem(error);
  json body = {{"message", error.message}};
  if (problem.contains("errors")) body["errors"] = problem["errors"];
  Answer answer = Json(body, problem["status"].get<int>());
  if (answer.status == 401) answer.extra_headers = "WWW-Authenticate: Bearer\r\n";
  return answer;
}

/// The door's own document, with the schemas it shares with our API's.
std::string Description() {
  json document = json::parse(FlopsOpenApi());
  const json ours = json::parse(OpenApi());
  for (const char* name : {"Sla", "MockSla", "Project", "ProjectView", "Entry"})
    document["components"]["schemas"][name] = ours["components"]["schemas"][name];
  return document.dump(1) + "\n";
}

class FlopsImpl final : public Flops {
 public:
  FlopsImpl(manager::Manager& manager, Accounts& accounts)
      : manager_(manager), accounts_(accounts) {}
  ~FlopsImpl() override { Stop(); }

  Status Open(const FlopsOptions& options) {
    UMBEL_ASSIGN(rest_, Rest::Start({options.host, options.port}, Routes(), Refusal));
    return {};
  }
  uint16_t port() const override { return rest_->port(); }
  void Stop() override {
    if (rest_) rest_->Stop();
  }

 private:
  using Act = Task<Result<Answer>> (FlopsImpl::*)(Exchange&, const Request&, const Account&);

  /// For whom has a token.
  Rest::Handle Known(Act act) { return ForKnown(accounts_, this, act); }

  /// FLOps's five routes, and what is missing there; as openapi.json has them, which is where
  /// FLOps's own server has its description.
  std::vector<Rest::Route> Routes() {
    using manager::Manager;
    return {
        {"GET", "/", Rest::Always(Message("ok"))},
        {"GET", "/openapi/openapi.json", Rest::Always(Answer(Description()))},
        {"POST", "/api/flops/projects", Known(&FlopsImpl::Submit)},
        {"GET", "/api/flops/projects", Known(&FlopsImpl::ListProjects)},
        {"GET", "/api/flops/projects/{project}", Known(&FlopsImpl::ShowProject)},
        {"DELETE", "/api/flops/projects/{project}", Known(&FlopsImpl::Order<&Manager::Delete>)},
        {"POST", "/api/flops/projects/{project}/stop", Known(&FlopsImpl::Order<&Manager::Stop>)},
        {"POST", "/api/flops/projects/{project}/resume",
         Known(&FlopsImpl::Order<&Manager::Resume>)},
        {"GET", "/api/flops/projects/{project}/logs", Known(&FlopsImpl::Logs)},
        {"POST", "/api/flops/mocks", Known(&FlopsImpl::Mock)},
        {"DELETE", "/api/flops/mocks/{mock}", Known(&FlopsImpl::RemoveMock)},
        {"GET", "/api/flops/tracking", Known(&FlopsImpl::Tracking)},
        {"DELETE", "/api/flops/database", Known(&FlopsImpl::Reset)},
    };
  }

  /// The body, if the customer it names is the caller's to speak for.
  Task<Result<std::string>> OfCaller(Exchange& exchange, const Account& who) {
    UMBEL_CO_ASSIGN(std::string body, co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
    UMBEL_CO_TRY(MaySubmit(body, who));
    co_return body;
  }

  Task<Result<Answer>> Mock(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string body, co_await OfCaller(exchange, who));
    const auto mock = [this, body] { return manager_.Mock(body); };
    UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, mock));
    co_return Json(
        {{"message", "New Mock-Data-Provider started successfully"}, {"service", service.name}});
  }

  Task<Result<Answer>> RemoveMock(Exchange& exchange, const Request& request, const Account& who) {
    const auto remove = [this, who, name = request.part(3)] {
      return manager_.RemoveMock(name, who.scope());
    };
    UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, remove));
    co_return Json(
        {{"message", "Mock-Data-Provider removed successfully"}, {"service", service.name}});
  }

  Task<Result<Answer>> Submit(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string body, co_await OfCaller(exchange, who));
    const auto submit = [this, body] { return manager_.Submit(body); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, submit));
    co_return Json(
        {{"message", "New FLOps project started successfully"}, {"flops_project_id", project.id}});
  }

  Task<Result<Answer>> ListProjects(Exchange& exchange, const Request&, const Account& who) {
    const auto look = [this] { return manager_.List(); };
    UMBEL_CO_ASSIGN(const auto projects, co_await rest_->OnPool(exchange, look));
    json list = json::array();
    for (const manager::Project& project : projects)
      if (who.MayUse(project.customer)) list.push_back(ToJson(project));
    co_return Json({{"projects", std::move(list)}});
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

  Task<Result<Answer>> Logs(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const uint64_t after, request.Number("after", 0, uint64_t{1} << 62));
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await Find(exchange, request, who));
    const auto look = [this, id = view.project.id, after] {
      return manager_.Timeline(id, after, kEntriesMax);
    };
    UMBEL_CO_ASSIGN(const auto entries, co_await rest_->OnPool(exchange, look));
    json list = json::array();
    for (const manager::Entry& entry : entries) list.push_back(ToJson(entry));
    co_return Json({{"logs", std::move(list)}});
  }

  template <Result<manager::Project> (manager::Manager::*kAct)(std::string_view)>
  Task<Result<Answer>> Order(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await Find(exchange, request, who));
    const auto order = [this, id = view.project.id] { return (manager_.*kAct)(id); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, order));
    co_return Json(ToJson(project));
  }

  /// FLOps reads the customer from a body, which a GET seldom has; its newer client says it in the
  /// query.
  Task<Result<Answer>> Tracking(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string customer, co_await CustomerOf(exchange, request));
    const auto look = [this, who, customer]() -> Result<manager::TrackingView> {
      UMBEL_TRY(MayTrack(manager_, accounts_, who, customer));
      return manager_.Tracking(customer);
    };
    UMBEL_CO_ASSIGN(const manager::TrackingView view, co_await rest_->OnPool(exchange, look));
    json body = {{"tracking_server_url", view.url}};
    if (!view.words.empty()) body["message"] = view.words;
    co_return Json(body);
  }

  Task<Result<std::string>> CustomerOf(Exchange& exchange, const Request& request) {
    if (auto customer = request.Text("customerID")) co_return *std::move(customer);
    UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kBodyMax));
    const json told = json::parse(body, nullptr, false);
    if (told.is_object() && told.contains("customerID") && told["customerID"].is_string())
      co_return told["customerID"].get<std::string>();
    co_return Fail(Code::kInvalidArgument,
                   "customerID: it is missing, in the query and in the body");
  }

  /// Removes every project and provider, as FLOps's reset of its database means.
  Task<Result<Answer>> Reset(Exchange& exchange, const Request&, const Account& who) {
    if (!who.admin)
      co_return Fail(Code::kPermissionDenied, "Only Admins are allowed to reset the database!");
    const auto remove = [this]() -> Result<bool> {
      UMBEL_ASSIGN(const auto projects, manager_.List());
      for (const manager::Project& project : projects)
        if (const auto gone = manager_.Delete(project.id);
            !gone.ok() && gone.error().code != Code::kNotFound)
          return Fail(gone.error());
      UMBEL_ASSIGN(const auto services, manager_.Services(false));
      for (const manager::ServiceView& view : services) {
        if (view.service.kind != manager::Kind::kMock) continue;
        const auto gone = manager_.RemoveMock(view.service.name, "");
        if (!gone.ok() && gone.error().code != Code::kNotFound) return Fail(gone.error());
      }
      return true;
    };
    UMBEL_CO_ASSIGN(const bool done, co_await rest_->OnPool(exchange, remove));
    static_cast<void>(done);
    co_return Message("Successfully reset the database.");
  }

  manager::Manager& manager_;
  Accounts& accounts_;
  std::unique_ptr<Rest> rest_;
};

}  // namespace

Result<std::unique_ptr<Flops>> Flops::Start(const FlopsOptions& options, manager::Manager& manager,
                                            Accounts& accounts) {
  auto door = std::make_unique<FlopsImpl>(manager, accounts);
  UMBEL_TRY(door->Open(options));
  return std::unique_ptr<Flops>(std::move(door));
}

}  // namespace umbel::doors
