#include "flower/auth.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <thread>

#include "flower/errors.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string Unhex(std::string_view hex) { return HexDecode(hex).value(); }

/// Keys and signatures that flwr 1.41's own primitives made, over kSigned.
constexpr std::string_view kSigned = "2026-11-22T02:06:59.298173+00:00";
struct Peer {
  std::string_view curve, pem, signature;
};
const Peer kPeers[] = {
    {"P-192",
     "-----BEGIN PUBLIC KEY-----\n"
     "MEkwEwYHKoZIzj0CAQYIKoZIzj0DAQEDMgAEsYnYptsr+OD3Erxw/7mtTNPIvyOM\n"
     "cQJwbpTifd2+QqhlVR1iomQQDpjQ4sYdwCJ/\n"
     "-----END PUBLIC KEY-----\n",
     "303402186c58e8e305368eb8ef5c70d44caf1432854396c99208fe63021805c3b2a6b55c9a506b2d368a0a64aa10"
     "d7d9bcd6707fbf20"},
    {"P-224",
     "-----BEGIN PUBLIC KEY-----\n"
     "ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEsl+jMKWl/hnTRChe3zKFL/ltyBJvz6BU\n"
     "mW5SGOxCKmRJO/dksS4aODoTwzu3n4jM02aDaWi4NO8=\n"
     "-----END PUBLIC KEY-----\n",
     "303d021c7d118928a8edf0c333eee633c2979ed96a6b2e446e862e01062d0ce4021d0082b3745628f86290163028"
     "b119184cfbec2cd3629e8733dd11873365"},
    {"P-256",
     "-----BEGIN PUBLIC KEY-----\n"
     "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKlgkxf91KA0aqNBkFaHcet0coMXF\n"
     "Pvf8ImuWxofPowF2PuVNHvElGxL/fbSzDOc07Hk4DFz3GZto3hPDii+YDw==\n"
     "-----END PUBLIC KEY-----\n",
     "3044022017eae87e809163d560770d7f9445f0aa5c25054628a6fba3d4c9654eae53e9610220430c0eabe5e9dd96"
     "8c8e6d4abc112352056c64a043a92042bed31730ded7844f"},
    {"P-384",
     "-----BEGIN PUBLIC KEY-----\n"
     "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEvU0ZRa1LiYDmxKdYiif9+IPKRhVB32TC\n"
     "BSMZOYLtL9WuigRRBIIh/2/I82cR42NBfk2HRO1NCMmXTn62PnYayudjr8mEdUqH\n"
     "7gHWkk4qT54rqYxLq0l823PNA6ePVQ5K\n"
     "-----END PUBLIC KEY-----\n",
     "306502300cd782588b5f2fdbeb5d7f522225c2b797f171f8130e9bbbe589373e56c944a362cef9c8150ba7ce212d"
     "0ec5f8ce645e023100c796cf4ddcde76bc7db98e4dc6d390b50d458cb460799b2809a3b6b3166ae3b235657aeea8"
     "307a724071c0a6b8ecd159"},
    {"P-521",
     "-----BEGIN PUBLIC KEY-----\n"
     "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBjB8VO3CMAbUIK98Rzrr3Uvu+Ke+/\n"
     "AbIRIU/1MM6XMvtxc/Od897K6QJ9r+mJcPevS72rmrxBffbvFDq54vh4en8BCuYK\n"
     "XFsfP+nAemx3ba+3Ub0+Y9AqsoEN7JRwzl+TtNW+9q8i7vxs0gwC5ZkX48Qprik/\n"
     "a1sO0Gi9KCWJu9OniNY=\n"
     "-----END PUBLIC KEY-----\n",
     "3081880242019933064fa61ad65ad4ea1ff0f451bc2a308b0fca618bc11c60c9b2baf66d6008a226f0525e67fee0"
     "6697a4906fee498d66659215998b02e2794ede91bf96f9f13f0242008a9c648b8215d81af5b36a2f8b86f0089757"
     "b093122b9ec513d298339d9a62a1e48b310087af6ad15c4ad16afd051b3a1b4471f98d536274c88df64957e78090"
     "13"},
};

