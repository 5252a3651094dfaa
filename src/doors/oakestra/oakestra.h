// As much of Oakestra's root API, port 10000, as its `oak` CLI needs to show and end what the
// manager runs. It starts nothing: a project begins at FLOps's door. Where Oakestra's answers are
// JSON within a JSON string, these are plain; the client takes both.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "doors/accounts.h"
#include "manager/manager.h"

namespace umbel::doors {

struct OakestraOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 10000;  // 0: the system picks one
  /// From where Admin may log in with the password "Admin", which is all `oak` can say.
  std::optional<Network> oak_login;
};

class Oakestra {
 public:
  /// All are borrowed. errors  kUnavailable: the address is in use.
  static Result<std::unique_ptr<Oakestra>> Start(const OakestraOptions& options,
                                                 manager::Manager& manager, Accounts& accounts);
  virtual ~Oakestra() = default;

  virtual uint16_t port() const = 0;
  virtual void Stop() = 0;
};

}  // namespace umbel::doors
