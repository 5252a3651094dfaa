#include "doors/flops/flops.h"

#include <nlohmann/json.hpp>

#include "doors/api/views.h"
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

class FlopsImpl final : public Flops {
 public:
  FlopsImpl(manager::Manager& manager, Accounts& accounts)
      : manager_(manager), accounts_(accounts) {}
  ~FlopsImpl() override { Stop(); }

  Status Open(const FlopsOptions& options) {
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
    if (request.parts().empty() && method == "GET") co_return Message("ok");
    const bool ours = request.part(0) == "api" && request.part(1) == "flops";
    const std::string& what = request.part(2);
    if (!ours ||
        (what != "projects" && what != "mocks" && what != "tracking" && what != "database"))
      co_return Fail(Code::kNotFound,
                     fmt::format("there is nothing at '{}'", exchange.path().substr(0, 100)));
    UMBEL_CO_ASSIGN(const Account who, accounts_.Who(BearerOf(exchange)));
    if (what == "projects") co_return co_await Projects(exchange, request, who);
    const bool alone = request.parts().size() == 3;
    if (what == "mocks" && alone && method == "POST") {
      UMBEL_CO_ASSIGN(const std::string body, co_await OfCaller(exchange, who));
      const auto mock = [this, body] { return manager_.Mock(body); };
      UMBEL_CO_ASSIGN(const manager::Service service, co_await rest_->OnPool(exchange, mock));
      co_return Json(
          {{"message", "New Mock-Data-Provider started successfully"}, {"service", service.name}});
    }
    if (what == "tracking" && alone && method == "GET")
      co_return co_await Tracking(exchange, request, who);
    if (what == "database" && alone && method == "DELETE") co_return co_await Reset(exchange, who);
    co_return Fail(
        Code::kInvalidArgument,
        fmt::format("{} is nothing '{}' can be asked", method, exchange.path().substr(0, 100)),
        405);
  }

  /// The body, if the customer it names is the caller's to speak for.
  Task<Result<std::string>> OfCaller(Exchange& exchange, const Account& who) {
    UMBEL_CO_ASSIGN(std::string body, co_await exchange.ReadBody(manager::kSlaBytesMax + 1));
    const json sla = json::parse(body, nullptr, false);
    const bool names =
        sla.is_object() && sla.contains("customerID") && sla["customerID"].is_string();
    if (names && !who.MayUse(sla["customerID"].get<std::string>()))
      co_return Fail(Code::kPermissionDenied,
                     fmt::format("customerID: {} may not act for another customer", who.name));
    co_return body;
  }

  Task<Result<Answer>> Projects(Exchange& exchange, const Request& request, const Account& who) {
    const std::string_view method = exchange.method();
    const size_t parts = request.parts().size();
    if (parts == 3 && method == "POST") {
      UMBEL_CO_ASSIGN(const std::string body, co_await OfCaller(exchange, who));
      const auto submit = [this, body] { return manager_.Submit(body); };
      UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, submit));
      co_return Json({{"message", "New FLOps project started successfully"},
                      {"flops_project_id", project.id}});
    }
    if (parts == 3 && method == "GET") {
      const auto look = [this] { return manager_.List(); };
      UMBEL_CO_ASSIGN(const auto projects, co_await rest_->OnPool(exchange, look));
      json list = json::array();
      for (const manager::Project& project : projects)
        if (who.MayUse(project.customer)) list.push_back(ToJson(project));
      co_return Json({{"projects", std::move(list)}});
    }
    const std::string name = request.part(3);
    const std::string& part = request.part(4);
    const auto find = [this, name, who]() -> Result<manager::ProjectView> {
      UMBEL_ASSIGN(manager::ProjectView view, manager_.Find(name));
      if (who.MayUse(view.project.customer)) return view;
      return Fail(Code::kNotFound, fmt::format("there is no project '{}'", name.substr(0, 80)));
    };
    UMBEL_CO_ASSIGN(const manager::ProjectView view, co_await rest_->OnPool(exchange, find));
    const std::string id = view.project.id;
    if (parts == 4 && method == "GET") co_return Json(ToJson(view));
    if (parts == 5 && part == "logs" && method == "GET") {
      UMBEL_CO_ASSIGN(const uint64_t after, request.Number("after", 0, uint64_t{1} << 62));
      const auto look = [this, id, after] { return manager_.Timeline(id, after, kEntriesMax); };
      UMBEL_CO_ASSIGN(const auto entries, co_await rest_->OnPool(exchange, look));
      json list = json::array();
      for (const manager::Entry& entry : entries) list.push_back(ToJson(entry));
      co_return Json({{"logs", std::move(list)}});
    }
    Result<manager::Project> (manager::Manager::*act)(std::string_view) = nullptr;
    if (parts == 4 && method == "DELETE") act = &manager::Manager::Delete;
    if (parts == 5 && part == "stop" && method == "POST") act = &manager::Manager::Stop;
    if (parts == 5 && part == "resume" && method == "POST") act = &manager::Manager::Resume;
    if (act == nullptr)
      co_return Fail(Code::kInvalidArgument,
                     fmt::format("{} is nothing a project can be asked", method), 405);
    const auto order = [this, act, id] { return (manager_.*act)(id); };
    UMBEL_CO_ASSIGN(const manager::Project project, co_await rest_->OnPool(exchange, order));
    co_return Json(ToJson(project));
  }

  /// FLOps reads the customer from a body, which a GET seldom has; its newer client says it in the
  /// query.
  Task<Result<Answer>> Tracking(Exchange& exchange, const Request& request, const Account& who) {
    UMBEL_CO_ASSIGN(const std::string customer, co_await CustomerOf(exchange, request));
    if (!who.MayUse(customer))
      co_return Fail(Code::kPermissionDenied,
                     fmt::format("customerID: {} may not see another customer's", who.name));
    const auto look = [this, customer] { return manager_.Tracking(customer); };
    UMBEL_CO_ASSIGN(const std::string url, co_await rest_->OnPool(exchange, look));
    co_return Json({{"tracking_server_url", url}});
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

  /// Removes every project, as FLOps's reset of its database means.
  Task<Result<Answer>> Reset(Exchange& exchange, const Account& who) {
    if (!who.admin)
      co_return Fail(Code::kPermissionDenied, "Only Admins are allowed to reset the database!");
    const auto remove = [this]() -> Result<bool> {
      UMBEL_ASSIGN(const auto projects, manager_.List());
      for (const manager::Project& project : projects)
        if (const auto gone = manager_.Delete(project.id);
            !gone.ok() && gone.error().code != Code::kNotFound)
          return Fail(gone.error());
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