TEST(NodeKey, SignaturesOfFlwrVerifyOnEveryCurve) {
  for (const Peer& peer : kPeers) {
    const auto key = NodeKey::FromPem(peer.pem);
    ASSERT_TRUE(key.ok()) << peer.curve << ": " << key.error().message;
    EXPECT_EQ(key->curve(), peer.curve);
    std::string signature = Unhex(peer.signature);
    EXPECT_TRUE(key->Verify(kSigned, signature));
    EXPECT_FALSE(key->Verify("2026-11-22T02:06:59.298174+00:00", signature));
    EXPECT_FALSE(key->Verify(kSigned, ""));
    EXPECT_FALSE(key->Verify(kSigned, signature + "x"));
    signature.back() = static_cast<char>(signature.back() ^ 1);
    EXPECT_FALSE(key->Verify(kSigned, signature));
    for (const Peer& other : kPeers)
      EXPECT_EQ(key->Verify(kSigned, Unhex(other.signature)), other.curve == peer.curve);
  }
}

TEST(NodeKey, ACompressedPointIsTheSameKey) {
  // DER made by hand around the point that Python printed for the P-256 key above.
  const auto key = NodeKey::FromPem(
      "-----BEGIN PUBLIC KEY-----\n"
      "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADKlgkxf91KA0aqNBkFaHcet0coMXFPvf8ImuWxofPowE=\n"
      "-----END PUBLIC KEY-----");
  ASSERT_TRUE(key.ok()) << key.error().message;
  EXPECT_TRUE(key->Verify(kSigned, Unhex(kPeers[2].signature)));
}

TEST(NodeKey, ManyThreadsVerifyWithOneKey) {
  const NodeKey key = NodeKey::FromPem(kPeers[2].pem).value();
  std::vector<std::jthread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([copy = key] {
      const std::string signature = Unhex(kPeers[2].signature);
      for (int k = 0; k < 20; ++k) ASSERT_TRUE(copy.Verify(kSigned, signature));
    });
}

TEST(NodeKey, OtherKeysAreRefused) {
  const std::string pem(kPeers[2].pem);
  std::string off_curve = pem;
  off_curve.replace(off_curve.find("Dw=="), 4, "Dg==");
  const std::string secp256k1 =
      "-----BEGIN PUBLIC KEY-----\n"
      "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEo2A1V8WqinA+Cc+JNakKCpD5OS+jUasF\n"
      "i+VqyZ4G3YXYkuMIXMjkqBOjH4puoe0P9+X68ncDt4auOYfyoGM2JA==\n"
      "-----END PUBLIC KEY-----\n";
  const std::string ed25519 =
      "-----BEGIN PUBLIC KEY-----\n"
      "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
      "-----END PUBLIC KEY-----\n";
  std::string cut = pem;
  cut.erase(60, 4);
  for (const std::string& bad :
       {std::string(), std::string("x"), off_curve, secp256k1, ed25519, cut, "junk" + pem,
        pem + "junk", pem + pem, pem.substr(0, pem.size() - 30), std::string(5000, 'A'),
        "-----BEGIN EC PRIVATE KEY-----" + pem.substr(26)}) {
    const auto key = NodeKey::FromPem(bad);
    ASSERT_FALSE(key.ok()) << bad;
    EXPECT_EQ(key.error().code, Code::kInvalidArgument);
    EXPECT_EQ(key.error().wire_code, wire::kPublicKeyNotValid);
  }
}

RC_GTEST_PROP(NodeKeyProperty, MutatedPemIsRefusedOrAKey, ()) {
  std::string pem(kPeers[*rc::gen::inRange<size_t>(0, 5)].pem);
  for (int i = *rc::gen::inRange(1, 4); i > 0; --i)
    pem[*rc::gen::inRange<size_t>(0, pem.size())] = *rc::gen::arbitrary<char>();
  const auto key = NodeKey::FromPem(pem);
  if (key.ok()) key->Verify(kSigned, Unhex(kPeers[0].signature));
}

