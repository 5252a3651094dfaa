#include "http/client_connection.h"

#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <tuple>

namespace umbel::http {
namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using Steady = std::chrono::steady_clock;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kSmallBody =
    8 * 1024;  // travels in one buffer, thus one TLS record, with the head
constexpr size_t kFilePiece = size_t{256} << 10;
constexpr size_t kSendfilePiece = size_t{1} << 20;  // then others get a turn
/// An answer that stays below this for its whole body is given up: else one that drips lasts for
/// ever.
constexpr double kBytesPerSecondMin = 1024;

bool ByPeer(boost::system::error_code error) {
  return error == asio::error::eof || error == asio::error::connection_reset ||
         error == asio::error::broken_pipe || error == asio::error::connection_aborted ||
         error == asio::ssl::error::stream_truncated;
}

std::string Seconds(Steady::duration limit) {
  return fmt::format("{:.3g} s", std::chrono::duration<double>(limit).count());
}

}  // namespace

/// A name's addresses, being looked up. getaddrinfo cannot be stopped: it is left behind instead.
struct ClientConnection::Lookup {
  explicit Lookup(asio::io_context& io) : resolver(io), done(io) {}

  tcp::resolver resolver;
  asio::steady_timer done;
  bool finished = false;
  boost::system::error_code error;
  Endpoints endpoints;
};

ClientConnection::ClientConnection(asio::io_context& io, ClientTarget& target)
    : io_(io), target_(target), socket_(io), timer_(io) {}

void ClientConnection::Cancel() {
  cancelled_ = true;
  boost::system::error_code ignored;
  socket_.close(ignored);
  if (const auto lookup = lookup_.lock()) lookup->done.cancel();
}

bool ClientConnection::Quiet() {
  char byte;
  const ssize_t n = ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

// -- open ----------------------------------------------------------------------------------------

Task<Status> ClientConnection::Open() {
  const auto until = Steady::now() + target_.options.connect_timeout;
  UMBEL_CO_ASSIGN(const Endpoints endpoints, co_await Resolve(until));
  std::string why = "its name has no address";
  for (size_t i = 0; i < endpoints.size(); ++i) {
    boost::system::error_code error;
    socket_.close(error);
    socket_.open(endpoints[i].protocol(), error);
    if (!error) {
      // No address may use up the time of those after it.
      const auto share = (until - Steady::now()) / static_cast<int64_t>(endpoints.size() - i);
      Arm(share);
      std::tie(error) = co_await socket_.async_connect(endpoints[i], kTuple);
      Disarm();
      if (cancelled_) co_return IoError("", error);
    }
    if (!error) {
      socket_.set_option(tcp::no_delay(true), error);
      if (target_.tls) co_return co_await Handshake();
      co_return Status{};
    }
    why = timed_out_ ? fmt::format("no answer within {}", Seconds(target_.options.connect_timeout))
                     : error.message();
    if (!target_.address) why += fmt::format(" ({})", endpoints[i].address().to_string());
  }
  co_return FailHere(Code::kUnavailable, fmt::format("cannot connect: {}", why));
}

Task<Result<ClientConnection::Endpoints>> ClientConnection::Resolve(Steady::time_point until) {
  const uint16_t port = target_.options.port;
  if (target_.address) {
    Endpoints one;
    one.emplace_back(*target_.address, port);
    co_return one;
  }
  const auto lookup = std::make_shared<Lookup>(io_);
  lookup_ = lookup;
  lookup->done.expires_at(until);
  // Without the flag address_configured: it hides the loopback's names on a machine without
  // network.
  lookup->resolver.async_resolve(
      target_.options.host, std::to_string(port), tcp::resolver::numeric_service,
      [lookup](boost::system::error_code error, const tcp::resolver::results_type& found) {
        lookup->finished = true;
        lookup->error = error;
        for (const auto& entry : found) lookup->endpoints.push_back(entry.endpoint());
        lookup->done.cancel();
      });
  co_await lookup->done.async_wait(kTuple);
  if (cancelled_) co_return IoError("", boost::system::error_code());
  if (!lookup->finished)
    co_return FailHere(Code::kUnavailable, fmt::format("its name was not resolved within {}",
                                                       Seconds(target_.options.connect_timeout)));
  if (lookup->error)
    co_return FailHere(Code::kUnavailable,
                       fmt::format("its name cannot be resolved: {}", lookup->error.message()));
  co_return std::move(lookup->endpoints);
}

Task<Status> ClientConnection::Handshake() {
  tls_.emplace(socket_, *target_.tls);
  SSL* const ssl = tls_->native_handle();
  const std::string& host = target_.options.host;
  bool set = true;
  if (target_.address) {
    set = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  } else {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    // What SSL_set_tlsext_host_name would do with C casts.
    set = SSL_set1_host(ssl, host.c_str()) == 1 &&
          SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                   const_cast<char*>(host.c_str())) == 1;
  }
  if (!set) co_return FailHere(Code::kUnavailable, "TLS cannot be set up for this host name");
  timeout_ = target_.options.connect_timeout;
  Arm(timeout_);
  auto [error] = co_await tls_->async_handshake(asio::ssl::stream_base::client, kTuple);
  Disarm();
  if (!error && !cancelled_) co_return Status{};
  const long verified = SSL_get_verify_result(ssl);
  if (!cancelled_ && verified != X509_V_OK)
    co_return FailHere(
        Code::kUnauthenticated,
        fmt::format("its certificate is refused: {}", X509_verify_cert_error_string(verified)));
  co_return IoError("the TLS handshake failed", error);
}

