#include "flower/node_signer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/testing.h"
#include "flower/auth.h"
#include "flower/base64.h"
#include "flower/ssh_key.h"

namespace umbel::flower {
namespace {

using nlohmann::json;

const json& Vectors() {
  static const json kVectors =
      json::parse(ReadFile(UMBEL_SOURCE_DIR "/tests/keys/node_keys.json").value());
  return kVectors;
}

std::string SshForm() { return Vectors()[0]["forms"]["OpenSSH"]; }

/// A key's file made by a tool; "{}" in the command is where.
class NodeSignerFile : public ::testing::Test {
 protected:
  std::string Make(std::string command) {
    const std::string path = fmt::format("{}/key{}", dir_.path(), count_++);
    for (size_t at = command.find("{}"); at != command.npos; at = command.find("{}"))
      command.replace(at, 2, path);
    EXPECT_EQ(std::system((command + " >/dev/null 2>&1").c_str()), 0) << command;
    return path;
  }
  std::string ErrorOf(const std::string& path) {
    const auto signer = NodeSigner::FromFile(path);
    if (signer.ok()) return "";
    EXPECT_EQ(signer.error().code, Code::kInvalidArgument);
    const std::string start = "private key '" + path + "' ";
    EXPECT_TRUE(signer.error().message.starts_with(start)) << signer.error().message;
    return signer.error().message.substr(std::min(start.size(), signer.error().message.size()));
  }
  std::string Write(std::string_view text) {
    const std::string path = fmt::format("{}/key{}", dir_.path(), count_++);
    EXPECT_TRUE(WriteFileAtomic(path, text).ok());
    return path;
  }

