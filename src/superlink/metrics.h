// Counters for /metrics. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace umbel::superlink {

/// Upper bounds of the latency histogram, in seconds; holds (long polls) are left out of it.
inline constexpr std::array<double, 10> kLatencyBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                          0.025,  0.05,  0.1,    0.5,   2.5};

struct RouteMetrics {
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> errors{0};
  std::atomic<uint64_t> latency_micros{0};
  std::array<std::atomic<uint64_t>, kLatencyBounds.size() + 1> buckets{};
};

class Metrics {
 public:
  /// Routes are known from the start, so the map never changes while it is read.
  void AddRoute(std::string_view path);
  void Record(std::string_view path, int status, std::chrono::nanoseconds latency, bool held);

  std::atomic<uint64_t> messages_delivered{0};
  std::atomic<uint64_t> replies_delivered{0};
  std::atomic<uint64_t> objects_received{0};
  std::atomic<uint64_t> objects_sent{0};
  std::atomic<uint64_t> object_bytes_received{0};
  std::atomic<uint64_t> object_bytes_sent{0};
  /// How long ready work lay here although its receiver was waiting for it.
  std::atomic<uint64_t> ready_wait_micros{0};
  std::atomic<uint64_t> ready_waits{0};

  void Render(std::string* out) const;

 private:
  std::map<std::string, std::unique_ptr<RouteMetrics>, std::less<>> routes_;
};

}  // namespace umbel::superlink
