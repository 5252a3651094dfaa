// What every door that speaks Flower does alike: read a request, answer it, hold a poll.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"
#include "flower/errors.h"
#include "http/exchange.h"

namespace umbel::flower {

using http::Exchange;
using http::Task;

inline constexpr std::string_view kProtobuf = "application/protobuf";
/// Largest body of a request that is held in memory: push-messages of a thousand nodes needs 42 MB.
inline constexpr size_t kBodyMax = size_t{192} << 20;
/// How long a poll is held without interim lines: Flower's clients time out after 30 s.
inline constexpr std::chrono::seconds kHoldMax{20};
/// With interim lines; an upper bound only so that a dead peer's hold ends one day.
inline constexpr std::chrono::hours kInterimHoldMax{24};

/// errors  kUnsupportedContent: not protobuf; kBadProtobuf: does not parse.
Task<Status> ReadMessage(Exchange& exchange, google::protobuf::MessageLite* message,
                         size_t limit = kBodyMax);
Status CheckContentType(const Exchange& exchange);
Task<Status> ReplyMessage(Exchange& exchange, const google::protobuf::MessageLite& message);
Task<Status> ReplyEmpty(Exchange& exchange);
/// Flower's error JSON, or {"detail"} for an error without a code of Flower's.
Task<void> ReplyError(Exchange& exchange, const Error& error);

/// Deadline of a poll, and whether interim lines keep it open: the peer's own wish (`Prefer:
/// wait=N`, RFC 7240) goes first.
struct HoldPlan {
  std::chrono::steady_clock::time_point deadline;
  bool interim = false;
};
HoldPlan PlanHold(const Exchange& exchange, bool unlimited);

}  // namespace umbel::flower
