// How an owner of state tells a held request to look again.
#pragma once

#include <memory>
#include <vector>

namespace umbel {

/// Wake() may be called from any thread, under any lock: it only schedules.
class Wakeable {
 public:
  virtual ~Wakeable() = default;
  virtual void Wake() = 0;
};

/// Those waiting for one condition. Belongs to the owner of that condition. A waiter that went
/// away is forgotten; one that is woken must look again and, if need be, wait again.
class WaitList {
 public:
  void Add(const std::shared_ptr<Wakeable>& waiter) {
    // A waiter registers each time it looks: without this, re-registering would grow the list.
    std::erase_if(waiting_, [&](const auto& w) { return w.expired() || w.lock() == waiter; });
    waiting_.push_back(waiter);
  }
  void WakeAll() {
    for (const auto& weak : waiting_)
      if (const auto waiter = weak.lock()) waiter->Wake();
    waiting_.clear();
  }
  bool empty() const { return waiting_.empty(); }

 private:
  std::vector<std::weak_ptr<Wakeable>> waiting_;
};

}  // namespace umbel
