#include "http/client.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <deque>

#include "http/client_connection.h"

namespace umbel::http {
namespace asio = boost::asio;
using Steady = std::chrono::steady_clock;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

Status LoadTls(ClientTarget& target) {
  asio::ssl::context& context = target.tls.emplace(asio::ssl::context::tls_client);
  boost::system::error_code error;
  context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                          asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                          asio::ssl::context::no_tlsv1_1,
                      error);
  context.set_verify_mode(asio::ssl::verify_peer, error);
  const std::string& roots = target.options.root_certificates;
  if (roots.empty()) {
    context.set_default_verify_paths(error);
    if (error)
      return Fail(Code::kInvalidArgument, fmt::format("the system's root certificates cannot be "
                                                      "read: {}",
                                                      error.message()));
  } else {
    context.load_verify_file(roots, error);
    if (error)
      return Fail(Code::kInvalidArgument,
                  fmt::format("root certificates '{}' cannot be read: {}", roots, error.message()));
  }
  SSL_CTX_set_mode(context.native_handle(), SSL_MODE_RELEASE_BUFFERS);
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(context.native_handle(), kHttp11, sizeof kHttp11 - 1);
  return {};
}

/// Nothing that would end a line, or a word where the head has words, may get into it.
Status Check(const ClientRequest& request) {
  const auto plain = [](std::string_view text, char least) {
    return std::all_of(text.begin(), text.end(),
                       [least](char c) { return c >= least && c != '\x7f'; });
  };
  if (request.method.empty() || !plain(request.method, '!') || !request.path.starts_with('/') ||
      !plain(request.path, '!') || !plain(request.content_type, ' '))
    return Fail(Code::kInvalidArgument, "method, path or content type does not fit into a request");
  return {};
}

/// The connections of one Client, and who waits for one. Calls share in owning it, so that a
/// Client may go while they end.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  Pool(asio::io_context& io, ClientTarget target)
      : io_(io), target_(std::move(target)), sweep_timer_(io) {}

  static Task<Result<ClientResponse>> Call(std::shared_ptr<Pool> pool, const ClientRequest& request,
                                           size_t body_max);
  void Close();

 private:
  /// One call: the right to one of connections_max connections, or the wait for it.
  struct Place {
    explicit Place(Pool& p) : pool(p), granted(p.io_) {}
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() { pool.Leave(*this); }

    Pool& pool;
    asio::steady_timer granted;
    std::shared_ptr<ClientConnection> connection;  // Close() cancels it
  };
  struct Kept {
    std::shared_ptr<ClientConnection> connection;
    Steady::time_point since;
  };

  Task<Status> Enter(Place& place);
  void Leave(Place& place);
  std::shared_ptr<ClientConnection> TakeKept();
  void Keep(std::shared_ptr<ClientConnection> connection);
  void Sweep();
  tl::unexpected<Error> Closed() const {
    return Fail(Code::kCancelled, fmt::format("{}: the client was closed", target_.name));
  }

  asio::io_context& io_;
  ClientTarget target_;
  std::vector<Place*> inside_;  // with those in kept_, never more than connections_max
  std::deque<Place*> waiting_;  // first come, first served
  std::vector<Kept> kept_;      // the longest idle first
  asio::steady_timer sweep_timer_;
  bool sweeping_ = false;
  bool closed_ = false;
};

Task<Result<ClientResponse>> Pool::Call(std::shared_ptr<Pool> pool, const ClientRequest& request,
                                        size_t body_max) {
  UMBEL_CO_TRY(Check(request));
  Place place(*pool);
  UMBEL_CO_TRY(co_await pool->Enter(place));
  place.connection = pool->TakeKept();
  bool fresh = place.connection == nullptr;
  for (;;) {
    if (fresh) {
      place.connection = std::make_shared<ClientConnection>(pool->io_, pool->target_);
      UMBEL_CO_TRY(co_await place.connection->Open());
    }
    auto answer = co_await place.connection->Exchange(request, body_max);
    if (!fresh && place.connection->lost()) {
      fresh = true;  // the server had closed it; the others that are kept may be closed as well
      continue;
    }
    if (place.connection->reusable()) pool->Keep(std::move(place.connection));
    co_return answer;
  }
}

