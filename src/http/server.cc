#include "http/server.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>
#include <vector>

#include "base/log.h"
#include "http/connection.h"

namespace umbel::http {
namespace asio = boost::asio;
using tcp = asio::ip::tcp;

namespace {

constexpr size_t kReservedDescriptors = 256;
constexpr int kAcceptedAtOnce = 256;

/// Raises the soft limit of open files to the hard one and returns what connections may use.
size_t ConnectionLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 768;
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  const size_t files = static_cast<size_t>(std::min<rlim_t>(limit.rlim_cur, 1'000'000));
  return files > 2 * kReservedDescriptors ? files - kReservedDescriptors : files / 2;
}

Status LoadTls(asio::ssl::context& context, const TlsOptions& options) {
  boost::system::error_code error;
  context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                          asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                          asio::ssl::context::no_tlsv1_1,
                      error);
  context.use_certificate_chain_file(options.certificate_file, error);
  if (error)
    return Fail(Code::kInvalidArgument, fmt::format("certificate '{}' cannot be used: {}",
                                                    options.certificate_file, error.message()));
  context.use_private_key_file(options.key_file, asio::ssl::context::pem, error);
  if (error)
    return Fail(Code::kInvalidArgument, fmt::format("private key '{}' cannot be used: {}",
                                                    options.key_file, error.message()));
  SSL_CTX_set_mode(context.native_handle(), SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(
      context.native_handle(),
      [](SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
         unsigned in_size, void*) {
        static constexpr unsigned char kHttp11[] = "\x08http/1.1";
        const int picked = SSL_select_next_proto(const_cast<unsigned char**>(out), out_size,
                                                 kHttp11, sizeof kHttp11 - 1, in, in_size);
        return picked == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
      },
      nullptr);
  return {};
}

class ServerImpl final : public Server {
 public:
  ServerImpl(ServerOptions options, Handler handler)
      : shared_(std::make_shared<Shared>(std::move(options), std::move(handler))),
        io_(static_cast<int>(shared_->options.threads)),
        acceptor_(asio::make_strand(io_)) {}
  ~ServerImpl() override { Stop(std::chrono::milliseconds(0)); }

  Status Open() {
    const ServerOptions& options = shared_->options;
    connections_max_ = options.connections_max ? options.connections_max : ConnectionLimit();
    if (options.tls) {
      tls_.emplace(asio::ssl::context::tls_server);
      UMBEL_TRY(LoadTls(*tls_, *options.tls));
    }
    boost::system::error_code error;
    tcp::resolver resolver(io_);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
    if (error || found.empty())
      return Fail(Code::kUnavailable,
                  fmt::format("host '{}' cannot be resolved: {}", options.host, error.message()));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(4096, error);
    if (!error) acceptor_.non_blocking(true, error);
    if (error)
      return Fail(Code::kUnavailable, fmt::format("cannot listen on {}:{}: {}", options.host,
                                                  options.port, error.message()));
    port_ = acceptor_.local_endpoint().port();
    asio::co_spawn(acceptor_.get_executor(), Accept(), asio::detached);
    for (size_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { io_.run(); });
    return {};
  }

  uint16_t port() const override { return port_; }
  const ServerCounters& counters() const override { return shared_->counters; }
  asio::io_context& context() override { return io_; }

  void Stop(std::chrono::milliseconds grace) override {
    if (stopped_) return;
    stopped_ = true;
    shared_->stopping = true;
    asio::post(acceptor_.get_executor(), [this] { acceptor_.close(); });
    ForEach([](ConnectionHandle& connection) { connection.StopSoon(); });
    {
      std::unique_lock lock(shared_->mutex);
      shared_->changed.wait_for(lock, grace, [this] { return shared_->entries.empty(); });
    }
    ForEach([](ConnectionHandle& connection) { connection.CloseSoon(); });
    io_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  template <typename F>
  void ForEach(F&& f) {
    std::vector<std::shared_ptr<ConnectionHandle>> live;
    {
      std::lock_guard lock(shared_->mutex);
      for (const auto& entry : shared_->entries)
        if (auto connection = entry.connection.lock()) live.push_back(std::move(connection));
    }
    for (const auto& connection : live) f(*connection);
  }

  asio::awaitable<void> Accept() {
    asio::steady_timer pause(acceptor_.get_executor());
    boost::system::error_code error;
    while (acceptor_.is_open()) {
      // All that have come by now: while connections pour in, one for each turn of the scheduler
      // would leave the rest to overflow the kernel's queue, which costs them a second or more.
      for (int i = 0; i < kAcceptedAtOnce && !error; ++i) {
        tcp::socket socket(asio::make_strand(io_));
        acceptor_.accept(socket, error);
        if (!error) Admit(std::move(socket));
      }
      if (error == asio::error::bad_descriptor) co_return;
      if (error && error != asio::error::would_block && error != asio::error::connection_aborted &&
          error != asio::error::interrupted) {
        // Out of descriptors or memory: make room, then let the kernel's queue hold the rest.
        LogWarn("cannot accept a connection", {{"error", error.message()}});
        shared_->ShedOne();
        pause.expires_after(std::chrono::milliseconds(20));
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
      }
      auto [wait_error] = co_await acceptor_.async_wait(tcp::acceptor::wait_read,
                                                        asio::as_tuple(asio::use_awaitable));
      if (wait_error) co_return;  // closed
      error = {};
    }
  }

  void Admit(tcp::socket socket) {
    if (shared_->counters.connections_open >= connections_max_ && !shared_->ShedOne()) {
      ++shared_->counters.connections_shed;
      return;  // the socket closes here
    }
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    ++shared_->counters.connections_total;
    StartConnection(shared_, std::move(socket), tls_ ? &*tls_ : nullptr);
  }

  std::shared_ptr<Shared> shared_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  std::optional<asio::ssl::context> tls_;
  std::vector<std::thread> threads_;
  size_t connections_max_ = 0;
  uint16_t port_ = 0;
  bool stopped_ = false;
};

}  // namespace

std::list<Shared::Entry>::iterator Shared::Add(std::weak_ptr<ConnectionHandle> connection) {
  ++counters.connections_open;
  std::lock_guard lock(mutex);
  return entries.insert(entries.end(), Entry{std::move(connection), false});
}

void Shared::MarkServed(std::list<Entry>::iterator entry) {
  std::lock_guard lock(mutex);
  entry->served = true;
}

void Shared::Remove(std::list<Entry>::iterator entry) {
  {
    std::lock_guard lock(mutex);
    entries.erase(entry);
    if (entries.empty()) changed.notify_all();
  }
  --counters.connections_open;
}

bool Shared::ShedOne() {
  std::shared_ptr<ConnectionHandle> victim;
  {
    std::lock_guard lock(mutex);
    for (Entry& entry : entries) {
      if (entry.served) continue;
      victim = entry.connection.lock();
      entry.served = true;  // not picked twice
      if (victim) break;
    }
  }
  if (!victim) return false;
  ++counters.connections_shed;
  victim->CloseSoon();
  return true;
}

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, Handler handler) {
  auto server = std::make_unique<ServerImpl>(std::move(options), std::move(handler));
  UMBEL_TRY(server->Open());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace umbel::http
