// SHA-256 with the SHA instructions, two messages at a time. Two rounds take four cycles of
// latency, of which the unit is idle for half: a second message's rounds fit between.
#if defined(__x86_64__)
#include <immintrin.h>

#include "tensor/sha256_kernels.h"

#define UMBEL_SHA_TARGET __attribute__((target("sha,sse4.1")))
#define UMBEL_SHA_INLINE [[gnu::always_inline]] UMBEL_SHA_TARGET static inline

namespace umbel::tensor {
namespace {

template <size_t kLanes>
struct Ni {
  using Reg = __m128i;

  /// Rounds 4i to 4i + 3 of every lane; the schedule runs four groups ahead, in place.
  template <size_t i>
  UMBEL_SHA_INLINE void Four(Reg (&abef)[kLanes], Reg (&cdgh)[kLanes], Reg (&w)[kLanes][4]) {
    constexpr size_t k0 = i & 3;
    constexpr size_t k1 = (i + 1) & 3;
    constexpr size_t k2 = (i + 2) & 3;
    constexpr size_t k3 = (i + 3) & 3;
    const Reg constant = _mm_loadu_si128(reinterpret_cast<const Reg*>(kShaRound + 4 * i));
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const Reg words = _mm_add_epi32(w[lane][k0], constant);
      cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], words);
      abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(words, 0x0e));
    }
    if constexpr (i < 12)
      for (size_t lane = 0; lane < kLanes; ++lane)
        w[lane][k0] =
            _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[lane][k0], w[lane][k1]),
                                               _mm_alignr_epi8(w[lane][k3], w[lane][k2], 4)),
                                 w[lane][k3]);
  }

  UMBEL_SHA_INLINE void Block(Reg (&abef)[kLanes], Reg (&cdgh)[kLanes], Reg (&w)[kLanes][4]) {
    Four<0>(abef, cdgh, w);
    Four<1>(abef, cdgh, w);
    Four<2>(abef, cdgh, w);
    Four<3>(abef, cdgh, w);
    Four<4>(abef, cdgh, w);
    Four<5>(abef, cdgh, w);
    Four<6>(abef, cdgh, w);
    Four<7>(abef, cdgh, w);
    Four<8>(abef, cdgh, w);
    Four<9>(abef, cdgh, w);
    Four<10>(abef, cdgh, w);
    Four<11>(abef, cdgh, w);
    Four<12>(abef, cdgh, w);
    Four<13>(abef, cdgh, w);
    Four<14>(abef, cdgh, w);
    Four<15>(abef, cdgh, w);
  }

  UMBEL_SHA_INLINE void Run(ShaState* const* states, const uint8_t* const* data, size_t blocks) {
    const Reg swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    Reg abef[kLanes];
    Reg cdgh[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      // The instructions want the words as f e b a and h g d c, lowest first.
      const Reg dcba = _mm_loadu_si128(reinterpret_cast<const Reg*>(*states[lane]));
      const Reg hgfe = _mm_loadu_si128(reinterpret_cast<const Reg*>(*states[lane] + 4));
      const Reg badc = _mm_shuffle_epi32(dcba, 0xb1);
      const Reg efgh = _mm_shuffle_epi32(hgfe, 0x1b);
      abef[lane] = _mm_alignr_epi8(badc, efgh, 8);
      cdgh[lane] = _mm_blend_epi16(efgh, badc, 0xf0);
    }
    for (size_t block = 0; block < blocks; ++block) {
      Reg w[kLanes][4];
      Reg abef_before[kLanes];
      Reg cdgh_before[kLanes];
      for (size_t lane = 0; lane < kLanes; ++lane) {
        abef_before[lane] = abef[lane];
        cdgh_before[lane] = cdgh[lane];
        const auto* from = reinterpret_cast<const Reg*>(data[lane] + block * kShaBlock);
        for (size_t part = 0; part < 4; ++part)
          w[lane][part] = _mm_shuffle_epi8(_mm_loadu_si128(from + part), swap);
      }
      Block(abef, cdgh, w);
      for (size_t lane = 0; lane < kLanes; ++lane) {
        abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
        cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
      }
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const Reg feba = _mm_shuffle_epi32(abef[lane], 0x1b);
      const Reg dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
      _mm_storeu_si128(reinterpret_cast<Reg*>(*states[lane]), _mm_blend_epi16(feba, dchg, 0xf0));
      _mm_storeu_si128(reinterpret_cast<Reg*>(*states[lane] + 4), _mm_alignr_epi8(dchg, feba, 8));
    }
  }
};

}  // namespace

UMBEL_SHA_TARGET void ShaNiPair(ShaState* const* states, const uint8_t* const* data,
                                size_t blocks) {
  Ni<2>::Run(states, data, blocks);
}

}  // namespace umbel::tensor
#endif
