#include "identity.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <ctime>

namespace umbel::bench {
namespace {

using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

const unsigned char* Bytes(const std::string& text) {
  return static_cast<const unsigned char*>(static_cast<const void*>(text.data()));
}

std::string Base64(const std::string& bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(static_cast<unsigned char*>(static_cast<void*>(out.data())),
                                   Bytes(bytes), static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(size));
  return out;
}

}  // namespace

void Identity::Free::operator()(void* key) const { EVP_PKEY_free(static_cast<EVP_PKEY*>(key)); }

Identity::Identity() {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  UMBEL_CHECK(key != nullptr);
  key_.reset(key);
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
  UMBEL_CHECK(PEM_write_bio_PUBKEY(out.get(), key) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  pem_.assign(data, static_cast<size_t>(size));
  pem_base64_ = Base64(pem_);
}

std::string Identity::Sign(const std::string& text) const {
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(80, '\0');
  size_t size = signature.size();
  UMBEL_CHECK(EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr,
                                 static_cast<EVP_PKEY*>(key_.get())) == 1);
  UMBEL_CHECK(EVP_DigestSign(context.get(),
                             static_cast<unsigned char*>(static_cast<void*>(signature.data())),
                             &size, Bytes(text), text.size()) == 1);
  signature.resize(size);
  return signature;
}

bool Identity::Verify(const std::string& text, const std::string& signature) const {
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  return EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr,
                              static_cast<EVP_PKEY*>(key_.get())) == 1 &&
         EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(text),
                          text.size()) == 1;
}

std::string Identity::SignedHeaders() const {
  const std::string timestamp = IsoFormat(SystemClock().Now());
  return fmt::format("flwr-public-key: {}\r\nflwr-timestamp: {}\r\nflwr-signature: {}\r\n",
                     pem_base64_, timestamp, Base64(Sign(timestamp)));
}

double SecondsPerVerification() {
  constexpr int kChecks = 2000;
  const Identity identity;
  const std::string text = IsoFormat(SystemClock().Now());
  const std::string signature = identity.Sign(text);
  // Of the processor, not of the clock: others use it too.
  const std::clock_t begin = std::clock();
  for (int i = 0; i < kChecks; ++i) UMBEL_CHECK(identity.Verify(text, signature));
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / kChecks;
}

}  // namespace umbel::bench
