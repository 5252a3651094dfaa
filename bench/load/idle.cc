#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <queue>
#include <random>

#include "commands.h"
#include "federation.h"
#include "flwr/fleet.pb.h"
#include "http_client.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr double kHeartbeatInterval = 30;
constexpr double kPause = 3;  // a SuperNode's after an empty poll
constexpr double kRetry = 1;

/// What a SuperNode does after `U(0.7, 0.9) * (30 - 5)` seconds: Flower's own numbers.
double NextHeartbeat(std::mt19937_64& random) {
  return std::uniform_real_distribution(0.7, 0.9)(random) * (kHeartbeatInterval - 5);
}

enum class Line : uint8_t { kPoll, kHeartbeat };

/// One connection of a node; idle ones of heartbeats stay open for a while.
struct Channel {
  Fd fd;
  std::string received;
  Clock::time_point asked;
  bool waiting = false;  // for a reply
};

struct IdleNode {
  const Member* member = nullptr;
  std::array<Channel, 2> channels;
  Channel& at(Line line) { return channels[static_cast<size_t>(line)]; }
};

struct Counts {
  uint64_t heartbeats = 0;
  uint64_t polls = 0;  // answered ones
  uint64_t interim = 0;
  uint64_t failures = 0;
  std::vector<double> heartbeat_seconds;
};

class Crowd {
 public:
  Crowd(const IdleOptions& options, const std::vector<Member>& members)
      : options_(options), nodes_(members.size()), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (size_t i = 0; i < members.size(); ++i) nodes_[i].member = &members[i];
    // Spread as nodes that joined at different times are.
    for (size_t i = 0; i < nodes_.size(); ++i) {
      After(std::uniform_real_distribution(0.0, 5.0)(random_), i, What::kPoll);
      After(std::uniform_real_distribution(0.0, 20.0)(random_), i, What::kHeartbeat);
    }
  }

  /// Lives on for `seconds`.
  Status Run(double seconds) {
    const Clock::time_point end =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
    while (Clock::now() < end) {
      UMBEL_TRY(FireTimers());
      UMBEL_TRY(Wait(end));
    }
    return {};
  }

  size_t held() {
    return static_cast<size_t>(std::count_if(
        nodes_.begin(), nodes_.end(), [](IdleNode& node) { return node.at(Line::kPoll).waiting; }));
  }
  Counts& counts() { return counts_; }

 private:
  enum class What : uint8_t { kPoll, kHeartbeat, kClose };
  struct Timer {
    Clock::time_point at;
    size_t node;
    What what;
    bool operator>(const Timer& other) const { return at > other.at; }
  };

  void After(double seconds, size_t node, What what) {
    const auto delay = std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
    timers_.push({Clock::now() + delay, node, what});
  }

  Status FireTimers() {
    while (!timers_.empty() && timers_.top().at <= Clock::now()) {
      const Timer timer = timers_.top();
      timers_.pop();
      switch (timer.what) {
        case What::kPoll:
          UMBEL_TRY(Ask(timer.node, Line::kPoll));
          break;
        case What::kHeartbeat:
          After(NextHeartbeat(random_), timer.node, What::kHeartbeat);
          UMBEL_TRY(Ask(timer.node, Line::kHeartbeat));
          break;
        case What::kClose:
          if (!nodes_[timer.node].at(Line::kHeartbeat).waiting)
            nodes_[timer.node].at(Line::kHeartbeat).fd.Close();
          break;
      }
    }
    return {};
  }

  /// Sends a request. A small one on a fresh loopback connection goes out in one piece.
  Status Ask(size_t index, Line line) {
    IdleNode& node = nodes_[index];
    Channel& channel = node.at(line);
    if (channel.waiting) {  // it never came: a client would have given up by now
      ++counts_.failures;
      channel = {};
    }
    if (!channel.fd.valid()) {
      auto socket = Socket::Dial(options_.server);
      if (!socket.ok()) return Failed(index, line);
      channel.fd = std::move(*socket).Take();
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = index * 2 + static_cast<size_t>(line);
      if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, channel.fd.get(), &event) != 0)
        return Fail(SystemError("watch", "socket"));
    }
    std::string body;
    if (line == Line::kPoll) {
      pb::FleetPullMessagesRequest request;
      request.mutable_node()->set_node_id(node.member->node_id);
      body = request.SerializeAsString();
    } else {
      pb::SendNodeHeartbeatRequest request;
      request.mutable_node()->set_node_id(node.member->node_id);
      request.set_heartbeat_interval(kHeartbeatInterval);
      body = request.SerializeAsString();
    }
    const std::string_view route =
        line == Line::kPoll ? "/v1/fleet/pull-messages" : "/v1/fleet/send-node-heartbeat";
    const std::string bytes =
        RequestHead(route, node.member->identity->SignedHeaders(), body.size()) + body;
    channel.asked = Clock::now();
    channel.waiting = true;
    const ssize_t sent = ::send(channel.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(bytes.size())) return Failed(index, line);
    return {};
  }

  Status Failed(size_t index, Line line) {
    ++counts_.failures;
    nodes_[index].at(line) = {};
    if (line == Line::kPoll) After(kRetry, index, What::kPoll);
    return {};
  }

  Status Wait(Clock::time_point end) {
    const Clock::time_point next = timers_.empty() ? end : std::min(end, timers_.top().at);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now()).count();
    std::array<epoll_event, 256> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   static_cast<int>(std::clamp<int64_t>(left, 0, 1000)));
    if (count < 0 && errno != EINTR) return Fail(SystemError("wait for", "sockets"));
    for (int i = 0; i < count; ++i) {
      const uint64_t data = events[static_cast<size_t>(i)].data.u64;
      UMBEL_TRY(Readable(data / 2, data % 2 == 0 ? Line::kPoll : Line::kHeartbeat));
    }
    return {};
  }

  Status Readable(size_t index, Line line) {
    Channel& channel = nodes_[index].at(line);
    if (!channel.fd.valid()) return {};  // closed since the event was taken
    std::array<char, 4096> piece{};
    const ssize_t n = ::recv(channel.fd.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (n <= 0) {
      if (channel.waiting) return Failed(index, line);
      channel = {};
      return {};
    }
    channel.received.append(piece.data(), static_cast<size_t>(n));
    DropInterim(channel.received);
    UMBEL_ASSIGN(const auto head, ParseReplyHead(channel.received));
    if (!head || channel.received.size() < head->size + head->content_length) return {};
    channel.received.clear();
    channel.waiting = false;
    if (head->status != 200) return Failed(index, line);
    if (line == Line::kPoll) {
      ++counts_.polls;
      After(kPause, index, What::kPoll);
    } else {
      ++counts_.heartbeats;
      counts_.heartbeat_seconds.push_back(Seconds(Clock::now() - channel.asked).count());
      After(options_.close_after, index, What::kClose);
    }
    if (head->close) channel.fd.Close();
    return {};
  }

  void DropInterim(std::string& bytes) {
    constexpr std::string_view kInterim = "HTTP/1.1 102 ";
    while (bytes.starts_with(kInterim)) {
      const size_t end = bytes.find("\r\n\r\n");
      if (end == std::string::npos) return;
      bytes.erase(0, end + 4);
      ++counts_.interim;
    }
  }

  const IdleOptions& options_;
  std::vector<IdleNode> nodes_;
  Fd epoll_;
  std::mt19937_64 random_{std::random_device{}()};
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  Counts counts_;
};

}  // namespace

