// Services that are a customer's, not a project's: its tracking server, its mock data providers.
// Within a transaction, so that two who want one get one.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "manager/model.h"
#include "manager/names.h"
#include "manager/store.h"

namespace umbel::manager {

struct NewService {
  Kind kind = Kind::kTracking;  // or kMock
  std::string id;
  std::string customer;
  WallTime at{};
  uint16_t port = 0;  // the first that may be chosen; 0: it has none
};

/// Its row, in FLOps's app of the customer, which is made if need be; under FLOps's name for it,
/// with a number where that is taken.
/// errors  kResourceExhausted: no port is free.
Result<Service> AddCustomerService(Connection& db, ObjectIds& ids, const NewService& wish);

/// The customer's tracking server, made unless there is one.
Result<Service> EnsureTrackingService(Connection& db, ObjectIds& ids, const std::string& customer,
                                      WallTime at, uint16_t port);

}  // namespace umbel::manager
