#include "manager/ports.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/file.h"

namespace umbel::manager {
namespace {

TEST(Ports, WhatIsTakenOrListenedOnIsNotChosen) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof where;
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&where), size), 0);
  ASSERT_EQ(::listen(socket.get(), 1), 0);
  ASSERT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&where), &size), 0);
  const uint16_t busy = ntohs(where.sin_port);
  const auto first = ChoosePort(busy, {});
  ASSERT_TRUE(first.ok());
  EXPECT_GT(*first, busy);
  const auto second = ChoosePort(busy, {*first});
  ASSERT_TRUE(second.ok());
  EXPECT_GT(*second, *first);
}

TEST(Ports, EndAtTheLast) {
  std::set<uint16_t> taken;
  for (uint32_t port = 65000; port <= 65535; ++port) taken.insert(static_cast<uint16_t>(port));
  const auto none = ChoosePort(65000, taken);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace umbel::manager
