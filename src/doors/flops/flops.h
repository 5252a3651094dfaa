// FLOps's REST door, port 5072: its five routes, with and without a slash at the end, and what is
// missing there. It holds no state; who asks brings a token of the accounts, which `oak` gets from
// the Oakestra door.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "doors/accounts.h"
#include "manager/manager.h"

namespace umbel::doors {

struct FlopsOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 5072;  // 0: the system picks one
};

/// Beyond FLOps: GET projects, GET, DELETE projects/ID, POST projects/ID/stop and /resume, GET
/// projects/ID/logs. Where FLOps answers 500 to what the caller got wrong, this answers 422 with
/// the field's path.
class Flops {
 public:
  /// All are borrowed. errors  kUnavailable: the address is in use.
  static Result<std::unique_ptr<Flops>> Start(const FlopsOptions& options,
                                              manager::Manager& manager, Accounts& accounts);
  virtual ~Flops() = default;

  virtual uint16_t port() const = 0;
  virtual void Stop() = 0;
};

}  // namespace umbel::doors
