// Work spread over several processes, each with its own descriptors; results come back by pipe.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/result.h"

namespace umbel::bench {

/// Named counts; those of several processes are added up.
using Tally = std::map<std::string, uint64_t>;

/// Runs work(i) in `count` children. Waits for all.
/// errors  the first one that a child reports.
Result<Tally> RunProcesses(size_t count, const std::function<Result<Tally>(size_t)>& work);

}  // namespace umbel::bench
