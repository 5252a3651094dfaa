// SHA-256's 64 rounds over a vector of lanes, for sha256_avx2.cc and sha256_avx512.cc only. Each
// defines UMBEL_SHA_TARGET, its instruction set, before it includes this; what is here then
// belongs to that file alone.
//
// A vector type V has: Reg; kLanes; Add, Xor3, Choose, Majority; RotateRight<n>, ShiftRight<n>;
// Broadcast(uint32_t); LoadState, StoreState (one word of every lane); LoadBlock (the 16 big-endian
// words of a block of every lane, transposed).
#pragma once

#include <immintrin.h>

#include "tensor/sha256_kernels.h"

#ifndef UMBEL_SHA_TARGET
#error "define UMBEL_SHA_TARGET first"
#endif

#define UMBEL_SHA_INLINE [[gnu::always_inline]] UMBEL_SHA_TARGET static inline

namespace umbel::tensor {
namespace {

/// What AVX2 and AVX-512VL do alike in a ymm register.
struct Ymm {
  using Reg = __m256i;
  static constexpr size_t kLanes = 8;

  UMBEL_SHA_INLINE Reg Add(Reg x, Reg y) { return _mm256_add_epi32(x, y); }
  template <int kBits>
  UMBEL_SHA_INLINE Reg ShiftRight(Reg x) {
    return _mm256_srli_epi32(x, kBits);
  }
  UMBEL_SHA_INLINE Reg Broadcast(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  UMBEL_SHA_INLINE Reg LoadState(const uint32_t* from) {
    return _mm256_load_si256(reinterpret_cast<const Reg*>(from));
  }
  UMBEL_SHA_INLINE void StoreState(uint32_t* to, Reg x) {
    _mm256_store_si256(reinterpret_cast<Reg*>(to), x);
  }

  /// Lanes i and i + 4 share a register from the load on, so that a transposition within 128 bits
  /// is all there is to do.
  UMBEL_SHA_INLINE void LoadBlock(const uint8_t* const* data, size_t offset, Reg (&w)[16]) {
    const Reg swap = _mm256_broadcastsi128_si256(
        _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    for (size_t part = 0; part < 4; ++part) {
      Reg row[4];
      for (size_t lane = 0; lane < 4; ++lane) {
        const uint8_t* low = data[lane] + offset + 16 * part;
        const uint8_t* high = data[lane + 4] + offset + 16 * part;
        row[lane] = _mm256_shuffle_epi8(
            _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1),
            swap);
      }
      const Reg low01 = _mm256_unpacklo_epi32(row[0], row[1]);
      const Reg low23 = _mm256_unpacklo_epi32(row[2], row[3]);
      const Reg high01 = _mm256_unpackhi_epi32(row[0], row[1]);
      const Reg high23 = _mm256_unpackhi_epi32(row[2], row[3]);
      w[4 * part] = _mm256_unpacklo_epi64(low01, low23);
      w[4 * part + 1] = _mm256_unpackhi_epi64(low01, low23);
      w[4 * part + 2] = _mm256_unpacklo_epi64(high01, high23);
      w[4 * part + 3] = _mm256_unpackhi_epi64(high01, high23);
    }
  }
};

template <typename V>
struct Rounds {
  using Reg = typename V::Reg;

  /// One round; the caller renames a..h instead of moving them. The new e waits for as little as
  /// can be: it is the chain of the whole. `bc` is b ^ c on entry, and what the next round wants of
  /// it on return.
  UMBEL_SHA_INLINE void Round(Reg a, Reg b, Reg c, Reg& d, Reg e, Reg f, Reg g, Reg& h, Reg word,
                              uint32_t constant, Reg& bc) {
    const Reg early = V::Add(V::Add(h, V::Add(word, V::Broadcast(constant))), V::Choose(e, f, g));
    const Reg t1 = V::Add(early, V::template Sigma<6, 11, 25>(e));
    const Reg t2 = V::Add(V::Majority(a, b, c, bc), V::template Sigma<2, 13, 22>(a));
    d = V::Add(d, t1);
    h = V::Add(t1, t2);
  }

  /// w[t] from w[t - 16], w[t - 15], w[t - 7], w[t - 2].
  template <bool kExtend>
  UMBEL_SHA_INLINE Reg Word(Reg& w16, Reg w15, Reg w7, Reg w2) {
    if constexpr (kExtend) {
      const Reg s0 = V::Xor3(V::template RotateRight<7>(w15), V::template RotateRight<18>(w15),
                             V::template ShiftRight<3>(w15));
      const Reg s1 = V::Xor3(V::template RotateRight<17>(w2), V::template RotateRight<19>(w2),
                             V::template ShiftRight<10>(w2));
      w16 = V::Add(V::Add(w16, s0), V::Add(w7, s1));
    }
    return w16;
  }

