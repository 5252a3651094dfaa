#include "doors/oakestra/oakestra.h"

#include <map>
#include <nlohmann/json.hpp>

#include "doors/api/views.h"
#include "doors/known.h"
#include "doors/oakestra/views.h"
#include "doors/rest.h"

namespace umbel::doors {
namespace {

using http::Exchange;
using http::Task;
using manager::ServiceView;
using nlohmann::json;

constexpr size_t kBodyMax = 64 * 1024;
constexpr size_t kLogTail = 4096;  // of an instance: what one looks at in a table
constexpr size_t kLogPart = size_t{256} << 10;

Answer Json(const json& body) {
  return Answer(body.dump(-1, ' ', false, json::error_handler_t::replace));
}

Answer Refusal(const Error& error) {
  const json problem = Problem(error);
  Answer answer = Json({{"message", error.message}});
  answer.status = problem["status"].get<int>();
  return answer;
}

class OakestraImpl final : public Oakestra {
 public:
  OakestraImpl(const OakestraOptions& options, manager::Manager& manager, Accounts& accounts)
      : options_(options), manager_(manager), accounts_(accounts) {}
  ~OakestraImpl() override { Stop(); }

  Status Open() {
    UMBEL_ASSIGN(rest_, Rest::Start({options_.host, options_.port}, Routes(), Refusal));
    return {};
  }
  uint16_t port() const override { return rest_->port(); }
  void Stop() override {
    if (rest_) rest_->Stop();
  }

 private:
  using Act = Task<Result<Answer>> (OakestraImpl::*)(Exchange&, const Request&, const Account&);

  /// For whom has a token. Oakestra shows its clusters to anybody; we do to whoever is known.
  Rest::Handle Known(Act act) { return ForKnown(accounts_, this, act); }

  std::vector<Rest::Route> Routes() {
    const Rest::Handle refused = Known(&OakestraImpl::NotOurs);
    return {
        {"POST", "/api/auth/login", [this](Exchange& e, const Request&) { return Auth(e, true); }},
        {"POST", "/api/auth/refresh",
         [this](Exchange& e, const Request&) { return Auth(e, false); }},
        {"GET", "/api/clusters", Known(&OakestraImpl::Clusters)},
        {"GET", "/api/clusters/active", Known(&OakestraImpl::Clusters)},
        {"GET", "/api/applications", Known(&OakestraImpl::Applications)},
        {"GET", "/api/application/{app}", Known(&OakestraImpl::OneApplication)},
        {"DELETE", "/api/application/{app}", Known(&OakestraImpl::DeleteApplication)},
        {"GET", "/api/services", Known(&OakestraImpl::Services)},
        {"GET", "/api/services/{app}", Known(&OakestraImpl::Services)},
        {"GET", "/api/service/{service}", Known(&OakestraImpl::OneService)},
        {"POST", "/api/application", refused},
        {"PUT", "/api/application/{app}", refused},
        {"POST", "/api/service", refused},
        {"PUT", "/api/service/{service}", refused},
        {"DELETE", "/api/service/{service}", refused},
        {"POST", "/api/service/{service}/instance", refused},
        {"DELETE", "/api/service/{service}/instance", refused},
        {"DELETE", "/api/service/{service}/instance/{number}", refused},
    };
  }

  Task<Result<Answer>> NotOurs(Exchange&, const Request&, const Account&) {
    co_return Fail(Code::kUnimplemented,
                   "apps and services belong to FLOps projects here: submit, stop and delete "
                   "those");
  }

  Task<Result<Answer>> Auth(Exchange& exchange, bool log_in) {
    Result<Tokens> tokens = Fail(Code::kUnauthenticated, "");
    if (log_in) tokens = co_await LogIn(exchange);
    if (!log_in) tokens = accounts_.Renew(BearerOf(exchange));
    if (!tokens.ok()) co_return Fail(tokens.error());
    co_return Json({{"token", tokens->token}, {"refresh_token", tokens->refresh_token}});
  }

  Task<Result<Tokens>> LogIn(Exchange& exchange) {
    UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(kBodyMax));
    const json told = json::parse(body, nullptr, false);
    const auto text = [&told](const char* key) {
      return told.is_object() && told.contains(key) && told[key].is_string()
                 ? told[key].get<std::string>()
                 : std::string();
    };
    const std::string name = text("username"), password = text("password");
    if (options_.oak_login && name == kAdmin && password == kAdmin &&
        options_.oak_login->Has(exchange.peer_address()))
      co_return accounts_.Trust(kAdmin);
    const auto log_in = [this, name, password] { return accounts_.LogIn(name, password); };
    co_return co_await rest_->OnPool(exchange, log_in);
  }

  Task<Result<Answer>> Clusters(Exchange&, const Request& request, const Account&) {
    const bool active = request.part(2) == "active";
    const std::vector<orchestrator::Node> nodes = manager_.Nodes();
    std::map<std::string, std::vector<const orchestrator::Node*>> clusters;
    for (const orchestrator::Node& node : nodes) clusters[node.cluster].push_back(&node);
    json list = json::array();
    for (const auto& [name, members] : clusters) {
      json cluster = oakestra::Cluster(members);
      if (!active || cluster["active"].get<bool>()) list.push_back(std::move(cluster));
    }
    co_return Json(list);
  }

