#include "flower/fab_trust.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/testing.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using nlohmann::json;
using Verifications = std::map<std::string, std::string>;

const json& Vectors() {
  static const json kVectors =
      json::parse(ReadFile(UMBEL_SOURCE_DIR "/tests/keys/fab_trust.json").value());
  return kVectors;
}

TrustedEntities Trusted() {
  return TrustedEntities::FromText(Vectors()["trusted"].dump(), "trusted.yaml").value();
}

Digest FabHash() { return tensor::Sha256Of(Vectors()["fab"].get_ref<const std::string&>()); }

Verifications Case(std::string_view name) {
  for (const json& item : Vectors()["cases"])
    if (item["name"] == name) return item["verifications"].get<Verifications>();
  ADD_FAILURE() << "there is no case " << name;
  return {};
}

std::string Refusal(std::string_view name) {
  const Status status = Trusted().Verify(FabHash(), Case(name));
  return status.ok() ? "" : status.error().message;
}

TEST(TrustedEntities, SignaturesOfFlwrAreJudgedAsFlowerDoes) {
  for (const json& item : Vectors()["cases"]) {
    const Status status = Trusted().Verify(FabHash(), item["verifications"].get<Verifications>());
    EXPECT_EQ(status.ok(), item["accepted"].get<bool>())
        << item["name"] << ": " << (status.ok() ? "" : status.error().message);
    if (status.ok()) continue;
    EXPECT_EQ(status.error().code, Code::kPermissionDenied);
  }
}

TEST(TrustedEntities, AVerificationIsOfOneFab) {
  EXPECT_TRUE(Trusted().Verify(FabHash(), Case("good")).ok());
  EXPECT_FALSE(Trusted().Verify(tensor::Sha256Of("another"), Case("good")).ok());
}

TEST(TrustedEntities, RefusalsSayWhatAPersonNeeds) {
  const std::string start =
      "FAB " + FabHash().Hex().substr(0, 8) + " is refused by --trusted-entities: ";
  EXPECT_EQ(Refusal("no license"), start +
                                       "the SuperLink sent no verification with it; only apps that "
                                       "were started from Flower Hub have one");
  EXPECT_EQ(Refusal("nobody"), start + "nobody has signed it");
  EXPECT_EQ(Refusal("stranger"),
            start + "none of the 2 trusted keys has signed it, only 'fpk_eve'");
  EXPECT_EQ(Refusal("forged"), start + "'fpk_alice': its signature is not of this FAB by this key");
  EXPECT_EQ(Refusal("swapped keys"),
            start +
                "'fpk_alice': its signature is not of this FAB by this key, "
                "'fpk_bob': its signature is not of this FAB by this key");
  EXPECT_EQ(Refusal("no JSON"),
            start + "the verification of 'fpk_alice' is not JSON of at most 4096 bytes");
  EXPECT_EQ(Refusal("no object"), start + "'fpk_alice': its verification is no JSON object");
  EXPECT_EQ(Refusal("no time"), start + "'fpk_alice': its signed_at is not a number of seconds");
  EXPECT_EQ(Refusal("no signature"), start + "'fpk_alice': it has no signature");
  EXPECT_EQ(Refusal("no base64"), start + "'fpk_alice': its signature is not base64url");
}

TEST(TrustedEntities, MuchIsRefused) {
  Verifications many = Case("good");
  for (int i = 0; i < 1000; ++i) many[fmt::format("fpk_{}", i)] = "{}";
  EXPECT_FALSE(Trusted().Verify(FabHash(), many).ok());
  Verifications large = Case("good");
  large["fpk_eve"] = "\"" + std::string(5000, 'x') + "\"";
  EXPECT_FALSE(Trusted().Verify(FabHash(), large).ok());
  large["fpk_eve"] = std::string(4096, '[');
  EXPECT_FALSE(Trusted().Verify(FabHash(), large).ok());
  Verifications strangers{{"valid_license", "x"}};
  for (int i = 0; i < 9; ++i) strangers[fmt::format("fpk_{}", i)] = "{}";
  EXPECT_TRUE(Trusted()
                  .Verify(FabHash(), strangers)
                  .error()
                  .message.ends_with("only 'fpk_0', 'fpk_1', 'fpk_2' and 6 more"));
}

