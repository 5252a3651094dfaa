#include "supernode/hosts/frame_socket.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>

namespace umbel::supernode {
namespace asio = boost::asio;
namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kDescriptorsMax = 8;
constexpr size_t kGrowMax = size_t{4} << 20;  // a length is only a claim

tl::unexpected<Error> Gone(std::string_view why) {
  return Fail(Code::kUnavailable, fmt::format("the process at the other end is gone: {}", why));
}

/// One sendmsg; returns as that does.
ssize_t SendWithDescriptors(int fd, std::string_view bytes, std::span<const int> descriptors) {
  iovec data{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsMax * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

struct FrameSocket::State {
  explicit State(const asio::any_io_executor& executor) : socket(executor) {}

  asio::local::stream_protocol::socket socket;
  bool ended = false;  // epoll tells of an end once: a further read would wait for ever
};

Result<std::pair<Fd, Fd>> FrameSocket::Pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    return Fail(SystemError("make", "a socket pair"));
  return std::pair<Fd, Fd>(Fd(fds[0]), Fd(fds[1]));
}

FrameSocket::FrameSocket(const asio::any_io_executor& executor, Fd socket)
    : state_(std::make_unique<State>(executor)) {
  boost::system::error_code error;
  const int fd = socket.Release();
  state_->socket.assign(asio::local::stream_protocol(), fd, error);
  UMBEL_CHECK(!error);
  state_->socket.native_non_blocking(true, error);
}
FrameSocket::~FrameSocket() = default;

Task<Status> FrameSocket::Send(std::string frame, std::span<const int> descriptors) {
  UMBEL_CHECK(descriptors.size() <= kDescriptorsMax);
  auto& socket = state_->socket;
  std::string_view rest = frame;
  while (!descriptors.empty()) {
    const ssize_t sent = SendWithDescriptors(socket.native_handle(), rest, descriptors);
    if (sent > 0) {
      rest.remove_prefix(static_cast<size_t>(sent));
      break;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) co_return Gone(std::strerror(errno));
    auto [error] = co_await socket.async_wait(socket.wait_write, kTuple);
    if (error) co_return Gone(error.message());
  }
  auto [error, size] =
      co_await asio::async_write(socket, asio::buffer(rest.data(), rest.size()), kTuple);
  if (error) co_return Gone(error.message());
  co_return Status{};
}

Task<Result<std::string>> FrameSocket::Receive(size_t max) {
  if (state_->ended) co_return Gone("nothing more comes");
  auto& socket = state_->socket;
  // Until it is known otherwise: an error may come when the socket itself is gone.
  state_->ended = true;
  std::array<unsigned char, 4> head{};
  {
    auto [error, size] = co_await asio::async_read(socket, asio::buffer(head), kTuple);
    if (error) co_return Gone(error.message());
  }
  const size_t total =
      head[0] | size_t{head[1]} << 8 | size_t{head[2]} << 16 | size_t{head[3]} << 24;
  if (total > max)
    co_return Fail(Code::kResourceExhausted,
                   fmt::format("a frame of {} bytes; at most {} are taken", total, max));
  std::string payload;
  while (payload.size() < total) {
    const size_t old = payload.size();
    payload.resize(std::min(total, old + std::min(kGrowMax, std::max<size_t>(old, 64 * 1024))));
    auto [error, size] = co_await asio::async_read(
        socket, asio::buffer(payload.data() + old, payload.size() - old), kTuple);
    if (error) co_return Gone(error.message());
  }
  state_->ended = false;
  co_return payload;
}

void FrameSocket::Close() {
  boost::system::error_code ignored;
  state_->socket.close(ignored);
}

}  // namespace umbel::supernode
