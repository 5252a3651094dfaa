#include "http/connection.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>

#include "base/log.h"

namespace umbel::http {
namespace asio = boost::asio;
namespace beast = boost::beast;
using tcp = asio::ip::tcp;
using Steady = std::chrono::steady_clock;

namespace {

using TlsStream = asio::ssl::stream<tcp::socket>;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kInterimEvery{15};  // httpx gives up after 30
constexpr std::chrono::seconds kWriteTimeout{30};  // without progress
constexpr std::chrono::seconds kReserveTimeout{20};
constexpr size_t kDrainMax = size_t{8} << 20;
constexpr size_t kWritePiece = size_t{256} << 10;
constexpr std::string_view kInterimLine = "HTTP/1.1 102 Processing\r\n\r\n";

/// On a grid, so that thousands of idle holds wake a thread once a second and not each by itself.
Steady::time_point InterimAfter(Steady::time_point now) {
  return std::chrono::ceil<std::chrono::seconds>(now + kInterimEvery);
}

std::string_view Reason(int status) {
  return beast::http::obsolete_reason(static_cast<beast::http::status>(status));
}

std::string_view AsView(beast::string_view text) { return {text.data(), text.size()}; }

/// Wakes one hold at a time; outlives the connection harmlessly.
class HoldWaker final : public Wakeable, public std::enable_shared_from_this<HoldWaker> {
 public:
  explicit HoldWaker(asio::any_io_executor executor) : executor_(executor), timer_(executor) {}

  void Wake() override {
    asio::post(executor_, [self = shared_from_this()] {
      self->woken_ = true;
      self->timer_.cancel();
    });
  }

  // The rest belongs to the connection's strand.
  asio::steady_timer& timer() { return timer_; }
  bool TakeWoken() { return std::exchange(woken_, false); }

