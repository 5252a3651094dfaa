#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <future>
#include <thread>

#include "base/file.h"

namespace umbel::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

/// A blocking peer that says exactly what a test wants said.
class Peer {
 public:
  explicit Peer(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }

  void Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(static_cast<size_t>(n));
    }
  }
  /// Reads until `text` has come; everything up to its end is returned and forgotten.
  std::string Until(std::string_view text) {
    for (;;) {
      if (const size_t at = pending_.find(text); at != std::string::npos) {
        std::string out = pending_.substr(0, at + text.size());
        pending_.erase(0, out.size());
        return out;
      }
      if (!More()) return std::exchange(pending_, {}) + "<end>";
    }
  }
  std::string Bytes(size_t count) {
    while (pending_.size() < count)
      if (!More()) break;
    std::string out = pending_.substr(0, count);
    pending_.erase(0, out.size());
    return out;
  }
  bool Closed() {
    while (More()) {
    }
    return ended_;
  }
  void Close() { fd_.Close(); }
  void FinishSending() { ::shutdown(fd_.get(), SHUT_WR); }

 private:
  bool More() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    ended_ = n == 0 || (n < 0 && errno == ECONNRESET);
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
    return true;
  }

  Fd fd_;
  std::string pending_;
  bool ended_ = false;
};

struct Doorbell {
  std::mutex mutex;
  std::shared_ptr<Wakeable> waker;
  std::promise<void> held;
  std::atomic<int> gone{0};
  std::atomic<bool> rung{false};
};

/// Answers what the tests ask of it, by path.
class Fixture : public ::testing::Test {
 protected:
  void Serve(ServerOptions options = {}) {
    options.port = 0;
    auto server = Server::Start(std::move(options), [this](Exchange& exchange) -> Task<void> {
      const std::string path(exchange.path());
      if (path == "/echo") {
        auto body = co_await exchange.ReadBody(1 << 20);
        if (!body.ok()) {
          Response problem(body.error().wire_code, "text/plain", body.error().message);
          co_await exchange.Reply(std::move(problem));
          co_return;
        }
        Response answer(200, "text/plain", std::move(*body));
        co_await exchange.Reply(std::move(answer));
      } else if (path == "/ignore") {
        Response answer(200, "text/plain", "ignored");
        co_await exchange.Reply(std::move(answer));
      } else if (path == "/query") {
        Response answer(200, "text/plain", fmt::format("[{}]", exchange.query()));
        co_await exchange.Reply(std::move(answer));
      } else if (path == "/stream") {
        co_await exchange.BeginStream("text/plain");
        co_await exchange.WriteStream("one");
        co_await exchange.WriteStream("");
        co_await exchange.WriteStream("three");
        co_await exchange.EndStream();
      } else if (path == "/file") {
        co_await exchange.ReplyFile("text/plain", "prefix:", file_.get(), 5, file_size_ - 5);
      } else if (path == "/hold") {
        {
          std::lock_guard lock(bell_.mutex);
          bell_.waker = exchange.waker();
        }
        bell_.held.set_value();
        for (;;) {
          const HoldEnd end = co_await exchange.Hold(Steady::now() + hold_for_, interim_);
          if (end == HoldEnd::kWoken && !bell_.rung) continue;
          if (end == HoldEnd::kGone) ++bell_.gone;
          Response answer(200, "text/plain", end == HoldEnd::kWoken ? "woken" : "not woken");
          co_await exchange.Reply(std::move(answer));
          co_return;
        }
      }
    });
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(*server);
  }

  void TearDown() override { bell_.waker.reset(); }  // not kept beyond the server

  void Ring() {
    bell_.rung = true;
    std::lock_guard lock(bell_.mutex);
    bell_.waker->Wake();
  }
  /// Waits until the server counts this many connections.
  bool Connections(uint64_t count) {
    const auto until = Steady::now() + seconds(20);
    while (server_->counters().connections_open != count && Steady::now() < until)
      std::this_thread::yield();
    return server_->counters().connections_open == count;
  }

  Fd file_;
  size_t file_size_ = 0;
  Doorbell bell_;
  seconds hold_for_{30};
  bool interim_ = false;
  std::unique_ptr<Server> server_;  // last: its threads use the rest
};

std::string Post(std::string_view path, std::string_view body, std::string_view headers = "") {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{}\r\n{}", path,
                     body.size(), headers, body);
}

TEST_F(Fixture, AnswersAndKeepsTheConnection) {
  Serve();
  Peer peer(server_->port());
  for (int i = 0; i < 3; ++i) {
    peer.Send(Post("/echo", "hello"));
    const std::string head = peer.Until("\r\n\r\n");
    EXPECT_NE(head.find("200 OK"), std::string::npos) << head;
    EXPECT_NE(head.find("Content-Length: 5"), std::string::npos);
    EXPECT_EQ(peer.Bytes(5), "hello");
  }
}

TEST_F(Fixture, PipelinedRequestsAreAnsweredInOrder) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/echo", "first") + Post("/echo", "second") + Post("/ignore", "third") +
            Post("/echo", "fourth"));
  for (const char* body : {"first", "second", "ignored", "fourth"}) {
    peer.Until("\r\n\r\n");
    EXPECT_EQ(peer.Bytes(std::strlen(body)), body);
  }
}

TEST_F(Fixture, AHandlerSeesTheQuery) {
  Serve();
  Peer peer(server_->port());
  for (const auto& [target, query] :
       std::vector<std::pair<std::string, std::string>>{{"/query", "[]"},
                                                        {"/query?", "[]"},
                                                        {"/query?a=%20b&c", "[a=%20b&c]"},
                                                        {"/query?a?b", "[a?b]"}}) {
    peer.Send("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.Until("\r\n\r\n");
    EXPECT_EQ(peer.Until("]"), query) << target;
  }
}

TEST_F(Fixture, ReadsChunkedBodies) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  peer.Send("3\r\nabc\r\n1;ext=1\r\nd\r\n0\r\nTrailer: x\r\n\r\n");
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(4), "abcd");
  peer.Send(Post("/echo", "next"));
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(4), "next");
}

