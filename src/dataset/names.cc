#include "dataset/names.h"

#include <sys/un.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "tensor/quote.h"
#include "tensor/sha256.h"

namespace umbel::dataset {
namespace {

using tensor::Quote;

constexpr std::string_view kSuffix = ".parquet";
constexpr size_t kDigestDigits = 32;
constexpr size_t kKeyDigits = 12;
constexpr std::string_view kSocketName = "/data.sock";

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

Status Check(std::string_view text, std::string_view what, size_t bytes_max) {
  const auto wrong = [&](std::string_view rule) {
    return Fail(Code::kInvalidArgument, fmt::format("{} {} {}", what, Quote(text), rule));
  };
  if (text.empty()) return wrong("is empty");
  if (text.size() > bytes_max) return wrong(fmt::format("is longer than {} bytes", bytes_max));
  if (text.front() == '.') return wrong("begins with '.'");
  if (text.find_first_of("/\\") != std::string_view::npos)
    return wrong("has a slash in it: a name is expected, not a path");
  if (std::any_of(text.begin(), text.end(), IsControl))
    return wrong("has a control character in it");
  if (!IsUtf8(text)) return wrong("is not UTF-8");
  return {};
}

bool IsDigest(std::string_view text) {
  return text.size() == kDigestDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

Status CheckFileName(std::string_view name) { return Check(name, "file name", kNameBytesMax); }

Status CheckTag(std::string_view tag) {
  UMBEL_TRY(Check(tag, "data tag", kTagBytesMax));
  if (tag.find(',') != std::string_view::npos)
    return Fail(Code::kInvalidArgument, fmt::format("data tag {} has a ',' in it", Quote(tag)));
  return {};
}

std::string_view TagOf(std::string_view name) {
  if (name.ends_with(kSuffix)) {
    const std::string_view stem = name.substr(0, name.size() - kSuffix.size());
    const size_t dot = stem.rfind('.');
    if (dot != std::string_view::npos && IsDigest(stem.substr(dot + 1))) return stem.substr(0, dot);
  }
  const size_t dot = name.find('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
}

std::string FileName(std::string_view tag, std::string_view digest) {
  return fmt::format("{}.{}{}", tag, digest, kSuffix);
}

std::string LearnerSocket(const std::string& sockets, const std::string& project,
                          const std::string& learner) {
  using nlohmann::json;
  const std::string key =
      json({project, learner}).dump(-1, ' ', false, json::error_handler_t::replace);
  return fmt::format("{}/{}{}", sockets, tensor::Sha256Of(key).Hex().substr(0, kKeyDigits),
                     kSocketName);
}

bool LearnerSocketsFit(std::string_view sockets) {
  return sockets.size() + 1 + kKeyDigits + kSocketName.size() < sizeof(sockaddr_un::sun_path);
}

}  // namespace umbel::dataset
