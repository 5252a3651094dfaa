// Who may use the REST doors: accounts in one file, tokens that are signed and short-lived. Any
// thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"

namespace umbel::doors {

inline constexpr std::string_view kAdmin = "Admin";  // FLOps's and Oakestra's name of it

struct Account {
  std::string name;  // the customerID of its projects
  bool admin = false;

  /// Whether it may see and change what is of this customer.
  bool MayUse(std::string_view customer) const { return admin || customer == name; }
  /// Whose things it is shown; "": everybody's.
  std::string_view scope() const { return admin ? std::string_view() : name; }
};

/// What a login gives.
struct Tokens {
  std::string token;
  std::string refresh_token;
  std::chrono::seconds lives{0};
};

class Accounts {
 public:
  static constexpr std::chrono::minutes kTokenLife{15};
  static constexpr std::chrono::hours kRefreshLife{24 * 7};

  /// The accounts in `folder`/accounts.json, which is made with kAdmin in it if it is not there;
  /// the password is then in `folder`/admin.password. All with mode 0600.
  ///
  /// errors  kDataLoss: a file is not one of ours; kUnavailable: the disk.
  static Result<std::unique_ptr<Accounts>> Open(const std::string& folder, const Clock& clock,
                                                Rng& rng);
  virtual ~Accounts() = default;

  virtual std::vector<Account> List() const = 0;
  virtual std::optional<Account> Get(std::string_view name) const = 0;
  /// Makes an account.
  /// errors  kAlreadyExists; as Put's.
  virtual Status Add(const Account& account, std::string_view password) = 0;
  /// Makes an account, or gives one another password, which ends its tokens. With kAdmin's, the
  /// file admin.password goes: it would be wrong.
  /// errors  kInvalidArgument: the name (letters, digits, '.', '_', '-'; at most 64), or a password
  ///         of fewer than 8 bytes.
  virtual Status Put(const Account& account, std::string_view password) = 0;
  /// errors  kNotFound; kFailedPrecondition: the last admin stays.
  virtual Status Remove(std::string_view name) = 0;

  /// cost    scrypt: 32 MiB and about 0.1 s, also for names that do not exist.
  /// errors  kUnauthenticated: name or password is wrong, and not which.
  virtual Result<Tokens> LogIn(std::string_view name, std::string_view password) = 0;
  /// Without a password: for a caller that is known otherwise.
  virtual Result<Tokens> Trust(std::string_view name) = 0;
  /// errors  kUnauthenticated.
  virtual Result<Tokens> Renew(std::string_view refresh_token) = 0;
  /// Whose token it is.
  /// cost    one HMAC.
  /// errors  kUnauthenticated: missing, wrong, or over.
  virtual Result<Account> Who(std::string_view token) const = 0;
};

/// Whether a numeric address is in "10.0.0.0/8", "::1" or "2001:db8::/32".
/// errors  kInvalidArgument: the network.
class Network {
 public:
  static Result<Network> Parse(std::string_view cidr);
  bool Has(std::string_view address) const;

 private:
  std::string bytes_;  // of the address, 4 or 16
  unsigned bits_ = 0;
};

}  // namespace umbel::doors