// -- exchange ------------------------------------------------------------------------------------

Task<Result<ClientResponse>> ClientConnection::Exchange(const ClientRequest& request,
                                                        size_t body_max) {
  reusable_ = lost_ = peer_closed_ = false;
  timeout_ = request.timeout;
  reader_.Begin(request.method == "HEAD", body_max);
  const Status sent = co_await SendRequest(request);
  if (sent.ok() || (peer_closed_ && !cancelled_)) {
    // A server that refuses a long request may answer and close before it has read all of it.
    const Status received = co_await Receive(request);
    Disarm();
    if (!received.ok()) {
      lost_ = peer_closed_ && !reader_.began() && !cancelled_;
      co_return Fail(received.error());
    }
  } else {
    Disarm();
    co_return Fail(sent.error());
  }
  reusable_ = sent.ok() && reader_.reusable() && !(tls_ && SSL_pending(tls_->native_handle()) > 0);
  ClientResponse response;
  response.status = reader_.status();
  response.content_type = std::move(reader_.content_type());
  response.www_authenticate = std::move(reader_.www_authenticate());
  response.body = reader_.TakeBody();
  co_return response;
}

void ClientConnection::WriteHead(const ClientRequest& request, uint64_t body_size) {
  head_.clear();
  head_.append(request.method).append(" ").append(request.path).append(" HTTP/1.1\r\n");
  head_.append(target_.common_lines);
  if (!request.content_type.empty())
    head_.append("Content-Type: ").append(request.content_type).append("\r\n");
  if (body_size > 0 || (request.method != "GET" && request.method != "HEAD"))
    fmt::format_to(std::back_inserter(head_), "Content-Length: {}\r\n", body_size);
  head_.append(request.extra_headers).append("\r\n");
}

Task<Status> ClientConnection::SendRequest(const ClientRequest& request) {
  uint64_t file_bytes = 0;
  for (const FilePart& part : request.file) file_bytes += part.size;
  WriteHead(request, request.body.size() + file_bytes);
  std::string_view body = request.body;
  if (body.size() <= kSmallBody) {
    head_.append(body);
    body = {};
  }
  UMBEL_CO_TRY(co_await Write(head_, body, file_bytes > 0));
  for (const FilePart& part : request.file) {
    if (tls_) {
      UMBEL_CO_TRY(co_await CopyFile(part));
    } else {
      UMBEL_CO_TRY(co_await SendFile(part));
    }
  }
  co_return Status{};
}

Task<Status> ClientConnection::Write(std::string_view first, std::string_view second, bool more) {
  const int flags = more ? MSG_MORE : 0;
  while (!first.empty() || !second.empty()) {
    boost::system::error_code error;
    size_t count = 0;
    Arm(timeout_);
    if (tls_) {
      const asio::const_buffer one = asio::buffer(first.empty() ? second : first);
      std::tie(error, count) = co_await tls_->async_write_some(one, kTuple);
    } else {
      const std::array<asio::const_buffer, 2> both{asio::buffer(first), asio::buffer(second)};
      std::tie(error, count) = co_await socket_.async_send(both, flags, kTuple);
    }
    if (error || cancelled_) co_return IoError("the request cannot be sent", error);
    const size_t of_first = std::min(count, first.size());
    first.remove_prefix(of_first);
    second.remove_prefix(count - of_first);
  }
  co_return Status{};
}

Task<Status> ClientConnection::SendFile(FilePart part) {
  off_t at = static_cast<off_t>(part.offset);
  boost::system::error_code error;
  socket_.native_non_blocking(true, error);
  while (part.size > 0) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(part.size, kSendfilePiece));
    const ssize_t n = ::sendfile(socket_.native_handle(), part.fd, &at, want);
    if (n == 0) co_return FileEnded();
    if (n > 0) {
      part.size -= static_cast<uint64_t>(n);
      if (part.size == 0) break;
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EBADF || errno == EINVAL || errno == EIO || errno == EOVERFLOW) {
      co_return FailHere(Code::kDataLoss,
                         fmt::format("the file to send cannot be read: {}", std::strerror(errno)));
    } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
      error.assign(errno, boost::system::system_category());
      co_return IoError("the request cannot be sent", error);
    }
    Arm(timeout_);
    std::tie(error) = co_await socket_.async_wait(tcp::socket::wait_write, kTuple);
    if (error || cancelled_) co_return IoError("the request cannot be sent", error);
  }
  co_return Status{};
}

