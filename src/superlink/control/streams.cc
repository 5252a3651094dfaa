// The Control door: streams that stay open until their run has ended.
#include <cmath>

#include "flower/errors.h"
#include "flwr/control.pb.h"
#include "superlink/control/control.h"
#include "tensor/frame.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr std::string_view kStream = "application/flower-protobuf-stream";

}  // namespace

std::optional<uint64_t> LogVersion(Site& site, RunId run_id) {
  return site.engine.Read([&](State& state, WallTime) {
    const Run* run = state.FindRun(run_id);
    return run ? std::optional(run->log_version) : std::nullopt;
  });
}

Task<Result<bool>> AwaitLog(Site& site, Exchange& exchange, RunId run_id, uint64_t version) {
  for (;;) {
    const bool unchanged = site.engine.Read([&](State& state, WallTime) {
      Run* run = state.FindRun(run_id);
      if (!run || run->log_version != version) return false;
      run->log_waiters.Add(exchange.waker());
      return true;
    });
    if (!unchanged) co_return true;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
    const http::HoldEnd end = co_await exchange.Hold(deadline, false);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end == http::HoldEnd::kStopping) co_return false;
  }
}

Task<Status> StreamLogs(Site& site, Exchange& exchange) {
  pb::StreamLogsRequest request;
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  const RunId run_id{request.run_id()};
  const auto known = co_await FindListing(site, exchange, run_id);
  if (!known.ok()) co_return Fail(known.error());
  UMBEL_CO_TRY(co_await exchange.BeginStream(std::string(kStream)));
  // Nothing is later than a NaN.
  if (std::isnan(request.after_timestamp())) co_return co_await exchange.EndStream();
  const WallTime after = FromUnixSeconds(request.after_timestamp() + 1e-6);
  int64_t cursor = 0;
  for (;;) {
    // Asked before reading: what is logged meanwhile, or the run's end, shows as a change.
    const auto before = LogVersion(site, run_id);
    const auto read = [&store = site.engine.store(), run_id, cursor, after] {
      return store.ReadLogs(run_id, cursor, after);
    };
    auto chunk = co_await OnPool(site, exchange, read);
    if (!chunk.ok()) co_return Fail(chunk.error());
    if (!chunk->text.empty()) {
      cursor = chunk->cursor;
      pb::StreamLogsResponse response;
      response.set_log_output(std::move(chunk->text));
      response.set_latest_timestamp(UnixSeconds(chunk->latest));
      const std::string frame = tensor::EncodeFrame(response.SerializeAsString());
      UMBEL_CO_TRY(co_await exchange.WriteStream(frame));
      continue;
    }
    if (!before) break;
    UMBEL_CO_ASSIGN(const bool more, co_await AwaitLog(site, exchange, run_id, *before));
    if (!more) break;
  }
  co_return co_await exchange.EndStream();
}

Task<Status> StreamRunEvents(Site& site, Exchange& exchange) {
  pb::StreamLogsRequest request;  // the run id is where it is here
  UMBEL_CO_TRY(co_await ReadMessage(exchange, &request, kControlRequestMax));
  const RunId run_id{request.run_id()};
  const auto known = co_await FindListing(site, exchange, run_id);
  if (!known.ok()) co_return Fail(known.error());
  UMBEL_CO_TRY(co_await exchange.BeginStream(std::string(kStream)));
  // Only agents have events. The stream ends with the run.
  for (auto version = LogVersion(site, run_id); version; version = LogVersion(site, run_id)) {
    UMBEL_CO_ASSIGN(const bool more, co_await AwaitLog(site, exchange, run_id, *version));
    if (!more) break;
  }
  co_return co_await exchange.EndStream();
}

}  // namespace umbel::superlink
