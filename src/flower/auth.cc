#include "flower/auth.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "flower/base64.h"
#include "flower/errors.h"
#include "tensor/quote.h"
#include "tensor/sha256.h"

namespace umbel::flower {
namespace {

using tensor::Quote;
using std::string_view_literals::operator""sv;

constexpr size_t kPemMax = 2048;       // a P-521 key is 268 bytes
constexpr size_t kSignatureMax = 256;  // a P-521 signature is at most 139 bytes
constexpr size_t kTimestampMax = 64;
constexpr size_t kNonceMax = 128;
constexpr size_t kNoncesMax = 500'000;  // 100 polls a second of 16 SuperExecs, and about 60 MB
constexpr auto kAhead = std::chrono::seconds(5);
constexpr auto kWindow = std::chrono::seconds(305);

struct Curve {
  std::string_view name;
  const char* group;
  size_t point_bytes;    // of one coordinate
  std::string_view oid;  // DER
};
constexpr std::array kCurves{
    Curve{"P-192", "prime192v1", 24, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x01"sv},
    Curve{"P-224", "secp224r1", 28, "\x06\x05\x2b\x81\x04\x00\x21"sv},
    Curve{"P-256", "prime256v1", 32, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"sv},
    Curve{"P-384", "secp384r1", 48, "\x06\x05\x2b\x81\x04\x00\x22"sv},
    Curve{"P-521", "secp521r1", 66, "\x06\x05\x2b\x81\x04\x00\x23"sv},
};
constexpr std::string_view kEcOid = "\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"sv;  // id-ecPublicKey

std::optional<std::string> PemBody(std::string_view pem) {
  constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----";
  constexpr std::string_view kEnd = "-----END PUBLIC KEY-----";
  if (pem.size() > kPemMax || !pem.starts_with(kBegin)) return std::nullopt;
  const size_t end = pem.find(kEnd);
  if (end == std::string_view::npos) return std::nullopt;
  constexpr std::string_view kSpace = " \t\r\n";
  if (pem.find_first_not_of(kSpace, end + kEnd.size()) != std::string_view::npos)
    return std::nullopt;
  std::string base64;
  for (const char c : pem.substr(kBegin.size(), end - kBegin.size()))
    if (kSpace.find(c) == std::string_view::npos) base64.push_back(c);
  return Base64Decode(base64);
}

/// Takes one DER element with this tag off the front and returns its content. Definite lengths
/// below 256 are enough for every key we accept.
std::optional<std::string_view> TakeDer(std::string_view& der, char tag) {
  if (der.size() < 2 || der[0] != tag) return std::nullopt;
  size_t length = static_cast<uint8_t>(der[1]);
  size_t header = 2;
  if (length == 0x81 && der.size() > 2 && static_cast<uint8_t>(der[2]) >= 0x80) {
    length = static_cast<uint8_t>(der[2]);
    header = 3;
  } else if (length >= 0x80) {
    return std::nullopt;
  }
  if (der.size() - header < length) return std::nullopt;
  const std::string_view content = der.substr(header, length);
  der.remove_prefix(header + length);
  return content;
}

struct Point {
  const Curve* curve;
  std::string_view bytes;  // uncompressed or compressed
};

/// SEQUENCE { SEQUENCE { id-ecPublicKey, curve }, BIT STRING point }. By hand, because OpenSSL's
/// decoders also take explicit parameters and a dozen other formats.
std::optional<Point> ReadSpki(std::string_view der) {
  const auto outer = TakeDer(der, '\x30');
  if (!outer || !der.empty()) return std::nullopt;
  std::string_view rest = *outer;
  const auto algorithm = TakeDer(rest, '\x30');
  const auto bits = TakeDer(rest, '\x03');
  if (!algorithm || !bits || !rest.empty() || !algorithm->starts_with(kEcOid) || bits->empty() ||
      bits->front() != '\0')
    return std::nullopt;
  const std::string_view oid = algorithm->substr(kEcOid.size());
  const auto* curve = std::find_if(kCurves.begin(), kCurves.end(),
                                   [&](const Curve& candidate) { return candidate.oid == oid; });
  if (curve == kCurves.end()) return std::nullopt;
  const std::string_view point = bits->substr(1);
  if (point.empty()) return std::nullopt;
  const bool whole = point[0] == '\x04' && point.size() == 1 + 2 * curve->point_bytes;
  const bool compressed =
      (point[0] == '\x02' || point[0] == '\x03') && point.size() == 1 + curve->point_bytes;
  if (!whole && !compressed) return std::nullopt;
  return Point{curve, point};
}

/// nullptr if the point is not on the curve.
std::shared_ptr<EVP_PKEY> MakeKey(const Point& point) {
  const std::unique_ptr<EVP_PKEY_CTX, void (*)(EVP_PKEY_CTX*)> context(
      EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr), EVP_PKEY_CTX_free);
  UMBEL_CHECK(context != nullptr && EVP_PKEY_fromdata_init(context.get()) == 1);
  // OpenSSL wants them mutable, but only reads.
  std::string group = point.curve->group;
  std::string bytes(point.bytes);
  std::array<OSSL_PARAM, 3> params{
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, bytes.data(), bytes.size()),
      OSSL_PARAM_construct_end()};
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.data()) != 1)
    return nullptr;
  return {key, EVP_PKEY_free};
}

