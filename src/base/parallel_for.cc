#include "base/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace umbel {

Status ParallelFor(size_t count, size_t threads, const std::function<Status(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  Status first;
  const auto run = [&] {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      Status status = work(i);
      if (status.ok()) continue;
      next.store(count);
      const std::lock_guard lock(mutex);
      if (first.ok()) first = std::move(status);
    }
  };
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(threads, count); ++i) others.emplace_back(run);
    run();
  }
  return first;
}

size_t HardwareThreads() { return std::max(1u, std::thread::hardware_concurrency()); }

}  // namespace umbel
