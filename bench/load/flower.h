// Flower's wire as a client speaks it: a SuperNode, a ServerApp or the flwr command.
// A FlowerClient belongs to one thread.
#pragma once

#include <google/protobuf/message_lite.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http_client.h"
#include "identity.h"
#include "payload.h"

namespace umbel::bench {

class FlowerClient {
 public:
  /// identity  must outlive the client.
  static FlowerClient Node(const Endpoint& endpoint, const Identity& identity, uint64_t node_id,
                           uint64_t run_id);
  /// token  "" for a caller that has no task yet.
  static FlowerClient App(const Endpoint& endpoint, const std::string& token, uint64_t run_id);
  static FlowerClient Control(const Endpoint& endpoint);

  uint64_t node_id() const { return node_id_; }

  /// errors  kUnavailable: not answered 200, or the connection broke.
  Result<std::string> Call(std::string_view route, const google::protobuf::MessageLite& request);
  template <typename Response>
  Result<Response> Ask(std::string_view route, const google::protobuf::MessageLite& request) {
    UMBEL_ASSIGN(const std::string body, Call(route, request));
    Response response;
    if (!response.ParseFromString(body))
      return Fail(Code::kInvalidArgument, fmt::format("{}: the answer is not protobuf", route));
    return response;
  }

  /// errors  kFailedPrecondition: answered stored=false.
  Status PushObject(const Blob& blob, const std::string& session_id);
  /// Reads the object and checks that its SHA-256 is its name.
  /// keep     its bytes are appended there, if not null.
  /// returns  its size; errors  kDataLoss: another hash, or nothing came.
  Result<uint64_t> PullObject(const ObjectId& id, std::string* keep = nullptr);
  /// When the last request's last byte was handed to the system; seconds since 1970.
  double SentAt() const;

 private:
  FlowerClient(const Endpoint& endpoint, std::string_view prefix)
      : http_(endpoint), prefix_(prefix) {}

  std::string Headers() const;
  Result<HttpReply> Post(std::string_view route, std::span<const std::string_view> parts,
                         const HttpClient::Sink& sink);

  HttpClient http_;
  std::string prefix_;
  const Identity* identity_ = nullptr;
  std::string token_;
  uint64_t node_id_ = 1;
  uint64_t run_id_ = 0;
};

}  // namespace umbel::bench
