// Which FABs a site runs: those that a trusted reviewer signed, and those its operator allows.
// Values and functions; safe from any thread.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "flower/fab.h"

namespace umbel::flower {

/// The reviewers of --trusted-entities: a YAML file that maps key ids to OpenSSH public keys,
///
///     fpk_7b9e...: ssh-ed25519 AAAAC3Nz... a comment
class TrustedEntities {
 public:
  /// errors  kInvalidArgument: "trusted entities '<path>': ..." with the line or the key id, and
  ///         the rule; also for a file without a single key, which Flower takes for "trust
  ///         everyone". Else what ReadFile says.
  static Result<TrustedEntities> FromFile(const std::string& path);
  /// The same of a file's content; `name` is what messages call it.
  static Result<TrustedEntities> FromText(std::string_view yaml, std::string_view name);

  /// True to flwr.proto.Fab.verifications: key id -> {"signature": base64url of Ed25519 over
  /// signed_at (8 bytes, big endian) and the FAB's SHA-256, "signed_at": seconds}, beside
  /// "valid_license". One good signature of one trusted key is enough; a signature does not age.
  ///
  /// hash    of the FAB's bytes as they came, not as the peer says.
  /// errors  kPermissionDenied: a sentence for the log and the error reply.
  Status Verify(const Digest& hash, const std::map<std::string, std::string>& verifications) const;

  size_t size() const { return keys_.size(); }

 private:
  std::map<std::string, std::string> keys_;  // id -> 32 bytes
};

/// --allow-fab and --allow-publisher. Without any rule every FAB may run; with some, those that one
/// of them names. A publisher is what a FAB says of itself: only trusted entities make it true.
struct AllowRules {
  std::set<Digest> hashes;
  std::set<std::string> publishers;

  /// errors  kInvalidArgument: a hash that is not 64 hexadecimal digits, an empty publisher or one
  ///         with '/'.
  static Result<AllowRules> Parse(std::span<const std::string> hashes,
                                  std::span<const std::string> publishers);
  /// errors  kPermissionDenied: a sentence that names the FAB and the rules.
  Status Allows(const FabInfo& fab) const;
};

}  // namespace umbel::flower
