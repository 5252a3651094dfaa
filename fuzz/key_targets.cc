// Keys, signatures and configurations of SuperNodes.
#include <map>
#include <string>

#include "flower/auth.h"
#include "flower/base64.h"
#include "flower/fab_trust.h"
#include "flower/node_config.h"
#include "flower/node_signer.h"
#include "flower/run_config.h"
#include "targets.h"
#include "tensor/sha256.h"

namespace umbel::fuzz {

/// A key file, or the bytes inside an OpenSSH one: the mutator need not know base64.
void NodeKey(std::string_view bytes) {
  std::string text(bytes);
  if (bytes.starts_with("openssh-key-v1"))
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + flower::Base64Encode(bytes) +
           "\n-----END OPENSSH PRIVATE KEY-----\n";
  const auto signer = flower::NodeSigner::FromText(text, "x");
  if (!signer.has_value()) {
    UMBEL_CHECK(signer.error().message.starts_with("private key 'x' "));
    return;
  }
  const auto key = flower::NodeKey::FromPem(signer->PublicPem());
  UMBEL_CHECK(key.has_value() && key->Verify("text", signer->Sign("text")));
  UMBEL_CHECK(flower::NodeSigner::FromText(signer->ToPem(), "x").has_value());
}

void TrustedEntities(std::string_view bytes) {
  const auto entities = flower::TrustedEntities::FromText(bytes, "x");
  UMBEL_CHECK(entities.has_value()
                  ? entities->size() > 0
                  : entities.error().message.starts_with("trusted entities 'x': "));
}

/// One verification by a key that signed nothing: always refused.
void Verification(std::string_view bytes) {
  static const auto kTrusted =
      flower::TrustedEntities::FromText(
          "a: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
          "x")
          .value();
  const std::map<std::string, std::string> verifications{{"a", std::string(bytes)},
                                                         {"valid_license", "Valid"}};
  UMBEL_CHECK(!kTrusted.Verify(tensor::Sha256Of("fab"), verifications).has_value());
}

void NodeConfig(std::string_view bytes) {
  if (bytes.ends_with(".toml")) return;  // would open any file
  const auto config = flower::ParseNodeConfig(bytes);
  UMBEL_CHECK(config.has_value() ||
              config.error().message.find("--node-config") != std::string::npos);
}

void RunConfig(std::string_view bytes) {
  flower::FabInfo fab;
  fab.fab_id = "umbel/toy";
  fab.config = {{"lr", 0.1}, {"rounds", int64_t{3}}, {"nested.text", "x"}};
  const auto config = flower::FuseRunConfig(fab, bytes);
  UMBEL_CHECK(!config.has_value() || config->size() == fab.config.size());
}

}  // namespace umbel::fuzz
