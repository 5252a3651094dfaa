// SHA-256 in AVX-512: 4, 8 or 16 lanes of 32 bits in an xmm, ymm or zmm register. Rotations and
// three-operand logic are single instructions, and 32 registers hold all that lives.
#if defined(__x86_64__)
#define UMBEL_SHA_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl")))
#include "tensor/sha256_rounds.h"

namespace umbel::tensor {
namespace {

// Truth tables of vpternlog: bit (4x + 2y + z) is the result.
constexpr int kXor3 = 0x96;
constexpr int kChoose = 0xca;
constexpr int kMajority = 0xe8;

struct Avx512Xmm {
  using Reg = __m128i;
  static constexpr size_t kLanes = 4;

  UMBEL_SHA_INLINE Reg Add(Reg x, Reg y) { return _mm_add_epi32(x, y); }
  UMBEL_SHA_INLINE Reg Xor3(Reg x, Reg y, Reg z) { return _mm_ternarylogic_epi32(x, y, z, kXor3); }
  UMBEL_SHA_INLINE Reg Choose(Reg x, Reg y, Reg z) {
    return _mm_ternarylogic_epi32(x, y, z, kChoose);
  }
  UMBEL_SHA_INLINE Reg Majority(Reg a, Reg b, Reg c, Reg& /*bc*/) {
    return _mm_ternarylogic_epi32(a, b, c, kMajority);
  }
  UMBEL_SHA_INLINE Reg Xor(Reg x, Reg y) { return _mm_xor_si128(x, y); }
  template <int kBits>
  UMBEL_SHA_INLINE Reg ShiftRight(Reg x) {
    return _mm_srli_epi32(x, kBits);
  }
  template <int kBits>
  UMBEL_SHA_INLINE Reg RotateRight(Reg x) {
    return _mm_ror_epi32(x, kBits);
  }
  template <int kA, int kB, int kC>
  UMBEL_SHA_INLINE Reg Sigma(Reg x) {
    return Xor3(RotateRight<kA>(x), RotateRight<kB>(x), RotateRight<kC>(x));
  }
  UMBEL_SHA_INLINE Reg Broadcast(uint32_t x) { return _mm_set1_epi32(static_cast<int>(x)); }
  UMBEL_SHA_INLINE Reg LoadState(const uint32_t* from) {
    return _mm_load_si128(reinterpret_cast<const Reg*>(from));
  }
  UMBEL_SHA_INLINE void StoreState(uint32_t* to, Reg x) {
    _mm_store_si128(reinterpret_cast<Reg*>(to), x);
  }

  UMBEL_SHA_INLINE void LoadBlock(const uint8_t* const* data, size_t offset, Reg (&w)[16]) {
    const Reg swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    for (size_t part = 0; part < 4; ++part) {  // 4 words of 4 lanes
      Reg row[4];
      for (size_t lane = 0; lane < 4; ++lane) {
        const uint8_t* from = data[lane] + offset + 16 * part;
        row[lane] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const Reg*>(from)), swap);
      }
      const Reg low01 = _mm_unpacklo_epi32(row[0], row[1]);
      const Reg low23 = _mm_unpacklo_epi32(row[2], row[3]);
      const Reg high01 = _mm_unpackhi_epi32(row[0], row[1]);
      const Reg high23 = _mm_unpackhi_epi32(row[2], row[3]);
      w[4 * part] = _mm_unpacklo_epi64(low01, low23);
      w[4 * part + 1] = _mm_unpackhi_epi64(low01, low23);
      w[4 * part + 2] = _mm_unpacklo_epi64(high01, high23);
      w[4 * part + 3] = _mm_unpackhi_epi64(high01, high23);
    }
  }
};

struct Avx512Ymm : Ymm {
  UMBEL_SHA_INLINE Reg Xor3(Reg x, Reg y, Reg z) {
    return _mm256_ternarylogic_epi32(x, y, z, kXor3);
  }
  UMBEL_SHA_INLINE Reg Choose(Reg x, Reg y, Reg z) {
    return _mm256_ternarylogic_epi32(x, y, z, kChoose);
  }
  UMBEL_SHA_INLINE Reg Majority(Reg a, Reg b, Reg c, Reg& /*bc*/) {
    return _mm256_ternarylogic_epi32(a, b, c, kMajority);
  }
  UMBEL_SHA_INLINE Reg Xor(Reg x, Reg y) { return _mm256_xor_si256(x, y); }
  template <int kBits>
  UMBEL_SHA_INLINE Reg RotateRight(Reg x) {
    return _mm256_ror_epi32(x, kBits);
  }
  template <int kA, int kB, int kC>
  UMBEL_SHA_INLINE Reg Sigma(Reg x) {
    return Xor3(RotateRight<kA>(x), RotateRight<kB>(x), RotateRight<kC>(x));
  }
};