 private:
  asio::any_io_executor executor_;
  asio::steady_timer timer_;
  bool woken_ = false;
};

template <typename Stream>
class Connection final : public Exchange,
                         public ConnectionHandle,
                         public std::enable_shared_from_this<Connection<Stream>> {
 public:
  template <typename... Args>
  explicit Connection(std::shared_ptr<Shared> shared, Args&&... args)
      : shared_(std::move(shared)),
        stream_(std::forward<Args>(args)...),
        timer_(stream_.get_executor()) {
    boost::system::error_code error;
    const auto endpoint = socket().remote_endpoint(error);
    if (!error) peer_ = endpoint.address().to_string();
  }
  ~Connection() override {
    ReleaseBudget();
    if (registered_) shared_->Remove(entry_);
  }

  void Start() {
    entry_ = shared_->Add(std::weak_ptr<ConnectionHandle>(this->shared_from_this()));
    registered_ = true;
    asio::co_spawn(
        stream_.get_executor(), [self = this->shared_from_this()] { return self->Run(); },
        asio::detached);
  }

  // ConnectionHandle
  void CloseSoon() override {
    asio::post(stream_.get_executor(), [self = this->shared_from_this()] {
      boost::system::error_code ignored;
      self->socket().close(ignored);
      if (self->waker_) self->waker_->timer().cancel();
    });
  }
  void StopSoon() override {
    asio::post(stream_.get_executor(), [self = this->shared_from_this()] {
      self->stopping_ = true;
      if (self->idle_) self->socket().cancel();
      if (self->waker_) self->waker_->timer().cancel();
    });
  }

  // Exchange: the request
  std::string_view method() const override { return AsView(request().method_string()); }
  std::string_view path() const override {
    const std::string_view target = AsView(request().target());
    return target.substr(0, target.find('?'));
  }
  std::string_view query() const override {
    const std::string_view target = AsView(request().target());
    return target.substr(std::min(target.find('?'), target.size() - 1) + 1);
  }
  std::string_view Header(std::string_view name) const override {
    const auto found = request().find(beast::string_view(name.data(), name.size()));
    return found == request().end() ? std::string_view{} : AsView(found->value());
  }
  size_t HeaderCount(std::string_view name) const override {
    return request().count(beast::string_view(name.data(), name.size()));
  }
  const std::string& peer_address() const override { return peer_; }
  std::optional<uint64_t> content_length() const override {
    return chunked_ ? std::nullopt : std::optional<uint64_t>(body_total_);
  }
  std::shared_ptr<Wakeable> waker() override {
    if (!waker_) waker_ = std::make_shared<HoldWaker>(stream_.get_executor());
    return waker_;
  }
  int replied() const override { return replied_; }

  Task<Status> Reserve(size_t bytes) override {
    bytes = std::min(bytes, shared_->budget.total());
    const auto deadline = Steady::now() + kReserveTimeout;
    while (!shared_->budget.TryTake(bytes, waker())) {
      const HoldEnd end = co_await Hold(deadline, false);
      if (end == HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
      if (end != HoldEnd::kWoken)
        co_return Fail(Code::kResourceExhausted, "no memory left for the request's body", 503);
    }
    reserved_ += bytes;
    co_return Status{};
  }

  Task<Result<size_t>> ReadSome(std::span<char> buffer) override {
    UMBEL_CO_TRY(co_await Continue100());
    if (body_started_ == Steady::time_point{}) body_started_ = Steady::now();
    if (Slow()) co_return Fail(Code::kDeadlineExceeded, "the request's body comes too slowly", 408);
    if (chunked_) co_return co_await ReadChunked(buffer);
    const uint64_t left = body_total_ - body_read_;
    if (left == 0) co_return size_t{0};
    const size_t want = static_cast<size_t>(std::min<uint64_t>(left, buffer.size()));
    size_t got = 0;
    if (buffer_.size() > 0) {
      got = std::min(want, buffer_.size());
      std::copy_n(static_cast<const char*>(buffer_.data().data()), got, buffer.data());
      buffer_.consume(got);
    } else {
      Arm(shared_->options.body_timeout);
      auto [error, n] = co_await stream_.async_read_some(asio::buffer(buffer.data(), want), kTuple);
      if (error) co_return ReadFailed(error);
      got = n;
    }
    body_read_ += got;
    shared_->counters.bytes_in += got;
    co_return got;
  }

  Task<Result<std::string>> ReadBody(size_t limit) override {
    if (!chunked_ && body_total_ > limit) co_return TooLarge(limit);
    std::string body;
    if (!chunked_) {
      const size_t total = static_cast<size_t>(body_total_);
      UMBEL_CO_TRY(co_await Reserve(total));
      // Grown as bytes come: a length is only a claim.
      while (body.size() < total) {
        const size_t old = body.size();
        body.resize(std::min(total, old + std::max<size_t>(old, 64 * 1024)));
        size_t filled = old;
        while (filled < body.size()) {
          UMBEL_CO_ASSIGN(const size_t got,
                          co_await ReadSome({body.data() + filled, body.size() - filled}));
          filled += got;
        }
      }
      co_return body;
    }
    char piece[16384];
    for (;;) {
      UMBEL_CO_ASSIGN(const size_t got, co_await ReadSome(piece));
      if (got == 0) co_return body;
      if (body.size() + got > limit) co_return TooLarge(limit);
      UMBEL_CO_TRY(co_await Reserve(got));
      body.append(piece, got);
    }
  }

  Task<HoldEnd> Hold(Steady::time_point deadline, bool interim) override {
    const auto began = Steady::now();
    const HoldEnd end = co_await Wait(deadline, interim);
    // A body that is not read on meanwhile is none that comes too slowly.
    if (body_started_ != Steady::time_point{}) body_started_ += Steady::now() - began;
    co_return end;
  }

  Task<HoldEnd> Wait(Steady::time_point deadline, bool interim) {
    const auto self = this->shared_from_this();
    const auto keep = std::static_pointer_cast<HoldWaker>(waker());
    Disarm();
    MarkServed();
    // Readable while we hold: the peer has closed, or sends its next request already.
    if (!watching_ && buffer_.size() == 0) WatchPeer(self);
    auto next_interim = InterimAfter(Steady::now());
    for (;;) {
      if (gone_ || !socket().is_open()) co_return HoldEnd::kGone;
      if (keep->TakeWoken()) co_return HoldEnd::kWoken;
      if (stopping_) co_return HoldEnd::kStopping;
      const auto now = Steady::now();
      if (now >= deadline) co_return HoldEnd::kDeadline;
      if (interim && now >= next_interim) {
        Arm(kWriteTimeout);
        auto [error, n] = co_await asio::async_write(
            stream_, asio::buffer(kInterimLine.data(), kInterimLine.size()), kTuple);
        Disarm();
        if (error) co_return HoldEnd::kGone;
        shared_->counters.bytes_out += n;
        next_interim = InterimAfter(now);
      }
      keep->timer().expires_at(interim ? std::min(deadline, next_interim) : deadline);
      if (keep->TakeWoken()) co_return HoldEnd::kWoken;
      co_await keep->timer().async_wait(kTuple);
    }
  }

  // Exchange: the reply
  Task<Status> Reply(Response response) override {
    const bool body_follows = AsView(request().method_string()) != "HEAD";
    std::string head = Head(response.status, response.content_type, response.extra_headers,
                            fmt::format("Content-Length: {}\r\n", response.body.size()));
    std::vector<asio::const_buffer> buffers{asio::buffer(head)};
    if (body_follows && !response.body.empty()) buffers.push_back(asio::buffer(response.body));
    if (asio::buffer_size(buffers) <= kWritePiece) co_return co_await WriteAll(buffers);
    UMBEL_CO_TRY(co_await WriteAll(head));
    co_return co_await WriteAll(response.body);
  }

  Task<Status> ReplyFile(std::string content_type, std::string prefix, int fd, uint64_t offset,
                         uint64_t size) override {
    const std::string head =
        Head(200, content_type, "", fmt::format("Content-Length: {}\r\n", prefix.size() + size)) +
        prefix;
    if constexpr (std::is_same_v<Stream, tcp::socket>) {
      // MSG_MORE: the head travels in the first segment of the file.
      UMBEL_CO_TRY(co_await WriteAll(head));
      co_return co_await SendFile(fd, offset, size);
    } else {
      UMBEL_CO_TRY(co_await WriteAll(head));
      std::string piece(static_cast<size_t>(std::min<uint64_t>(size, kWritePiece)), '\0');
      while (size > 0) {
        const size_t want = static_cast<size_t>(std::min<uint64_t>(size, piece.size()));
        const ssize_t got = ::pread(fd, piece.data(), want, static_cast<off_t>(offset));
        if (got <= 0) co_return FileEnded();
        UMBEL_CO_TRY(
            co_await WriteAll(std::string_view(piece).substr(0, static_cast<size_t>(got))));
        offset += static_cast<uint64_t>(got);
        size -= static_cast<uint64_t>(got);
      }
      co_return Status{};
    }
  }

  Task<Status> BeginStream(std::string content_type) override {
    const std::string head = Head(200, content_type, "", "Transfer-Encoding: chunked\r\n");
    co_return co_await WriteAll(head);
  }
  Task<Status> WriteStream(std::string_view bytes) override {
    if (bytes.empty()) co_return Status{};  // an empty chunk would end the stream
    const std::string size = fmt::format("{:x}\r\n", bytes.size());
    UMBEL_CO_TRY(co_await WriteAll(size));
    UMBEL_CO_TRY(co_await WriteAll(bytes));
    co_return co_await WriteAll("\r\n");
  }
  Task<Status> EndStream() override { co_return co_await WriteAll("0\r\n\r\n"); }

 private:
  using Parser = beast::http::request_parser<beast::http::buffer_body>;

  tcp::socket& socket() {
    if constexpr (std::is_same_v<Stream, tcp::socket>) {
      return stream_;
    } else {
      return stream_.next_layer();
    }
  }

  /// From now on, what is pending on the socket is cancelled after `limit`, and timed_out_ says so.
  /// The socket stays open: a peer that is too slow is told.
  void Arm(Steady::duration limit) {
    deadline_at_ = Steady::now() + limit;
    timed_out_ = false;
    // A timer that fires too early looks again: most operations end long before their limit.
    if (!timer_runs_ || deadline_at_ < timer_at_) StartTimer();
  }
  void Disarm() { deadline_at_ = Steady::time_point::max(); }
  void StartTimer() {
    timer_runs_ = true;
    timer_at_ = deadline_at_;
    timer_.expires_at(timer_at_);
    timer_.async_wait([weak = this->weak_from_this()](boost::system::error_code error) {
      const auto self = weak.lock();
      if (error || !self) return;
      self->timer_runs_ = false;
      if (self->deadline_at_ == Steady::time_point::max()) return;
      if (Steady::now() < self->deadline_at_) {
        self->StartTimer();
      } else {
        self->timed_out_ = true;
        self->socket().cancel();
      }
    });
  }

  const Parser::value_type& request() const { return parser_->get(); }

  Task<void> Run() {
    if constexpr (!std::is_same_v<Stream, tcp::socket>) {
      Arm(shared_->options.header_timeout);
      auto [error] = co_await stream_.async_handshake(asio::ssl::stream_base::server, kTuple);
      if (error) co_return;
    }
    bool first = true;
    while (!stopping_ && !shared_->stopping && socket().is_open()) {
      if (!co_await ReadHead(first)) break;
      co_await shared_->handler(*this);
      ReleaseBudget();
      if (replied_ == 0 || gone_) break;  // the handler gave up: nothing sensible can follow
      if (!co_await FinishBody() || !keep_alive_) break;
      first = false;
      StopWatching();
    }
    StopWatching();
    co_await Close();
  }

  /// Waits for a request and reads its head. False when the connection is to end.
  Task<bool> ReadHead(bool first) {
    ResetRequest();
    if (!first && buffer_.size() == 0) {
      // Idle: without a buffer where the transport allows it.
      if (buffer_.capacity() > 4096) buffer_.shrink_to_fit();
      idle_ = true;
      Arm(shared_->options.idle_timeout);
      boost::system::error_code error;
      if constexpr (std::is_same_v<Stream, tcp::socket>) {
        auto [wait_error] = co_await socket().async_wait(tcp::socket::wait_read, kTuple);
        error = wait_error;
      } else {
        auto [read_error, n] = co_await stream_.async_read_some(buffer_.prepare(2048), kTuple);
        error = read_error;
        buffer_.commit(n);
      }
      idle_ = false;
      if (error) co_return false;
    }
    Arm(shared_->options.header_timeout);
    parser_->header_limit(static_cast<uint32_t>(shared_->options.header_bytes_max));
    parser_->body_limit(boost::none);
    auto [error, n] = co_await beast::http::async_read_header(stream_, buffer_, *parser_, kTuple);
    shared_->counters.bytes_in += n;
    if (error) {
      co_await RefuseHead(error);
      co_return false;
    }
    keep_alive_ = parser_->get().keep_alive();
    chunked_ = parser_->chunked();
    const auto length = parser_->content_length();
    body_total_ = length ? *length : 0;
    if (chunked_ && length) {  // the two disagree: an old way to smuggle a second request
      keep_alive_ = false;
      co_await Reply(Problem(400, "both Content-Length and Transfer-Encoding"));
      co_return false;
    }
    co_return true;
  }

  Task<void> RefuseHead(boost::system::error_code error) {
    keep_alive_ = false;
    if (timed_out_) {
      // A connection that sent nothing is closed without a word; a half-sent head gets one.
      if (buffer_.size() > 0) co_await Reply(Problem(408, "the request's head came too slowly"));
      co_return;
    }
    if (error == beast::http::error::end_of_stream || error == asio::error::eof ||
        error == asio::error::connection_reset || error == asio::error::operation_aborted)
      co_return;
    if (error == beast::http::error::header_limit || error == beast::http::error::buffer_overflow) {
      co_await Reply(Problem(431, fmt::format("request head longer than {} bytes",
                                              shared_->options.header_bytes_max)));
    } else if (error.category() ==
               beast::http::make_error_code(beast::http::error::bad_method).category()) {
      co_await Reply(Problem(400, fmt::format("not HTTP/1.1: {}", error.message())));
    }
  }

  static Response Problem(int status, std::string_view detail) {
    // No text of the peer's is in `detail`, so it needs no escaping.
    return {status, "application/json", fmt::format("{{\"detail\":\"{}\"}}", detail), ""};
  }

  void ResetRequest() {
    parser_.emplace();
    parser_->eager(false);
    replied_ = 0;
    body_read_ = body_total_ = 0;
    body_started_ = {};
    chunked_ = false;
    chunked_done_ = false;
    continued_ = false;
    if (waker_) waker_->TakeWoken();
  }

  void ReleaseBudget() {
    if (reserved_ > 0) shared_->budget.Give(std::exchange(reserved_, 0));
  }

  bool Slow() const {
    const auto spent = Steady::now() - body_started_;
    if (spent < shared_->options.body_timeout) return false;
    const double seconds = std::chrono::duration<double>(spent).count();
    return static_cast<double>(body_read_) <
           seconds * static_cast<double>(shared_->options.body_bytes_per_second_min);
  }

  Task<Status> Continue100() {
    if (continued_) co_return Status{};
    continued_ = true;
    if (beast::iequals(Header("Expect"), "100-continue"))
      co_return co_await WriteAll("HTTP/1.1 100 Continue\r\n\r\n");
    co_return Status{};
  }

  Task<Result<size_t>> ReadChunked(std::span<char> buffer) {
    if (chunked_done_) co_return size_t{0};
    auto& body = parser_->get().body();
    body.data = buffer.data();
    body.size = buffer.size();
    body.more = true;
    while (body.size == buffer.size() && !parser_->is_done()) {
      Arm(shared_->options.body_timeout);
      auto [error, n] = co_await beast::http::async_read_some(stream_, buffer_, *parser_, kTuple);
      shared_->counters.bytes_in += n;
      if (error == beast::http::error::need_buffer) break;
      if (error) co_return ReadFailed(error);
      if (Slow()) co_return Fail(Code::kDeadlineExceeded, "the body comes too slowly", 408);
    }
    const size_t got = buffer.size() - body.size;
    body_read_ += got;
    if (parser_->is_done()) chunked_done_ = true;
    if (got == 0 && !chunked_done_) co_return co_await ReadChunked(buffer);
    co_return got;
  }

  tl::unexpected<Error> ReadFailed(boost::system::error_code error) {
    keep_alive_ = false;
    if (timed_out_)
      return Fail(Code::kDeadlineExceeded, "the request's body comes too slowly", 408);
    if (error == asio::error::eof || error == beast::http::error::partial_message ||
        error == asio::error::connection_reset || error == asio::error::operation_aborted ||
        error == asio::error::bad_descriptor || error == asio::ssl::error::stream_truncated) {
      gone_ = true;
      return Fail(Code::kCancelled, "the peer is gone");
    }
    return Fail(Code::kInvalidArgument, fmt::format("broken body: {}", error.message()), 400);
  }

  tl::unexpected<Error> TooLarge(size_t limit) {
    return Fail(Code::kResourceExhausted, fmt::format("body longer than {} bytes", limit), 413);
  }

  /// Reads what the handler left of the body, if that is cheap. False: close instead.
  Task<bool> FinishBody() {
    if (!chunked_ && body_read_ == body_total_) co_return true;
    if (!chunked_ && body_total_ - body_read_ > kDrainMax) {
      keep_alive_ = false;
      co_return false;
    }
    char sink[16384];
    for (size_t drained = 0; drained <= kDrainMax;) {
      const auto got = co_await ReadSome(sink);
      if (!got.ok()) co_return false;
      if (*got == 0) co_return true;
      drained += *got;
    }
    keep_alive_ = false;
    co_return false;
  }

  void WatchPeer(const std::shared_ptr<Connection>& self) {
    watching_ = true;
    socket().async_wait(tcp::socket::wait_read, [self](boost::system::error_code error) {
      self->watching_ = false;
      if (error) return;
      char byte;
      const ssize_t n = ::recv(self->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))) return;
      self->gone_ = true;
      if (self->waker_) self->waker_->timer().cancel();
    });
  }
  void StopWatching() {
    if (watching_ && socket().is_open()) socket().cancel();
  }

