// Routes for those who have a token, as all doors have them.
#pragma once

#include "doors/accounts.h"
#include "doors/rest.h"

namespace umbel::doors {

/// Runs `act` of a door for the account whose token the request carries; any other is refused.
template <typename Door>
Rest::Handle ForKnown(Accounts& accounts, Door* door,
                      http::Task<Result<Answer>> (Door::*act)(http::Exchange&, const Request&,
                                                              const Account&)) {
  return [&accounts, door, act](http::Exchange& exchange,
                                const Request& request) -> http::Task<Result<Answer>> {
    UMBEL_CO_ASSIGN(const Account who, accounts.Who(BearerOf(exchange)));
    co_return co_await (door->*act)(exchange, request, who);
  };
}

}  // namespace umbel::doors
