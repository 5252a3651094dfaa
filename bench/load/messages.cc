#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "federation.h"
#include "flwr/runtime.pb.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

using Clock = std::chrono::steady_clock;

/// Time of each call of one phase.
class Latencies {
 public:
  void Add(std::vector<double> seconds) {
    std::lock_guard lock(mutex_);
    all_.insert(all_.end(), seconds.begin(), seconds.end());
  }
  double Quantile(double q) {
    std::lock_guard lock(mutex_);
    if (all_.empty()) return 0;
    std::sort(all_.begin(), all_.end());
    return all_[static_cast<size_t>(q * static_cast<double>(all_.size() - 1))];
  }

 private:
  std::mutex mutex_;
  std::vector<double> all_;
};

nlohmann::json Figures(const Parallel& phase, size_t count, Latencies& latencies) {
  return {{"seconds", phase.seconds},
          {"per_s", static_cast<double>(count) / phase.seconds},
          {"p50_ms", latencies.Quantile(0.5) * 1e3},
          {"p99_ms", latencies.Quantile(0.99) * 1e3}};
}

template <typename F>
Status Timed(std::vector<double>& seconds, F&& call) {
  const Clock::time_point begin = Clock::now();
  UMBEL_TRY(call());
  seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  return {};
}

}  // namespace

Status RunMessages(const MessagesOptions& options) {
  const size_t lanes = options.connections;
  const size_t batch = std::max<size_t>(options.batch, 1);
  const size_t each = options.messages / lanes / batch * batch;
  const size_t count = each * lanes;
  if (count == 0) return Fail(Code::kInvalidArgument, "fewer messages than one batch a connection");
  UMBEL_ASSIGN(const auto federation, Federation::Start(options.server, options.fab, lanes));
  std::vector<Parcel> parcels;
  for (size_t i = 0; i < count; ++i)
    parcels.push_back(SmallParcel(federation->ToNode(i / each), i));

  std::vector<std::string> sessions(count);
  Latencies push_latencies;
  const Parallel push = RunParallel(lanes, [&](size_t lane) -> Status {
    FlowerClient app = federation->App();
    std::vector<double> seconds;
    for (size_t first = lane * each; first < (lane + 1) * each; first += batch) {
      pb::RuntimePushMessagesRequest request;
      for (size_t i = first; i < first + batch; ++i) {
        *request.add_messages_list() = parcels[i].message;
        *request.add_message_object_trees() = parcels[i].tree;
      }
      UMBEL_TRY(Timed(seconds, [&]() -> Status {
        UMBEL_ASSIGN(const auto pushed,
                     app.Ask<pb::RuntimePushMessagesResponse>("push-messages", request));
        if (static_cast<size_t>(pushed.objects_to_push_size()) != batch * kSmallParcelObjects)
          return Fail(Code::kFailedPrecondition, "push-messages did not ask for all objects");
        for (size_t i = first; i < first + batch; ++i) sessions[i] = pushed.session_id();
        return {};
      }));
    }
    push_latencies.Add(std::move(seconds));
    return {};
  });
  UMBEL_TRY(push.status);

  Latencies object_latencies;
  const Parallel objects = RunParallel(lanes, [&](size_t lane) -> Status {
    FlowerClient app = federation->App();
    std::vector<double> seconds;
    for (size_t i = lane * each; i < (lane + 1) * each; ++i)
      for (const Blob& blob : parcels[i].objects)
        UMBEL_TRY(Timed(seconds, [&] { return app.PushObject(blob, sessions[i]); }));
    object_latencies.Add(std::move(seconds));
    return {};
  });
  UMBEL_TRY(objects.status);
  UMBEL_TRY(federation->Finish());
  const nlohmann::json out = {
      {"messages", count},
      {"connections", lanes},
      {"batch", batch},
      {"push_messages", Figures(push, count, push_latencies)},
      {"push_objects", Figures(objects, count * kSmallParcelObjects, object_latencies)},
      {"whole_per_s", static_cast<double>(count) / (push.seconds + objects.seconds)}};
  fmt::print("{}\n", out.dump());
  return {};
}

}  // namespace umbel::bench
