// What the server and its connections share. Internal to this room.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "http/budget.h"
#include "http/server.h"

namespace umbel::http {

/// A live connection as the server sees it: something to close.
class ConnectionHandle {
 public:
  virtual ~ConnectionHandle() = default;
  virtual void CloseSoon() = 0;  // any thread
  virtual void StopSoon() = 0;   // any thread: no further request; wakes a hold
};

struct Shared {
  Shared(ServerOptions o, Handler h)
      : options(std::move(o)), handler(std::move(h)), budget(options.body_budget_bytes) {}

  const ServerOptions options;
  const Handler handler;
  Budget budget;
  ServerCounters counters;
  std::atomic<bool> stopping{false};

  struct Entry {
    std::weak_ptr<ConnectionHandle> connection;
    bool served = false;  // was answered well, or is held: not to be shed
  };
  std::mutex mutex;
  std::list<Entry> entries;         // oldest first
  std::condition_variable changed;  // entries became empty

  std::list<Entry>::iterator Add(std::weak_ptr<ConnectionHandle> connection);
  void MarkServed(std::list<Entry>::iterator entry);
  void Remove(std::list<Entry>::iterator entry);
  /// Closes the oldest connection that was not served yet; false when there is none.
  bool ShedOne();
};

/// Runs one accepted connection to its end.
void StartConnection(std::shared_ptr<Shared> shared, boost::asio::ip::tcp::socket socket,
                     boost::asio::ssl::context* tls);

}  // namespace umbel::http
