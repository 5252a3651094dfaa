#include "manager/customer_services.h"

#include <algorithm>
#include <set>

#include "manager/ports.h"

namespace umbel::manager {

Result<Service> AddCustomerService(Connection& db, ObjectIds& ids, const NewService& wish) {
  Service service;
  service.id = wish.id.empty() ? ids.Next() : wish.id;
  service.kind = wish.kind;
  service.customer = wish.customer;
  service.created_at = wish.at;
  const std::string app_name = wish.kind == Kind::kTracking ? "observatory" : "helper";
  UMBEL_ASSIGN(const std::vector<App> apps, ListApps(db));
  for (const App& app : apps)
    if (app.name == app_name && app.customer == wish.customer) service.app_id = app.id;
  if (service.app_id.empty()) {
    service.app_id = ids.Next();
    UMBEL_TRY(InsertApp(db, {service.app_id, app_name, app_name, wish.customer, ""}));
  }
  // Also of those that are gone: their logs are kept by name.
  UMBEL_ASSIGN(const std::vector<Service> services, ListServices(db, true));
  // FLOps hashes a tracking server's customer, and of all others of a customer the app.
  const std::string plain =
      std::string(NamesOf(wish.kind).prefix) +
      ShortHash(wish.kind == Kind::kTracking ? wish.customer : service.app_id);
  service.name = plain;
  for (uint32_t i = 2; std::any_of(services.begin(), services.end(),
                                   [&](const Service& each) { return each.name == service.name; });
       ++i)
    service.name = fmt::format("{}-{}", plain, i);
  if (wish.port > 0) {
    std::set<uint16_t> taken;
    for (const Service& each : services)
      if (!each.gone) taken.insert(each.port);
    UMBEL_ASSIGN(service.port, ChoosePort(wish.port, taken));
  }
  UMBEL_TRY(PutService(db, service));
  return service;
}

Result<Service> EnsureTrackingService(Connection& db, ObjectIds& ids, const std::string& customer,
                                      WallTime at, uint16_t port) {
  UMBEL_ASSIGN(const std::vector<Service> services, ListServices(db, false));
  for (const Service& each : services)
    if (each.kind == Kind::kTracking && each.customer == customer) return each;
  return AddCustomerService(db, ids, {Kind::kTracking, "", customer, at, port});
}

}  // namespace umbel::manager