/// Fetched once: OpenSSL 3 otherwise searches its providers for each signature.
const EVP_MD* Sha256Algorithm() {
  static const EVP_MD* const kAlgorithm = [] {
    const EVP_MD* md = EVP_MD_fetch(nullptr, "SHA2-256", nullptr);
    UMBEL_CHECK(md != nullptr);
    return md;
  }();
  return kAlgorithm;
}

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

tl::unexpected<Error> NodeRefused(std::string message) {
  return Fail(Code::kUnauthenticated, "SuperNode authentication: " + std::move(message));
}

tl::unexpected<Error> ExecRefused(std::string message) {
  return Fail(Code::kUnauthenticated, "SuperExec authentication: " + std::move(message),
              wire::kRuntimeAuth);
}

bool InWindow(WallTime timestamp, WallTime now) {
  const auto age = now - timestamp;
  return -kAhead < age && age < kWindow;
}

std::string HmacSha256(std::string_view key, std::string_view message) {
  std::string mac(32, '\0');
  UMBEL_CHECK(HMAC(Sha256Algorithm(), key.data(), static_cast<int>(key.size()), Bytes(message),
                   message.size(), reinterpret_cast<unsigned char*>(mac.data()),
                   nullptr) != nullptr);
  return mac;
}

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

Result<NodeKey> NodeKey::FromPem(std::string_view pem) {
  const auto invalid = [&](std::string_view rule) {
    return Fail(Code::kInvalidArgument, fmt::format("public key {} {}", Quote(pem, 40), rule),
                wire::kPublicKeyNotValid);
  };
  const auto der = PemBody(pem);
  if (!der) return invalid("is not PEM of a public key");
  const auto point = ReadSpki(*der);
  if (!point) return invalid("is not on a named NIST curve P-192 to P-521");
  auto key = MakeKey(*point);
  ERR_clear_error();
  if (key == nullptr) return invalid("is not a point of its curve");
  return NodeKey(std::move(key), point->curve->name);
}

bool NodeKey::Verify(std::string_view message, std::string_view der_signature) const {
  thread_local const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> kContext(EVP_MD_CTX_new(),
                                                                                 EVP_MD_CTX_free);
  UMBEL_CHECK(kContext != nullptr);
  const bool good =
      EVP_DigestVerifyInit(kContext.get(), nullptr, Sha256Algorithm(), nullptr, key_.get()) == 1 &&
      EVP_DigestVerify(kContext.get(), Bytes(der_signature), der_signature.size(), Bytes(message),
                       message.size()) == 1;
  EVP_MD_CTX_reset(kContext.get());
  // What failed here must not look like a failure of the TLS connection this thread serves next.
  ERR_clear_error();
  return good;
}

std::string NodeKey::curve() const { return std::string(curve_); }