TEST(NodeHeaders, AreDecoded) {
  const auto credentials = DecodeNodeHeaders("YWJj", "2026", "AP8=");
  ASSERT_TRUE(credentials.ok());
  EXPECT_EQ(credentials->public_key_pem, "abc");
  EXPECT_EQ(credentials->timestamp, "2026");
  EXPECT_EQ(credentials->signature, std::string("\0\xff", 2));
}

TEST(NodeHeaders, WrongOnesAreRefused) {
  const std::string many(4096, 'A');
  for (const auto& [key, timestamp, signature] :
       std::vector<std::array<std::string, 3>>{{"", "t", "AAAA"},
                                               {"AAAA", "", "AAAA"},
                                               {"AAAA", "t", ""},
                                               {many, "t", "AAAA"},
                                               {"AAAA", many, "AAAA"},
                                               {"AAAA", "t", many},
                                               {"AAA", "t", "AAAA"},
                                               {"AA-_", "t", "AAAA"},
                                               {"AAAA", "t", "AA A"},
                                               {"AAAA", "t", "A==="},
                                               {"AAAA", "t", "AB=="},
                                               {"AAAA", "t", "AA=A"},
                                               {"====", "t", "AAAA"}}) {
    const auto credentials = DecodeNodeHeaders(key, timestamp, signature);
    ASSERT_FALSE(credentials.ok()) << key << " " << timestamp << " " << signature;
    EXPECT_EQ(credentials.error().code, Code::kUnauthenticated);
    EXPECT_EQ(credentials.error().wire_code, 0);
  }
}

