#include "tensor/sha256.h"

#include <openssl/evp.h>

#include "base/result.h"

namespace umbel::tensor {
namespace {

/// Fetched once: OpenSSL 3 otherwise searches its providers at every start of a digest.
const EVP_MD* Algorithm() {
  static const EVP_MD* const kAlgorithm = [] {
    const EVP_MD* md = EVP_MD_fetch(nullptr, "SHA2-256", nullptr);
    UMBEL_CHECK(md != nullptr);
    return md;
  }();
  return kAlgorithm;
}

EVP_MD_CTX* Context(void* opaque) { return static_cast<EVP_MD_CTX*>(opaque); }

}  // namespace

void Sha256::Free::operator()(void* context) const { EVP_MD_CTX_free(Context(context)); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  UMBEL_CHECK(context_ != nullptr);
  Reset();
}

void Sha256::Reset() {
  UMBEL_CHECK(EVP_DigestInit_ex2(Context(context_.get()), Algorithm(), nullptr) == 1);
}

void Sha256::Update(std::span<const char> bytes) {
  UMBEL_CHECK(EVP_DigestUpdate(Context(context_.get()), bytes.data(), bytes.size()) == 1);
}

Digest Sha256::Finish() {
  Digest digest;
  UMBEL_CHECK(EVP_DigestFinal_ex(Context(context_.get()), digest.bytes.data(), nullptr) == 1);
  Reset();
  return digest;
}

Digest Sha256Of(std::string_view bytes) {
  thread_local Sha256 hasher;
  hasher.Update(bytes);
  return hasher.Finish();
}

}  // namespace umbel::tensor