struct Avx512Zmm {
  using Reg = __m512i;
  static constexpr size_t kLanes = 16;

  UMBEL_SHA_INLINE Reg Add(Reg x, Reg y) { return _mm512_add_epi32(x, y); }
  UMBEL_SHA_INLINE Reg Xor3(Reg x, Reg y, Reg z) {
    return _mm512_ternarylogic_epi32(x, y, z, kXor3);
  }
  UMBEL_SHA_INLINE Reg Choose(Reg x, Reg y, Reg z) {
    return _mm512_ternarylogic_epi32(x, y, z, kChoose);
  }
  UMBEL_SHA_INLINE Reg Majority(Reg a, Reg b, Reg c, Reg& /*bc*/) {
    return _mm512_ternarylogic_epi32(a, b, c, kMajority);
  }
  UMBEL_SHA_INLINE Reg Xor(Reg x, Reg y) { return _mm512_xor_si512(x, y); }
  template <int kBits>
  UMBEL_SHA_INLINE Reg ShiftRight(Reg x) {
    return _mm512_srli_epi32(x, kBits);
  }
  template <int kBits>
  UMBEL_SHA_INLINE Reg RotateRight(Reg x) {
    return _mm512_ror_epi32(x, kBits);
  }
  template <int kA, int kB, int kC>
  UMBEL_SHA_INLINE Reg Sigma(Reg x) {
    return Xor3(RotateRight<kA>(x), RotateRight<kB>(x), RotateRight<kC>(x));
  }
  UMBEL_SHA_INLINE Reg Broadcast(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  UMBEL_SHA_INLINE Reg LoadState(const uint32_t* from) { return _mm512_load_si512(from); }
  UMBEL_SHA_INLINE void StoreState(uint32_t* to, Reg x) { _mm512_store_si512(to, x); }

  UMBEL_SHA_INLINE __m128i Load(const uint8_t* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  /// Four lanes' 16 bytes at `offset`, one beside the other.
  UMBEL_SHA_INLINE Reg Gather(const uint8_t* a, const uint8_t* b, const uint8_t* c,
                              const uint8_t* d) {
    Reg out = _mm512_castsi128_si512(Load(a));
    out = _mm512_inserti32x4(out, Load(b), 1);
    out = _mm512_inserti32x4(out, Load(c), 2);
    return _mm512_inserti32x4(out, Load(d), 3);
  }

  UMBEL_SHA_INLINE void LoadBlock(const uint8_t* const* data, size_t offset, Reg (&w)[16]) {
    const Reg swap =
        _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    for (size_t part = 0; part < 4; ++part) {
      const size_t at = offset + 16 * part;
      Reg row[4];
      for (size_t lane = 0; lane < 4; ++lane)
        row[lane] = _mm512_shuffle_epi8(
            Gather(data[lane] + at, data[lane + 4] + at, data[lane + 8] + at, data[lane + 12] + at),
            swap);
      const Reg low01 = _mm512_unpacklo_epi32(row[0], row[1]);
      const Reg low23 = _mm512_unpacklo_epi32(row[2], row[3]);
      const Reg high01 = _mm512_unpackhi_epi32(row[0], row[1]);
      const Reg high23 = _mm512_unpackhi_epi32(row[2], row[3]);
      w[4 * part] = _mm512_unpacklo_epi64(low01, low23);
      w[4 * part + 1] = _mm512_unpackhi_epi64(low01, low23);
      w[4 * part + 2] = _mm512_unpacklo_epi64(high01, high23);
      w[4 * part + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
  }
};

}  // namespace

UMBEL_SHA_TARGET void ShaAvx512Xmm(ShaState* const* states, const uint8_t* const* data,
                                   size_t blocks) {
  Rounds<Avx512Xmm>::Run(states, data, blocks);
}

UMBEL_SHA_TARGET void ShaAvx512Ymm(ShaState* const* states, const uint8_t* const* data,
                                   size_t blocks) {
  Rounds<Avx512Ymm>::Run(states, data, blocks);
}

UMBEL_SHA_TARGET void ShaAvx512Zmm(ShaState* const* states, const uint8_t* const* data,
                                   size_t blocks) {
  Rounds<Avx512Zmm>::Run(states, data, blocks);
}

}  // namespace umbel::tensor
#endif
