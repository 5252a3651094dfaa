// HTTP/1.1 server: accepts, frames, holds and sheds; handlers are coroutines. Start and Stop from
// one thread; handlers run on the server's threads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "http/exchange.h"

namespace boost::asio {
class io_context;
}

namespace umbel::http {

struct TlsOptions {
  std::string certificate_file;  // PEM chain
  std::string key_file;          // PEM
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: the system picks one
  std::optional<TlsOptions> tls;
  size_t threads = 2;
  size_t header_bytes_max = 32 * 1024;
  size_t body_budget_bytes = size_t{256} << 20;
  /// 0: the process's limit of open files less a reserve. Beyond it the oldest connection
  /// that was never answered well (below 400) nor is held is closed to make room.
  size_t connections_max = 0;
  std::chrono::seconds header_timeout{15};
  std::chrono::seconds idle_timeout{75};
  std::chrono::seconds body_timeout{30};      // without any byte
  uint64_t body_bytes_per_second_min = 8192;  // measured over the whole body, after body_timeout
};

struct ServerCounters {
  std::atomic<uint64_t> connections_open{0};
  std::atomic<uint64_t> connections_total{0};
  std::atomic<uint64_t> connections_shed{0};
  std::atomic<uint64_t> bytes_in{0};
  std::atomic<uint64_t> bytes_out{0};
};

using Handler = std::function<Task<void>(Exchange&)>;

class Server {
 public:
  /// Binds and starts to answer.
  /// errors  kUnavailable: address in use or not ours; kInvalidArgument: bad certificate or key.
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, Handler handler);
  virtual ~Server() = default;

  virtual uint16_t port() const = 0;
  virtual const ServerCounters& counters() const = 0;
  virtual boost::asio::io_context& context() = 0;
  /// Stops accepting, wakes the held, gives running answers until `grace`, then closes all.
  /// Idempotent; joins the threads.
  virtual void Stop(std::chrono::milliseconds grace) = 0;
};

}  // namespace umbel::http