  std::map<std::string, std::string> ClustersOfNodes() {
    std::map<std::string, std::string> clusters;
    for (const orchestrator::Node& node : manager_.Nodes()) clusters[node.name] = node.cluster;
    return clusters;
  }

  /// Those of the caller's. gone  also what was removed.
  Task<Result<std::vector<ServiceView>>> Seen(Exchange& exchange, const Account& who, bool gone) {
    const auto look = [this, who, gone]() -> Result<std::vector<ServiceView>> {
      UMBEL_ASSIGN(std::vector<ServiceView> all, manager_.Services(gone));
      std::erase_if(all, [&who](const ServiceView& v) { return !who.MayUse(v.service.customer); });
      return all;
    };
    co_return co_await rest_->OnPool(exchange, look);
  }

  Task<Result<Answer>> Applications(Exchange& exchange, const Request&, const Account& who) {
    UMBEL_CO_ASSIGN(const auto services, co_await Seen(exchange, who, false));
    co_return Json(Apps(services));
  }

  static json Apps(const std::vector<ServiceView>& services) {
    std::vector<std::string> order;
    std::map<std::string, std::vector<const ServiceView*>> apps;
    for (const ServiceView& view : services) {
      auto& app = apps[view.service.app_id];
      if (app.empty()) order.push_back(view.service.app_id);
      app.push_back(&view);
    }
    json list = json::array();
    for (const std::string& id : order) list.push_back(oakestra::Application(apps[id]));
    return list;
  }

  Task<Result<Answer>> OneApplication(Exchange& exchange, const Request& request,
                                      const Account& who) {
    const std::string& id = request.part(2);
    UMBEL_CO_ASSIGN(auto services, co_await Seen(exchange, who, true));
    std::erase_if(services, [&id](const ServiceView& view) { return view.service.app_id != id; });
    if (services.empty())
      co_return Fail(Code::kNotFound,
                     fmt::format("there is no application '{}'", id.substr(0, 80)));
    co_return Json(Apps(services)[0]);
  }

  /// The app of a project stands for it.
  Task<Result<Answer>> DeleteApplication(Exchange& exchange, const Request& request,
                                         const Account& who) {
    const auto remove = [this, who, id = request.part(2)]() -> Result<bool> {
      UMBEL_ASSIGN(const auto projects, manager_.List());
      for (const manager::Project& project : projects) {
        if (project.app_id != id || !who.MayUse(project.customer)) continue;
        UMBEL_TRY(manager_.Delete(project.id));
        return true;
      }
      return Fail(Code::kNotFound,
                  fmt::format("there is no project whose application is '{}'", id.substr(0, 80)));
    };
    UMBEL_CO_ASSIGN(const bool done, co_await rest_->OnPool(exchange, remove));
    static_cast<void>(done);
    co_return Json({{"message", "Application Deleted"}});
  }

  Task<Result<Answer>> Services(Exchange& exchange, const Request& request, const Account& who) {
    const std::string& app = request.part(2);
    UMBEL_CO_ASSIGN(const auto services, co_await Seen(exchange, who, false));
    const auto clusters = ClustersOfNodes();
    json list = json::array();
    for (const ServiceView& view : services)
      if (app.empty() || view.service.app_id == app)
        list.push_back(oakestra::Service(view, clusters, {}));
    co_return Json(list);
  }

  Task<Result<Answer>> OneService(Exchange& exchange, const Request& request, const Account& who) {
    const std::string& id = request.part(2);
    UMBEL_CO_ASSIGN(auto services, co_await Seen(exchange, who, true));
    std::erase_if(services, [&id](const ServiceView& view) { return view.service.id != id; });
    if (services.empty())
      co_return Fail(Code::kNotFound, fmt::format("there is no service '{}'", id.substr(0, 80)));
    const auto read = [this, view = services[0]]() -> Result<std::vector<std::string>> {
      std::vector<std::string> logs;
      for (const manager::Instance& one : view.instances) logs.push_back(TailOf(view, one));
      return logs;
    };
    UMBEL_CO_ASSIGN(const auto logs, co_await rest_->OnPool(exchange, read));
    co_return Json(oakestra::Service(services[0], ClustersOfNodes(), logs));
  }

  /// The last lines of an instance's log.
  std::string TailOf(const ServiceView& view, const manager::Instance& instance) {
    std::string tail;
    const std::string& name = view.instances.size() > 1 ? instance.name : view.service.name;
    for (uint64_t offset = 0;;) {
      const auto part = manager_.Logs(name, offset, kLogPart);
      if (!part.ok() || part->bytes.empty()) break;
      tail += part->bytes;
      if (tail.size() > kLogTail) tail.erase(0, tail.size() - kLogTail);
      offset = part->next;
    }
    if (tail.size() == kLogTail) tail.erase(0, tail.find('\n') + 1);
    return oakestra::Escape(tail);
  }

  const OakestraOptions options_;
  manager::Manager& manager_;
  Accounts& accounts_;
  std::unique_ptr<Rest> rest_;
};

}  // namespace

Result<std::unique_ptr<Oakestra>> Oakestra::Start(const OakestraOptions& options,
                                                  manager::Manager& manager, Accounts& accounts) {
  auto door = std::make_unique<OakestraImpl>(options, manager, accounts);
  UMBEL_TRY(door->Open());
  return std::unique_ptr<Oakestra>(std::move(door));
}

}  // namespace umbel::doors
