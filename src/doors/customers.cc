#include "doors/customers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace umbel::doors {

Status MaySubmit(std::string_view sla, const Account& who) {
  const auto told = nlohmann::json::parse(sla, nullptr, false);
  if (!told.is_object() || !told.contains("customerID") || !told["customerID"].is_string() ||
      who.MayUse(told["customerID"].get<std::string>()))
    return {};
  return Fail(Code::kPermissionDenied,
              fmt::format("customerID: {} may not act for another customer", who.name));
}

Status MayTrack(manager::Manager& manager, const Accounts& accounts, const Account& who,
                const std::string& customer) {
  if (!who.MayUse(customer))
    return Fail(Code::kPermissionDenied,
                fmt::format("customer: {} may not see what is of another", who.name));
  if (accounts.Get(customer)) return {};
  UMBEL_ASSIGN(const auto services, manager.Services(false));
  if (std::any_of(services.begin(), services.end(), [&](const manager::ServiceView& each) {
        return each.service.customer == customer;
      }))
    return {};
  return Fail(Code::kNotFound,
              fmt::format("customer '{}' has neither an account nor a project: `umbel accounts "
                          "add` makes the one, `umbel project submit` the other",
                          customer.substr(0, 80)));
}

}  // namespace umbel::doors
