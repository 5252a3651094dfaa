// Work that blocks, off the reconciling thread: begun by name, asked for until it is done. What is
// under way is not kept over a restart, so each job must be safe to do again. Run, Cancel and Stop
// belong to one thread.
#pragma once

#include <any>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"

namespace umbel::manager {

class Jobs {
 public:
  /// at_once  for tests: jobs are done where they are begun.
  explicit Jobs(std::function<void()> done, bool at_once = false)
      : done_(std::move(done)), at_once_(at_once) {}
  ~Jobs() { Stop(); }

  /// Begins it, unless it has begun. Its result, once; nullopt while it is under way. After that
  /// the name is free for another.
  template <typename T>
  std::optional<Result<T>> Run(const std::string& name,
                               std::function<Result<T>(std::stop_token)> work) {
    auto result = RunAny(name, [work = std::move(work)](std::stop_token stop) {
      return std::any(work(std::move(stop)));
    });
    if (!result.has_value()) return std::nullopt;
    return std::any_cast<Result<T>>(std::move(result));
  }

  bool Has(const std::string& name) const { return jobs_.contains(name); }
  /// Asks those whose names begin so to end, and forgets them.
  void Cancel(std::string_view prefix);
  /// Ends all; joins.
  void Stop();

 private:
  struct Job {
    std::mutex mutex;
    std::any result;
    bool done = false;
    std::jthread thread;
  };

  std::any RunAny(const std::string& name, std::function<std::any(std::stop_token)> work);
  void Reap();

  const std::function<void()> done_;
  const bool at_once_;
  std::map<std::string, std::unique_ptr<Job>> jobs_;
  std::vector<std::unique_ptr<Job>> ending_;
};

}  // namespace umbel::manager
