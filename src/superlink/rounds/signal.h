// A thread that waits to be woken. Wake from any thread, Wait from one.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/wake.h"
#include "superlink/engine.h"

namespace umbel::superlink::rounds {

class Signal final : public Wakeable {
 public:
  void Wake() override {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_all();
  }
  /// Until woken since the last call, or for `at_most`.
  void Wait(Micros at_most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, at_most, [&] { return woken_; });
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
};

/// Blocks until the change is durable.
inline Status WaitFor(const CommitPtr& commit) {
  const auto signal = std::make_shared<Signal>();
  commit->Notify(signal);
  while (!commit->done()) signal->Wait(std::chrono::seconds(1));
  return commit->status();
}

}  // namespace umbel::superlink::rounds
