// SHA-256 in AVX2: 8 lanes of 32 bits in a ymm register. Without rotations, and with 16 registers
// for the 24 words that live, it does about half of what AVX-512VL does at the same width.
#if defined(__x86_64__)
#define UMBEL_SHA_TARGET __attribute__((target("avx2")))
#include "tensor/sha256_rounds.h"

namespace umbel::tensor {
namespace {

struct Avx2Ymm : Ymm {
  UMBEL_SHA_INLINE Reg Xor3(Reg x, Reg y, Reg z) {
    return _mm256_xor_si256(_mm256_xor_si256(x, y), z);
  }
  UMBEL_SHA_INLINE Reg Choose(Reg x, Reg y, Reg z) {
    return _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)));
  }
  UMBEL_SHA_INLINE Reg Xor(Reg x, Reg y) { return _mm256_xor_si256(x, y); }
  UMBEL_SHA_INLINE Reg Majority(Reg a, Reg b, Reg /*c*/, Reg& bc) {
    const Reg ab = _mm256_xor_si256(a, b);
    const Reg out = _mm256_xor_si256(b, _mm256_and_si256(ab, bc));
    bc = ab;
    return out;
  }
  template <int kA, int kB, int kC>
  UMBEL_SHA_INLINE Reg Sigma(Reg x) {
    return Xor3(RotateRight<kA>(x), RotateRight<kB>(x), RotateRight<kC>(x));
  }
  template <int kBits>
  UMBEL_SHA_INLINE Reg RotateRight(Reg x) {
    return _mm256_or_si256(_mm256_srli_epi32(x, kBits), _mm256_slli_epi32(x, 32 - kBits));
  }
};

}  // namespace

UMBEL_SHA_TARGET void ShaAvx2Ymm(ShaState* const* states, const uint8_t* const* data,
                                 size_t blocks) {
  Rounds<Avx2Ymm>::Run(states, data, blocks);
}

}  // namespace umbel::tensor
#endif