Result<NodeCredentials> DecodeNodeHeaders(std::string_view public_key_b64,
                                          std::string_view timestamp,
                                          std::string_view signature_b64) {
  if (public_key_b64.empty() || public_key_b64.size() > kPemMax / 3 * 4)
    return NodeRefused(
        fmt::format("flwr-public-key of {} bytes is empty or too long", public_key_b64.size()));
  if (timestamp.empty() || timestamp.size() > kTimestampMax)
    return NodeRefused(
        fmt::format("flwr-timestamp of {} bytes is empty or too long", timestamp.size()));
  if (signature_b64.empty() || signature_b64.size() > kSignatureMax / 3 * 4)
    return NodeRefused(
        fmt::format("flwr-signature of {} bytes is empty or too long", signature_b64.size()));
  auto key = Base64Decode(public_key_b64);
  if (!key)
    return NodeRefused(fmt::format("flwr-public-key {} is not base64", Quote(public_key_b64)));
  auto signature = Base64Decode(signature_b64);
  if (!signature)
    return NodeRefused(fmt::format("flwr-signature {} is not base64", Quote(signature_b64)));
  return NodeCredentials{*std::move(key), std::string(timestamp), *std::move(signature)};
}

Status CheckTimestamp(std::string_view iso, WallTime now) {
  const auto timestamp = ParseIso(iso);
  if (!timestamp.has_value())
    return NodeRefused(
        fmt::format("flwr-timestamp {} is not an ISO time with an offset", Quote(iso)));
  if (!InWindow(*timestamp, now))
    return NodeRefused(fmt::format("flwr-timestamp {} is {:.1f} s old, not in (-5, 305)",
                                   Quote(iso), UnixSeconds(now) - UnixSeconds(*timestamp)));
  return {};
}

SuperExecAuth::SuperExecAuth(std::string secret_bytes) {
  UMBEL_CHECK(!secret_bytes.empty());
  key_ = HmacSha256(secret_bytes, "superexec-auth-v1");
  OPENSSL_cleanse(secret_bytes.data(), secret_bytes.size());
}

Status SuperExecAuth::Check(std::string_view method, std::string_view timestamp,
                            std::string_view nonce, std::string_view body_sha256,
                            std::string_view signature, std::string_view body, WallTime now) {
  int64_t seconds = 0;
  // Twelve digits: no sum below can overflow.
  const bool number =
      !timestamp.empty() && timestamp.size() <= 12 &&
      std::all_of(timestamp.begin(), timestamp.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (number) std::from_chars(timestamp.data(), timestamp.data() + timestamp.size(), seconds);
  if (!number || !InWindow(WallTime(std::chrono::seconds(seconds)), now))
    return ExecRefused(
        fmt::format("flwr-superexec-ts {} is not a time in the last 305 s", Quote(timestamp)));
  if (nonce.empty() || nonce.size() > kNonceMax ||
      !std::all_of(nonce.begin(), nonce.end(), [](char c) { return c > 0x20 && c < 0x7f; }))
    return ExecRefused(fmt::format("flwr-superexec-nonce {} is not 1 to {} plain characters",
                                   Quote(nonce), kNonceMax));
  const std::string body_hash = tensor::Sha256Of(body).Hex();
  if (body_sha256 != body_hash)
    return ExecRefused(
        fmt::format("flwr-superexec-body-sha256 {} is not the body's", Quote(body_sha256)));
  const std::string expected =
      HexEncode(HmacSha256(key_, fmt::format("method={}\nts={}\nnonce={}\nbody_sha256={}", method,
                                             seconds, nonce, body_hash)));
  if (!EqualInConstantTime(expected, signature))
    return ExecRefused("flwr-superexec-signature is wrong");
  // Last, so that only holders of the secret make us remember anything.
  return Reserve(tensor::Sha256Of(fmt::format("{}\n{}", method, nonce)), seconds, now);
}

Status SuperExecAuth::Reserve(const Digest& use, int64_t timestamp, WallTime now) {
  const int64_t oldest =
      std::chrono::floor<std::chrono::seconds>(now - kWindow).time_since_epoch().count();
  std::lock_guard lock(mutex_);
  while (!by_time_.empty() && by_time_.begin()->first < oldest) {
    for (const Digest& old : by_time_.begin()->second) used_.erase(old);
    by_time_.erase(by_time_.begin());
  }
  if (used_.contains(use)) return ExecRefused("flwr-superexec-nonce was used before");
  if (used_.size() >= kNoncesMax)
    return Fail(
        Code::kUnavailable,
        fmt::format("SuperExec authentication: {} nonces in 305 s are too many", kNoncesMax));
  used_.insert(use);
  by_time_[timestamp].push_back(use);
  return {};
}

size_t SuperExecAuth::remembered() const {
  std::lock_guard lock(mutex_);
  return used_.size();
}

}  // namespace umbel::flower
