// A SuperNode's private key: who it says it is in every call. Every function is safe from any
// thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

struct evp_pkey_st;

namespace umbel::flower {

enum class NodeCurve { kP256, kP384, kP521 };

/// Copies share one immutable key.
class NodeSigner {
 public:
  /// A new key. Flower's nodes make P-384 keys; its SuperLinks take every NIST curve, and P-256 is
  /// signed and verified many times faster.
  static NodeSigner Generate(NodeCurve curve = NodeCurve::kP256);

  /// Reads an unencrypted EC private key: OpenSSH's format, which is all that Flower's nodes read,
  /// or PEM, PKCS#8 or SEC1, on a named NIST curve.
  /// errors  kInvalidArgument: another kind of key, an encrypted or a broken one; else what
  ///         ReadFile says. The message names the file, what is wrong, and what helps.
  static Result<NodeSigner> FromFile(const std::string& path);
  /// The same of a file's content; `name` is what messages call it.
  static Result<NodeSigner> FromText(std::string_view text, std::string_view name);

  /// PKCS#8, unencrypted: what FromText reads. For a file of mode 0600.
  std::string ToPem() const;
  /// SubjectPublicKeyInfo: what register-node and activate-node send.
  const std::string& PublicPem() const { return public_pem_; }

  /// A DER signature (ECDSA, SHA-256). No two are the same.
  /// cost  P-256 0.1 ms, P-384 1 ms.
  std::string Sign(std::string_view message) const;
  /// The lines flwr-public-key, flwr-timestamp and flwr-signature, each with its "\r\n". To be made
  /// anew for each attempt: they are good for five minutes.
  std::string Headers(WallTime now) const;

 private:
  NodeSigner(std::shared_ptr<evp_pkey_st> key, std::string public_pem);

  std::shared_ptr<evp_pkey_st> key_;
  std::string public_pem_;
  std::string public_base64_;
};

}  // namespace umbel::flower
