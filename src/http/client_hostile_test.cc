// Servers that are slow, broken, hostile or not there.
#include "http/client.h"

#include <future>

#include "http/client_fixture.h"

namespace umbel::http {
namespace {

// -- time ----------------------------------------------------------------------------------------

TEST_F(ClientTest, InterimAnswersBuyTime) {
  Stage stage({[](Peer& peer) {
    peer.Head();
    // Longer than the limit in all. The pauses are the subject here.
    for (int i = 0; i < 4; ++i) {
      peer.Send("HTTP/1.1 102 Processing\r\n\r\n");
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
    }
    peer.Send(kOk);
    peer.Rest();
  }});
  Connect(To(stage.port()));
  ClientRequest request("GET", "/");
  request.timeout = seconds(1);
  const Answer answer = Call(request);
  EXPECT_TRUE(answer.ok()) << answer.error().message;
  client_.reset();
}

TEST_F(ClientTest, ASilentServerTimesOut) {
  Stage stage({[](Peer& peer) {
                 peer.Head();
                 peer.Rest();
               },
               [](Peer& peer) {
                 peer.Head();
                 peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                 peer.Rest();
               }});
  Connect(To(stage.port()));
  ClientRequest request("GET", "/");
  request.timeout = seconds(1);
  for (int i = 0; i < 2; ++i) {
    const Answer answer = Call(request);
    ASSERT_FALSE(answer.ok());
    EXPECT_EQ(answer.error().code, Code::kUnavailable);
    EXPECT_EQ(answer.error().message,
              fmt::format("127.0.0.1:{}: no answer came: nothing within 1 s", stage.port()));
  }
}

TEST_F(ClientTest, ADrippingServerTimesOut) {
  const auto drip = [](std::string_view begin) {
    return [begin](Peer& peer) {
      peer.Head();
      peer.Send(begin);
      while (peer.Send("x")) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    };
  };
  Stage stage(
      {drip("HTTP/1.1 200 OK\r\nX: "), drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")});
  Connect(To(stage.port()));
  ClientRequest request("GET", "/");
  request.timeout = seconds(1);
  const auto began = Steady::now();
  EXPECT_EQ(Call(request).error().code, Code::kUnavailable);
  EXPECT_LT(Steady::now() - began, seconds(8));
  client_.reset();
  Connect(To(stage.port()));
  const Answer slow = Call(request);
  EXPECT_EQ(slow.error().code, Code::kUnavailable);
  EXPECT_NE(slow.error().message.find("too slowly"), std::string::npos) << slow.error().message;
}

TEST_F(ClientTest, AServerThatDoesNotReadTimesOut) {
  std::promise<void> over;
  Stage stage({[&](Peer&) { over.get_future().wait(); }});
  Connect(To(stage.port()));
  ClientRequest request = Post("/", std::string(30'000'000, 'x'));
  request.timeout = seconds(1);
  const Answer answer = Call(request);
  over.set_value();
  ASSERT_FALSE(answer.ok());
  EXPECT_NE(answer.error().message.find("cannot be sent: nothing within"), std::string::npos)
      << answer.error().message;
}

TEST_F(ClientTest, ANameThatDoesNotResolveIsSaid) {
  ClientOptions options = To(80);
  options.host = "no-such-host.invalid";
  Connect(std::move(options));
  const Answer answer = Get("/");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_EQ(answer.error().message.find("no-such-host.invalid:80: its name "), 0U)
      << answer.error().message;
}

TEST_F(ClientTest, ARefusedConnectionIsSaid) {
  const uint16_t port = FreePort();
  Connect(To(port));
  const Answer answer = Get("/");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_EQ(answer.error().message,
            fmt::format("127.0.0.1:{}: cannot connect: Connection refused", port));
}

// -- hostile servers -----------------------------------------------------------------------------

TEST_F(ClientTest, BrokenAnswersCostOneError) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  std::string flood;
  for (int i = 0; i < 10'001; ++i) flood += "HTTP/1.1 102 x\r\n\r\n";
  const std::vector<std::pair<std::string, Code>> answers = {
      {"SSH-2.0-OpenSSH_9.2\r\n", Code::kDataLoss},
      {"\x15\x03\x01\x00\x02\x02\x46", Code::kDataLoss},
      {flood, Code::kDataLoss},
      {head + "A: " + std::string(100'000, 'a'), Code::kDataLoss},
      {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", Code::kDataLoss},
      {head + "Content-Length: 1e9\r\n\r\n", Code::kDataLoss},
      {head + "Content-Length: 18446744073709551615\r\n\r\n", Code::kResourceExhausted},
      {head + "Content-Length: 101\r\n\r\n", Code::kResourceExhausted},
      {head + "Transfer-Encoding: chunked\r\n\r\n65\r\n", Code::kResourceExhausted},
      {head + "\r\n" + std::string(101, 'x'), Code::kResourceExhausted},
  };
  std::vector<Script> scripts;
  for (const auto& [bytes, code] : answers)
    scripts.push_back([text = bytes](Peer& peer) {
      peer.Head();
      peer.Send(text);
      peer.Rest();
    });
  // These need the connection's end to be noticed.
  const std::vector<std::string> cut = {"HTTP/1.1 20", head + "Content-Length: 5\r\n\r\nhal",
                                        head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhal",
                                        head + "Transfer-Encoding: chunked\r\n\r\n3\r\nall\r\n"};
  for (const std::string& bytes : cut)
    scripts.push_back([bytes](Peer& peer) {
      peer.Head();
      peer.Send(bytes);
    });
  scripts.push_back(kAnswerOnce);
  Stage stage(std::move(scripts));
  Connect(To(stage.port()));
  for (const auto& [bytes, code] : answers) {
    const Answer answer = Call(ClientRequest("GET", "/"), 100);
    ASSERT_FALSE(answer.ok()) << bytes.substr(0, 100);
    EXPECT_EQ(answer.error().code, code) << bytes.substr(0, 100) << answer.error().message;
  }
  for (const std::string& bytes : cut) {
    const Answer answer = Call(ClientRequest("GET", "/"), 100);
    ASSERT_FALSE(answer.ok()) << bytes;
    EXPECT_EQ(answer.error().code, Code::kUnavailable) << answer.error().message;
    EXPECT_NE(answer.error().message.find("in the middle of its answer"), std::string::npos);
  }
  EXPECT_TRUE(Get("/").ok());
  client_.reset();
}

TEST_F(ClientTest, AnAnswerBeforeTheWholeRequestIsHeard) {
  Stage stage({[](Peer& peer) {
    peer.Head();
    peer.Send("HTTP/1.1 413 x\r\nContent-Length: 2\r\n\r\nno");
    // Closed with the rest of the request unread: the client's writes fail.
  }});
  Connect(To(stage.port()));
  const Answer answer = Call(Post("/", std::string(30'000'000, 'x')));
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->status, 413);
}

TEST_F(ClientTest, ARequestCannotBeBroken) {
  Connect(To(FreePort()));
  for (ClientRequest request : {ClientRequest("GET", "x"), ClientRequest("GET", "/a b"),
                                ClientRequest("GET", "/\r\nX: y"), ClientRequest("G\n", "/")})
    EXPECT_EQ(Call(request).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace umbel::http