Task<Status> Pool::Enter(Place& place) {
  if (closed_) co_return Closed();
  if (inside_.size() < std::max<size_t>(target_.options.connections_max, 1)) {
    inside_.push_back(&place);
    co_return Status{};
  }
  waiting_.push_back(&place);
  place.granted.expires_at(Steady::time_point::max());
  co_await place.granted.async_wait(kTuple);
  if (closed_) co_return Closed();
  co_return Status{};
}

void Pool::Leave(Place& place) {
  if (std::erase(inside_, &place) == 0) {
    std::erase(waiting_, &place);
  } else if (!waiting_.empty()) {
    Place* const next = waiting_.front();
    waiting_.pop_front();
    inside_.push_back(next);
    next->granted.cancel();
  }
}

std::shared_ptr<ClientConnection> Pool::TakeKept() {
  while (!kept_.empty()) {
    // The last one used: the others may grow old.
    const Kept last = std::move(kept_.back());
    kept_.pop_back();
    if (Steady::now() - last.since <= target_.options.idle_max && last.connection->Quiet())
      return last.connection;
  }
  return nullptr;
}

void Pool::Keep(std::shared_ptr<ClientConnection> connection) {
  if (closed_) return;
  kept_.push_back({std::move(connection), Steady::now()});
  Sweep();
}

/// Closes what has been idle for too long, now and as long as there is something idle.
void Pool::Sweep() {
  if (sweeping_ || kept_.empty()) return;
  sweeping_ = true;
  sweep_timer_.expires_at(kept_.front().since + target_.options.idle_max);
  sweep_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->sweeping_ = false;
    const auto oldest = Steady::now() - self->target_.options.idle_max;
    std::erase_if(self->kept_, [oldest](const Kept& kept) { return kept.since <= oldest; });
    self->Sweep();
  });
}

void Pool::Close() {
  closed_ = true;
  for (Place* place : inside_)
    if (place->connection) place->connection->Cancel();
  for (Place* place : waiting_) place->granted.cancel();
  kept_.clear();
  sweep_timer_.cancel();
}

class ClientImpl final : public Client {
 public:
  explicit ClientImpl(std::shared_ptr<Pool> pool) : pool_(std::move(pool)) {}
  ~ClientImpl() override { pool_->Close(); }

  Task<Result<ClientResponse>> Send(const ClientRequest& request, size_t body_max) override {
    return Pool::Call(pool_, request, body_max);
  }
  void Close() override { pool_->Close(); }

 private:
  std::shared_ptr<Pool> pool_;
};

}  // namespace

Result<std::unique_ptr<Client>> Client::Make(asio::io_context& context, ClientOptions options) {
  ClientTarget target;
  std::string& host = options.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  if (host.empty() || !std::all_of(host.begin(), host.end(),
                                   [](char c) { return c > ' ' && c != '\x7f' && c != '/'; }))
    return Fail(Code::kInvalidArgument, fmt::format("'{}' is not a host name", host));
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) target.address = address;
  const std::string shown = host.find(':') == std::string::npos ? host : fmt::format("[{}]", host);
  target.name = fmt::format("{}:{}", shown, options.port);
  target.common_lines =
      fmt::format("Host: {}\r\nUser-Agent: {}\r\n", target.name, options.user_agent);
  target.options = std::move(options);
  if (target.options.tls) UMBEL_TRY(LoadTls(target));
  // sendfile has no flag to spare the process this signal when the server has gone.
  struct sigaction now {};
  if (::sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL)
    ::signal(SIGPIPE, SIG_IGN);
  return std::unique_ptr<Client>(
      std::make_unique<ClientImpl>(std::make_shared<Pool>(context, std::move(target))));
}

}  // namespace umbel::http
