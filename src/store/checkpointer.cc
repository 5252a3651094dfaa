#include "store/checkpointer.h"

#include <pthread.h>

#include <utility>

namespace umbel::store {

Checkpointer::Checkpointer(std::unique_ptr<Connection> connection)
    : connection_(std::move(connection)),
      thread_([this](const std::stop_token& stop) { Loop(stop); }) {}

void Checkpointer::Poke() {
  {
    std::lock_guard lock(mutex_);
    due_ = true;
  }
  poked_.notify_one();
}

void Checkpointer::RunOn(Connection& connection) {
  std::lock_guard round(running_);
  // A failure leaves the log as it is; it grows, and the next round tries again.
  sqlite3_wal_checkpoint_v2(connection.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr,
                            nullptr);
}

void Checkpointer::Loop(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "store-ckpt");
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (!poked_.wait(lock, stop, [this] { return due_; })) return;
      due_ = false;
    }
    RunOn(*connection_);
  }
}

}  // namespace umbel::store
