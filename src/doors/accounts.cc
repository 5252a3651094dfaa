#include "doors/accounts.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "base/ids.h"
#include "flower/base64.h"

namespace umbel::doors {
namespace {

using nlohmann::json;

constexpr size_t kFileMax = size_t{4} << 20;
constexpr size_t kNameMax = 64;
constexpr size_t kPasswordMin = 8;
constexpr size_t kPasswordMax = 1024;
constexpr size_t kTokenMax = 1024;

/// scrypt, RFC 7914; 128 * n * r bytes of memory.
struct Cost {
  uint64_t n = uint64_t{1} << 15;
  uint64_t r = 8;
  uint64_t p = 1;
};
constexpr uint64_t kMemoryMax = uint64_t{64} << 20;

struct Row {
  Account account;
  std::string salt;  // hexadecimal
  std::string hash;  // hexadecimal
  Cost cost;
};

bool Same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Result<std::string> Scrypt(std::string_view password, std::string_view salt, const Cost& cost) {
  unsigned char key[32];
  if (EVP_PBE_scrypt(password.data(), password.size(),
                     reinterpret_cast<const unsigned char*>(salt.data()), salt.size(), cost.n,
                     cost.r, cost.p, kMemoryMax, key, sizeof key) != 1)
    return Fail(Code::kResourceExhausted, "there is no memory to check a password");
  return HexEncode({reinterpret_cast<const char*>(key), sizeof key});
}

std::string Url(std::string_view bytes) {
  std::string text = flower::Base64Encode(bytes);
  std::replace(text.begin(), text.end(), '+', '-');
  std::replace(text.begin(), text.end(), '/', '_');
  text.resize(std::min(text.find('='), text.size()));
  return text;
}

std::optional<Row> ToRow(const json& from) {
  try {
    Row row;
    row.account.name = from.at("name").get<std::string>();
    row.account.admin = from.at("admin").get<bool>();
    row.salt = from.at("salt").get<std::string>();
    row.hash = from.at("scrypt").get<std::string>();
    row.cost.n = from.at("n").get<uint64_t>();
    row.cost.r = from.at("r").get<uint64_t>();
    row.cost.p = from.at("p").get<uint64_t>();
    return row;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

class AccountsImpl final : public Accounts {
 public:
  AccountsImpl(std::string folder, const Clock& clock, Rng& rng)
      : folder_(std::move(folder)), clock_(clock), rng_(rng) {}

  Status Load() {
    if (!std::filesystem::exists(path())) return Begin();
    UMBEL_ASSIGN(const std::string text, ReadFile(path(), kFileMax));
    const json file = json::parse(text, nullptr, false);
    const auto wrong = [this] {
      return Fail(Code::kDataLoss,
                  fmt::format("'{}' is not a file of accounts: remove it, and one is made with {} "
                              "alone",
                              path(), kAdmin));
    };
    if (!file.is_object() || !file.contains("key") || !file["key"].is_string() ||
        !file.contains("accounts") || !file["accounts"].is_array())
      return wrong();
    key_ = file["key"].get<std::string>();
    for (const json& one : file["accounts"]) {
      const auto row = ToRow(one);
      if (!row) return wrong();
      rows_[row->account.name] = *row;
    }
    if (key_.size() < 32 || rows_.empty()) return wrong();
    return {};
  }

  std::vector<Account> List() const override {
    const std::lock_guard lock(mutex_);
    std::vector<Account> all;
    for (const auto& [name, row] : rows_) all.push_back(row.account);
    return all;
  }

  std::optional<Account> Get(std::string_view name) const override {
    const auto row = Find(name);
    return row ? std::optional(row->account) : std::nullopt;
  }

  Status Add(const Account& account, std::string_view password) override {
    return Set(account, password, true);
  }

  Status Put(const Account& account, std::string_view password) override {
    UMBEL_TRY(Set(account, password, false));
    if (account.name != kAdmin) return {};
    std::error_code ignored;  // then it stays, and logging in with it says that it is wrong
    std::filesystem::remove(folder_ + "/admin.password", ignored);
    return {};
  }

  Status Remove(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    auto rows = rows_;
    if (rows.erase(std::string(name)) == 0)
      return Fail(Code::kNotFound, fmt::format("there is no account '{}'", name.substr(0, 80)));
    if (Admins(rows) == 0) return Fail(Code::kFailedPrecondition, "the last admin stays");
    return Save(std::move(rows));
  }

  Result<Tokens> LogIn(std::string_view name, std::string_view password) override {
    const auto row = Find(name);
    // Names cannot be told by time: a wrong one costs the same.
    const Row nobody{{}, std::string(32, '0'), "", {}};
    const Row& asked = row ? *row : nobody;
    UMBEL_ASSIGN(const std::string hash,
                 Scrypt(password.substr(0, kPasswordMax), asked.salt, asked.cost));
    if (!row || !Same(hash, row->hash))
      return Fail(Code::kUnauthenticated, "the user name or the password is wrong");
    return Issue(*row);
  }

  Result<Tokens> Trust(std::string_view name) override {
    const auto row = Find(name);
    if (!row)
      return Fail(Code::kUnauthenticated,
                  fmt::format("there is no account '{}'", name.substr(0, 80)));
    return Issue(*row);
  }

  Result<Tokens> Renew(std::string_view refresh_token) override {
    UMBEL_ASSIGN(const Row row, Check(refresh_token, "refresh"));
    return Issue(row);
  }

  Result<Account> Who(std::string_view token) const override {
    UMBEL_ASSIGN(const Row row, Check(token, "access"));
    return row.account;
  }

 private:
  std::string path() const { return folder_ + "/accounts.json"; }

  static size_t Admins(const std::map<std::string, Row>& rows) {
    return static_cast<size_t>(std::count_if(
        rows.begin(), rows.end(), [](const auto& each) { return each.second.account.admin; }));
  }

  Status Set(const Account& account, std::string_view password, bool fresh) {
    const bool plain = std::all_of(account.name.begin(), account.name.end(), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
    });
    if (account.name.empty() || account.name.size() > kNameMax || !plain)
      return Fail(Code::kInvalidArgument,
                  "name: letters, digits, '.', '_' and '-' only, and at most 64 of them");
    if (password.size() < kPasswordMin || password.size() > kPasswordMax)
      return Fail(Code::kInvalidArgument, fmt::format("password: it has {} bytes, not {} to {}",
                                                      password.size(), kPasswordMin, kPasswordMax));
    Row row{account, rng_.Hex(16), "", {}};
    UMBEL_ASSIGN(row.hash, Scrypt(password, row.salt, row.cost));
    const std::lock_guard lock(mutex_);
    auto rows = rows_;
    if (fresh && rows.contains(account.name))
      return Fail(Code::kAlreadyExists, fmt::format("there is an account '{}'", account.name));
    rows[account.name] = std::move(row);
    if (Admins(rows) == 0) return Fail(Code::kFailedPrecondition, "the last admin stays one");
    return Save(std::move(rows));
  }

  /// The first start.
  Status Begin() {
    key_ = rng_.Hex(32);
    const std::string password = rng_.Hex(12);
    UMBEL_TRY(WriteFileAtomic(folder_ + "/admin.password", password + "\n"));
    return Set({std::string(kAdmin), true}, password, true);
  }

  Status Save(std::map<std::string, Row> rows) {
    json accounts = json::array();
    for (const auto& [name, row] : rows)
      accounts.push_back({{"name", name},
                          {"admin", row.account.admin},
                          {"salt", row.salt},
                          {"scrypt", row.hash},
                          {"n", row.cost.n},
                          {"r", row.cost.r},
                          {"p", row.cost.p}});
    const json file = {{"key", key_}, {"accounts", std::move(accounts)}};
    UMBEL_TRY(WriteFileDurable(path(), file.dump(1) + "\n"));
    rows_ = std::move(rows);
    return {};
  }

  std::optional<Row> Find(std::string_view name) const {
    const std::lock_guard lock(mutex_);
    const auto found = rows_.find(std::string(name.substr(0, kNameMax + 1)));
    return found == rows_.end() ? std::nullopt : std::optional(found->second);
  }

  /// Of a password that was changed, tokens of before are not good any more: it is part of the key.
  std::string Sign(std::string_view text, const Row& row) const {
    const std::string key = key_ + row.hash;
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    UMBEL_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                     reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac,
                     &size) != nullptr);
    return Url({reinterpret_cast<const char*>(mac), size});
  }

