// Which kernels this process uses. Safe from any thread.
#pragma once

#include <vector>

#include "aggregation/fold_kernels.h"
#include "base/cpu.h"

namespace umbel::aggregation {

/// All that this CPU can run and `allowed` lets it, slowest first.
std::vector<const Kernels*> SupportedKernels(const CpuFeatures& allowed = PresentCpu());

/// The fastest that UMBEL_CPU allows.
const Kernels& DefaultKernels();

}  // namespace umbel::aggregation