Status RunIdle(const IdleOptions& options) {
  // A quarter of the nodes has a heartbeat connection open at any time.
  UMBEL_TRY(RaiseDescriptors(options.nodes * 3 / 2 + 500));
  const Clock::time_point begin = Clock::now();
  UMBEL_ASSIGN(const std::vector<Member> members, JoinNodes(options.server, options.nodes));
  const double join_seconds = Seconds(Clock::now() - begin).count();
  Crowd crowd(options, members);
  UMBEL_TRY(crowd.Run(options.warm_seconds));
  const auto say = [](const nlohmann::json& line) {
    fmt::print("{}\n", line.dump());
    std::fflush(stdout);
  };
  say({{"ready", true}, {"held", crowd.held()}, {"join_seconds", join_seconds}});
  crowd.counts() = {};
  UMBEL_TRY(crowd.Run(options.seconds));
  Counts& counts = crowd.counts();
  std::vector<double>& latencies = counts.heartbeat_seconds;
  std::sort(latencies.begin(), latencies.end());
  const auto quantile = [&](double q) {
    return latencies.empty()
               ? 0.0
               : latencies[static_cast<size_t>(q * static_cast<double>(latencies.size() - 1))] *
                     1e3;
  };
  say({{"nodes", options.nodes},
       {"seconds", options.seconds},
       {"held", crowd.held()},
       {"heartbeats", counts.heartbeats},
       {"polls", counts.polls},
       {"interim", counts.interim},
       {"failures", counts.failures},
       {"heartbeat_p50_ms", quantile(0.5)},
       {"heartbeat_p99_ms", quantile(0.99)}});
  return {};
}

}  // namespace umbel::bench