TEST_F(Fixture, RefusesBrokenChunks) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 400 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, RefusesALengthBesideChunks) {
  Serve();
  Peer peer(server_->port());
  peer.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 400 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, RefusesALongBodyByItsLength) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 413 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, RefusesALongBodyThatComesInChunks) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
  for (int i = 0; i < 20; ++i) peer.Send(chunk);
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 413 "), std::string::npos);
}

TEST_F(Fixture, RefusesALongHead) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nX: " + std::string(60'000, 'x') + "\r\n\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 431 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, RefusesWhatIsNotHttp) {
  Serve();
  Peer peer(server_->port());
  peer.Send("\x16\x03\x01 hello, is this TLS?\r\n\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 400 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, AHeadThatNeverEndsTimesOut) {
  ServerOptions options;
  options.header_timeout = seconds(1);
  Serve(std::move(options));
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nX-Slow: ");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 408 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, ABodyThatStallsTimesOut) {
  ServerOptions options;
  options.body_timeout = seconds(1);
  Serve(std::move(options));
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 408 "), std::string::npos);
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, ABodyThatEndsEarlyIsNotAnswered) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  peer.FinishSending();
  EXPECT_TRUE(peer.Closed());
  EXPECT_TRUE(Connections(0));
}

TEST_F(Fixture, AnUnreadBodyIsDrained) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/ignore", std::string(300'000, 'x')) + Post("/echo", "after"));
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(7), "ignored");
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(5), "after");
}

TEST_F(Fixture, ExpectContinueIsHonoured) {
  Serve();
  Peer peer(server_->port());
  peer.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 100 "), std::string::npos);
  peer.Send("hi");
  EXPECT_NE(peer.Until("\r\n\r\n").find(" 200 "), std::string::npos);
}

TEST_F(Fixture, StreamsInChunks) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/stream", ""));
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Until("0\r\n\r\n"), "3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
}

TEST_F(Fixture, SendsAPartOfAFile) {
  const std::string content = std::string(3'000'000, 'a') + "the end";
  char name[] = "/tmp/umbel-http-XXXXXX";
  file_ = Fd(::mkstemp(name));
  ::unlink(name);
  ASSERT_EQ(::write(file_.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  file_size_ = content.size();
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/file", ""));
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(content.size() - 5 + 7), "prefix:" + content.substr(5));
}

TEST_F(Fixture, AHoldIsWokenAtOnce) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/hold", ""));
  bell_.held.get_future().wait();
  Ring();
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(5), "woken");
}

TEST_F(Fixture, AHoldEndsAtItsDeadline) {
  hold_for_ = seconds(0);
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/hold", ""));
  peer.Until("\r\n\r\n");
  EXPECT_EQ(peer.Bytes(9), "not woken");
}

TEST_F(Fixture, AHoldNoticesThatItsPeerIsGone) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/hold", ""));
  bell_.held.get_future().wait();
  peer.Close();
  EXPECT_TRUE(Connections(0));
  EXPECT_EQ(bell_.gone, 1);
}

TEST_F(Fixture, AWakeOutlivesItsConnection) {
  Serve();
  {
    Peer peer(server_->port());
    peer.Send(Post("/hold", ""));
    bell_.held.get_future().wait();
  }
  EXPECT_TRUE(Connections(0));
  Ring();
}

TEST_F(Fixture, StopLetsAHoldAnswer) {
  Serve();
  Peer peer(server_->port());
  peer.Send(Post("/hold", ""));
  bell_.held.get_future().wait();
  server_->Stop(seconds(10));
  EXPECT_NE(peer.Until("\r\n\r\n").find("Connection: close"), std::string::npos);
  EXPECT_EQ(peer.Bytes(9), "not woken");
  EXPECT_TRUE(peer.Closed());
}

TEST_F(Fixture, RoomIsMadeByClosingWhoNeverAsked) {
  ServerOptions options;
  options.connections_max = 8;
  Serve(std::move(options));
  Peer served(server_->port());
  served.Send(Post("/echo", "x"));
  served.Until("\r\n\r\n");
  served.Bytes(1);
  std::vector<std::unique_ptr<Peer>> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(std::make_unique<Peer>(server_->port()));
  EXPECT_TRUE(idle.front()->Closed());
  served.Send(Post("/echo", "y"));
  served.Until("\r\n\r\n");
  EXPECT_EQ(served.Bytes(1), "y");
}

TEST_F(Fixture, BodiesShareOneBudget) {
  ServerOptions options;
  options.body_budget_bytes = 1000;
  Serve(std::move(options));
  Peer first(server_->port());
  first.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\nabc");
  Peer second(server_->port());
  second.Send(Post("/echo", std::string(600, 'x')));
  first.Send(std::string(797, 'y'));
  first.Until("\r\n\r\n");
  EXPECT_EQ(first.Bytes(800).size(), 800u);
  second.Until("\r\n\r\n");
  EXPECT_EQ(second.Bytes(600), std::string(600, 'x'));
}

TEST_F(Fixture, APortInUseIsNamed) {
  Serve();
  ServerOptions options;
  options.port = server_->port();
  const auto second = Server::Start(options, [](Exchange&) -> Task<void> { co_return; });
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find(std::to_string(options.port)), std::string::npos);
}

}  // namespace
}  // namespace umbel::http
