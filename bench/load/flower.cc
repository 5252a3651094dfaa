#include "flower.h"

#include <algorithm>
#include <array>
#include <optional>

#include "tensor/sha256.h"
#include "tensor/wire.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

constexpr char kContentOfPush = '\x22';  // field 4, length-delimited
constexpr uint32_t kSessionOfPush = 5;
constexpr uint32_t kContentOfPull = 3;

/// Where the content of a PullObjectResponse begins and how long it is, once that is known.
struct Content {
  size_t begin = 0;
  uint64_t size = 0;
};
std::optional<Content> FindContent(std::string_view wire) {
  tensor::WireCursor cursor(wire);
  while (cursor.at() < wire.size()) {
    const auto tag = cursor.ReadTag(wire.size());
    if (!tag.ok()) return std::nullopt;
    if (tag->field != kContentOfPull) {
      if (!cursor.Skip(*tag, wire.size()).ok()) return std::nullopt;
      continue;
    }
    // Not ReadLength: the content itself is still under way.
    uint64_t size = 0;
    for (size_t i = 0, at = cursor.at(); at + i < wire.size() && i < 10; ++i) {
      const auto byte = static_cast<uint8_t>(wire[at + i]);
      size |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return Content{at + i + 1, size};
    }
    return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

FlowerClient FlowerClient::Node(const Endpoint& endpoint, const Identity& identity,
                                uint64_t node_id, uint64_t run_id) {
  FlowerClient client(endpoint, "/v1/fleet/");
  client.identity_ = &identity;
  client.node_id_ = node_id;
  client.run_id_ = run_id;
  return client;
}

FlowerClient FlowerClient::App(const Endpoint& endpoint, const std::string& token,
                               uint64_t run_id) {
  FlowerClient client(endpoint, "/v1/runtime/");
  client.token_ = token;
  client.run_id_ = run_id;
  return client;
}

FlowerClient FlowerClient::Control(const Endpoint& endpoint) {
  return FlowerClient(endpoint, "/v1/control/");
}

std::string FlowerClient::Headers() const {
  if (identity_ != nullptr) return identity_->SignedHeaders();
  return token_.empty() ? std::string() : fmt::format("flwr-task-token: {}\r\n", token_);
}

Result<HttpReply> FlowerClient::Post(std::string_view route,
                                     std::span<const std::string_view> parts,
                                     const HttpClient::Sink& sink) {
  UMBEL_ASSIGN(HttpReply reply,
               http_.Post(fmt::format("{}{}", prefix_, route), Headers(), parts, sink));
  if (reply.status != 200)
    return Fail(Code::kUnavailable, fmt::format("{}{} was answered {}: {}", prefix_, route,
                                                reply.status, reply.body.substr(0, 300)));
  return reply;
}

Result<std::string> FlowerClient::Call(std::string_view route,
                                       const google::protobuf::MessageLite& request) {
  const std::string body = request.SerializeAsString();
  const std::string_view part = body;
  UMBEL_ASSIGN(HttpReply reply, Post(route, std::span(&part, 1), nullptr));
  return std::move(reply.body);
}

Status FlowerClient::PushObject(const Blob& blob, const std::string& session_id) {
  pb::PushObjectRequest request;
  request.mutable_node()->set_node_id(node_id_);
  request.set_run_id(run_id_);
  request.set_object_id(blob.id.Hex());
  // By hand around the content, which is not copied.
  std::string head = request.SerializeAsString();
  head.push_back(kContentOfPush);
  tensor::AppendVarint(blob.size(), head);
  std::string tail;
  tensor::AppendBytesField(kSessionOfPush, session_id, tail);
  const std::array<std::string_view, 4> parts{head, blob.own, blob.shared, tail};
  UMBEL_ASSIGN(const HttpReply reply, Post("push-object", parts, nullptr));
  pb::PushObjectResponse response;
  if (!response.ParseFromString(reply.body) || !response.stored())
    return Fail(Code::kFailedPrecondition, fmt::format("object {} was not stored", blob.id.Hex()));
  return {};
}

Result<uint64_t> FlowerClient::PullObject(const ObjectId& id, std::string* keep) {
  pb::PullObjectRequest request;
  request.mutable_node()->set_node_id(node_id_);
  request.set_run_id(run_id_);
  request.set_object_id(id.Hex());
  const std::string body = request.SerializeAsString();
  const std::string_view part = body;
  std::string start;  // until the content begins
  std::optional<Content> content;
  uint64_t taken = 0;
  tensor::Sha256 hash;
  const auto sink = [&](std::span<const char> piece) {
    if (!content) {
      start.append(piece.data(), std::min<size_t>(piece.size(), 64));
      content = FindContent(start);
      if (!content) return;
      piece = piece.subspan(content->begin - (start.size() - std::min<size_t>(piece.size(), 64)));
    }
    taken += piece.size();
    hash.Update(piece);
    if (keep != nullptr) keep->append(piece.data(), piece.size());
  };
  UMBEL_ASSIGN(const HttpReply reply, Post("pull-object", std::span(&part, 1), sink));
  if (!content || taken != content->size || hash.Finish() != id)
    return Fail(Code::kDataLoss,
                fmt::format("object {} came as {} bytes of another", id.Hex(), taken));
  return taken;
}

double FlowerClient::SentAt() const {
  return std::chrono::duration<double>(http_.sent_at().time_since_epoch()).count();
}

}  // namespace umbel::bench