  template <bool kExtend>
  UMBEL_SHA_INLINE void Sixteen(Reg (&s)[8], Reg (&w)[16], const uint32_t* k, Reg& bc) {
    Round(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], Word<kExtend>(w[0], w[1], w[9], w[14]),
          k[0], bc);
    Round(s[7], s[0], s[1], s[2], s[3], s[4], s[5], s[6], Word<kExtend>(w[1], w[2], w[10], w[15]),
          k[1], bc);
    Round(s[6], s[7], s[0], s[1], s[2], s[3], s[4], s[5], Word<kExtend>(w[2], w[3], w[11], w[0]),
          k[2], bc);
    Round(s[5], s[6], s[7], s[0], s[1], s[2], s[3], s[4], Word<kExtend>(w[3], w[4], w[12], w[1]),
          k[3], bc);
    Round(s[4], s[5], s[6], s[7], s[0], s[1], s[2], s[3], Word<kExtend>(w[4], w[5], w[13], w[2]),
          k[4], bc);
    Round(s[3], s[4], s[5], s[6], s[7], s[0], s[1], s[2], Word<kExtend>(w[5], w[6], w[14], w[3]),
          k[5], bc);
    Round(s[2], s[3], s[4], s[5], s[6], s[7], s[0], s[1], Word<kExtend>(w[6], w[7], w[15], w[4]),
          k[6], bc);
    Round(s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[0], Word<kExtend>(w[7], w[8], w[0], w[5]),
          k[7], bc);
    Round(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], Word<kExtend>(w[8], w[9], w[1], w[6]),
          k[8], bc);
    Round(s[7], s[0], s[1], s[2], s[3], s[4], s[5], s[6], Word<kExtend>(w[9], w[10], w[2], w[7]),
          k[9], bc);
    Round(s[6], s[7], s[0], s[1], s[2], s[3], s[4], s[5], Word<kExtend>(w[10], w[11], w[3], w[8]),
          k[10], bc);
    Round(s[5], s[6], s[7], s[0], s[1], s[2], s[3], s[4], Word<kExtend>(w[11], w[12], w[4], w[9]),
          k[11], bc);
    Round(s[4], s[5], s[6], s[7], s[0], s[1], s[2], s[3], Word<kExtend>(w[12], w[13], w[5], w[10]),
          k[12], bc);
    Round(s[3], s[4], s[5], s[6], s[7], s[0], s[1], s[2], Word<kExtend>(w[13], w[14], w[6], w[11]),
          k[13], bc);
    Round(s[2], s[3], s[4], s[5], s[6], s[7], s[0], s[1], Word<kExtend>(w[14], w[15], w[7], w[12]),
          k[14], bc);
    Round(s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[0], Word<kExtend>(w[15], w[0], w[8], w[13]),
          k[15], bc);
  }

  UMBEL_SHA_INLINE void Run(ShaState* const* states, const uint8_t* const* data, size_t blocks) {
    alignas(64) uint32_t lanes[8][V::kLanes];
    for (size_t lane = 0; lane < V::kLanes; ++lane)
      for (size_t word = 0; word < 8; ++word) lanes[word][lane] = (*states[lane])[word];
    Reg sum[8];
    for (size_t word = 0; word < 8; ++word) sum[word] = V::LoadState(lanes[word]);
    for (size_t block = 0; block < blocks; ++block) {
      Reg w[16];
      V::LoadBlock(data, block * kShaBlock, w);
      Reg s[8] = {sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7]};
      Reg bc = V::Xor(s[1], s[2]);
      Sixteen<false>(s, w, kShaRound, bc);
      for (size_t round = 16; round < 64; round += 16) Sixteen<true>(s, w, kShaRound + round, bc);
      for (size_t word = 0; word < 8; ++word) sum[word] = V::Add(sum[word], s[word]);
    }
    for (size_t word = 0; word < 8; ++word) V::StoreState(lanes[word], sum[word]);
    for (size_t lane = 0; lane < V::kLanes; ++lane)
      for (size_t word = 0; word < 8; ++word) (*states[lane])[word] = lanes[word][lane];
  }
};

}  // namespace
}  // namespace umbel::tensor
