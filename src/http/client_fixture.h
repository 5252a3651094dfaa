// What the tests of the client share: a scripted peer, our own server, and calls to them.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "http/client.h"
#include "http/server.h"

namespace umbel::http {

using std::chrono::seconds;
using Steady = std::chrono::steady_clock;
using Answer = Result<ClientResponse>;

inline constexpr size_t kBodyMax = size_t{16} << 20;

/// The server's end of one connection, blocking, which says exactly what a test wants said.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {
    const timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }

  /// False when the client has gone.
  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  std::string Until(std::string_view text) {
    while (pending_.find(text) == std::string::npos)
      if (!More()) return std::exchange(pending_, {}) + "<end>";
    const size_t size = pending_.find(text) + text.size();
    std::string out = pending_.substr(0, size);
    pending_.erase(0, size);
    return out;
  }
  std::string Head() { return Until("\r\n\r\n"); }
  /// Until the client has closed.
  std::string Rest() {
    while (More()) {
    }
    return std::exchange(pending_, {});
  }
  void Reset() {
    const linger at_once{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    fd_.Close();
  }

 private:
  bool More() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  Fd fd_;
  std::string pending_;
};

using Script = std::function<void(Peer&)>;

/// Plays one script for each connection, in the order in which they come, one after another.
class Stage {
 public:
  explicit Stage(std::vector<Script> scripts) : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const timeval limit{20, 0};
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this, scripts = std::move(scripts)] {
      for (const Script& script : scripts) {
        const int fd = ::accept(listener_.get(), nullptr, nullptr);
        if (fd < 0) return;
        Peer peer(fd);
        script(peer);
      }
    });
  }
  uint16_t port() const { return port_; }

 private:
  Fd listener_;
  uint16_t port_ = 0;
  std::jthread thread_;
};

/// A port nobody listens on.
inline uint16_t FreePort() { return Stage({}).port(); }

class ClientTest : public ::testing::Test {
 protected:
  static ClientOptions To(uint16_t port) {
    ClientOptions options;
    options.port = port;
    options.connect_timeout = seconds(20);
    return options;
  }
  void Connect(ClientOptions options) {
    auto client = Client::Make(io_, std::move(options));
    ASSERT_TRUE(client.ok()) << client.error().message;
    client_ = std::move(*client);
  }

  /// A server of ours with a few paths.
  void Serve(ServerOptions options = {}) {
    options.port = 0;
    auto server = Server::Start(std::move(options), [this](Exchange& exchange) -> Task<void> {
      const std::string path(exchange.path());
      if (path == "/echo") {
        auto body = co_await exchange.ReadBody(kBodyMax);
        if (!body.ok()) co_return;
        Response answer(200, std::string(exchange.Header("Content-Type")), std::move(*body));
        co_await exchange.Reply(std::move(answer));
      } else if (path == "/refuse") {
        Response answer(401, "text/plain", "no", "WWW-Authenticate: Basic\r\n");
        co_await exchange.Reply(std::move(answer));
      } else if (path == "/stream") {
        co_await exchange.BeginStream("text/plain");
        for (const size_t size : {size_t{3}, size_t{100'000}, size_t{1}}) {
          const std::string piece(size, 's');
          co_await exchange.WriteStream(piece);
        }
        co_await exchange.EndStream();
      } else if (path == "/hold") {
        {
          std::lock_guard lock(mutex_);
          wakers_.push_back(exchange.waker());
        }
        ++held_;
        co_await exchange.Hold(Steady::now() + seconds(60), true);
        Response answer(200, "text/plain", fmt::format("{}", ++answered_));
        co_await exchange.Reply(std::move(answer));
      }
    });
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
  }
  void TearDown() override { wakers_.clear(); }  // not kept beyond the server

  /// A call that goes on while the test runs io_.
  void Begin(ClientRequest request, std::optional<Answer>& answer, size_t body_max = kBodyMax) {
    Spawn(std::make_unique<ClientRequest>(std::move(request)), answer, body_max);
  }
  Answer Call(ClientRequest request, size_t body_max = kBodyMax) {
    std::optional<Answer> answer;
    Begin(std::move(request), answer, body_max);
    RunUntil([&] { return answer.has_value(); });
    if (!answer) return Fail(Code::kUnknown, "the call did not end");
    return std::move(*answer);
  }
  Answer Get(const std::string& path) { return Call(ClientRequest("GET", path)); }

  template <typename F>
  void RunUntil(F&& done) {
    const auto until = Steady::now() + seconds(40);
    while (!done() && Steady::now() < until) {
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(20));
    }
    EXPECT_TRUE(done());
  }

  boost::asio::io_context io_{1};
  std::unique_ptr<Client> client_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Wakeable>> wakers_;
  std::atomic<size_t> held_{0};
  std::atomic<int> answered_{0};
  std::unique_ptr<Server> server_;  // last: its threads use the rest

 private:
  void Spawn(std::unique_ptr<ClientRequest> request, std::optional<Answer>& answer,
             size_t body_max) {
    const ClientRequest& sent = *request;
    boost::asio::co_spawn(
        io_, client_->Send(sent, body_max),
        [&answer, keep = std::move(request)](std::exception_ptr failed, Answer got) {
          EXPECT_EQ(failed, nullptr);
          answer = std::move(got);
        });
  }
};

inline ClientRequest Post(std::string path, std::string body) {
  ClientRequest request("POST", std::move(path));
  request.content_type = "application/protobuf";
  request.body = std::move(body);
  return request;
}

inline std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
  return text;
}

inline Fd Unnamed(std::string_view content) {
  char name[] = "/tmp/umbel-client-XXXXXX";
  Fd file(::mkstemp(name));
  ::unlink(name);
  EXPECT_EQ(::write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return file;
}

inline constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
inline const Script kAnswerOnce = [](Peer& peer) {
  peer.Head();
  peer.Send(kOk);
  peer.Rest();
};

}  // namespace umbel::http