Task<Status> ClientConnection::CopyFile(FilePart part) {
  std::string piece(static_cast<size_t>(std::min<uint64_t>(part.size, kFilePiece)), '\0');
  while (part.size > 0) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(part.size, piece.size()));
    const ssize_t n = ::pread(part.fd, piece.data(), want, static_cast<off_t>(part.offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      co_return FailHere(Code::kDataLoss,
                         fmt::format("the file to send cannot be read: {}", std::strerror(errno)));
    if (n == 0) co_return FileEnded();
    const size_t got = static_cast<size_t>(n);
    UMBEL_CO_TRY(co_await Write(std::string_view(piece).substr(0, got), std::string_view(), false));
    part.offset += got;
    part.size -= got;
  }
  co_return Status{};
}

Task<Status> ClientConnection::Receive(const ClientRequest& request) {
  size_t interim = 0;
  std::optional<Steady::time_point> body_began;
  Arm(timeout_);
  for (bool complete = false; !complete;) {
    const std::span<char> space = reader_.Space();
    const asio::mutable_buffer buffer(space.data(), space.size());
    boost::system::error_code error;
    size_t count = 0;
    if (tls_) {
      std::tie(error, count) = co_await tls_->async_read_some(buffer, kTuple);
    } else {
      std::tie(error, count) = co_await socket_.async_read_some(buffer, kTuple);
    }
    if (cancelled_) co_return IoError("", error);
    if (error == asio::error::eof) {
      peer_closed_ = true;
      const Status ended = reader_.Ended();
      if (ended.ok()) break;
      co_return FailHere(ended.error().code, ended.error().message);
    }
    if (error) co_return IoError("no answer came", error);
    const auto filled = reader_.Filled(count);
    if (!filled.ok()) co_return FailHere(filled.error().code, filled.error().message);
    complete = *filled;
    if (request.sink && reader_.status() == 200 && !reader_.body().empty()) {
      UMBEL_CO_TRY(request.sink(reader_.body()));
      reader_.Drain();
    }
    // A head's bytes buy no time one by one: only a whole one does.
    if (!reader_.in_body()) {
      if (interim != reader_.interim()) Arm(timeout_);
      interim = reader_.interim();
      continue;
    }
    const auto now = Steady::now();
    if (!body_began) body_began = now;
    const double spent = std::chrono::duration<double>(now - *body_began).count();
    if (!complete && now - *body_began > timeout_ &&
        static_cast<double>(reader_.body_size()) < spent * kBytesPerSecondMin)
      co_return FailHere(Code::kUnavailable, "the answer comes too slowly");
    Arm(timeout_);
  }
  co_return Status{};
}

// -- time limits and errors ----------------------------------------------------------------------

/// From now on, what is pending on the socket is cancelled after `limit`, and timed_out_ says so.
void ClientConnection::Arm(Steady::duration limit) {
  deadline_at_ = Steady::now() + limit;
  timed_out_ = false;
  // A timer that fires too early looks again: most operations end long before their limit.
  if (!timer_runs_ || deadline_at_ < timer_at_) StartTimer();
}

void ClientConnection::StartTimer() {
  timer_runs_ = true;
  timer_at_ = deadline_at_;
  timer_.expires_at(timer_at_);
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->timer_runs_ = false;
    if (self->deadline_at_ == Steady::time_point::max()) return;
    if (Steady::now() < self->deadline_at_) {
      self->StartTimer();
    } else {
      self->timed_out_ = true;
      boost::system::error_code ignored;
      self->socket_.cancel(ignored);
    }
  });
}

tl::unexpected<Error> ClientConnection::FailHere(Code code, std::string_view why) const {
  return Fail(code, fmt::format("{}: {}", target_.name, why));
}

tl::unexpected<Error> ClientConnection::IoError(std::string_view what,
                                                boost::system::error_code error) {
  if (cancelled_) return FailHere(Code::kCancelled, "the client was closed");
  if (timed_out_)
    return FailHere(Code::kUnavailable,
                    fmt::format("{}: nothing within {}", what, Seconds(timeout_)));
  peer_closed_ = ByPeer(error);
  return FailHere(Code::kUnavailable, fmt::format("{}: {}", what, error.message()));
}

tl::unexpected<Error> ClientConnection::FileEnded() {
  // The length is promised already: only cutting the connection is honest.
  boost::system::error_code ignored;
  socket_.close(ignored);
  return FailHere(Code::kDataLoss, "the file to send is shorter than the request says");
}

}  // namespace umbel::http
