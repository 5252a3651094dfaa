#include "aggregation/fold_cpu.h"

#include <cstdlib>

#include "tensor/quote.h"

namespace umbel::aggregation {

std::vector<const Kernels*> SupportedKernels() {
  std::vector<const Kernels*> found{&GenericKernels()};
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw");
  if (avx2) found.push_back(Avx2Kernels());
  if (avx512) found.push_back(Avx512Kernels());
  if (avx512 && __builtin_cpu_supports("avx512ifma")) found.push_back(Avx512IfmaKernels());
#endif
  return found;
}

Result<const Kernels*> ChooseKernels(std::string_view asked) {
  const std::vector<const Kernels*> supported = SupportedKernels();
  if (asked.empty() || asked == "sha_ni") return supported.back();
  std::string names;
  for (const Kernels* kernels : supported) {
    if (asked == kernels->name) return kernels;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", kernels->name);
  }
  return Fail(Code::kInvalidArgument,
              fmt::format("UMBEL_CPU {} is not among what this CPU can run: {}",
                          tensor::Quote(asked), names));
}

Result<const Kernels*> DefaultKernels() {
  static const Result<const Kernels*> chosen = [] {
    const char* asked = std::getenv("UMBEL_CPU");
    return ChooseKernels(asked == nullptr ? "" : asked);
  }();
  return chosen;
}

}  // namespace umbel::aggregation
