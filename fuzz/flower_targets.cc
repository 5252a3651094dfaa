// FABs, authentication, times and request bodies.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "flower/auth.h"
#include "flower/fab.h"
#include "flower/toml.h"
#include "flwr/control.pb.h"
#include "flwr/fleet.pb.h"
#include "flwr/runtime.pb.h"
#include "targets.h"
#include "tensor/sha256.h"

namespace umbel::fuzz {
namespace {

constexpr WallTime kNow(std::chrono::seconds(1'800'000'000));

/// The bytes at line ends; missing parts are empty, the last one holds the rest.
template <size_t count>
std::array<std::string_view, count> Lines(std::string_view bytes) {
  std::array<std::string_view, count> lines;
  for (size_t i = 0; i + 1 < count; ++i) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    lines[i] = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
  lines[count - 1] = bytes;
  return lines;
}

size_t Depth(const flower::TomlValue& value) {
  size_t deepest = 0;
  for (const auto& [key, child] : value.entries) deepest = std::max(deepest, Depth(*child));
  for (const flower::TomlValue& child : value.items) deepest = std::max(deepest, Depth(child));
  return deepest + 1;
}

std::string Hmac(std::string_view key, std::string_view message) {
  std::string mac(32, '\0');
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(),
       reinterpret_cast<unsigned char*>(mac.data()), nullptr);
  return mac;
}

/// Every message of our wire whose name ends in Request.
std::vector<const google::protobuf::Message*> RequestTypes() {
  std::vector<const google::protobuf::Message*> types;
  for (const auto* file : {flwr::proto::StartRunRequest::descriptor()->file(),
                           flwr::proto::RegisterNodeFleetRequest::descriptor()->file(),
                           flwr::proto::AcquireTaskRequest::descriptor()->file()})
    for (int i = 0; i < file->message_type_count(); ++i)
      if (file->message_type(i)->name().ends_with("Request"))
        types.push_back(google::protobuf::MessageFactory::generated_factory()->GetPrototype(
            file->message_type(i)));
  return types;
}

}  // namespace

void FabZip(std::string_view bytes) {
  const auto fab = flower::ReadFab(bytes);
  if (!fab.has_value()) {
    UMBEL_CHECK(!fab.error().message.empty());
    return;
  }
  UMBEL_CHECK(fab->hash == tensor::Sha256Of(bytes) && !fab->fab_id.empty());
  UMBEL_CHECK(fab->fab_id.find("..") != 0 && fab->fab_id[0] != '/');
}

void FabConfig(std::string_view bytes) {
  const auto config = flower::ParseFabConfig(bytes);
  UMBEL_CHECK(config.has_value() || config.error().message.starts_with("pyproject.toml: "));
  const auto document = flower::ParseToml(bytes);
  UMBEL_CHECK(document.has_value() || !config.has_value());
  // A header, a key, and brackets each with a key inside, of kTomlNestMax parts at most.
  if (document.has_value())
    UMBEL_CHECK(Depth(*document) <= (flower::kTomlNestMax + 1) * (flower::kTomlNestMax + 2));
}

/// Public key, timestamp and signature, a line each. A key that is not base64 is taken as PEM, so
/// that the mutator need not know base64.
void NodeAuth(std::string_view bytes) {
  const auto [key_text, timestamp, signature_text] = Lines<3>(bytes);
  const auto credentials = flower::DecodeNodeHeaders(key_text, timestamp, signature_text);
  std::string pem(key_text);
  std::replace(pem.begin(), pem.end(), '|', '\n');
  std::string signature(signature_text);
  if (credentials.has_value()) {
    pem = credentials->public_key_pem;
    signature = credentials->signature;
    UMBEL_CHECK(credentials->timestamp == timestamp);
  }
  if (flower::CheckTimestamp(timestamp, kNow).has_value())
    UMBEL_CHECK(ParseIso(timestamp).has_value());
  const auto key = flower::NodeKey::FromPem(pem);
  if (key.has_value()) {
    key->Verify(timestamp, signature);
    UMBEL_CHECK(key->curve().starts_with("P-"));
  }
}

/// Method, timestamp, nonce, signature, a line each, then the body. The request is also signed as a
/// SuperExec would, and then accepted once if at all.
void SuperExecAuth(std::string_view bytes) {
  const auto lines = Lines<5>(bytes);
  const std::string_view method = lines[0];
  const std::string_view timestamp = lines[1];
  const std::string_view nonce = lines[2];
  const std::string_view signature = lines[3];
  const std::string_view body = lines[4];
  flower::SuperExecAuth auth("secret");
  const std::string body_sha256 = tensor::Sha256Of(body).Hex();
  UMBEL_CHECK(!auth.Check(method, timestamp, nonce, signature, signature, body, kNow).has_value() ||
              signature == body_sha256);

  const std::string canonical = "method=" + std::string(method) + "\nts=" + std::string(timestamp) +
                                "\nnonce=" + std::string(nonce) + "\nbody_sha256=" + body_sha256;
  const std::string good = HexEncode(Hmac(Hmac("secret", "superexec-auth-v1"), canonical));
  const auto check = [&](std::string_view text) {
    return auth.Check(method, timestamp, nonce, body_sha256, text, body, kNow).has_value();
  };
  UMBEL_CHECK(signature == good || !check(signature));
  const bool accepted = check(good);
  UMBEL_CHECK(!check(good));
  UMBEL_CHECK(auth.remembered() == (accepted ? 1 : 0));
}

void IsoTime(std::string_view bytes) {
  const auto time = ParseIso(bytes);
  if (!time.has_value()) return;
  const std::string text = IsoFormat(*time);
  // A time before the year 1 or after 9999 in UTC has no text; the offset allows a day of those.
  constexpr WallTime kFirst(std::chrono::sys_days(std::chrono::January / 1 / 1));
  constexpr WallTime kEnd(std::chrono::sys_days(std::chrono::January / 1 / 10000));
  if (*time == WallTime{} || *time < kFirst || *time >= kEnd) return;
  UMBEL_CHECK(ParseIso(text).value() == *time);
}

void Requests(std::string_view bytes) {
  // It would print a line for each text that is not UTF-8.
  static const auto kSilenced = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(kSilenced);
  static const auto kTypes = RequestTypes();
  for (const auto* type : kTypes) {
    const std::unique_ptr<google::protobuf::Message> message(type->New());
    if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) continue;
    const std::unique_ptr<google::protobuf::Message> again(type->New());
    UMBEL_CHECK(again->ParseFromString(message->SerializeAsString()));
    UMBEL_CHECK(again->ByteSizeLong() == message->ByteSizeLong());
  }
}

}  // namespace umbel::fuzz
