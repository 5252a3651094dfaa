// Which kernels this process uses. Safe from any thread.
#pragma once

#include <string_view>
#include <vector>

#include "aggregation/fold_kernels.h"
#include "base/result.h"

namespace umbel::aggregation {

/// All that this CPU can run, slowest first.
std::vector<const Kernels*> SupportedKernels();

/// asked   the value of UMBEL_CPU: generic, avx2, avx512 (without IFMA), avx512ifma; empty and
///         sha_ni, which is about hashing, mean the fastest.
/// errors  kInvalidArgument: an unknown name, or one this CPU cannot run.
Result<const Kernels*> ChooseKernels(std::string_view asked);

/// ChooseKernels of the environment, looked at once.
Result<const Kernels*> DefaultKernels();

}  // namespace umbel::aggregation
