#include "flower/fab_trust.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/file.h"
#include "flower/base64.h"
#include "flower/ssh_key.h"
#include "flower/yaml_map.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using nlohmann::json;
using tensor::Quote;

constexpr size_t kFileMax = size_t{1} << 20;
constexpr size_t kVerificationMax = size_t{4} << 10;
constexpr size_t kVerificationsMax = 1000;
constexpr size_t kNamedMax = 3;  // ids in one message
constexpr std::string_view kLicense = "valid_license";

tl::unexpected<Error> Untrusted(std::string_view hash, std::string_view rule) {
  return Fail(Code::kPermissionDenied,
              fmt::format("FAB {} is refused by --trusted-entities: {}", hash.substr(0, 8), rule));
}

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

bool VerifyEd25519(std::string_view public_key, std::string_view message,
                   std::string_view signature) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, Bytes(public_key), public_key.size()),
      EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  UMBEL_CHECK(key != nullptr && context != nullptr);
  const bool good =
      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
      EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(message),
                       message.size()) == 1;
  // What failed must not look like a failure of the TLS connection this thread serves next.
  ERR_clear_error();
  return good;
}

std::string SignedMessage(uint64_t signed_at, const Digest& hash) {
  std::string message;
  for (int shift = 56; shift >= 0; shift -= 8)
    message.push_back(static_cast<char>(signed_at >> shift & 0xff));
  message.append(hash.bytes.begin(), hash.bytes.end());
  return message;
}

/// Why this verification proves nothing; "" if it proves that the key's owner signed the FAB.
std::string_view Fault(const json& verification, std::string_view key, const Digest& hash) {
  if (!verification.is_object()) return "its verification is no JSON object";
  const auto signed_at = verification.find("signed_at");
  if (signed_at == verification.end() || !signed_at->is_number_unsigned())
    return "its signed_at is not a number of seconds";
  const auto text = verification.find("signature");
  if (text == verification.end() || !text->is_string()) return "it has no signature";
  const auto signature = Base64UrlDecode(text->get_ref<const std::string&>());
  if (!signature) return "its signature is not base64url";
  if (!VerifyEd25519(key, SignedMessage(signed_at->get<uint64_t>(), hash), *signature))
    return "its signature is not of this FAB by this key";
  return "";
}

std::string Some(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kNamedMax);
  std::string text = fmt::format("{}", fmt::join(std::span(names).first(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

}  // namespace

Result<TrustedEntities> TrustedEntities::FromFile(const std::string& path) {
  auto text = ReadFile(path, kFileMax);
  if (!text.ok()) return Fail(text.error().code, "trusted entities: " + text.error().message);
  return FromText(*text, path);
}

Result<TrustedEntities> TrustedEntities::FromText(std::string_view yaml, std::string_view name) {
  const auto bad = [&](std::string_view rule) {
    return Fail(Code::kInvalidArgument, fmt::format("trusted entities '{}': {}", name, rule));
  };
  const auto entries = ReadYamlMap(yaml);
  if (!entries.ok()) return bad(entries.error().message);
  TrustedEntities entities;
  for (const auto& [id, line] : *entries) {
    auto key = ReadSshEd25519(line);
    if (!key.ok()) return bad(fmt::format("the key of {} {}", Quote(id), key.error().message));
    entities.keys_.emplace(id, *std::move(key));
  }
  if (entities.keys_.empty())
    return bad("it names nobody; leave the flag out if every FAB may run");
  return entities;
}

Status TrustedEntities::Verify(const Digest& hash,
                               const std::map<std::string, std::string>& verifications) const {
  const std::string hex = hash.Hex();
  const auto license = verifications.find(std::string(kLicense));
  if (license == verifications.end() || license->second.empty())
    return Untrusted(hex,
                     "the SuperLink sent no verification with it; only apps that were started "
                     "from Flower Hub have one");
  if (verifications.size() > kVerificationsMax)
    return Untrusted(hex, fmt::format("{} verifications are more than {}", verifications.size(),
                                      kVerificationsMax));
  std::vector<std::string> faults;
  std::vector<std::string> strangers;
  bool good = false;
  for (const auto& [id, text] : verifications) {
    if (id == kLicense) continue;
    // Also those of strangers must be JSON: Flower's nodes read all before they look at any.
    const json verification = text.size() > kVerificationMax ? json(json::value_t::discarded)
                                                             : json::parse(text, nullptr, false);
    if (verification.is_discarded())
      return Untrusted(hex, fmt::format("the verification of {} is not JSON of at most {} bytes",
                                        Quote(id), kVerificationMax));
    const auto key = keys_.find(id);
    if (key == keys_.end()) {
      strangers.push_back(Quote(id));
      continue;
    }
    const std::string_view fault = Fault(verification, key->second, hash);
    if (fault.empty()) good = true;
    faults.push_back(fmt::format("{}: {}", Quote(id), fault));
  }
  if (good) return {};
  if (!faults.empty()) return Untrusted(hex, Some(faults));
  if (strangers.empty()) return Untrusted(hex, "nobody has signed it");
  return Untrusted(hex, fmt::format("none of the {} trusted keys has signed it, only {}",
                                    keys_.size(), Some(strangers)));
}

Result<AllowRules> AllowRules::Parse(std::span<const std::string> hashes,
                                     std::span<const std::string> publishers) {
  AllowRules rules;
  for (const std::string& text : hashes) {
    const auto hash = Digest::FromHex(text);
    if (!hash.ok())
      return Fail(Code::kInvalidArgument,
                  fmt::format("--allow-fab {} is not a SHA-256 of 64 lowercase hexadecimal digits",
                              Quote(text, 80)));
    rules.hashes.insert(*hash);
  }
  for (const std::string& name : publishers) {
    if (name.empty() || name.find('/') != std::string::npos)
      return Fail(Code::kInvalidArgument,
                  fmt::format("--allow-publisher {} is not a publisher's name (what stands before "
                              "'/' in publisher/app)",
                              Quote(name)));
    rules.publishers.insert(name);
  }
  return rules;
}

Status AllowRules::Allows(const FabInfo& fab) const {
  if (hashes.empty() && publishers.empty()) return {};
  if (hashes.contains(fab.hash)) return {};
  const std::string publisher = fab.fab_id.substr(0, fab.fab_id.find('/'));
  if (publishers.contains(publisher)) return {};
  std::vector<std::string> rules;
  if (!hashes.empty()) rules.push_back("--allow-fab does not name this hash");
  if (!publishers.empty())
    rules.push_back(fmt::format("--allow-publisher does not name {}", Quote(publisher)));
  return Fail(Code::kPermissionDenied,
              fmt::format("FAB {} {} ({}) may not run here: {}", Quote(fab.fab_id), fab.version,
                          fab.hash.Hex(), fmt::join(rules, ", ")));
}

}  // namespace umbel::flower