  /// Before the peer can know that it was: it may act on the answer at once.
  void MarkServed() {
    if (!std::exchange(served_, true)) shared_->MarkServed(entry_);
  }

  std::string Head(int status, std::string_view content_type, std::string_view extra,
                   std::string_view framing) {
    replied_ = status;
    if (status < 400) MarkServed();
    // What is left of an oversized body is not worth reading.
    if (!chunked_ && body_total_ - body_read_ > kDrainMax) keep_alive_ = false;
    std::string head = fmt::format("HTTP/1.1 {} {}\r\nServer: umbel\r\n", status, Reason(status));
    if (!content_type.empty()) head += fmt::format("Content-Type: {}\r\n", content_type);
    head += extra;
    head += framing;
    if (!keep_alive_ || stopping_) head += "Connection: close\r\n";
    if (stopping_) keep_alive_ = false;
    head += "\r\n";
    return head;
  }

  Task<Status> WriteAll(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t piece = std::min(bytes.size(), kWritePiece);
      std::vector<asio::const_buffer> one{asio::buffer(bytes.data(), piece)};
      UMBEL_CO_TRY(co_await WriteAll(one));
      bytes.remove_prefix(piece);
    }
    co_return Status{};
  }
  Task<Status> WriteAll(const std::vector<asio::const_buffer>& buffers) {
    Arm(kWriteTimeout);
    auto [error, n] = co_await asio::async_write(stream_, buffers, kTuple);
    shared_->counters.bytes_out += n;
    if (!error) co_return Status{};
    keep_alive_ = false;
    gone_ = true;
    co_return Fail(Code::kCancelled, "the peer is gone");
  }

