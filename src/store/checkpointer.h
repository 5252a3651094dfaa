// Copies the write-ahead log into the database beside the writer, so that no commit waits for the
// disk behind it. Safe from any thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

#include "store/sqlite.h"

namespace umbel::store {

class Checkpointer {
 public:
  explicit Checkpointer(std::unique_ptr<Connection> connection);

  /// Starts a round soon, unless one is due already.
  void Poke();
  /// One round now, on the caller's connection, after the one that may be running. With nobody
  /// writing meanwhile, the log starts again from its beginning afterwards.
  void RunOn(Connection& connection);

 private:
  void Loop(const std::stop_token& stop);

  const std::unique_ptr<Connection> connection_;
  std::mutex running_;  // held through a round: SQLite lets one run at a time, too
  std::mutex mutex_;
  std::condition_variable_any poked_;
  bool due_ = false;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace umbel::store
