#include "flower/node_signer.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>

#include "base/file.h"
#include "flower/auth.h"
#include "flower/base64.h"
#include "flower/ssh_key.h"

namespace umbel::flower {
namespace {

using Key = std::shared_ptr<EVP_PKEY>;

constexpr size_t kFileMax = size_t{64} << 10;

template <auto function>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    function(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Deleter<EVP_PKEY_CTX_free>>;

struct WipedText {
  std::string text;
  ~WipedText() { OPENSSL_cleanse(text.data(), text.size()); }
};

const char* GroupOf(std::string_view ssh_curve) {
  if (ssh_curve == "nistp256") return "prime256v1";
  return ssh_curve == "nistp384" ? "secp384r1" : "secp521r1";
}

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

tl::unexpected<Error> Bad(std::string_view name, std::string_view rule) {
  return Fail(Code::kInvalidArgument, fmt::format("private key '{}' {}", name, rule));
}

/// nullptr if point and scalar do not make a key.
Key FromSsh(const SshEcKey& parts) {
  const std::unique_ptr<BIGNUM, Deleter<BN_clear_free>> scalar(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(parts.scalar.data()),
                static_cast<int>(parts.scalar.size()), nullptr));
  const std::unique_ptr<OSSL_PARAM_BLD, Deleter<OSSL_PARAM_BLD_free>> builder(OSSL_PARAM_BLD_new());
  UMBEL_CHECK(scalar != nullptr && builder != nullptr &&
              OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME,
                                              GroupOf(parts.curve), 0) == 1 &&
              OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY,
                                               parts.point.data(), parts.point.size()) == 1 &&
              OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_PRIV_KEY, scalar.get()) == 1);
  const std::unique_ptr<OSSL_PARAM, Deleter<OSSL_PARAM_free>> params(
      OSSL_PARAM_BLD_to_param(builder.get()));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  UMBEL_CHECK(params != nullptr && context != nullptr &&
              EVP_PKEY_fromdata_init(context.get()) == 1);
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_KEYPAIR, params.get()) != 1) return nullptr;
  return {key, EVP_PKEY_free};
}

/// Never a passphrase, and no question on the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return -1; }

/// nullptr if there is none in the text that can be read.
Key FromPem(std::string_view text) {
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  UMBEL_CHECK(bio != nullptr);
  return {PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr), EVP_PKEY_free};
}

Result<Key> ReadKey(std::string_view text, std::string_view name) {
  if (IsSshPrivateKey(text)) {
    const auto parts = ReadSshPrivateKey(text);
    if (!parts.ok()) return Bad(name, parts.error().message);
    return FromSsh(*parts);
  }
  // "BEGIN ENCRYPTED PRIVATE KEY", or "Proc-Type: 4,ENCRYPTED" of older files.
  if (text.find("ENCRYPTED") != text.npos)
    return Bad(name,
               "is encrypted, and nobody is there to type a passphrase; make a copy without one: "
               "openssl pkey -in FILE -out COPY");
  if (text.find("PRIVATE KEY-----") == text.npos)
    return Bad(name, text.find("PUBLIC KEY-----") != text.npos || text.starts_with("ecdsa-sha2-")
                         ? "is a public key; the private one beside it is needed"
                         : "holds no private key in OpenSSH or PEM form");
  return FromPem(text);
}

/// Point and scalar fit each other, and the curve.
bool Consistent(EVP_PKEY* key) {
  const KeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
  UMBEL_CHECK(context != nullptr);
  return EVP_PKEY_check(context.get()) == 1;
}

std::string PublicPemOf(EVP_PKEY* key) {
  // Flower writes the whole point, and a node is known by these bytes.
  UMBEL_CHECK(EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                             "uncompressed") == 1);
  const Bio bio(BIO_new(BIO_s_mem()));
  UMBEL_CHECK(bio != nullptr && PEM_write_bio_PUBKEY(bio.get(), key) == 1);
  return Text(bio.get());
}

std::string Line(std::string_view name, std::string_view value) {
  return fmt::format("{}: {}\r\n", name, value);
}

}  // namespace

NodeSigner::NodeSigner(Key key, std::string public_pem)
    : key_(std::move(key)),
      public_pem_(std::move(public_pem)),
      public_base64_(Base64Encode(public_pem_)) {}

NodeSigner NodeSigner::Generate(NodeCurve curve) {
  const char* group = curve == NodeCurve::kP256   ? "prime256v1"
                      : curve == NodeCurve::kP384 ? "secp384r1"
                                                  : "secp521r1";
  Key key(EVP_EC_gen(group), EVP_PKEY_free);
  UMBEL_CHECK(key != nullptr);
  std::string public_pem = PublicPemOf(key.get());
  return {std::move(key), std::move(public_pem)};
}

Result<NodeSigner> NodeSigner::FromFile(const std::string& path) {
  auto text = ReadFile(path, kFileMax);
  if (!text.ok()) return Fail(text.error().code, "private key: " + text.error().message);
  const WipedText wiped{*std::move(text)};
  return FromText(wiped.text, path);
}

Result<NodeSigner> NodeSigner::FromText(std::string_view text, std::string_view name) {
  if (text.size() > kFileMax)
    return Bad(name, fmt::format("has {} bytes, more than {}", text.size(), kFileMax));
  auto key = ReadKey(text, name);
  // What failed must not look like a failure of the TLS connection this thread serves next.
  ERR_clear_error();
  if (!key.ok()) return Fail(std::move(key).error());
  if (*key == nullptr) return Bad(name, "is broken: its parts do not make a key");
  if (EVP_PKEY_is_a(key->get(), "EC") != 1)
    return Bad(name, fmt::format("is of type {}; a SuperNode needs an ECDSA key: ssh-keygen -t "
                                 "ecdsa -b 256 -N '' -f FILE",
                                 EVP_PKEY_get0_type_name(key->get())));
  const bool consistent = Consistent(key->get());
  ERR_clear_error();
  if (!consistent) return Bad(name, "is broken: its public part is not that of its private part");
  std::string public_pem = PublicPemOf(key->get());
  // The same eyes that SuperLinks look with.
  if (!NodeKey::FromPem(public_pem).ok())
    return Bad(name, "is not on a named NIST curve, which SuperLinks ask for");
  return NodeSigner(*std::move(key), std::move(public_pem));
}

std::string NodeSigner::ToPem() const {
  const Bio bio(BIO_new(BIO_s_secmem()));
  UMBEL_CHECK(bio != nullptr && PEM_write_bio_PKCS8PrivateKey(bio.get(), key_.get(), nullptr,
                                                              nullptr, 0, nullptr, nullptr) == 1);
  return Text(bio.get());
}

std::string NodeSigner::Sign(std::string_view message) const {
  const std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
  size_t size = 0;
  UMBEL_CHECK(context != nullptr &&
              EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) == 1 &&
              EVP_DigestSign(context.get(), nullptr, &size, bytes, message.size()) == 1);
  std::string signature(size, '\0');
  UMBEL_CHECK(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()),
                             &size, bytes, message.size()) == 1);
  signature.resize(size);
  return signature;
}

std::string NodeSigner::Headers(WallTime now) const {
  const std::string timestamp = IsoFormat(now);
  return Line("flwr-public-key", public_base64_) + Line("flwr-timestamp", timestamp) +
         Line("flwr-signature", Base64Encode(Sign(timestamp)));
}

}  // namespace umbel::flower
