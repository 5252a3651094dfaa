#include "base/cpu.h"

#include <cstdio>
#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace umbel {
namespace {

constexpr const char* kVariable = "UMBEL_CPU";

const Result<CpuFeatures>& Chosen() {
  static const Result<CpuFeatures> kChosen = [] {
    const char* value = std::getenv(kVariable);
    return ChooseCpu(value ? value : "", PresentCpu());
  }();
  return kChosen;
}

}  // namespace

CpuFeatures PresentCpu() {
  CpuFeatures present;
#if defined(__x86_64__)
  // The built-in asks the operating system too: registers it does not save are not there.
  __builtin_cpu_init();
  present.avx2 = __builtin_cpu_supports("avx2") != 0;
  present.avx512 = present.avx2 && __builtin_cpu_supports("avx512f") != 0 &&
                   __builtin_cpu_supports("avx512bw") != 0 &&
                   __builtin_cpu_supports("avx512dq") != 0 &&
                   __builtin_cpu_supports("avx512vl") != 0;
  // GCC 12 has no name for the SHA instructions. They work on SSE registers.
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kSha = 1U << 29;
  present.sha_ni = __builtin_cpu_supports("sse4.1") != 0 &&
                   __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & kSha) != 0;
#endif
  return present;
}

Result<CpuFeatures> ChooseCpu(std::string_view choice, const CpuFeatures& present) {
  CpuFeatures chosen;
  bool there = true;
  if (choice.empty()) {
    chosen = present;
  } else if (choice == "avx2") {
    chosen.avx2 = true;
    there = present.avx2;
  } else if (choice == "avx512") {
    chosen.avx2 = chosen.avx512 = true;
    there = present.avx2 && present.avx512;
  } else if (choice == "sha_ni") {
    chosen = present;
    there = present.sha_ni;
  } else if (choice != "generic") {
    return Fail(
        Code::kInvalidArgument,
        fmt::format("{}={} is not one of generic, avx2, avx512, sha_ni", kVariable, choice));
  }
  if (!there)
    return Fail(Code::kInvalidArgument,
                fmt::format("{}={}: this CPU has only: {}", kVariable, choice, CpuName(present)));
  return chosen;
}

Status CheckCpuPath() {
  if (!Chosen().ok()) return Fail(Chosen().error());
  return {};
}

const CpuFeatures& CpuPath() {
  if (!Chosen().ok()) {
    std::fprintf(stderr, "umbel: %s\n", Chosen().error().message.c_str());
    std::_Exit(2);
  }
  return *Chosen();
}

std::string CpuName(const CpuFeatures& features) {
  std::string name;
  if (features.avx2) name += " avx2";
  if (features.avx512) name += " avx512";
  if (features.sha_ni) name += " sha_ni";
  return name.empty() ? "generic" : name.substr(1);
}

}  // namespace umbel
