// Our own REST door, /api/v1: projects, services, logs, nodes, accounts. It holds no state; who may
// ask has a token of the accounts. Start and Stop from one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "doors/accounts.h"
#include "manager/manager.h"

namespace umbel::doors {

struct ApiOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 5070;  // 0: the system picks one
};

class Api {
 public:
  /// All are borrowed. errors  kUnavailable: the address is in use.
  static Result<std::unique_ptr<Api>> Start(const ApiOptions& options, manager::Manager& manager,
                                            Accounts& accounts);
  virtual ~Api() = default;

  virtual uint16_t port() const = 0;
  /// Answers what is held, then closes. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace umbel::doors
