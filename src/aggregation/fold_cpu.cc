#include "aggregation/fold_cpu.h"

namespace umbel::aggregation {

std::vector<const Kernels*> SupportedKernels(const CpuFeatures& allowed) {
  std::vector<const Kernels*> found{&GenericKernels()};
#if defined(__x86_64__)
  const bool avx2 = allowed.avx2 && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && allowed.avx512;
  if (avx2) found.push_back(Avx2Kernels());
  if (avx512) found.push_back(Avx512Kernels());
  if (avx512 && __builtin_cpu_supports("avx512ifma")) found.push_back(Avx512IfmaKernels());
#else
  static_cast<void>(allowed);
#endif
  return found;
}

const Kernels& DefaultKernels() {
  static const Kernels& chosen = *SupportedKernels(CpuPath()).back();
  return chosen;
}

}  // namespace umbel::aggregation