  Task<Status> SendFile(int fd, uint64_t offset, uint64_t size) {
    off_t at = static_cast<off_t>(offset);
    socket().native_non_blocking(true);
    while (size > 0) {
      const size_t want = static_cast<size_t>(std::min<uint64_t>(size, size_t{1} << 20));
      const ssize_t n = ::sendfile(socket().native_handle(), fd, &at, want);
      if (n > 0) {
        size -= static_cast<uint64_t>(n);
        shared_->counters.bytes_out += static_cast<uint64_t>(n);
        continue;
      }
      if (n == 0) co_return FileEnded();
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        gone_ = true;
        co_return Fail(Code::kCancelled, "the peer is gone");
      }
      if (!co_await WaitWritable()) co_return Fail(Code::kCancelled, "the peer is gone");
    }
    co_return Status{};
  }

  Task<bool> WaitWritable() {
    Arm(kWriteTimeout);
    auto [error] = co_await socket().async_wait(tcp::socket::wait_write, kTuple);
    if (error) {
      keep_alive_ = false;
      gone_ = true;
    }
    co_return !error;
  }

  tl::unexpected<Error> FileEnded() {
    keep_alive_ = false;
    gone_ = true;  // the length is promised already: only cutting the connection is honest
    boost::system::error_code ignored;
    socket().close(ignored);
    return Fail(Code::kDataLoss, "a stored object is shorter than its record");
  }

  /// Lets a peer that still sends read our last reply before the connection goes.
  Task<void> Close() {
    if (!socket().is_open()) co_return;
    boost::system::error_code ignored;
    if constexpr (!std::is_same_v<Stream, tcp::socket>) {
      Arm(std::chrono::seconds(2));
      co_await stream_.async_shutdown(kTuple);
    }
    socket().shutdown(tcp::socket::shutdown_send, ignored);
    if (replied_ >= 400) {
      char sink[16384];
      Arm(std::chrono::seconds(2));
      for (size_t drained = 0; drained < kDrainMax;) {
        auto [error, n] = co_await socket().async_read_some(asio::buffer(sink), kTuple);
        if (error) break;
        drained += n;
      }
    }
    socket().close(ignored);
  }

  std::shared_ptr<Shared> shared_;
  Stream stream_;
  std::string peer_;
  std::list<Shared::Entry>::iterator entry_;
  bool registered_ = false;
  bool served_ = false;

  asio::steady_timer timer_;
  Steady::time_point deadline_at_ = Steady::time_point::max();
  Steady::time_point timer_at_{};
  bool timer_runs_ = false;
  bool timed_out_ = false;

  beast::flat_buffer buffer_{64 * 1024};
  std::optional<Parser> parser_;
  std::shared_ptr<HoldWaker> waker_;
  size_t reserved_ = 0;
  uint64_t body_total_ = 0;
  uint64_t body_read_ = 0;
  Steady::time_point body_started_{};
  int replied_ = 0;
  bool chunked_ = false;
  bool chunked_done_ = false;
  bool continued_ = false;
  bool keep_alive_ = true;
  bool idle_ = false;
  bool watching_ = false;
  bool gone_ = false;
  bool stopping_ = false;
};

}  // namespace

void StartConnection(std::shared_ptr<Shared> shared, tcp::socket socket, asio::ssl::context* tls) {
  if (tls != nullptr) {
    std::make_shared<Connection<TlsStream>>(std::move(shared), std::move(socket), *tls)->Start();
  } else {
    std::make_shared<Connection<tcp::socket>>(std::move(shared), std::move(socket))->Start();
  }
}

}  // namespace umbel::http