TEST(TrustedEntities, FilesAreReadAsFlowerReadsThem) {
  for (const json& item : Vectors()["files"]) {
    const std::string text = item["text"];
    const auto entities = TrustedEntities::FromText(text, "t.yaml");
    if (item["entities"].is_null() || item.contains("stricter")) {
      EXPECT_FALSE(entities.ok()) << text;
    } else {
      ASSERT_TRUE(entities.ok()) << text << "\n" << entities.error().message;
      EXPECT_EQ(entities->size(), item["entities"].size()) << text;
    }
  }
}

TEST(TrustedEntities, ErrorsNameFileKeyAndRule) {
  const testing::TempDir dir;
  const std::string path = dir.path() + "/trusted.yaml";
  const auto error = [&](std::string_view text) {
    EXPECT_TRUE(WriteFileAtomic(path, text).ok());
    return TrustedEntities::FromFile(path).error().message;
  };
  const std::string start = "trusted entities '" + path + "': ";
  EXPECT_EQ(error("fpk_a: ssh-rsa AAAA\n"),
            start + "the key of 'fpk_a' is 'ssh-rsa', not \"ssh-ed25519 AAAA...\"");
  EXPECT_EQ(error("fpk_a: ssh-ed25519 x\n"),
            start + "the key of 'fpk_a' has 'x' where its base64 should be");
  EXPECT_EQ(error("fpk_a: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAA==\n"),
            start + "the key of 'fpk_a' is no 32-byte Ed25519 key inside");
  EXPECT_EQ(error("# none\n"), start + "it names nobody; leave the flag out if every FAB may run");
  EXPECT_EQ(error("\nfpk_a: [x]\n"), start + "line 2: '[' is where a text should be");
  EXPECT_EQ(TrustedEntities::FromFile("/nonexistent/x").error().message,
            "trusted entities: cannot open '/nonexistent/x': No such file or directory");
}

RC_GTEST_PROP(TrustedEntitiesProperty, NoChangedSignatureIsGood, ()) {
  json verification = json::parse(Case("good")["fpk_alice"]);
  std::string signature = verification["signature"];
  const size_t at = *rc::gen::inRange<size_t>(0, signature.size());
  const char c = *rc::gen::elementOf(std::string("ABCxyz019-_"));
  RC_PRE(signature[at] != c);
  signature[at] = c;
  verification["signature"] = signature;
  const Verifications changed{{"valid_license", "Valid"}, {"fpk_alice", verification.dump()}};
  RC_ASSERT(!Trusted().Verify(FabHash(), changed).ok());
}

TEST(AllowRules, EachRuleLetsInWhatItNames) {
  FabInfo fab;
  fab.fab_id = "umbel/toy";
  fab.version = "1.0.0";
  fab.hash = tensor::Sha256Of("fab");
  const std::string hash = fab.hash.Hex();
  const std::string other(64, '0');
  const auto refusal = [&](std::vector<std::string> hashes, std::vector<std::string> publishers) {
    const Status status = AllowRules::Parse(hashes, publishers).value().Allows(fab);
    if (status.ok()) return std::string("allowed");
    EXPECT_EQ(status.error().code, Code::kPermissionDenied);
    return status.error().message;
  };
  EXPECT_EQ(refusal({}, {}), "allowed");
  EXPECT_EQ(refusal({other, hash}, {}), "allowed");
  EXPECT_EQ(refusal({}, {"x", "umbel"}), "allowed");
  EXPECT_EQ(refusal({other}, {"umbel"}), "allowed");
  EXPECT_EQ(refusal({hash}, {"x"}), "allowed");
  const std::string start = "FAB 'umbel/toy' 1.0.0 (" + hash + ") may not run here: ";
  EXPECT_EQ(refusal({other}, {}), start + "--allow-fab does not name this hash");
  EXPECT_EQ(refusal({}, {"umbe", "umbel2", "Umbel"}),
            start + "--allow-publisher does not name 'umbel'");
  EXPECT_EQ(refusal({other}, {"x"}),
            start + "--allow-fab does not name this hash, --allow-publisher does not name 'umbel'");
}

TEST(AllowRules, BrokenRulesAreRefused) {
  const auto refused = [](std::vector<std::string> hashes, std::vector<std::string> publishers) {
    return !AllowRules::Parse(hashes, publishers).ok();
  };
  EXPECT_TRUE(refused({""}, {}));
  EXPECT_TRUE(refused({"0123abcd"}, {}));
  EXPECT_TRUE(refused({std::string(64, 'A')}, {}));
  EXPECT_TRUE(refused({}, {""}));
  EXPECT_TRUE(refused({}, {"umbel/toy"}));
}

}  // namespace
}  // namespace umbel::flower
