#include "http/client.h"

#include <future>

#include "http/client_fixture.h"

namespace umbel::http {
namespace {

TEST_F(ClientTest, OneConnectionCarriesManyCalls) {
  Serve();
  Connect(To(server_->port()));
  for (const size_t size : {0U, 1U, 5000U, 100'000U, 6'000'000U, 2U}) {
    const std::string body = Pattern(size);
    const Answer answer = Call(Post("/echo", body));
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->content_type, "application/protobuf");
    EXPECT_TRUE(answer->body == body);
  }
  const Answer streamed = Get("/stream");
  ASSERT_TRUE(streamed.ok());
  EXPECT_EQ(streamed->body, std::string(100'004, 's'));
  const Answer refused = Get("/refuse");
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->status, 401);
  EXPECT_EQ(refused->www_authenticate, "Basic");
  EXPECT_TRUE(Call(ClientRequest("HEAD", "/refuse"))->body.empty());
  EXPECT_TRUE(Get("/refuse").ok());
  EXPECT_EQ(server_->counters().connections_total, 1U);
}

TEST_F(ClientTest, ARequestsBytes) {
  std::string got;
  Stage stage({[&](Peer& peer) {
    got = peer.Until("body");
    peer.Send(kOk);
    peer.Rest();
  }});
  Connect(To(stage.port()));
  ClientRequest request = Post("/a?b=c", "body");
  request.extra_headers = "X-One: 1\r\nX-Two: 2\r\n";
  EXPECT_EQ(Call(request)->body, "ok");
  EXPECT_EQ(got, fmt::format("POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUser-Agent: umbel\r\n"
                             "Content-Type: application/protobuf\r\nContent-Length: 4\r\n"
                             "X-One: 1\r\nX-Two: 2\r\n\r\nbody",
                             stage.port()));
  client_.reset();
}

TEST_F(ClientTest, FilesFollowTheBody) {
  const std::string content = Pattern(5'000'000);
  const Fd file = Unnamed(content);
  Serve();
  Connect(To(server_->port()));
  ClientRequest request = Post("/echo", "prefix:");
  request.file = {{file.get(), 7, 4'000'000}, {file.get(), 0, 0}, {file.get(), 4'999'999, 1}};
  for (int i = 0; i < 2; ++i) {
    const Answer answer = Call(request);
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_TRUE(answer->body ==
                "prefix:" + content.substr(7, 4'000'000) + content.substr(4'999'999));
  }
  EXPECT_EQ(server_->counters().connections_total, 1U);
}

TEST_F(ClientTest, ASinkTakesTheBodyAsItComes) {
  Serve();
  Connect(To(server_->port()));
  std::string got;
  size_t longest = 0;
  ClientRequest request = Post("/echo", Pattern(6'000'000));
  request.sink = [&](std::string_view piece) -> Status {
    longest = std::max(longest, piece.size());
    got += piece;
    return {};
  };
  const Answer answer = Call(request);
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_TRUE(answer->body.empty());
  EXPECT_TRUE(got == request.body);
  EXPECT_LE(longest, size_t{256} << 10);
  got.clear();
  request.path = "/stream";
  ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(got, std::string(100'004, 's'));
  // Of an error's body it sees nothing.
  got.clear();
  request.path = "/refuse";
  EXPECT_EQ(Call(request)->status, 401);
  EXPECT_EQ(got, "");
  EXPECT_EQ(server_->counters().connections_total, 1U);
}

TEST_F(ClientTest, ASinkCanEndTheCall) {
  Serve();
  Connect(To(server_->port()));
  ClientRequest request = Post("/echo", Pattern(6'000'000));
  request.sink = [](std::string_view) -> Status {
    return Fail(Code::kResourceExhausted, "the disk is full");
  };
  EXPECT_EQ(Call(request).error().message, "the disk is full");
  request.sink = nullptr;
  EXPECT_EQ(Call(request)->body.size(), 6'000'000U);
}

TEST_F(ClientTest, AFileShorterThanPromisedCutsTheConnection) {
  const Fd file = Unnamed("short");
  std::string rest;
  Stage stage({[&](Peer& peer) {
                 peer.Head();
                 rest = peer.Rest();
               },
               kAnswerOnce});
  Connect(To(stage.port()));
  ClientRequest request("POST", "/");
  request.file = {{file.get(), 0, 6}};
  const Answer answer = Call(request);
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kDataLoss);
  EXPECT_TRUE(Get("/").ok());
  EXPECT_EQ(rest, "short");
  request.file = {{-1, 0, 6}};
  EXPECT_EQ(Call(request).error().code, Code::kDataLoss);
  client_.reset();
}

TEST_F(ClientTest, ANameIsResolvedAndAllItsAddressesAreTried) {
  Serve();  // on 127.0.0.1 only; localhost may be ::1 as well
  ClientOptions options = To(server_->port());
  options.host = "localhost";
  Connect(std::move(options));
  const Answer answer = Get("/refuse");
  EXPECT_TRUE(answer.ok()) << answer.error().message;
}

TEST_F(ClientTest, AnIpv6AddressIsAHost) {
  ServerOptions server;
  server.host = "::1";
  Serve(std::move(server));
  if (!server_) GTEST_SKIP() << "no IPv6 here";
  for (const char* host : {"::1", "[::1]"}) {
    ClientOptions options = To(server_->port());
    options.host = host;
    Connect(std::move(options));
    EXPECT_TRUE(Get("/refuse").ok());
  }
}

// -- the pool ------------------------------------------------------------------------------------

TEST_F(ClientTest, MoreCallsThanConnectionsWaitInOrder) {
  Serve();
  ClientOptions options = To(server_->port());
  options.connections_max = 2;
  Connect(std::move(options));
  std::optional<Answer> held[2];
  for (auto& answer : held) Begin(Post("/hold", ""), answer);
  RunUntil([&] { return held_ == 2; });
  std::vector<std::optional<Answer>> waiting(5);
  for (auto& answer : waiting) Begin(Post("/hold", ""), answer);
  for (size_t next = 0; next < waiting.size(); ++next) {
    EXPECT_EQ(held_, 2 + next);
    {
      std::lock_guard lock(mutex_);
      wakers_[next]->Wake();
    }
    RunUntil([&] { return held_ == 3 + next; });
  }
  {
    std::lock_guard lock(mutex_);
    for (const auto& waker : wakers_) waker->Wake();
  }
  RunUntil([&] { return waiting.back().has_value() && waiting[3].has_value(); });
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(waiting[i] && waiting[i]->ok());
    EXPECT_EQ((*waiting[i])->body, fmt::format("{}", i + 3));
  }
  EXPECT_EQ(server_->counters().connections_total, 2U);
}

TEST_F(ClientTest, AConnectionClosedMeanwhileIsReplaced) {
  Stage stage({[](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
               },  // closed while idle
               [](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 peer.Head();  // closed when the second request has come
               },
               [](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 peer.Head();
                 peer.Reset();
               },
               kAnswerOnce});
  Connect(To(stage.port()));
  for (int i = 0; i < 4; ++i) {
    const Answer answer = Get("/");
    ASSERT_TRUE(answer.ok()) << i << ": " << answer.error().message;
    EXPECT_EQ(answer->body, "ok");
  }
  client_.reset();
}

TEST_F(ClientTest, ANewConnectionIsNotTriedTwice) {
  Stage stage({[](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 peer.Head();
               },
               [](Peer& peer) { peer.Head(); }, kAnswerOnce});
  Connect(To(stage.port()));
  EXPECT_TRUE(Get("/").ok());
  const Answer answer = Get("/");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_EQ(answer.error().message,
            fmt::format("127.0.0.1:{}: the server closed the connection without an answer",
                        stage.port()));
  EXPECT_TRUE(Get("/").ok());
  client_.reset();
}

TEST_F(ClientTest, AnAnswerBegunIsNotAskedForAgain) {
  Stage stage({[](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 peer.Head();
                 peer.Send("HTTP/1.1 102 Processing\r\n\r\n");
               },
               kAnswerOnce});
  Connect(To(stage.port()));
  EXPECT_TRUE(Get("/").ok());
  const Answer answer = Get("/");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_TRUE(Get("/").ok());
  client_.reset();
}

TEST_F(ClientTest, AConnectionIdleForTooLongIsClosed) {
  std::atomic<bool> closed{false};
  Stage stage({[&](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 closed = peer.Rest().empty();
               },
               kAnswerOnce});
  ClientOptions options = To(stage.port());
  options.idle_max = seconds(1);
  Connect(std::move(options));
  EXPECT_TRUE(Get("/").ok());
  RunUntil([&] { return closed.load(); });
  EXPECT_TRUE(Get("/").ok());
  client_.reset();
}

TEST_F(ClientTest, WhatFollowsAnAnswerEndsItsConnection) {
  const std::string twice = std::string(kOk) + std::string(kOk);
  Stage stage({[&](Peer& peer) {
                 peer.Head();
                 peer.Send(twice);
                 peer.Rest();
               },
               [](Peer& peer) {
                 peer.Head();
                 peer.Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
                 peer.Rest();
               },
               [](Peer& peer) {
                 peer.Head();
                 peer.Send("HTTP/1.0 200 OK\r\n\r\nok");
               },
               kAnswerOnce});
  Connect(To(stage.port()));
  for (int i = 0; i < 4; ++i) {
    const Answer answer = Get("/");
    ASSERT_TRUE(answer.ok()) << i << ": " << answer.error().message;
    EXPECT_EQ(answer->body, "ok");
  }
  client_.reset();
}

TEST_F(ClientTest, WhatComesUnaskedIsNoAnswer) {
  std::promise<void> answered;
  std::promise<void> sent;
  Stage stage({[&](Peer& peer) {
                 peer.Head();
                 peer.Send(kOk);
                 answered.get_future().wait();
                 peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
                 sent.set_value();
                 peer.Rest();
               },
               kAnswerOnce});
  Connect(To(stage.port()));
  EXPECT_EQ(Get("/")->body, "ok");
  answered.set_value();
  sent.get_future().wait();
  EXPECT_EQ(Get("/")->body, "ok");
  client_.reset();
}

TEST_F(ClientTest, CloseEndsWhatIsUnderWay) {
  Serve();
  ClientOptions options = To(server_->port());
  options.connections_max = 2;
  Connect(std::move(options));
  std::optional<Answer> answers[4];
  for (auto& answer : answers) Begin(Post("/hold", ""), answer);
  RunUntil([&] { return held_ == 2; });
  client_->Close();
  client_->Close();
  std::optional<Answer> late;
  Begin(Post("/hold", ""), late);
  client_.reset();  // even gone, its calls end
  RunUntil([&] {
    return late && std::all_of(std::begin(answers), std::end(answers),
                               [](const auto& answer) { return answer.has_value(); });
  });
  for (const auto& answer : answers) {
    ASSERT_FALSE(answer->ok());
    EXPECT_EQ(answer->error().code, Code::kCancelled);
  }
  EXPECT_EQ(late->error().code, Code::kCancelled);
}

TEST_F(ClientTest, CloseEndsAConnectAndAHandshake) {
  std::promise<void> accepted;
  Stage stage({[&](Peer& peer) {
    accepted.set_value();
    peer.Rest();
  }});
  ClientOptions options = To(stage.port());
  options.tls = true;
  Connect(std::move(options));
  std::optional<Answer> answer;
  Begin(ClientRequest("GET", "/"), answer);
  auto begun = accepted.get_future();
  RunUntil([&] { return begun.wait_for(seconds(0)) == std::future_status::ready; });
  client_->Close();
  RunUntil([&] { return answer.has_value(); });
  EXPECT_EQ(answer->error().code, Code::kCancelled);
}

TEST_F(ClientTest, AnEventLoopMayGoWithCallsUnderWay) {
  Serve();
  auto io = std::make_unique<boost::asio::io_context>(1);
  ClientOptions options = To(server_->port());
  options.connections_max = 1;
  auto client = Client::Make(*io, std::move(options));
  ASSERT_TRUE(client.ok());
  const ClientRequest request = Post("/hold", "");
  for (int i = 0; i < 3; ++i)
    boost::asio::co_spawn(*io, (*client)->Send(request, kBodyMax),
                          [](std::exception_ptr, const Answer&) {});
  while (held_ == 0) io->run_one_for(std::chrono::milliseconds(20));
  client->reset();
  io.reset();
}

}  // namespace
}  // namespace umbel::http
