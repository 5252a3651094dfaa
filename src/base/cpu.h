// Which of the CPU's instructions the kernels may use: what it has, or what UMBEL_CPU allows.
// Safe from any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel {

/// What a kernel asks before it takes a path. A set, not a level: there are CPUs with SHA
/// instructions and no AVX, and the reverse.
struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;  // F, BW, DQ and VL
  bool sha_ni = false;  // with SSE4.1

  bool operator==(const CpuFeatures&) const = default;
};

/// What this CPU and its operating system execute.
CpuFeatures PresentCpu();

/// What `choice`, a value of UMBEL_CPU, leaves of `present`:
///
///   (empty)   all of it
///   generic   nothing: portable code and OpenSSL, which looks at the CPU for itself
///   avx2      AVX2 alone
///   avx512    AVX2 and AVX-512
///   sha_ni    all of it, and the CPU must have SHA instructions
///
/// errors  kInvalidArgument: another word, or one that `present` cannot execute.
Result<CpuFeatures> ChooseCpu(std::string_view choice, const CpuFeatures& present);

/// Call at the start of a program, so that a bad UMBEL_CPU is its first and only message.
/// errors  kInvalidArgument, naming the variable and its value.
Status CheckCpuPath();

/// The choice of this process, made once. Ends the process if UMBEL_CPU is bad.
const CpuFeatures& CpuPath();

/// "avx2 avx512 sha_ni", or "generic" for none.
std::string CpuName(const CpuFeatures& features);

}  // namespace umbel
