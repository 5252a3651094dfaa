#include "superlink/door.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>

#include "base/log.h"

namespace umbel::superlink {
namespace ip = boost::asio::ip;

namespace {

constexpr std::chrono::seconds kDurableTimeout{20};

bool Within(const ip::address& address, const std::string& cidr) {
  boost::system::error_code error;
  if (address.is_v4()) {
    const auto network = ip::make_network_v4(cidr, error);
    if (error) return false;
    const auto own = ip::make_network_v4(address.to_v4(), network.prefix_length());
    return own.network() == network.network();
  }
  const auto network = ip::make_network_v6(cidr, error);
  if (error) return false;
  const auto own = ip::make_network_v6(address.to_v6(), network.prefix_length());
  return own.network() == network.network();
}

}  // namespace

Site::Site(const Options& o, Engine& e)
    : options(o), engine(e), pool(2), hashes(std::max<size_t>(o.threads, 1)) {}

void Site::RecordReadyWait(WallTime ready_at, WallTime asked_at) {
  const Micros wait = engine.clock().Now() - std::max(ready_at, asked_at);
  if (ready_at == WallTime{} || wait < Micros(0)) return;
  metrics.ready_wait_micros += static_cast<uint64_t>(wait.count());
  ++metrics.ready_waits;
}

bool Site::MayCommand(const Exchange& exchange) const {
  boost::system::error_code error;
  ip::address address = ip::make_address(exchange.peer_address(), error);
  if (error) return false;
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    address = ip::make_address_v4(ip::v4_mapped, address.to_v6());
  for (const std::string& cidr : options.control_from)
    if (Within(address, cidr)) return true;
  return false;
}

void Site::Audit(const Exchange& exchange, std::string_view action, RunId run_id,
                 std::string_view fab_hash, std::string_view outcome) {
  LogInfo("audit", {{"peer", exchange.peer_address()},
                    {"action", action},
                    {"run_id", run_id},
                    {"fab_hash", fab_hash},
                    {"outcome", outcome}});
  std::vector<store::Write> writes;
  writes.push_back(
      store::AppendAudit{{engine.clock().Now(), exchange.peer_address(), std::string(action),
                          run_id, std::string(fab_hash), std::string(outcome)}});
  engine.Write(std::move(writes));
}

Result<flower::NodeKey> KeyCache::Get(const std::string& pem) {
  constexpr size_t kKeysMax = 100'000;  // then all are parsed anew, once
  const auto known = keys_.With([&](const auto& keys) {
    const auto found = keys.find(pem);
    return found == keys.end() ? std::optional<flower::NodeKey>() : found->second;
  });
  if (known) return *known;
  UMBEL_ASSIGN(flower::NodeKey key, flower::NodeKey::FromPem(pem));
  keys_.With([&](auto& keys) {
    if (keys.size() >= kKeysMax) keys.clear();
    keys.emplace(pem, key);
  });
  return key;
}

Task<Status> Durable(Exchange& exchange, CommitPtr commit) {
  const auto deadline = std::chrono::steady_clock::now() + kDurableTimeout;
  while (!commit->done()) {
    commit->Notify(exchange.waker());
    const http::HoldEnd end = co_await exchange.Hold(deadline, false);
    if (commit->done()) break;
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end == http::HoldEnd::kDeadline)
      co_return Fail(Code::kUnavailable, "the disk does not take the change in time", 503);
    // kStopping: the store drains before it closes, so the answer comes.
    if (end == http::HoldEnd::kStopping)
      co_return Fail(Code::kUnavailable, "the SuperLink is stopping", 503);
  }
  co_return commit->status();
}

}  // namespace umbel::superlink
