#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "commands.h"
#include "federation.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "http_client.h"
#include "processes.h"
#include "tensor/wire.h"

namespace umbel::bench {
namespace pb = flwr::proto;
namespace {

constexpr std::chrono::seconds kPatience{10};
constexpr std::string_view kHealth = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
constexpr std::string_view kPoll = "POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n";
constexpr std::string_view kTypes = "content-type: application/protobuf\r\n";

/// A request that lies, and the statuses that must come back, in order.
struct Lie {
  std::string name;
  std::string bytes;
  std::vector<int> want;  // empty: closed without a word
  bool ends = false;      // the sender closes its side after the bytes
};

std::string Times(size_t count, std::string_view text) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

std::string Poll(std::string_view rest) { return fmt::format("{}{}{}", kPoll, kTypes, rest); }

std::string Length(std::string_view value, std::string_view body = "") {
  return Poll(fmt::format("content-length: {}\r\n\r\n{}", value, body));
}

std::string Chunks(std::string_view body) {
  return Poll(fmt::format("transfer-encoding: chunked\r\n\r\n{}", body));
}

std::vector<Lie> FramingLies() {
  const std::string nul("\0", 1);
  return {
      {"head of 40 KB",
       fmt::format("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", Times(40'000, "a")),
       {431}},
      {"20 000 headers",
       fmt::format("GET /health HTTP/1.1\r\n{}\r\n", Times(20'000, "x: y\r\n")),
       {431}},
      {"path of 40 KB", fmt::format("GET /{} HTTP/1.1\r\n\r\n", Times(40'000, "a")), {431}},
      {"length over the limit", Length("300000000"), {413}},
      {"length of 10^18", Length("1000000000000000000"), {413}},
      {"length of 2^64", Length("18446744073709551616"), {400}},
      {"negative length", Length("-1"), {400}},
      {"length with letters", Length("12abc"), {400}},
      {"two lengths", Poll("content-length: 0\r\ncontent-length: 5\r\n\r\nabcde"), {400}},
      {"length and chunks",
       Poll("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
       {400}},
      {"longer than sent", Length("1000", "abc"), {}, true},
      {"shorter than sent", Length("0", "xyz\r\n\r\n"), {401, 400}},
      {"chunk size is no number", Chunks("zz\r\nabc\r\n0\r\n\r\n"), {400}},
      {"chunk size of 2^68", Chunks("fffffffffffffffff\r\nabc"), {400}},
      {"chunk longer than sent", Chunks("ff\r\nabc"), {}, true},
      {"chunk without its end", Chunks("3\r\nabcdef\r\n0\r\n\r\n"), {400}},
      {"chunks without the last", Chunks("3\r\nabc\r\n"), {}, true},
      {"chunks of no message", Chunks("3\r\nabc\r\n0\r\n\r\n"), {400}},
      {"no such method", "BREW /health HTTP/1.1\r\nhost: x\r\n\r\n", {405}},
      {"GET on a POST route", "GET /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n\r\n", {405}},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}},
      {"HTTP/0.9", "GET /health\r\n\r\n", {400}},
      {"no HTTP at all", "hello there\r\n\r\n", {400}},
      {"a TLS hello",
       std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", 16),
       {400}},
      {"NUL in a header", fmt::format("GET /health HTTP/1.1\r\nx: a{}b\r\n\r\n", nul), {400}},
      {"header without colon", "GET /health HTTP/1.1\r\nhello\r\n\r\n", {400}},
      {"space before the colon", "GET /health HTTP/1.1\r\nx : y\r\n\r\n", {400}},
      {"100-continue over the limit",
       Poll("expect: 100-continue\r\ncontent-length: 300000000\r\n\r\n"),
       {413}},
      {"50 pipelined", Times(50, kHealth), std::vector<int>(50, 200)},
      {"pipelined, mixed",
       fmt::format("{}{}{}", kHealth, "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", kHealth),
       {200, 404, 200}},
      {"pipelined after a body",
       Length("4", std::string("\x0a\x02\x08\x05", 4)) + std::string(kHealth),
       {401, 200}},
      {"pipelined after chunks",
       Chunks("4\r\n\x0a\x02\x08\x05\r\n0\r\n\r\n") + std::string(kHealth),
       {401, 200}},
      {"pipelined after a refusal", Length("3", "abc") + std::string(kHealth), {400, 200}},
  };
}

std::string Signed(const Federation& federation, std::string_view route, std::string_view body) {
  return RequestHead(fmt::format("/v1/fleet/{}", route),
                     federation.members()[0].identity->SignedHeaders(), body.size()) +
         std::string(body);
}

/// A push-object whose content claims `claimed` bytes.
std::string ObjectClaim(const Federation& federation, uint64_t claimed, std::string_view content) {
  pb::PushObjectRequest request;
  request.mutable_node()->set_node_id(federation.members()[0].node_id);
  request.set_run_id(federation.run_id());
  request.set_object_id(std::string(64, 'a'));
  std::string body = request.SerializeAsString();
  body.push_back('\x22');
  tensor::AppendVarint(claimed, body);
  body += content;
  return Signed(federation, "push-object", body);
}

/// `depth` lengths around nothing: trees in trees.
std::string DeepTree(size_t depth) {
  std::string tree;
  for (size_t i = 0; i < depth && tree.size() < 4'000'000; ++i) {
    std::string outer;
    tensor::AppendBytesField(2, tree, outer);
    tree = std::move(outer);
  }
  return tree;
}

std::vector<Lie> ContentLies(const Federation& federation) {
  pb::FleetPushMessagesRequest push;
  push.mutable_node()->set_node_id(federation.members()[0].node_id);
  std::string deep = push.SerializeAsString();
  tensor::AppendBytesField(3, DeepTree(2'000), deep);
  std::string endless = push.SerializeAsString();
  endless += std::string("\x12\xff\xff\xff\xff\x0f", 6);
  return {
      {"content of 2 GB", ObjectClaim(federation, uint64_t{2} << 30, "abc"), {413}},
      {"content of 2^63", ObjectClaim(federation, uint64_t{1} << 63, "abc"), {413}},
      {"content longer than the body", ObjectClaim(federation, 1'000, "abc"), {400}},
      {"an object nobody announced", ObjectClaim(federation, 3, "abc"), {200}},
      {"a tree of 2 000 levels", Signed(federation, "push-messages", deep), {400}},
      {"a message of 4 GB", Signed(federation, "push-messages", endless), {400}},
      {"an empty push", Signed(federation, "push-messages", push.SerializeAsString()), {400}},
      {"another's node id",
       Signed(federation, "pull-messages", std::string("\x0a\x02\x08\x05", 4)),
       {401}},
  };
}

/// Sends the bytes, and reads until as many replies are there as wanted or the server closes.
Result<std::vector<int>> Tell(const Endpoint& server, const Lie& lie) {
  UMBEL_ASSIGN(Socket socket, Socket::Dial(server, kPatience));
  // A server may close before it has read everything: then the rest cannot be sent.
  static_cast<void>(socket.Send(lie.bytes));
  if (lie.ends) ::shutdown(socket.fd(), SHUT_WR);
  std::vector<int> got;
  std::string received;
  std::array<char, 16384> piece{};
  while (got.size() < std::max<size_t>(lie.want.size(), 1)) {
    const auto n = socket.Receive(piece);
    if (!n.ok() || *n == 0) break;
    received.append(piece.data(), *n);
    for (;;) {
      const auto head = ParseReplyHead(received);
      if (!head.ok()) return Fail(head.error());
      if (!*head || received.size() < (*head)->size + (*head)->content_length) break;
      got.push_back((*head)->status);
      received.erase(0, (*head)->size + (*head)->content_length);
    }
  }
  return got;
}

Result<Tally> TellAll(const HostileOptions& options, const std::vector<Lie>& lies) {
  Tally tally;
  for (size_t turn = 0; turn < options.connections; ++turn) {
    for (const Lie& lie : lies) {
      UMBEL_ASSIGN(const std::vector<int> got, Tell(options.server, lie));
      ++tally["told"];
      if (got != lie.want) {
        ++tally["wrong"];
        ++tally[fmt::format("{}: [{}], not [{}]", lie.name, fmt::join(got, " "),
                            fmt::join(lie.want, " "))];
      }
    }
  }
  return tally;
}

}  // namespace

Status RunLies(const HostileOptions& options) {
  UMBEL_ASSIGN(const auto federation, Federation::Start(options.server, options.fab, 1));
  std::vector<Lie> lies = FramingLies();
  // Signed once: a signature is good for five minutes, which bounds what can be asked for.
  const std::vector<Lie> more = ContentLies(*federation);
  lies.insert(lies.end(), more.begin(), more.end());
  UMBEL_ASSIGN(Tally tally,
               RunProcesses(options.processes, [&](size_t) { return TellAll(options, lies); }));
  tally["kinds"] = lies.size();
  tally.try_emplace("wrong", 0);
  UMBEL_TRY(federation->Finish());
  fmt::print("{}\n", nlohmann::json(tally).dump());
  return {};
}

}  // namespace umbel::bench
