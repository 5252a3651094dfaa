// Frames over a socket, lines over a pipe, and a process that hangs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "supernode/fleet_testing.h"
#include "supernode/hosts/app_output.h"
#include "supernode/hosts/frame_socket.h"
#include "supernode/hosts/hang.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

std::string Frame(std::string_view payload) {
  return flower::testing::Little(payload.size(), 4) + std::string(payload);
}

class FrameSocketTest : public ::testing::Test {
 protected:
  FrameSocketTest() {
    auto pair = FrameSocket::Pair().value();
    there_ = std::move(pair.second);
    socket_ = std::make_unique<FrameSocket>(thread_.io().get_executor(), std::move(pair.first));
  }
  ~FrameSocketTest() override {
    thread_.On([&] {
      socket_.reset();
      return true;
    });
  }
  Result<std::string> Receive(size_t max = 1 << 20) {
    return Get(thread_.Spawn(socket_->Receive(max)));
  }
  void Write(std::string_view bytes) {
    EXPECT_EQ(::write(there_.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }

  IoThread thread_;
  Fd there_;
  std::unique_ptr<FrameSocket> socket_;
};

TEST_F(FrameSocketTest, FramesComeWholeHoweverTheyAreCut) {
  Write(Frame("one") + Frame("") + Frame(std::string(70'000, 'x')).substr(0, 5));
  EXPECT_EQ(Receive().value(), "one");
  EXPECT_EQ(Receive().value(), "");
  auto rest = thread_.Spawn(socket_->Receive(1 << 20));
  Write(std::string(69'999, 'x'));
  EXPECT_EQ(Get(std::move(rest)).value(), std::string(70'000, 'x'));
}

TEST_F(FrameSocketTest, ALengthIsOnlyAClaim) {
  Write(flower::testing::Little(0xffffffff, 4));
  const auto received = Receive(1000);
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.error().code, Code::kResourceExhausted);
}

TEST_F(FrameSocketTest, AnEndInAFrameIsAnEnd) {
  Write(Frame("whole") + Frame("not whole").substr(0, 7));
  there_.Close();
  EXPECT_EQ(Receive().value(), "whole");
  EXPECT_EQ(Receive().error().code, Code::kUnavailable);
  EXPECT_EQ(Receive().error().code, Code::kUnavailable);
  EXPECT_EQ(Get(thread_.Spawn(socket_->Send("x", {}))).error().code, Code::kUnavailable);
  const int null[] = {0};
  EXPECT_EQ(Get(thread_.Spawn(socket_->Send("x", null))).error().code, Code::kUnavailable);
}

TEST_F(FrameSocketTest, ClosingEndsWhatWaits) {
  auto received = thread_.Spawn(socket_->Receive(10));
  // Nobody reads: it is stuck in the middle.
  auto sent = thread_.Spawn(socket_->Send(std::string(8 << 20, 'x'), {}));
  thread_.On([&] {
    socket_->Close();
    socket_->Close();
    return true;
  });
  EXPECT_EQ(Get(std::move(received)).error().code, Code::kUnavailable);
  EXPECT_EQ(Get(std::move(sent)).error().code, Code::kUnavailable);
  EXPECT_EQ(Receive().error().code, Code::kUnavailable);
  const int null[] = {0};
  EXPECT_EQ(Get(thread_.Spawn(socket_->Send("x", null))).error().code, Code::kUnavailable);
}

TEST_F(FrameSocketTest, DescriptorsComeWithTheFirstByte) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  const int descriptors[] = {writer.get(), 0};
  ASSERT_TRUE(Get(thread_.Spawn(socket_->Send("frame", descriptors))).ok());
  writer.Close();
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_EQ(::recvmsg(there_.get(), &message, 0), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_TRUE(header != nullptr);
  ASSERT_EQ(header->cmsg_len, CMSG_LEN(2 * sizeof(int)));
  int got[2];
  std::memcpy(got, CMSG_DATA(header), sizeof got);
  const Fd first(got[0]), second(got[1]);
  EXPECT_EQ(::write(first.get(), "y", 1), 1);
  EXPECT_EQ(::read(reader.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
}

class AppOutputTest : public ::testing::Test {
 protected:
  AppOutputTest() {
    int ends[2];
    UMBEL_CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    writer_ = Fd(ends[1]);
    output_ = thread_.On(
        [&] { return AppOutput::Follow(thread_.io().get_executor(), Fd(ends[0]), "it", 1000); });
  }
  ~AppOutputTest() override { writer_.Close(); }
  std::string LastLine(std::string_view bytes) {
    EXPECT_EQ(::write(writer_.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
    writer_.Close();
    const auto until = Steady::now() + kFleetPatience;
    while (!thread_.On([&] { return output_->ended(); }) && Steady::now() < until)
      std::this_thread::yield();
    return thread_.On([&] { return output_->last_line(); });
  }

  IoThread thread_;
  Fd writer_;
  std::shared_ptr<AppOutput> output_;
};

TEST_F(AppOutputTest, TheLastLineIsKnownAfterTheEnd) {
  EXPECT_EQ(LastLine("one\ntwo\n\n\n"), "two");
}
TEST_F(AppOutputTest, ALineNeedsNoEnd) { EXPECT_EQ(LastLine("one\ntwo"), "two"); }
TEST_F(AppOutputTest, ALongLineIsCutBetweenCharacters) {
  std::string line = "x";
  for (int i = 0; i < 200; ++i) line += "\xc3\xa9";
  EXPECT_EQ(LastLine(line + "\n"), line.substr(0, 299));
}
TEST_F(AppOutputTest, WhatIsNoTextBecomesText) { EXPECT_EQ(LastLine("a\xff\xc3(\n"), "a?\?("); }
TEST_F(AppOutputTest, BeyondTheBoundNothingIsKept) {
  const std::string line(99, 'x');
  std::string all;
  for (int i = 0; i < 10; ++i) all += line + "\n";
  EXPECT_EQ(LastLine(all + "never\n"), line);
}
TEST_F(AppOutputTest, AnEndlessLineTakesNoMemory) {
  thread_.On([&] {
    output_->Tag("other", 0);
    return true;
  });
  const std::string part(60'000, 'y');
  for (int i = 0; i < 50; ++i) ASSERT_EQ(::write(writer_.get(), part.data(), part.size()), 60'000);
  EXPECT_EQ(LastLine("z\n"), std::string(300, 'y'));
}

TEST(HangWatch, TellsAHangFromRestAndFromWork) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer has a thread of its own in each process, which waits for no lock";
#endif
  // All on one futex, each on something else than a lock, one at work, and nobody.
  const auto looks = [](auto body) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      body();
      ::_exit(0);
    }
    HangWatch watch(pid);
    bool hangs = false;
    const auto until = Steady::now() + seconds(1);
    for (int i = 0; !hangs && (i < 50 || Steady::now() < until); ++i) hangs = watch.Hangs();
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    EXPECT_FALSE(watch.Hangs());
    return hangs;
  };
  EXPECT_TRUE(looks([] {
    static std::atomic<int> lock{1};
    for (;;) ::syscall(SYS_futex, &lock, 0 /* FUTEX_WAIT */, 1, nullptr, nullptr, 0);
  }));
  EXPECT_FALSE(looks([] {
    for (;;) ::pause();
  }));
  HangWatch nobody(0x7ffffff0);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(nobody.Hangs());
}

}  // namespace
}  // namespace umbel::supernode
