// Who is calling: SuperNodes sign a timestamp with their EC key, SuperExecs share a secret.
// Every class and function here is safe from any thread.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

struct evp_pkey_st;

namespace umbel::flower {

/// A SuperNode's public key. Copies share one immutable key.
class NodeKey {
 public:
  /// Reads PEM SubjectPublicKeyInfo of a named NIST curve P-192, P-224, P-256, P-384 or P-521.
  /// errors  kInvalidArgument, wire_code 22 (PUBLIC_KEY_NOT_VALID): anything else.
  static Result<NodeKey> FromPem(std::string_view pem);

  /// True if `der_signature` is an ECDSA signature of `message` under SHA-256.
  /// cost  P-256 0.1 ms, P-384 1.4 ms on the reference machine: not for an event loop.
  bool Verify(std::string_view message, std::string_view der_signature) const;

  std::string curve() const;  // "P-256", ...

 private:
  NodeKey(std::shared_ptr<evp_pkey_st> key, std::string_view curve)
      : key_(std::move(key)), curve_(curve) {}

  std::shared_ptr<evp_pkey_st> key_;
  std::string_view curve_;  // of a constant
};

/// What the headers flwr-public-key, flwr-timestamp and flwr-signature hold.
struct NodeCredentials {
  std::string public_key_pem;
  std::string timestamp;  // the text that is signed
  std::string signature;  // DER
};

/// Decodes only; the key, the time and the signature are checked by their own functions.
/// errors  kUnauthenticated: a header is missing (empty), too long or not base64.
Result<NodeCredentials> DecodeNodeHeaders(std::string_view public_key_b64,
                                          std::string_view timestamp,
                                          std::string_view signature_b64);

/// A signature is good for 300 s, with 5 s of allowance for clocks: -5 s < now - ts < 305 s.
/// errors  kUnauthenticated: outside, or not an ISO time with an offset.
Status CheckTimestamp(std::string_view iso, WallTime now);

/// Checks the shared-secret headers of a SuperExec. A nonce is good once per method; it is
/// forgotten when its timestamp is too old to be accepted anyway.
class SuperExecAuth {
 public:
  /// secret_bytes  the secret file's raw bytes; not empty (whoever read the file refuses that).
  explicit SuperExecAuth(std::string secret_bytes);

  /// method  as it is signed: "/flwr.proto.Runtime/AcquireTask".
  /// errors  kUnauthenticated, wire_code 1008: any header wrong, too old, or seen before;
  ///         kUnavailable: too many nonces are remembered (only a holder of the secret can cause
  ///         that).
  Status Check(std::string_view method, std::string_view timestamp, std::string_view nonce,
               std::string_view body_sha256, std::string_view signature, std::string_view body,
               WallTime now);

  size_t remembered() const;

 private:
  Status Reserve(const Digest& use, int64_t timestamp, WallTime now);

  std::string key_;
  mutable std::mutex mutex_;
  std::unordered_set<Digest> used_;                 // of method and nonce
  std::map<int64_t, std::vector<Digest>> by_time_;  // the same by timestamp, to forget
};

}  // namespace umbel::flower
