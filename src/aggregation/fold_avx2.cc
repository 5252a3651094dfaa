// Kernels for AVX2 with FMA: four lanes.
#include "aggregation/fold_kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include "aggregation/fold_kernels_impl.h"

namespace umbel::aggregation {
namespace {

struct Four {
  using U = __m256i;
  using D = __m256d;
  using M = __m256i;
  static constexpr size_t kLanes = 4;
  static constexpr int kWeightBits = 24;
  static constexpr int kHighUnit = 32;
  static constexpr uint64_t kBias = kMagicBits;

  static U Load(const uint64_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void Store(uint64_t* p, U a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
  static U Set(uint64_t a) { return _mm256_set1_epi64x(static_cast<long long>(a)); }
  static D SetD(double a) { return _mm256_set1_pd(a); }
  static D LoadF4(const char* p) {
    return _mm256_cvtps_pd(_mm_loadu_ps(reinterpret_cast<const float*>(p)));
  }
  static D LoadF8(const char* p) { return _mm256_loadu_pd(reinterpret_cast<const double*>(p)); }
  static U Bits(D a) { return _mm256_castpd_si256(a); }
  static D FromBits(U a) { return _mm256_castsi256_pd(a); }
  static D FromU(U a) {
    // Both halves behind the bits of 2^84 and 2^52; the one rounding is the last addition's.
    const U high = Or(_mm256_srli_epi64(a, 32), Set(0x4530000000000000));
    const U low = _mm256_blend_epi32(Set(0x4330000000000000), a, 0x55);
    const D offset = SetD(19342813118337666422669312.0);  // 2^84 + 2^52
    return AddD(SubD(FromBits(high), offset), FromBits(low));
  }

  static U Add(U a, U b) { return _mm256_add_epi64(a, b); }
  static U Sub(U a, U b) { return _mm256_sub_epi64(a, b); }
  static U And(U a, U b) { return _mm256_and_si256(a, b); }
  static U Or(U a, U b) { return _mm256_or_si256(a, b); }
  static U Xor(U a, U b) { return _mm256_xor_si256(a, b); }
  template <int kBy>
  static U Shl(U a) {
    return _mm256_slli_epi64(a, kBy);
  }
  template <int kBy>
  static U Shr(U a) {
    return _mm256_srli_epi64(a, kBy);
  }
  static U ShlBy(U a, int by) { return _mm256_sll_epi64(a, _mm_cvtsi32_si128(by)); }
  static U ShrBy(U a, int by) { return _mm256_srl_epi64(a, _mm_cvtsi32_si128(by)); }
  static U Sign(U a) { return _mm256_cmpgt_epi64(_mm256_setzero_si256(), a); }
  static uint64_t OrAll(U a) {
    uint64_t lanes[4];
    Store(lanes, a);
    return lanes[0] | lanes[1] | lanes[2] | lanes[3];
  }

  static D AddD(D a, D b) { return _mm256_add_pd(a, b); }
  static D SubD(D a, D b) { return _mm256_sub_pd(a, b); }
  static D MulD(D a, D b) { return _mm256_mul_pd(a, b); }
  static D DivD(D a, D b) { return _mm256_div_pd(a, b); }
  static D MulAdd(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
  static D Remainder(D a, D q, D b) { return _mm256_fnmadd_pd(q, b, a); }

  static M Less(U a, U b) {
    return _mm256_cmpgt_epi64(Xor(b, Set(kSignBit)), Xor(a, Set(kSignBit)));
  }
  static M EqualU(U a, U b) { return _mm256_cmpeq_epi64(a, b); }
  static M Equal(D a, D b) { return Bits(_mm256_cmp_pd(a, b, _CMP_EQ_OQ)); }
  static M Positive(D a) { return Bits(_mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_GT_OQ)); }
  static M Negative(D a) { return Bits(_mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_LT_OQ)); }
  static M FitsD(U a) {
    return Or(EqualU(And(a, Set(0x7ff)), Set(0)), EqualU(_mm256_srli_epi64(a, 53), Set(0)));
  }
  static M AndM(M a, M b) { return And(a, b); }
  static M AndNotM(M a, M b) { return _mm256_andnot_si256(a, b); }
  static M OrM(M a, M b) { return Or(a, b); }
  static bool Any(M a) { return _mm256_movemask_epi8(a) != 0; }
  static size_t Flags(M a, uint8_t* flags) {
    const auto mask = static_cast<unsigned>(_mm256_movemask_pd(FromBits(a)));
    for (size_t i = 0; i < kLanes; ++i) flags[i] = (mask >> i) & 1;
    return static_cast<size_t>(__builtin_popcount(mask));
  }
  static D Keep(M a, D x) { return _mm256_and_pd(FromBits(a), x); }
  static U Plus(U a, M b) { return Sub(a, b); }
  static U Minus(U a, M b) { return Add(a, b); }

  static void Deposit(U x, U weight, U& low, U& high) {
    low = Add(low, _mm256_mul_epu32(x, weight));
    high = Add(high, _mm256_mul_epu32(_mm256_srli_epi64(x, 32), weight));
  }
};

}  // namespace

const Kernels* Avx2Kernels() {
  static constexpr Kernels kTable = Loops<Four>::Table("avx2");
  return &kTable;
}

}  // namespace umbel::aggregation
#else
namespace umbel::aggregation {
const Kernels* Avx2Kernels() { return nullptr; }
}  // namespace umbel::aggregation
#endif
