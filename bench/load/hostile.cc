#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "commands.h"
#include "federation.h"
#include "flwr/fleet.pb.h"
#include "http_client.h"
#include "processes.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr size_t kDescriptorsSpare = 200;
constexpr std::chrono::milliseconds kStep{20};       // of those that pour
constexpr std::chrono::milliseconds kSlowStep{500};  // of those that drip

/// One bad peer: what it has sent and what has become of it.
struct Peer {
  std::string kind;
  Fd fd;
  std::string drip;  // sent one byte at a time; starts again at its end
  size_t dripped = 0;
  uint64_t bulk = 0;  // bytes still to be sent as fast as they are taken, before any dripping
  bool reads = true;
  std::string received;
  bool done = false;
};

std::string Ask(std::string_view method_and_path, std::string_view headers) {
  return fmt::format("{} HTTP/1.1\r\nhost: x\r\ncontent-type: application/protobuf\r\n{}\r\n",
                     method_and_path, headers);
}

/// Notes in `tally` how the server ended a peer: by a status, or without a word.
void Settle(Peer& peer, Tally& tally, std::string_view end) {
  peer.done = true;
  peer.fd.Close();
  const auto head = ParseReplyHead(peer.received);
  const bool answered = head.ok() && *head;
  const std::string how = answered ? fmt::format("{}", (*head)->status) : std::string(end);
  ++tally[fmt::format("{} {}", peer.kind, how)];
}

/// Reads what came; settles those that the server has closed.
void Look(std::vector<Peer>& peers, Tally& tally) {
  std::vector<pollfd> polls;
  std::vector<Peer*> asked;
  for (Peer& peer : peers) {
    if (peer.done) continue;
    // A peer that does not read still learns of a reset.
    polls.push_back({peer.fd.get(), static_cast<short>(peer.reads ? POLLIN : 0), 0});
    asked.push_back(&peer);
  }
  if (polls.empty() || ::poll(polls.data(), polls.size(), 0) <= 0) return;
  for (size_t i = 0; i < polls.size(); ++i) {
    Peer& peer = *asked[i];
    if (polls[i].revents == 0) continue;
    if (!peer.reads) {
      Settle(peer, tally, "closed");
      continue;
    }
    std::array<char, 4096> piece{};
    const ssize_t n = ::recv(peer.fd.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) continue;
    if (n > 0) {
      peer.received.append(piece.data(), static_cast<size_t>(n));
    } else {
      Settle(peer, tally, "closed");
    }
  }
}

void Pour(Peer& peer) {
  static const std::string kFill(size_t{1} << 20, 'x');
  while (peer.bulk > 0) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(peer.bulk, kFill.size()));
    const ssize_t n = ::send(peer.fd.get(), kFill.data(), want, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) return;
    peer.bulk -= static_cast<uint64_t>(n);
  }
}

void Drip(std::vector<Peer>& peers) {
  for (Peer& peer : peers) {
    if (peer.done) continue;
    if (peer.bulk > 0) {
      Pour(peer);
      continue;
    }
    if (peer.drip.empty()) continue;
    const char byte = peer.drip[peer.dripped++ % peer.drip.size()];
    static_cast<void>(::send(peer.fd.get(), &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT));
  }
}

/// Opens peers by `make` and watches them until none is left or the time is over.
Result<Tally> Watch(const HostileOptions& options, size_t count,
                    const std::function<std::pair<Peer, std::string>(size_t)>& make) {
  UMBEL_TRY(RaiseDescriptors(count + kDescriptorsSpare));
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(options.seconds));
  Tally tally;
  std::vector<Peer> peers;
  for (size_t i = 0; i < count; ++i) {
    auto [peer, first] = make(i);
    auto socket = Socket::Dial(options.server, std::chrono::seconds(10));
    if (!socket.ok()) {
      ++tally[peer.kind + " refused"];
      continue;
    }
    peer.fd = std::move(*socket).Take();
    if (!first.empty())
      static_cast<void>(
          ::send(peer.fd.get(), first.data(), first.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
    ++tally["opened"];
    peers.push_back(std::move(peer));
  }
  const auto live = [](const Peer& peer) { return !peer.done; };
  while (Clock::now() < end && std::any_of(peers.begin(), peers.end(), live)) {
    Drip(peers);
    Look(peers, tally);
    const bool pours = std::any_of(peers.begin(), peers.end(),
                                   [](const Peer& peer) { return !peer.done && peer.bulk > 0; });
    std::this_thread::sleep_for(pours ? kStep : kSlowStep);
  }
  for (Peer& peer : peers)
    if (!peer.done) Settle(peer, tally, "open");
  return tally;
}

Status Spread(const HostileOptions& options,
              const std::function<std::pair<Peer, std::string>(size_t)>& make) {
  const size_t each = (options.connections + options.processes - 1) / options.processes;
  UMBEL_ASSIGN(const Tally tally, RunProcesses(options.processes, [&](size_t process) {
                 return Watch(options, each, [&](size_t i) { return make(process * each + i); });
               }));
  fmt::print("{}\n", nlohmann::json(tally).dump());
  return {};
}

}  // namespace

Status RunHalfOpen(const HostileOptions& options) {
  return Spread(options, [](size_t i) -> std::pair<Peer, std::string> {
    Peer peer;
    switch (i % 4) {
      case 0:
        peer.kind = "silent";
        return {std::move(peer), ""};
      case 1:
        peer.kind = "half a head";
        return {std::move(peer), "POST /v1/fleet/pull-mess"};
      case 2:
        peer.kind = "no body";
        return {std::move(peer), Ask("POST /v1/fleet/pull-messages", "content-length: 100\r\n")};
      default:
        peer.kind = "half a TLS hello";
        return {std::move(peer), std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)};
    }
  });
}

Status RunSlow(const HostileOptions& options) {
  return Spread(options, [](size_t i) -> std::pair<Peer, std::string> {
    Peer peer;
    peer.drip.assign(1, 'a');  // GCC 12 warns of a one-letter literal here
    switch (i % 5) {
      case 0:
        peer.kind = "slow head";
        return {std::move(peer), "POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: "};
      case 1:
        peer.kind = "slow body";
        return {std::move(peer),
                Ask("POST /v1/fleet/push-messages", "content-length: 1000000\r\n")};
      case 2:
        peer.kind = "slow object";
        peer.drip = "\x0a\x01\x08";  // of a field that never ends
        return {std::move(peer), Ask("POST /v1/fleet/push-object", "content-length: 5000000\r\n")};
      case 3:
        peer.kind = "slow chunks";
        peer.drip = "1\r\na\r\n";
        return {std::move(peer),
                Ask("POST /v1/fleet/push-messages", "transfer-encoding: chunked\r\n")};
      default: {
        peer.kind = "never reads";
        peer.drip.clear();
        peer.reads = false;
        std::string many;
        for (int n = 0; n < 4000; ++n) many += Ask("GET /metrics", "");
        return {std::move(peer), std::move(many)};
      }
    }
  });
}

Status RunHog(const HostileOptions& options) {
  constexpr size_t kAnnounced = size_t{180} << 20;
  UMBEL_ASSIGN(const std::vector<Member> members, JoinNodes(options.server, 1));
  const std::string head =
      RequestHead("/v1/fleet/push-messages", members[0].identity->SignedHeaders(), kAnnounced);
  return Spread(options, [&](size_t) -> std::pair<Peer, std::string> {
    Peer peer;
    peer.kind = "hog";
    peer.bulk = kAnnounced - 1;
    return {std::move(peer), head};
  });
}

}  // namespace umbel::bench
