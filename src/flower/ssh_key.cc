#include "flower/ssh_key.h"

#include <openssl/crypto.h>

#include <cstdint>
#include <optional>

#include "flower/base64.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using std::string_view_literals::operator""sv;
using tensor::Quote;

constexpr std::string_view kBegin = "-----BEGIN OPENSSH PRIVATE KEY-----";
constexpr std::string_view kEnd = "-----END OPENSSH PRIVATE KEY-----";
constexpr std::string_view kMagic = "openssh-key-v1\0"sv;
constexpr std::string_view kSpace = " \t\r\n";
constexpr size_t kTextMax = size_t{16} << 10;
constexpr size_t kScalarMax = 67;  // 521 bits and a sign
constexpr size_t kBlock = 8;       // of the cipher "none"

tl::unexpected<Error> Bad(std::string rule) {
  return Fail(Code::kInvalidArgument, std::move(rule));
}
tl::unexpected<Error> Broken(std::string_view field) {
  return Bad(fmt::format("is a broken OpenSSH key: its {} is wrong or cut off", field));
}

/// RFC 4251's fields, off the front.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::string_view rest() const { return rest_; }
  std::optional<uint32_t> Number() {
    if (rest_.size() < 4) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(rest_[i]);
    rest_.remove_prefix(4);
    return value;
  }
  std::optional<std::string_view> Text() {
    const auto size = Number();
    if (!size || *size > rest_.size()) return std::nullopt;
    const std::string_view text = rest_.substr(0, *size);
    rest_.remove_prefix(*size);
    return text;
  }

 private:
  std::string_view rest_;
};

/// The base64 between the armour's lines, decoded.
std::optional<std::string> Unarmour(std::string_view text) {
  const size_t end = text.find(kEnd);
  if (text.size() > kTextMax || end == text.npos) return std::nullopt;
  std::string base64;
  for (const char c : text.substr(kBegin.size(), end - kBegin.size()))
    if (kSpace.find(c) == kSpace.npos) base64.push_back(c);
  auto bytes = Base64Decode(base64);
  OPENSSL_cleanse(base64.data(), base64.size());
  return bytes;
}

/// The part that a passphrase would have encrypted.
Result<SshEcKey> ReadSecrets(std::string_view bytes) {
  if (bytes.empty() || bytes.size() % kBlock != 0) return Broken("private part");
  Reader reader(bytes);
  const auto check = reader.Number();
  if (!check || reader.Number() != check) return Broken("check number");
  const auto type = reader.Text();
  if (!type) return Broken("type");
  constexpr std::string_view kEcdsa = "ecdsa-sha2-";
  if (!type->starts_with(kEcdsa))
    return Bad(
        fmt::format("is of type {}; a SuperNode needs an ECDSA key: ssh-keygen -t ecdsa "
                    "-b 256 -N '' -f FILE",
                    Quote(*type)));
  const auto curve = reader.Text();
  if (!curve || *curve != type->substr(kEcdsa.size()) ||
      (*curve != "nistp256" && *curve != "nistp384" && *curve != "nistp521"))
    return Broken("curve");
  const auto point = reader.Text();
  if (!point || point->empty() || point->front() != '\x04') return Broken("public point");
  const auto scalar = reader.Text();
  if (!scalar || scalar->empty() || scalar->size() > kScalarMax || (scalar->front() & 0x80) != 0)
    return Broken("private number");
  if (!reader.Text()) return Broken("comment");
  const std::string_view padding = reader.rest();
  if (padding.size() >= kBlock) return Broken("padding");
  for (size_t i = 0; i < padding.size(); ++i)
    if (static_cast<size_t>(padding[i]) != i + 1) return Broken("padding");
  SshEcKey key;
  key.curve = *curve;
  key.point = *point;
  key.scalar = *scalar;
  return key;
}

Result<SshEcKey> ReadContainer(std::string_view bytes) {
  if (!bytes.starts_with(kMagic)) return Broken("header");
  Reader reader(bytes.substr(kMagic.size()));
  const auto cipher = reader.Text();
  const auto kdf = reader.Text();
  if (!cipher || !kdf) return Broken("cipher");
  if (*cipher != "none" || *kdf != "none")
    return Bad(
        "is encrypted, and nobody is there to type a passphrase; take it off a copy of the key: "
        "ssh-keygen -p -N '' -f COPY");
  const auto options = reader.Text();
  if (!options || !options->empty()) return Broken("cipher options");
  if (reader.Number() != 1U) return Broken("number of keys");
  if (!reader.Text()) return Broken("public key");
  const auto secrets = reader.Text();
  if (!secrets || !reader.rest().empty()) return Broken("private part");
  return ReadSecrets(*secrets);
}

}  // namespace

SshEcKey::~SshEcKey() { OPENSSL_cleanse(scalar.data(), scalar.size()); }

bool IsSshPrivateKey(std::string_view text) { return text.starts_with(kBegin); }

Result<SshEcKey> ReadSshPrivateKey(std::string_view text) {
  if (!IsSshPrivateKey(text)) return Broken("first line");
  auto bytes = Unarmour(text);
  if (!bytes) return Broken("base64");
  auto key = ReadContainer(*bytes);
  OPENSSL_cleanse(bytes->data(), bytes->size());
  return key;
}

Result<std::string> ReadSshEd25519(std::string_view line) {
  constexpr std::string_view kType = "ssh-ed25519";
  const size_t type_end = std::min(line.find_first_of(kSpace), line.size());
  const std::string_view type = line.substr(0, type_end);
  if (type != kType)
    return Bad(
        fmt::format("is {}, not \"ssh-ed25519 AAAA...\"", type.empty() ? "''" : Quote(type)));
  line.remove_prefix(type_end);
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  const std::string_view base64 = line.substr(0, line.find_first_of(kSpace));
  const auto bytes = base64.size() > kTextMax ? std::nullopt : Base64Decode(base64);
  if (!bytes) return Bad(fmt::format("has {} where its base64 should be", Quote(base64)));
  Reader reader(*bytes);
  const auto inner = reader.Text();
  const auto key = reader.Text();
  if (inner != kType || !key || key->size() != 32 || !reader.rest().empty())
    return Bad("is no 32-byte Ed25519 key inside");
  return std::string(*key);
}

}  // namespace umbel::flower
