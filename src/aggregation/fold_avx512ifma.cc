// Kernels for AVX-512 with IFMA: two instructions multiply by 52 bits of weight and add.
#if defined(__AVX512IFMA__)
#include "aggregation/fold_avx512_impl.h"

namespace umbel::aggregation {
namespace {

struct EightIfma : Eight {
  static constexpr int kWeightBits = 52;
  static constexpr int kHighUnit = 52;
  static constexpr uint64_t kBias = uint64_t{1} << 51;  // the low 52 bits of kMagicBits

  static void Deposit(U x, U weight, U& low, U& high) {
    low = _mm512_madd52lo_epu64(low, x, weight);
    high = _mm512_madd52hi_epu64(high, x, weight);
  }
};

}  // namespace

const Kernels* Avx512IfmaKernels() {
  static constexpr Kernels kTable = Loops<EightIfma>::Table("avx512ifma");
  return &kTable;
}

}  // namespace umbel::aggregation
#else
#include "aggregation/fold_kernels.h"

namespace umbel::aggregation {
const Kernels* Avx512IfmaKernels() { return nullptr; }
}  // namespace umbel::aggregation
#endif
