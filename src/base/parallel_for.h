// Independent pieces of one computation, side by side. Any thread.
#pragma once

#include <cstddef>
#include <functional>

#include "base/result.h"

namespace umbel {

/// Calls work(i) for each i in [0, count), on up to `threads` threads, the caller's among them, and
/// returns when all are done. After a failure the rest is not begun.
///
/// cost    about 50 us for each thread but the caller's: for work of milliseconds.
/// errors  one that `work` returned.
Status ParallelFor(size_t count, size_t threads, const std::function<Status(size_t)>& work);

/// How many threads this machine runs at once; at least 1.
size_t HardwareThreads();

}  // namespace umbel
