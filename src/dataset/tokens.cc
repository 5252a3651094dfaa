#include "dataset/tokens.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "base/file.h"
#include "tensor/sha256.h"

namespace umbel::dataset {
namespace {

constexpr size_t kTokenBytesMin = 16;
constexpr size_t kFileBytesMax = size_t{1} << 20;
constexpr std::string_view kScheme = "bearer ";

bool Printable(char c) { return c > 0x20 && c < 0x7f; }

std::string_view Trimmed(std::string_view line) {
  const size_t first = line.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

Result<std::vector<std::string_view>> Lines(std::string_view text) {
  std::vector<std::string_view> tokens;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view token = Trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (token.empty() || token.front() == '#') continue;
    const auto wrong = [&](std::string_view rule) {
      return Fail(Code::kInvalidArgument, fmt::format("line {}: a token {}", number, rule));
    };
    if (token.size() < kTokenBytesMin) return wrong("must have 16 characters or more");
    if (!std::all_of(token.begin(), token.end(), Printable))
      return wrong("must be printable ASCII without blanks");
    tokens.push_back(token);
  }
  if (tokens.empty()) return Fail(Code::kInvalidArgument, "no token in it");
  return tokens;
}

Error In(const std::string& path, const Error& error) {
  return {error.code, fmt::format("token file '{}': {}", path, error.message), 0};
}

}  // namespace

Result<Tokens> Tokens::Parse(std::string_view text) {
  UMBEL_ASSIGN(const std::vector<std::string_view> lines, Lines(text));
  Tokens tokens;
  for (const std::string_view token : lines) tokens.digests_.push_back(tensor::Sha256Of(token));
  return tokens;
}

Result<Tokens> Tokens::ReadFrom(const std::string& path) {
  UMBEL_ASSIGN(const std::string text, ReadFile(path, kFileBytesMax));
  auto tokens = Parse(text);
  if (!tokens.ok()) return Fail(In(path, tokens.error()));
  return tokens;
}

bool Tokens::Allow(std::string_view header) const {
  if (header.size() <= kScheme.size()) return false;
  for (size_t i = 0; i < kScheme.size(); ++i)
    if ((header[i] | 0x20) != kScheme[i]) return false;
  // Digests of equal length are compared: how much of a token is right does not show.
  const Digest offered = tensor::Sha256Of(Trimmed(header.substr(kScheme.size())));
  bool allowed = false;
  for (const Digest& digest : digests_)
    allowed |= CRYPTO_memcmp(digest.bytes.data(), offered.bytes.data(), digest.bytes.size()) == 0;
  return allowed;
}

Result<std::string> FirstToken(const std::string& path) {
  UMBEL_ASSIGN(const std::string text, ReadFile(path, kFileBytesMax));
  const auto lines = Lines(text);
  if (!lines.ok()) return Fail(In(path, lines.error()));
  return std::string(lines->front());
}

}  // namespace umbel::dataset