  testing::TempDir dir_;
  int count_ = 0;
};

/// What a SuperLink does with the headers.
void ExpectAccepted(const NodeSigner& signer, std::string_view curve) {
  const WallTime now(std::chrono::seconds(1'800'000'000));
  std::string rest = signer.Headers(now);
  std::vector<std::string> values;
  for (const std::string_view name : {"flwr-public-key", "flwr-timestamp", "flwr-signature"}) {
    const size_t end = rest.find("\r\n");
    ASSERT_NE(end, std::string::npos);
    ASSERT_TRUE(rest.starts_with(std::string(name) + ": ")) << rest;
    values.push_back(rest.substr(name.size() + 2, end - name.size() - 2));
    rest.erase(0, end + 2);
  }
  EXPECT_EQ(rest, "");
  const auto credentials = DecodeNodeHeaders(values[0], values[1], values[2]);
  ASSERT_TRUE(credentials.ok()) << credentials.error().message;
  EXPECT_EQ(credentials->public_key_pem, signer.PublicPem());
  EXPECT_EQ(credentials->timestamp, "2027-01-15T08:00:00.000000+00:00");
  EXPECT_TRUE(CheckTimestamp(credentials->timestamp, now).ok());
  const auto key = NodeKey::FromPem(credentials->public_key_pem);
  ASSERT_TRUE(key.ok()) << key.error().message;
  EXPECT_EQ(key->curve(), curve);
  EXPECT_TRUE(key->Verify(credentials->timestamp, credentials->signature));
  EXPECT_FALSE(key->Verify("2027-01-15T08:00:00.000001+00:00", credentials->signature));
}

TEST(NodeSigner, NewKeysAreAccepted) {
  ExpectAccepted(NodeSigner::Generate(), "P-256");
  ExpectAccepted(NodeSigner::Generate(NodeCurve::kP384), "P-384");
  ExpectAccepted(NodeSigner::Generate(NodeCurve::kP521), "P-521");
  EXPECT_NE(NodeSigner::Generate().PublicPem(), NodeSigner::Generate().PublicPem());
}

TEST(NodeSigner, AKeptKeyIsTheSame) {
  for (const NodeCurve curve : {NodeCurve::kP256, NodeCurve::kP384, NodeCurve::kP521}) {
    const NodeSigner made = NodeSigner::Generate(curve);
    const auto kept = NodeSigner::FromText(made.ToPem(), "x");
    ASSERT_TRUE(kept.ok()) << kept.error().message;
    EXPECT_EQ(kept->PublicPem(), made.PublicPem());
    EXPECT_EQ(kept->ToPem(), made.ToPem());
    const std::string signature = kept->Sign("text");
    EXPECT_TRUE(NodeKey::FromPem(made.PublicPem())->Verify("text", signature));
  }
}

TEST(NodeSigner, KeysOfPythonAreRead) {
  for (const json& item : Vectors())
    for (const auto& [form, text] : item["forms"].items()) {
      const auto signer = NodeSigner::FromText(text.get<std::string>(), "x");
      ASSERT_TRUE(signer.ok()) << form << ": " << signer.error().message;
      EXPECT_EQ(signer->PublicPem(), item["public"].get<std::string>()) << form;
      EXPECT_EQ(signer->ToPem(), item["forms"]["PKCS8"].get<std::string>()) << form;
    }
}

TEST_F(NodeSignerFile, KeysOfSshKeygenAreRead) {
  for (const auto& [bits, curve] :
       {std::pair(256, "P-256"), std::pair(384, "P-384"), std::pair(521, "P-521")}) {
    for (const char* form : {"RFC4716", "PEM", "PKCS8"}) {
      const std::string path = Make(fmt::format(
          "ssh-keygen -q -t ecdsa -b {} -m {} -N '' -C 'a comment' -f {{}}", bits, form));
      const auto signer = NodeSigner::FromFile(path);
      ASSERT_TRUE(signer.ok()) << form << ": " << signer.error().message;
      ExpectAccepted(*signer, curve);
    }
  }
}

TEST_F(NodeSignerFile, KeysOfOpensslAreRead) {
  for (const char* command :
       {"openssl ecparam -genkey -name prime256v1 -out {}",
        "openssl ecparam -genkey -noout -name prime256v1 -conv_form compressed -out {}",
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {}"}) {
    const auto signer = NodeSigner::FromFile(Make(command));
    ASSERT_TRUE(signer.ok()) << command << ": " << signer.error().message;
    ExpectAccepted(*signer, "P-256");
    EXPECT_EQ(signer->PublicPem().size(), NodeSigner::Generate().PublicPem().size());
  }
  ExpectAccepted(
      NodeSigner::FromFile(Make("openssl ecparam -genkey -name secp384r1 -out {}")).value(),
      "P-384");
}

TEST_F(NodeSignerFile, OpensslVerifiesWhatWeSign) {
  const NodeSigner signer = NodeSigner::Generate(NodeCurve::kP384);
  const std::string key = Write(signer.PublicPem());
  const std::string text = Write("text");
  const std::string signature = Write(signer.Sign("text"));
  Make("openssl dgst -sha256 -verify " + key + " -signature " + signature + " " + text);
}

TEST_F(NodeSignerFile, EncryptedKeysAreRefusedWithAWayOut) {
  for (const char* form : {"RFC4716", "PEM", "PKCS8"}) {
    const std::string error =
        ErrorOf(Make(fmt::format("ssh-keygen -q -t ecdsa -m {} -N secret -f {{}}", form)));
    EXPECT_TRUE(error.starts_with("is encrypted, and nobody is there to type a passphrase; "))
        << error;
  }
}

TEST_F(NodeSignerFile, OtherKeysAreRefusedByName) {
  const std::string needs =
      "; a SuperNode needs an ECDSA key: ssh-keygen -t ecdsa -b 256 -N '' -f FILE";
  EXPECT_EQ(ErrorOf(Make("ssh-keygen -q -t ed25519 -N '' -f {}")),
            "is of type 'ssh-ed25519'" + needs);
  EXPECT_EQ(ErrorOf(Make("ssh-keygen -q -t rsa -b 1024 -N '' -f {}")),
            "is of type 'ssh-rsa'" + needs);
  EXPECT_EQ(ErrorOf(Make("ssh-keygen -q -t rsa -b 1024 -m PEM -N '' -f {}")),
            "is of type RSA" + needs);
  EXPECT_EQ(ErrorOf(Make("openssl genpkey -algorithm ed25519 -out {}")),
            "is of type ED25519" + needs);
  const std::string named = "is not on a named NIST curve, which SuperLinks ask for";
  EXPECT_EQ(ErrorOf(Make("openssl ecparam -genkey -name secp256k1 -out {}")), named);
  EXPECT_EQ(ErrorOf(Make("openssl ecparam -genkey -name brainpoolP256r1 -out {}")), named);
  const std::string is_public = "is a public key; the private one beside it is needed";
  EXPECT_EQ(ErrorOf(Make("ssh-keygen -q -t ecdsa -N '' -f {}") + ".pub"), is_public);
  EXPECT_EQ(ErrorOf(Write(NodeSigner::Generate().PublicPem())), is_public);
}

TEST_F(NodeSignerFile, WhatIsNoKeyIsRefused) {
  EXPECT_EQ(ErrorOf(Write("")), "holds no private key in OpenSSH or PEM form");
  EXPECT_EQ(ErrorOf(Write("x")), "holds no private key in OpenSSH or PEM form");
  EXPECT_EQ(ErrorOf(Write("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
            "is broken: its parts do not make a key");
  EXPECT_EQ(NodeSigner::FromFile("/nonexistent/key").error().message,
            "private key: cannot open '/nonexistent/key': No such file or directory");
  EXPECT_FALSE(NodeSigner::FromFile(Write(std::string(70'000, 'x'))).ok());
}

/// The bytes inside the armour, changed, in a new armour.
template <typename Change>
std::string Rearmoured(Change change) {
  const std::string text = SshForm();
  const size_t start = text.find('\n') + 1;
  std::string base64;
  for (const char c : text.substr(start, text.find("\n-----END") - start))
    if (c != '\n') base64.push_back(c);
  std::string bytes = Base64Decode(base64).value();
  change(bytes);
  return "-----BEGIN OPENSSH PRIVATE KEY-----\n" + Base64Encode(bytes) +
         "\n-----END OPENSSH PRIVATE KEY-----\n";
}

TEST(SshKey, BrokenOnesAreRefusedByField) {
  ASSERT_TRUE(ReadSshPrivateKey(Rearmoured([](std::string&) {})).ok());
  const auto error = [](auto change) {
    const auto key = ReadSshPrivateKey(Rearmoured(change));
    return key.ok() ? "" : key.error().message;
  };
  const auto replaced = [&](std::string_view from, std::string_view to, bool last) {
    return error([&](std::string& bytes) {
      const size_t at = last ? bytes.rfind(from) : bytes.find(from);
      ASSERT_NE(at, std::string::npos);
      bytes.replace(at, from.size(), to);
    });
  };
  const auto broken = [](std::string_view field) {
    return fmt::format("is a broken OpenSSH key: its {} is wrong or cut off", field);
  };
  EXPECT_EQ(replaced("openssh-key-v1", "openssh-key-v2", false), broken("header"));
  EXPECT_TRUE(replaced("none", "aes!", false).starts_with("is encrypted"));
  EXPECT_EQ(replaced("nistp256", "nistp384", true), broken("curve"));
  EXPECT_EQ(replaced("sha2", "sha3", true),
            "is of type 'ecdsa-sha3-nistp256'; a SuperNode needs an ECDSA key: ssh-keygen -t ecdsa "
            "-b 256 -N '' -f FILE");
  EXPECT_EQ(error([](std::string& bytes) { bytes.pop_back(); }), broken("private part"));
  EXPECT_EQ(error([](std::string& bytes) { bytes += "x"; }), broken("private part"));
  EXPECT_EQ(error([](std::string& bytes) { bytes.back() = '\x7f'; }), broken("padding"));
  EXPECT_EQ(ReadSshPrivateKey("-----BEGIN OPENSSH PRIVATE KEY-----\n").error().message,
            broken("base64"));
}

TEST(SshKey, PartsOfTwoKeysMakeNone) {
  const std::string text = Rearmoured([](std::string& bytes) {
    // The last point: a byte of its y.
    const size_t point = bytes.rfind("nistp256") + 8 + 4;
    bytes[point + 60] = static_cast<char>(bytes[point + 60] ^ 1);
  });
  const auto off_curve = NodeSigner::FromText(text, "x");
  ASSERT_FALSE(off_curve.ok());
  EXPECT_EQ(off_curve.error().message, "private key 'x' is broken: its parts do not make a key");
  const std::string scalar = Rearmoured([](std::string& bytes) {
    const size_t point = bytes.rfind("nistp256") + 8 + 4;
    bytes[point + 65 + 4 + 10] = static_cast<char>(bytes[point + 65 + 4 + 10] ^ 1);
  });
  const auto mixed = NodeSigner::FromText(scalar, "x");
  ASSERT_FALSE(mixed.ok());
  EXPECT_EQ(mixed.error().message,
            "private key 'x' is broken: its public part is not that of its private part");
}

RC_GTEST_PROP(SshKeyProperty, ChangedOnesAreRefusedOrTheSame, ()) {
  const auto original = NodeSigner::FromText(SshForm(), "x").value();
  const std::string text = Rearmoured([](std::string& bytes) {
    for (int i = *rc::gen::inRange(1, 4); i > 0; --i)
      bytes[*rc::gen::inRange<size_t>(0, bytes.size())] = *rc::gen::arbitrary<char>();
    bytes.resize(*rc::gen::inRange<size_t>(bytes.size() / 2, bytes.size() + 1));
  });
  const auto signer = NodeSigner::FromText(text, "x");
  // Comment, check numbers and the public half outside do not count.
  if (signer.ok()) RC_ASSERT(signer->PublicPem() == original.PublicPem());
  if (!signer.ok()) RC_ASSERT(signer.error().message.starts_with("private key 'x' "));
}

}  // namespace
}  // namespace umbel::flower