  /// A JSON Web Token, RFC 7519, HS256.
  std::string Token(const Row& row, const char* kind, std::chrono::seconds life) const {
    const double now = UnixSeconds(clock_.Now());
    const json head = {{"alg", "HS256"}, {"typ", "JWT"}};
    const json claims = {{"sub", row.account.name},
                         {"kind", kind},
                         {"iat", static_cast<int64_t>(now)},
                         {"exp", static_cast<int64_t>(now) + life.count()}};
    const std::string text = Url(head.dump()) + "." + Url(claims.dump());
    return text + "." + Sign(text, row);
  }

  Result<Tokens> Issue(const Row& row) const {
    return Tokens{Token(row, "access", kTokenLife), Token(row, "refresh", kRefreshLife),
                  kTokenLife};
  }

  Result<Row> Check(std::string_view token, std::string_view kind) const {
    const auto refused = [] {
      return Fail(Code::kUnauthenticated, "the token is missing, wrong or over: log in again");
    };
    const size_t last = token.rfind('.');
    const size_t first = token.find('.');
    if (token.size() > kTokenMax || first == std::string_view::npos || first == last)
      return refused();
    const auto claims_text = flower::Base64UrlDecode(token.substr(first + 1, last - first - 1));
    if (!claims_text) return refused();
    const json claims = json::parse(*claims_text, nullptr, false);
    const auto text = [&](const char* key) {
      return claims.is_object() && claims.contains(key) && claims[key].is_string()
                 ? claims[key].get<std::string>()
                 : "";
    };
    const auto row = Find(text("sub"));
    if (!row || !Same(Sign(token.substr(0, last), *row), token.substr(last + 1))) return refused();
    if (text("kind") != kind || !claims.contains("exp") || !claims["exp"].is_number_integer() ||
        static_cast<double>(claims["exp"].get<int64_t>()) <= UnixSeconds(clock_.Now()))
      return refused();
    return *row;
  }

