#include "supernode/supernode.h"

#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "base/testing.h"
#include "process/confine_testing.h"
#include "supernode/fleet_testing.h"
#include "supernode/runtime/runtime_testing.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

class SuperNodeTest : public ::testing::Test {
 protected:
  SuperNodeTest() {
    // Workers that wait for ever, as if Flower's import took that long.
    const std::string python = directory_.path() + "/python";
    std::ofstream(python) << "#!/bin/sh\nexec sleep 1000\n";
    ::chmod(python.c_str(), 0700);
    options_.python = python;
    options_.superlink = fmt::format("127.0.0.1:{}", fleet_.port());
    options_.insecure = true;
    options_.port = 0;
    options_.unlimited = true;
    options_.state_directory = directory_.path() + "/state";
  }

  Result<std::unique_ptr<SuperNode>> Start() {
    return SuperNode::Start(options_, [this] { ++ends_; });
  }
  static Peer::Answer Ask(uint16_t port, const std::string& path) {
    Peer peer(port);
    peer.Send(fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path));
    return peer.Receive();
  }

  FleetDouble fleet_;
  umbel::testing::TempDir directory_;
  Options options_;
  std::atomic<int> ends_{0};
};

TEST_F(SuperNodeTest, ConnectsSaysHowItIsAndSignsOff) {
  options_.count = 3;
  auto node = Start();
  ASSERT_TRUE(node.ok()) << node.error().message;
  fleet_.AwaitCount("pull-messages", 3);
  EXPECT_EQ(Ask((*node)->port(), "/health").status, 200);
  EXPECT_EQ(Ask((*node)->port(), "/readyz").status, 200);
  EXPECT_EQ(Ask((*node)->port(), "/none").status, 404);
  EXPECT_TRUE(Ask((*node)->port(), "/metrics").Has("umbel_supernode_sites_connected 3\n"));
  EXPECT_TRUE(Ask((*node)->port(), "/v1/umbel/node-status").Has(R"("node_id": 77)"));

  // The state is one process's.
  options_.port = 0;
  const auto second = Start();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kAlreadyExists) << second.error().message;

  EXPECT_TRUE((*node)->Stop().ok());
  EXPECT_TRUE((*node)->Stop().ok());
  EXPECT_EQ(fleet_.Count("deactivate-node"), 3u);
  EXPECT_EQ(ends_, 0);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
}

TEST_F(SuperNodeTest, MayBeAskedBeforeItIsThere) {
  options_.port = Start().value()->port();  // free again
  std::atomic<bool> started{false};
  std::atomic<int> answers{0};
  std::thread asks([&] {
    while (!started || answers == 0) {
      const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(options_.port);
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) continue;
      std::string all;
      for (const char* path : {"/metrics", "/v1/umbel/node-status", "/readyz"})
        all += fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path);
      static_cast<void>(!::send(fd.get(), all.data(), all.size(), MSG_NOSIGNAL));
      char buffer[4096];
      if (::recv(fd.get(), buffer, sizeof buffer, 0) > 0) ++answers;
    }
  });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Start().ok());
  auto node = Start();
  started = true;
  asks.join();
  EXPECT_TRUE(node.ok());
}

TEST_F(SuperNodeTest, StopsAtOnceWhileTheSuperLinkDoesNotAnswer) {
  options_.count = 5;
  auto node = Start();
  ASSERT_TRUE(node.ok()) << node.error().message;
  fleet_.AwaitCount("pull-messages", 5);
  fleet_.Block("deactivate-node");
  const auto begin = Steady::now();
  EXPECT_TRUE((*node)->Stop().ok());
  EXPECT_LT(Steady::now() - begin, seconds(10));  // 5 for all
}

TEST_F(SuperNodeTest, EndsWhenAllItsSitesHave) {
  fleet_.Always("register-node", FleetDouble::Refusal(403, 2001, "disabled"));
  options_.count = 2;
  auto node = Start();
  ASSERT_TRUE(node.ok()) << node.error().message;
  const auto until = Steady::now() + kFleetPatience;
  while (ends_ == 0 && Steady::now() < until) std::this_thread::yield();
  const Status end = (*node)->Stop();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(ends_, 1);
}

TEST_F(SuperNodeTest, FilesThatNobodyKnowsAreClearedAway) {
  std::filesystem::create_directories(options_.state_directory + "/spool");
  const std::string left =
      fmt::format("{}/spool/0-{}.in", options_.state_directory, std::string(64, 'a'));
  std::ofstream(left) << "x";
  EXPECT_TRUE(Start().ok());
  EXPECT_FALSE(std::filesystem::exists(left));
}

TEST_F(SuperNodeTest, WhatCannotBeIsSaid) {
  const auto refused = [&](Code code, const std::string& text) {
    const auto node = Start();
    ASSERT_FALSE(node.ok()) << text;
    EXPECT_EQ(node.error().code, code) << node.error().message;
    EXPECT_NE(node.error().message.find(text), std::string::npos) << node.error().message;
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  };
  const Options good = options_;
  for (const char* address :
       {"", "host", ":80", "host:", "host:0", "host:65536", "host:8x", "[]:1", "host:000080"}) {
    options_.superlink = address;
    refused(Code::kInvalidArgument, fmt::format("'{}' is not HOST:PORT", address));
  }
  options_ = good;
  options_.port = fleet_.port();
  refused(Code::kUnavailable, fmt::format("{}", fleet_.port()));
  options_ = good;
  options_.trusted_entities = directory_.path() + "/none";
  refused(Code::kNotFound, options_.trusted_entities);
  options_ = good;
  options_.private_key = directory_.path() + "/none";
  refused(Code::kInvalidArgument, "--auth-supernode-private-key needs TLS");
  options_ = good;
  options_.node_config = "x";
  EXPECT_FALSE(Start().ok());
  options_ = good;
  options_.root_certificates = "x";
  refused(Code::kInvalidArgument, "--root-certificates");
  options_ = good;
  options_.ssl_certfile = "x";
  refused(Code::kInvalidArgument, "--ssl-keyfile");
}

TEST(StateDirectory, IsOfTheSuperLinkTheConfigAndThePort) {
  const Options options;
  const std::string here = StateDirectory(options, "/home/x");
  EXPECT_EQ(here.size(), std::string("/home/x/supernode/").size() + 16);
  for (auto change : {+[](Options& o) { o.superlink += "1"; },
                      +[](Options& o) { o.node_config = "a=1"; }, +[](Options& o) { ++o.port; }}) {
    Options other;
    change(other);
    EXPECT_NE(StateDirectory(other, "/home/x"), here);
  }
}

}  // namespace
}  // namespace umbel::supernode
