// Kernels for AVX-512 without its 52-bit multiplication.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512BW__)
#include "aggregation/fold_avx512_impl.h"

namespace umbel::aggregation {

const Kernels* Avx512Kernels() {
  static constexpr Kernels kTable = Loops<Eight>::Table("avx512");
  return &kTable;
}

}  // namespace umbel::aggregation
#else
#include "aggregation/fold_kernels.h"

namespace umbel::aggregation {
const Kernels* Avx512Kernels() { return nullptr; }
}  // namespace umbel::aggregation
#endif
