// Keys as OpenSSH writes them, which is how Flower keeps those of nodes and of reviewers.
// Functions; safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::flower {

struct SshEcKey {
  std::string curve;   // OpenSSH's name: "nistp256", "nistp384", "nistp521"
  std::string point;   // the public key, uncompressed
  std::string scalar;  // the private key, big endian
  ~SshEcKey();         // wipes the scalar
};

/// True if the text begins as an OpenSSH private key does.
bool IsSshPrivateKey(std::string_view text);

/// Reads `-----BEGIN OPENSSH PRIVATE KEY-----`. Whether point and scalar fit the curve and each
/// other is not looked at.
/// errors  kInvalidArgument: a phrase for behind the file's name ("is encrypted; ..."): encrypted,
///         another kind of key, or broken.
Result<SshEcKey> ReadSshPrivateKey(std::string_view text);

/// Reads a line "ssh-ed25519 AAAA... [comment]".
/// returns  the key's 32 bytes.
/// errors   kInvalidArgument: a phrase as above.
Result<std::string> ReadSshEd25519(std::string_view line);

}  // namespace umbel::flower
