// How many jobs run at one time. For .cc files: it brings in Asio. One thread.
#pragma once

#include <deque>
#include <memory>

#include "http/tasks.h"

namespace umbel::supernode {

class Slots {
 public:
  Slots(boost::asio::any_io_executor executor, size_t count) : executor_(executor), free_(count) {}

  /// Waits for a slot; those that wait get one in the order they came.
  http::Task<void> Take() {
    if (free_ > 0) {
      --free_;
      co_return;
    }
    auto turn = std::make_shared<Turn>(executor_);
    waiting_.push_back(turn);
    while (!turn->come) co_await turn->bell.Wait();
  }
  void Give() {
    if (waiting_.empty()) {
      ++free_;
      return;
    }
    waiting_.front()->come = true;
    waiting_.front()->bell.Ring();
    waiting_.pop_front();
  }
  size_t waiting() const { return waiting_.size(); }

 private:
  struct Turn {
    explicit Turn(const boost::asio::any_io_executor& executor) : bell(executor) {}
    http::Bell bell;
    bool come = false;
  };

  boost::asio::any_io_executor executor_;
  size_t free_;
  std::deque<std::shared_ptr<Turn>> waiting_;
};

}  // namespace umbel::supernode
