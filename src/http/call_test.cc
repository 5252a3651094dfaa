#include "http/call.h"

#include "http/client_fixture.h"

namespace umbel::http {
namespace {

ClientOptions At(uint16_t port) {
  ClientOptions options;
  options.port = port;
  options.connect_timeout = seconds(5);
  return options;
}

TEST(CallOnce, EndsWithItsAnswerNotWithItsConnection) {
  Stage stage({[](Peer& peer) {
    peer.Head();
    peer.Send(kOk);  // and the connection may be kept
    peer.Rest();
  }});
  ClientOptions options = At(stage.port());
  options.idle_max = seconds(60);
  const auto began = Steady::now();
  const Answer answer = CallOnce(options, ClientRequest("GET", "/"), kBodyMax);
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->body, "ok");
  EXPECT_LT(Steady::now() - began, seconds(30));
}

TEST(CallOnce, SaysWhyThereIsNoAnswer) {
  const Answer answer = CallOnce(At(FreePort()), ClientRequest("GET", "/"), kBodyMax);
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
}

TEST(CallOnce, IsEndedByWhoAskedForIt) {
  std::stop_source stop;
  Stage stage({[&](Peer& peer) {
    peer.Head();
    stop.request_stop();
    EXPECT_EQ(peer.Rest(), "");
  }});
  ClientRequest request("GET", "/");
  request.timeout = seconds(60);
  const Answer answer = CallOnce(At(stage.port()), request, kBodyMax, stop.get_token());
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kCancelled);
  const Answer late = CallOnce(At(stage.port()), request, kBodyMax, stop.get_token());
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, Code::kCancelled);
}

}  // namespace
}  // namespace umbel::http
