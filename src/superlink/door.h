// What the Fleet, Runtime and Control doors of a SuperLink share: its state, who asks, waiting.
#pragma once

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/guarded.h"
#include "base/result.h"
#include "flower/auth.h"
#include "flower/door.h"
#include "http/exchange.h"
#include "superlink/engine.h"
#include "superlink/hash_queue.h"
#include "superlink/metrics.h"
#include "superlink/options.h"

namespace umbel::superlink {

using flower::CheckContentType;
using flower::HoldPlan;
using flower::kBodyMax;
using flower::PlanHold;
using flower::ReadMessage;
using flower::ReplyEmpty;
using flower::ReplyError;
using flower::ReplyMessage;
using flower::WireError;
using http::Exchange;
using http::Task;
namespace wire = flower::wire;

/// Parsed public keys, so that a heartbeat costs one signature check and nothing else.
class KeyCache {
 public:
  Result<flower::NodeKey> Get(const std::string& pem);

 private:
  Guarded<std::unordered_map<std::string, flower::NodeKey>> keys_;
};

/// Everything a handler may use.
struct Site {
  Site(const Options& o, Engine& e);

  const Options& options;
  Engine& engine;
  Metrics metrics;
  boost::asio::thread_pool pool;                     // blocking reads, signatures, unzipping
  std::unique_ptr<flower::SuperExecAuth> superexec;  // null: no shared secret
  KeyCache keys;
  HashQueue hashes;  // of objects that arrive

  /// Drains a ServerApp's output into its run's log; set by whoever runs ServerApps.
  std::function<void(RunId)> output_flush = [](RunId) {};

  /// Work that was ready at `ready_at` goes out now to a receiver that has asked since `asked_at`.
  void RecordReadyWait(WallTime ready_at, WallTime asked_at);
  /// Whether this peer may command: start and stop runs, register nodes, read metrics.
  bool MayCommand(const Exchange& exchange) const;
  void Audit(const Exchange& exchange, std::string_view action, RunId run_id,
             std::string_view fab_hash, std::string_view outcome);
};

using RouteHandler = Task<Status> (*)(Site&, Exchange&);
struct Route {
  std::string_view path;
  RouteHandler handler;
};
std::span<const Route> FleetRoutes();
std::span<const Route> RuntimeRoutes();
std::span<const Route> ControlRoutes();
std::span<const Route> UmbelRoutes();

/// Waits until the change is durable.
/// errors  kUnavailable (503): the disk does not take it in time. The change stays queued.
Task<Status> Durable(Exchange& exchange, CommitPtr commit);

/// Runs blocking or long work on the pool while the exchange waits.
template <typename F>
Task<std::invoke_result_t<F>> OnPool(Site& site, Exchange& exchange, F work) {
  using R = std::invoke_result_t<F>;
  struct Job {
    std::optional<R> result;
    std::atomic<bool> done{false};
  };
  auto job = std::make_shared<Job>();
  boost::asio::post(site.pool, [job, work = std::move(work), waker = exchange.waker()]() mutable {
    job->result.emplace(work());
    job->done.store(true, std::memory_order_release);
    waker->Wake();
  });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
  while (!job->done.load(std::memory_order_acquire)) {
    const http::HoldEnd end = co_await exchange.Hold(deadline, false);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end == http::HoldEnd::kStopping && !job->done.load(std::memory_order_acquire))
      co_return Fail(Code::kUnavailable, "the SuperLink is stopping", 503);
  }
  co_return std::move(*job->result);
}

/// Objects, the same on Fleet and Runtime.
struct ObjectCaller {
  RunId run_id;
  NodeId owner;  // the SuperLink's own id for a ServerApp
};
/// Receives push-object: checks as the head arrives, hashes and spools as the rest does.
/// authorize  called with (node id, run id) of the request before anything is stored.
using Authorize = std::function<Task<Result<ObjectCaller>>(uint64_t node_id, uint64_t run_id)>;
Task<Status> ReceiveObject(Site& site, Exchange& exchange, Authorize authorize);
Task<Status> SendObject(Site& site, Exchange& exchange, ObjectCaller caller,
                        const std::string& object_id);

}  // namespace umbel::superlink