TEST(Timestamp, TheWindowIsOpenOnBothSides) {
  const WallTime now(seconds(1'800'000'000));
  const auto at = [&](auto age) { return CheckTimestamp(IsoFormat(now - age), now).ok(); };
  EXPECT_TRUE(at(seconds(0)));
  EXPECT_TRUE(at(milliseconds(304'999)));
  EXPECT_FALSE(at(seconds(305)));
  EXPECT_TRUE(at(milliseconds(-4'999)));
  EXPECT_FALSE(at(seconds(-5)));
  EXPECT_FALSE(CheckTimestamp("", now).ok());
  EXPECT_FALSE(CheckTimestamp("2027-01-15T08:00:00", now).ok());
  EXPECT_TRUE(CheckTimestamp("2027-01-15T09:00:00+01:00", now).ok());
  EXPECT_FALSE(CheckTimestamp("9999-12-31T23:59:59.999999+00:00", now).ok());
  EXPECT_FALSE(CheckTimestamp("0000-01-01T00:00:00+23:59", now).ok());
}

/// One request as flwr 1.41 signs it with the secret "correct horse\n".
struct Request {
  std::string method = "/flwr.proto.Runtime/AcquireTask";
  std::string timestamp = "1800000000";
  std::string nonce = "00112233445566778899aabbccddeeff";
  std::string body_sha256 = "fb980f48bf60a5d0f08429e91432dabfd066d69a2db28b2efc446cec34ee9ce1";
  std::string signature = "9661507bb7192df852f5c88222e780989afe8e98e294be29ebca6b2056ab4607";
  std::string body = Unhex("0a0e666c77722d736572766572617070");

  Status CheckWith(SuperExecAuth& auth, WallTime now = WallTime(seconds(1'800'000'000))) const {
    return auth.Check(method, timestamp, nonce, body_sha256, signature, body, now);
  }
};

TEST(SuperExecAuth, AcceptsFlwrOnce) {
  SuperExecAuth auth("correct horse\n");
  const Request request;
  const Status first = request.CheckWith(auth);
  ASSERT_TRUE(first.ok()) << first.error().message;
  const Status again = request.CheckWith(auth);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().message,
            "SuperExec authentication: flwr-superexec-nonce was used before");
  EXPECT_EQ(again.error().wire_code, wire::kRuntimeAuth);
}

TEST(SuperExecAuth, RefusesEveryWrongField) {
  const auto refused = [](auto change) {
    SuperExecAuth auth("correct horse\n");
    Request request;
    change(request);
    const Status status = request.CheckWith(auth);
    EXPECT_EQ(auth.remembered(), 0U);
    return !status.ok() && status.error().code == Code::kUnauthenticated &&
           status.error().wire_code == wire::kRuntimeAuth;
  };
  EXPECT_TRUE(refused([](Request& r) { r.method = "/flwr.proto.Runtime/PullMessages"; }));
  EXPECT_TRUE(refused([](Request& r) { r.timestamp = "1800000001"; }));
  EXPECT_TRUE(refused([](Request& r) { r.timestamp = ""; }));
  EXPECT_TRUE(refused([](Request& r) { r.timestamp = "+1800000000"; }));
  EXPECT_TRUE(refused([](Request& r) { r.timestamp = "999999999999"; }));
  EXPECT_TRUE(refused([](Request& r) { r.timestamp = std::string(100, '9'); }));
  EXPECT_TRUE(refused([](Request& r) { r.nonce = "00112233445566778899aabbccddeefe"; }));
  EXPECT_TRUE(refused([](Request& r) { r.nonce = ""; }));
  EXPECT_TRUE(refused([](Request& r) { r.nonce += "\n"; }));
  EXPECT_TRUE(refused([](Request& r) { r.nonce = std::string(129, 'a'); }));
  EXPECT_TRUE(refused([](Request& r) { r.body_sha256[0] = 'a'; }));
  EXPECT_TRUE(refused([](Request& r) { r.body += "x"; }));
  EXPECT_TRUE(refused([](Request& r) { r.signature[63] = '8'; }));
  EXPECT_TRUE(refused([](Request& r) { r.signature.pop_back(); }));
  EXPECT_TRUE(refused([](Request& r) { r.signature = ""; }));
  SuperExecAuth other("correct horse");
  EXPECT_FALSE(Request().CheckWith(other).ok());
}

TEST(SuperExecAuth, TheWindowIsOpenOnBothSides) {
  const Request request;
  const auto at = [&](int64_t age_ms) {
    SuperExecAuth auth("correct horse\n");
    return request.CheckWith(auth, WallTime(seconds(1'800'000'000)) + milliseconds(age_ms)).ok();
  };
  EXPECT_TRUE(at(304'999));
  EXPECT_FALSE(at(305'000));
  EXPECT_TRUE(at(-4'999));
  EXPECT_FALSE(at(-5'000));
}

TEST(SuperExecAuth, ANonceIsRememberedAsLongAsItsRequestIsFresh) {
  for (const int64_t age_ms : {-4'999, 0, 1, 304'000, 304'999}) {
    SuperExecAuth auth("correct horse\n");
    const Request request;
    const WallTime start(seconds(1'800'000'000));
    ASSERT_TRUE(request.CheckWith(auth, start - milliseconds(4'999)).ok());
    EXPECT_FALSE(request.CheckWith(auth, start + milliseconds(age_ms)).ok()) << age_ms;
  }
}

TEST(SuperExecAuth, OldNoncesAreForgotten) {
  SuperExecAuth auth("correct horse\n");
  Request request;
  ASSERT_TRUE(request.CheckWith(auth).ok());
  EXPECT_EQ(auth.remembered(), 1U);
  request.timestamp = "1800000306";
  request.nonce = "n2";
  request.signature = "fd7540a2205b7be6e2cc4f7953dd5eb81be3d813afd357fd7b54261633c87f6b";
  ASSERT_TRUE(request.CheckWith(auth, WallTime(seconds(1'800'000'306))).ok());
  EXPECT_EQ(auth.remembered(), 1U);
}

}  // namespace
}  // namespace umbel::flower
