// Eight lanes of AVX-512 (F, DQ, VL, BW). Internal linkage, as fold_kernels_impl.h says.
#pragma once

#include <immintrin.h>

#include "aggregation/fold_kernels_impl.h"

namespace umbel::aggregation {
namespace {

struct Eight {
  using U = __m512i;
  using D = __m512d;
  using M = __mmask8;
  static constexpr size_t kLanes = 8;
  static constexpr int kWeightBits = 24;
  static constexpr int kHighUnit = 32;
  static constexpr uint64_t kBias = kMagicBits;

  static U Load(const uint64_t* p) { return _mm512_loadu_si512(p); }
  static void Store(uint64_t* p, U a) { _mm512_storeu_si512(p, a); }
  static U Set(uint64_t a) { return _mm512_set1_epi64(static_cast<long long>(a)); }
  static D SetD(double a) { return _mm512_set1_pd(a); }
  static D LoadF4(const char* p) {
    return _mm512_cvtps_pd(_mm256_loadu_ps(reinterpret_cast<const float*>(p)));
  }
  static D LoadF8(const char* p) { return _mm512_loadu_pd(p); }
  static U Bits(D a) { return _mm512_castpd_si512(a); }
  static D FromBits(U a) { return _mm512_castsi512_pd(a); }
  static D FromU(U a) { return _mm512_cvtepu64_pd(a); }

  static U Add(U a, U b) { return _mm512_add_epi64(a, b); }
  static U Sub(U a, U b) { return _mm512_sub_epi64(a, b); }
  static U And(U a, U b) { return _mm512_and_si512(a, b); }
  static U Or(U a, U b) { return _mm512_or_si512(a, b); }
  static U Xor(U a, U b) { return _mm512_xor_si512(a, b); }
  template <int kBy>
  static U Shl(U a) {
    return _mm512_slli_epi64(a, kBy);
  }
  template <int kBy>
  static U Shr(U a) {
    return _mm512_srli_epi64(a, kBy);
  }
  static U ShlBy(U a, int by) { return _mm512_sll_epi64(a, _mm_cvtsi32_si128(by)); }
  static U ShrBy(U a, int by) { return _mm512_srl_epi64(a, _mm_cvtsi32_si128(by)); }
  static U Sign(U a) { return _mm512_srai_epi64(a, 63); }
  static uint64_t OrAll(U a) {
    uint64_t lanes[8];
    Store(lanes, a);
    uint64_t all = 0;
    for (const uint64_t lane : lanes) all |= lane;
    return all;
  }

  static D AddD(D a, D b) { return _mm512_add_pd(a, b); }
  static D SubD(D a, D b) { return _mm512_sub_pd(a, b); }
  static D MulD(D a, D b) { return _mm512_mul_pd(a, b); }
  static D DivD(D a, D b) { return _mm512_div_pd(a, b); }
  static D MulAdd(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
  static D Remainder(D a, D q, D b) { return _mm512_fnmadd_pd(q, b, a); }

  static M Less(U a, U b) { return _mm512_cmplt_epu64_mask(a, b); }
  static M EqualU(U a, U b) { return _mm512_cmpeq_epi64_mask(a, b); }
  static M Equal(D a, D b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
  static M Positive(D a) { return _mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_GT_OQ); }
  static M Negative(D a) { return _mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_LT_OQ); }
  static M FitsD(U a) {
    return OrM(_mm512_testn_epi64_mask(a, Set(0x7ff)), Less(a, Set(uint64_t{1} << 53)));
  }
  static M AndM(M a, M b) { return static_cast<M>(a & b); }
  static M AndNotM(M a, M b) { return static_cast<M>(~a & b); }
  static M OrM(M a, M b) { return static_cast<M>(a | b); }
  static bool Any(M a) { return a != 0; }
  static size_t Flags(M a, uint8_t* flags) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(flags), _mm_maskz_set1_epi8(a, 1));
    return static_cast<size_t>(__builtin_popcount(a));
  }
  static D Keep(M a, D x) { return _mm512_maskz_mov_pd(a, x); }
  static U Plus(U a, M b) { return _mm512_mask_add_epi64(a, b, a, Set(1)); }
  static U Minus(U a, M b) { return _mm512_mask_sub_epi64(a, b, a, Set(1)); }

  static void Deposit(U x, U weight, U& low, U& high) {
    low = Add(low, _mm512_mul_epu32(x, weight));
    high = Add(high, _mm512_mul_epu32(_mm512_srli_epi64(x, 32), weight));
  }
};

}  // namespace
}  // namespace umbel::aggregation
