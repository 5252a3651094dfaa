#include "flower/door.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <charconv>
#include <nlohmann/json.hpp>

namespace umbel::flower {
namespace {

/// HTTP status of an error: the wire's own, or the number that a room below has set.
int StatusOf(const Error& error) {
  if (const int status = HttpStatusOf(error.wire_code)) return status;
  if (error.wire_code >= 400 && error.wire_code < 600) return error.wire_code;
  switch (error.code) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    default:
      return 503;  // a peer retries it; anything else would end a SuperNode
  }
}

}  // namespace

Status CheckContentType(const Exchange& exchange) {
  std::string_view type = exchange.Header("content-type");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  if (boost::beast::iequals({type.data(), type.size()}, {kProtobuf.data(), kProtobuf.size()}))
    return {};
  return WireError(wire::kUnsupportedContent,
                   fmt::format("Content-Type is '{}', not '{}'", type.substr(0, 80), kProtobuf));
}

Task<Status> ReadMessage(Exchange& exchange, google::protobuf::MessageLite* message, size_t limit) {
  UMBEL_CO_TRY(CheckContentType(exchange));
  UMBEL_CO_ASSIGN(const std::string body, co_await exchange.ReadBody(limit));
  if (!message->ParseFromString(body))
    co_return WireError(wire::kBadProtobuf, fmt::format("the body's {} bytes are not a {}",
                                                        body.size(), message->GetTypeName()));
  co_return Status{};
}

Task<Status> ReplyMessage(Exchange& exchange, const google::protobuf::MessageLite& message) {
  co_return co_await exchange.Reply({200, std::string(kProtobuf), message.SerializeAsString(), ""});
}

Task<void> ReplyError(Exchange& exchange, const Error& error) {
  if (exchange.replied() != 0 || error.code == Code::kCancelled) co_return;
  nlohmann::json body;
  const int status = StatusOf(error);
  const std::string_view text = PublicText(error.wire_code);
  std::string headers;
  if (!text.empty() && error.wire_code != wire::kNotLoggedIn) {
    body["code"] = error.wire_code;
    body["detail"] = text;
    if (!error.message.empty()) body["extra"] = error.message;
  } else {
    body["detail"] = error.message.empty() ? std::string(text) : error.message;
  }
  if (error.wire_code == wire::kNotLoggedIn) body["code"] = error.wire_code;
  if (status == 401 && exchange.path().starts_with("/v1/control/")) {
    headers = "WWW-Authenticate: Bearer\r\n";
  }
  http::Response response;
  response.status = status;
  response.content_type = "application/json";
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  response.extra_headers = std::move(headers);
  static_cast<void>(co_await exchange.Reply(std::move(response)));
}

Task<Status> ReplyEmpty(Exchange& exchange) {
  co_return co_await exchange.Reply({200, std::string(kProtobuf), "", ""});
}

HoldPlan PlanHold(const Exchange& exchange, bool unlimited) {
  const auto now = std::chrono::steady_clock::now();
  const std::string_view prefer = exchange.Header("prefer");
  constexpr std::string_view kWait = "wait=";
  if (const size_t at = prefer.find(kWait); at != std::string_view::npos) {
    int seconds = 0;
    const std::string_view digits = prefer.substr(at + kWait.size());
    std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
    return {now + std::chrono::seconds(std::clamp(seconds, 0, 3600)), false};
  }
  const bool httpx = exchange.Header("user-agent").starts_with("python-httpx/");
  if (unlimited && httpx) return {now + kInterimHoldMax, true};
  return {now + kHoldMax, false};
}

}  // namespace umbel::flower
