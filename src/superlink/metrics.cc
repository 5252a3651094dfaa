#include "superlink/metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace umbel::superlink {

void Metrics::AddRoute(std::string_view path) {
  routes_.emplace(std::string(path), std::make_unique<RouteMetrics>());
}

void Metrics::Record(std::string_view path, int status, std::chrono::nanoseconds latency,
                     bool held) {
  const auto found = routes_.find(path);
  if (found == routes_.end()) return;
  RouteMetrics& route = *found->second;
  ++route.requests;
  if (status >= 400 || status == 0) ++route.errors;
  if (held) return;
  const double seconds = std::chrono::duration<double>(latency).count();
  size_t bucket = 0;
  while (bucket < kLatencyBounds.size() && seconds > kLatencyBounds[bucket]) ++bucket;
  ++route.buckets[bucket];
  route.latency_micros += static_cast<uint64_t>(latency.count() / 1000);
}

void Metrics::Render(std::string* out) const {
  const auto add = [&](std::string_view name, std::string_view help, uint64_t value) {
    fmt::format_to(std::back_inserter(*out), "# HELP {} {}\n# TYPE {} counter\n{} {}\n", name, help,
                   name, name, value);
  };
  add("umbel_messages_delivered_total", "Instructions handed to SuperNodes.", messages_delivered);
  add("umbel_replies_delivered_total", "Replies handed to ServerApps.", replies_delivered);
  add("umbel_objects_received_total", "Objects stored.", objects_received);
  add("umbel_objects_sent_total", "Objects handed out.", objects_sent);
  add("umbel_object_received_bytes_total", "Bytes of stored objects.", object_bytes_received);
  add("umbel_object_sent_bytes_total", "Bytes of objects handed out.", object_bytes_sent);
  add("umbel_ready_wait_microseconds_total",
      "Time for which ready work lay here while its receiver waited.", ready_wait_micros);
  add("umbel_ready_waits_total", "Deliveries counted in that time.", ready_waits);
  *out += "# HELP umbel_requests_total Requests by route.\n# TYPE umbel_requests_total counter\n";
  for (const auto& [path, route] : routes_)
    if (route->requests > 0)
      fmt::format_to(std::back_inserter(*out), "umbel_requests_total{{route=\"{}\"}} {}\n", path,
                     route->requests.load());
  *out +=
      "# HELP umbel_request_errors_total Requests answered with 400 or above, or cut.\n"
      "# TYPE umbel_request_errors_total counter\n";
  for (const auto& [path, route] : routes_)
    if (route->errors > 0)
      fmt::format_to(std::back_inserter(*out), "umbel_request_errors_total{{route=\"{}\"}} {}\n",
                     path, route->errors.load());
  *out +=
      "# HELP umbel_request_seconds Time to answer requests that were not held.\n"
      "# TYPE umbel_request_seconds histogram\n";
  for (const auto& [path, route] : routes_) {
    uint64_t count = 0;
    if (route->requests == 0) continue;
    for (size_t i = 0; i <= kLatencyBounds.size(); ++i) {
      count += route->buckets[i];
      const std::string bound =
          i < kLatencyBounds.size() ? fmt::format("{}", kLatencyBounds[i]) : "+Inf";
      fmt::format_to(std::back_inserter(*out),
                     "umbel_request_seconds_bucket{{route=\"{}\",le=\"{}\"}} {}\n", path, bound,
                     count);
    }
    fmt::format_to(std::back_inserter(*out),
                   "umbel_request_seconds_sum{{route=\"{0}\"}} {1}\n"
                   "umbel_request_seconds_count{{route=\"{0}\"}} {2}\n",
                   path, static_cast<double>(route->latency_micros) / 1e6, count);
  }
}

}  // namespace umbel::superlink
