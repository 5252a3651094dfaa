#include "doors/rest.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <charconv>

#include "http/server.h"

namespace umbel::doors {
namespace {

constexpr size_t kPoolThreads = 2;
constexpr std::chrono::milliseconds kGrace{1000};

std::string Decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

/// Calls `take` with what stands between separators.
template <typename F>
void Split(std::string_view text, char separator, F take) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end > 0) take(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

class RestImpl final : public Rest {
 public:
  RestImpl(Handle handle, Refuse refuse) : handle_(std::move(handle)), refuse_(std::move(refuse)) {}
  ~RestImpl() override { Stop(); }

  Status Open(const Options& options) {
    http::ServerOptions server;
    server.host = options.host;
    server.port = options.port;
    server.threads = 1;
    UMBEL_ASSIGN(server_, http::Server::Start(std::move(server), [this](http::Exchange& exchange) {
                   return Serve(exchange);
                 }));
    return {};
  }

  uint16_t port() const override { return server_->port(); }
  void Stop() override {
    if (server_) server_->Stop(kGrace);
    pool_.join();
  }

 private:
  void Post(std::function<void()> work) override { boost::asio::post(pool_, std::move(work)); }

  http::Task<void> Serve(http::Exchange& exchange) {
    const Request request(exchange.path(), exchange.query());
    auto answered = co_await handle_(exchange, request);
    if (!answered.ok() && answered.error().code == Code::kCancelled) co_return;
    Answer answer = answered.ok() ? *std::move(answered) : refuse_(answered.error());
    static_cast<void>(co_await exchange.Reply(
        http::Response(answer.status, std::move(answer.content_type), std::move(answer.body),
                       std::move(answer.extra_headers))));
  }

  const Handle handle_;
  const Refuse refuse_;
  boost::asio::thread_pool pool_{kPoolThreads};
  std::unique_ptr<http::Server> server_;
};

}  // namespace

Request::Request(std::string_view path, std::string_view query) {
  Split(path, '/', [this](std::string_view part) { parts_.push_back(Decode(part)); });
  Split(query, '&', [this](std::string_view pair) {
    const size_t equals = std::min(pair.find('='), pair.size());
    values_.emplace_back(Decode(pair.substr(0, equals)),
                         Decode(pair.substr(std::min(equals + 1, pair.size()))));
  });
}

const std::string& Request::part(size_t i) const {
  static const std::string kNone;
  return i < parts_.size() ? parts_[i] : kNone;
}

std::optional<std::string> Request::Text(std::string_view key) const {
  for (const auto& [name, value] : values_)
    if (name == key) return value;
  return std::nullopt;
}

Result<uint64_t> Request::Number(std::string_view key, uint64_t otherwise, uint64_t max) const {
  const auto text = Text(key);
  if (!text) return otherwise;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > max)
    return Fail(Code::kInvalidArgument,
                fmt::format("{}: '{}' is not in 0 to {}", key, text->substr(0, 40), max));
  return value;
}

Result<std::unique_ptr<Rest>> Rest::Start(const Options& options, Handle handle, Refuse refuse) {
  auto rest = std::make_unique<RestImpl>(std::move(handle), std::move(refuse));
  UMBEL_TRY(rest->Open(options));
  return std::unique_ptr<Rest>(std::move(rest));
}

std::string_view BearerOf(const http::Exchange& exchange) {
  const std::string_view header = exchange.Header("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  return header.starts_with(kBearer) ? header.substr(kBearer.size()) : std::string_view();
}

}  // namespace umbel::doors
