#include "doors/rest.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <charconv>

#include "http/server.h"

namespace umbel::doors {
namespace {

using http::Exchange;

constexpr size_t kPoolThreads = 2;
constexpr std::chrono::milliseconds kGrace{1000};

/// plus  '+' is a blank, as in queries.
std::string Decode(std::string_view text, bool plus) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(plus && text[i] == '+' ? ' ' : text[i]);
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

bool Fits(std::string_view pattern, const Request& request) {
  size_t at = 0;
  bool fits = true;
  Split(pattern, '/', [&](std::string_view part) {
    const bool any = part.starts_with('{') && at < request.parts().size();
    fits = fits && (any || part == request.part(at));
    ++at;
  });
  return fits && at == request.parts().size();
}

class RestImpl final : public Rest {
 public:
  RestImpl(std::vector<Route> routes, Refuse refuse)
      : routes_(std::move(routes)), refuse_(std::move(refuse)) {}
  ~RestImpl() override { Stop(); }

  Status Open(const Options& options) {
    http::ServerOptions server;
    server.host = options.host;
    server.port = options.port;
    server.threads = 1;
    UMBEL_ASSIGN(server_, http::Server::Start(std::move(server), [this](Exchange& exchange) {
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

  http::Task<void> Serve(Exchange& exchange) {
    const Request request(exchange.path(), exchange.query());
    std::string allowed;
    const Route* const route = Find(exchange.method(), request, &allowed);
    Result<Answer> answered = NoRoute(exchange, allowed);
    if (route) answered = co_await route->handle(exchange, request);
    if (!answered.ok() && answered.error().code == Code::kCancelled) co_return;
    Answer answer = answered.ok() ? *std::move(answered) : refuse_(answered.error());
    if (answer.status == 405) answer.extra_headers += "Allow: " + allowed + "\r\n";
    static_cast<void>(co_await exchange.Reply(
        http::Response(answer.status, std::move(answer.content_type), std::move(answer.body),
                       std::move(answer.extra_headers))));
  }

  /// nullptr: none; `allowed` are then the methods that the path has.
  const Route* Find(std::string_view method, const Request& request, std::string* allowed) const {
    for (const Route& route : routes_) {
      if (!Fits(route.path, request)) continue;
      if (route.method == method || (route.method == "GET" && method == "HEAD")) return &route;
      *allowed += allowed->empty() ? "" : ", ";
      *allowed += route.method == "GET" ? "GET, HEAD" : route.method;
    }
    return nullptr;
  }
  static tl::unexpected<Error> NoRoute(const Exchange& exchange, const std::string& allowed) {
    const std::string_view path = exchange.path().substr(0, 100);
    if (allowed.empty())
      return Fail(Code::kNotFound, fmt::format("there is nothing at '{}'", path));
    return Fail(
        Code::kInvalidArgument,
        fmt::format("'{}' takes {}, not {}", path, allowed, exchange.method().substr(0, 20)), 405);
  }

  const std::vector<Route> routes_;
  const Refuse refuse_;
  boost::asio::thread_pool pool_{kPoolThreads};
  std::unique_ptr<http::Server> server_;
};

}  // namespace

Request::Request(std::string_view path, std::string_view query) {
  Split(path, '/', [this](std::string_view part) { parts_.push_back(Decode(part, false)); });
  Split(query, '&', [this](std::string_view pair) {
    const size_t equals = std::min(pair.find('='), pair.size());
    values_.emplace_back(Decode(pair.substr(0, equals), true),
                         Decode(pair.substr(std::min(equals + 1, pair.size())), true));
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

Rest::Handle Rest::Always(Answer answer) {
  return [answer = std::move(answer)](Exchange&, const Request&) -> http::Task<Result<Answer>> {
    co_return answer;
  };
}

Result<std::unique_ptr<Rest>> Rest::Start(const Options& options, std::vector<Route> routes,
                                          Refuse refuse) {
  auto rest = std::make_unique<RestImpl>(std::move(routes), std::move(refuse));
  UMBEL_TRY(rest->Open(options));
  return std::unique_ptr<Rest>(std::move(rest));
}

std::string_view BearerOf(const http::Exchange& exchange) {
  const std::string_view header = exchange.Header("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  return header.starts_with(kBearer) ? header.substr(kBearer.size()) : std::string_view();
}

}  // namespace umbel::doors