  const std::string folder_;
  const Clock& clock_;
  Rng& rng_;
  mutable std::mutex mutex_;
  std::string key_;  // constant after Load
  std::map<std::string, Row> rows_;
};

std::optional<std::string> AddressBytes(std::string_view text) {
  const std::string whole(text);
  unsigned char bytes[16];
  if (::inet_pton(AF_INET, whole.c_str(), bytes) == 1)
    return std::string(reinterpret_cast<char*>(bytes), 4);
  if (::inet_pton(AF_INET6, whole.c_str(), bytes) == 1)
    return std::string(reinterpret_cast<char*>(bytes), 16);
  return std::nullopt;
}

}  // namespace

Result<std::unique_ptr<Accounts>> Accounts::Open(const std::string& folder, const Clock& clock,
                                                 Rng& rng) {
  auto accounts = std::make_unique<AccountsImpl>(folder, clock, rng);
  UMBEL_TRY(accounts->Load());
  return std::unique_ptr<Accounts>(std::move(accounts));
}

Result<Network> Network::Parse(std::string_view cidr) {
  const size_t slash = std::min(cidr.find('/'), cidr.size());
  const auto bytes = AddressBytes(cidr.substr(0, slash));
  Network network;
  const auto wrong = [&] {
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' is not a network, such as 127.0.0.0/8", cidr.substr(0, 80)));
  };
  if (!bytes) return wrong();
  network.bytes_ = *bytes;
  network.bits_ = static_cast<unsigned>(bytes->size() * 8);
  if (slash < cidr.size()) {
    const std::string_view digits = cidr.substr(slash + 1);
    unsigned bits = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (error != std::errc() || end != digits.data() + digits.size() || bits > network.bits_)
      return wrong();
    network.bits_ = bits;
  }
  return network;
}

bool Network::Has(std::string_view address) const {
  auto bytes = AddressBytes(address);
  // An IPv4 peer of an IPv6 socket.
  static constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
  if (bytes && bytes->size() == 16 && bytes_.size() == 4 && bytes->starts_with(kMapped))
    bytes = bytes->substr(12);
  if (!bytes || bytes->size() != bytes_.size()) return false;
  for (unsigned bit = 0; bit < bits_; bit += 8) {
    const auto mask =
        static_cast<unsigned char>(bits_ - bit >= 8 ? 0xff : 0xff << (8 - (bits_ - bit)));
    const auto differ = static_cast<unsigned char>((*bytes)[bit / 8] ^ bytes_[bit / 8]);
    if ((differ & mask) != 0) return false;
  }
  return true;
}

}  // namespace umbel::doors
