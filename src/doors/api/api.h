// Our own REST door, /api/v1: projects, services, logs, nodes. It holds no state; who may ask has
// the token. Start and Stop from one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "manager/manager.h"

namespace umbel::doors {

struct ApiOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 5070;  // 0: the system picks one
  std::string token;     // of at least 16 bytes
};

class Api {
 public:
  /// errors  kUnavailable: the address is in use; kInvalidArgument: no token.
  static Result<std::unique_ptr<Api>> Start(const ApiOptions& options, manager::Manager& manager);
  virtual ~Api() = default;

  virtual uint16_t port() const = 0;
  /// Answers what is held, then closes. Idempotent.
  virtual void Stop() = 0;
};

/// The token in the file, which is made, with mode 0600, if there is none.
Result<std::string> TokenIn(const std::string& file);

}  // namespace umbel::doors
