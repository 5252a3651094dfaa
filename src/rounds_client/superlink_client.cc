#include "rounds_client/superlink_client.h"

#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "flower/errors.h"

namespace umbel::rounds_client {
namespace {

constexpr std::chrono::milliseconds kPauseMin{100};
constexpr std::chrono::milliseconds kPauseMax{3000};

/// Flower's JSON of an error, or the text as it is.
std::string TextOf(const http::ClientResponse& response) {
  const auto json = nlohmann::json::parse(response.body, nullptr, false);
  if (!json.is_object()) return response.body.substr(0, 200);
  std::string text;
  for (const char* key : {"detail", "public_message", "extra", "public_details"})
    if (const auto found = json.find(key); found != json.end() && found->is_string())
      text += (text.empty() ? "" : ": ") + found->get<std::string>();
  return text;
}

Status Write(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      Error error = SystemError("write", "the answer's file");
      // Not to be tried again, as a server that does not answer is.
      if (error.code == Code::kUnavailable) error.code = Code::kFailedPrecondition;
      return Fail(std::move(error));
    }
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

class ClientImpl final : public SuperLinkClient {
 public:
  explicit ClientImpl(std::string address) : address_(std::move(address)) {}

  Status Open(http::ClientOptions options) {
    UMBEL_ASSIGN(client_, http::Client::Make(context_, std::move(options)));
    return {};
  }

  Result<std::string> Post(const Call& call) override {
    const auto begin = std::chrono::steady_clock::now();
    for (auto pause = kPauseMin;; pause = std::min(pause * 2, kPauseMax)) {
      auto answer = Once(call);
      Error error{Code::kUnavailable, ""};
      if (answer.ok()) {
        if (answer->status == 200) return std::move(answer->body);
        error = {flower::CodeOfStatus(answer->status),
                 fmt::format("{} answers {} {}: {}", address_, call.path, answer->status,
                             TextOf(*answer))};
      } else {
        error = answer.error();
      }
      const auto spent = std::chrono::steady_clock::now() - begin;
      if (error.code != Code::kUnavailable || spent > call.patience) return Fail(std::move(error));
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, pause, [this] { return cancelled_; }))
        return Fail(Code::kCancelled, "the call was cancelled");
    }
  }

  void Cancel() override {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    changed_.notify_all();
    boost::asio::post(context_, [this] { client_->Close(); });
  }

  const std::string& address() const override { return address_; }

 private:
  Result<http::ClientResponse> Once(const Call& call) {
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_) return Fail(Code::kCancelled, "the call was cancelled");
    }
    // What an attempt before has left is gone.
    if (call.answer_file >= 0 &&
        (::ftruncate(call.answer_file, 0) != 0 || ::lseek(call.answer_file, 0, SEEK_SET) != 0))
      return Fail(SystemError("empty", "the answer's file"));
    std::optional<Result<http::ClientResponse>> answer;
    auto ask = [&]() -> http::Task<void> {
      http::ClientRequest request("POST", call.path);
      request.content_type = "application/protobuf";
      request.extra_headers = call.headers;
      request.body = call.body;
      request.file = call.file;
      request.timeout = call.timeout;
      if (call.answer_file >= 0)
        request.sink = [fd = call.answer_file](std::string_view piece) { return Write(fd, piece); };
      answer = co_await client_->Send(request, call.answer_max);
    };
    context_.restart();
    boost::asio::co_spawn(context_, std::move(ask), boost::asio::detached);
    while (!answer && context_.run_one() > 0) {
    }
    if (!answer) return Fail(Code::kInternal, "the question was not asked");
    return std::move(*answer);
  }

  const std::string address_;
  boost::asio::io_context context_{1};
  std::unique_ptr<http::Client> client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;
};

}  // namespace

Result<std::unique_ptr<SuperLinkClient>> SuperLinkClient::Make(
    const std::string& address, bool insecure, const std::string& root_certificates) {
  const size_t colon = address.rfind(':');
  http::ClientOptions options;
  if (colon != std::string::npos) {
    const std::string_view digits = std::string_view(address).substr(colon + 1);
    unsigned port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port == 0 || port > 65535)
      return Fail(Code::kInvalidArgument,
                  fmt::format("'{}' is not HOST:PORT, as in 127.0.0.1:8000", address));
    options.port = static_cast<uint16_t>(port);
  }
  options.host = address.substr(0, colon);
  if (options.host.size() > 2 && options.host.front() == '[')
    options.host = options.host.substr(1, options.host.size() - 2);
  options.tls = !insecure;
  options.root_certificates = root_certificates;
  auto client = std::make_unique<ClientImpl>(address);
  UMBEL_TRY(client->Open(std::move(options)));
  return std::unique_ptr<SuperLinkClient>(std::move(client));
}

}  // namespace umbel::rounds_client
