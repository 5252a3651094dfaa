#include "dataset/criteria.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tensor/quote.h"

namespace umbel::dataset {
namespace {

using nlohmann::json;
using tensor::Quote;

constexpr size_t kTextBytesMax = 200;

tl::unexpected<Error> Wrong(std::string message) {
  return Fail(Code::kInvalidArgument, std::move(message));
}

Result<json> ParseObject(std::string_view text, std::string_view what, std::string_view example) {
  if (text.size() > kRequestBytesMax)
    return Wrong(fmt::format("{}: {} bytes, at most {}", what, text.size(), kRequestBytesMax));
  json document = json::parse(text, nullptr, false);
  if (!document.is_object())
    return Wrong(fmt::format("{} must be a JSON object like {}, not {}", what, example,
                             text.empty() ? "empty" : Quote(text)));
  return document;
}

Result<std::vector<std::string>> Tags(const json& document, const char* key) {
  const auto found = document.find(key);
  if (found == document.end() || !found->is_array())
    return Wrong(fmt::format("'{}' must be a list of data tags", key));
  if (found->empty()) return Wrong(fmt::format("'{}' is empty: name at least one data tag", key));
  if (found->size() > kTagsMax)
    return Wrong(fmt::format("'{}' has {} tags, at most {}", key, found->size(), kTagsMax));
  std::vector<std::string> tags;
  for (const json& tag : *found) {
    if (!tag.is_string()) return Wrong(fmt::format("'{}' has a tag that is no text", key));
    tags.push_back(tag.get<std::string>());
    if (tags.back().empty()) return Wrong(fmt::format("'{}' has an empty tag", key));
  }
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  return tags;
}

Result<std::string> Text(const json& document, const char* key, bool required) {
  const auto found = document.find(key);
  if (found == document.end() && !required) return std::string();
  if (found == document.end() || !found->is_string())
    return Wrong(fmt::format("'{}' must be a text", key));
  std::string text = found->get<std::string>();
  if (text.size() > kTextBytesMax || (required && text.empty()))
    return Wrong(
        fmt::format("'{}' has {} bytes, must have 1 to {}", key, text.size(), kTextBytesMax));
  return text;
}

Result<std::optional<uint32_t>> Number(const json& document, const char* key, int64_t low,
                                       int64_t high) {
  const auto found = document.find(key);
  if (found == document.end()) return std::optional<uint32_t>();
  if (!found->is_number_integer() || (found->is_number_unsigned() && *found > high) ||
      *found < low || *found > high)
    return Wrong(fmt::format("'{}' must be a whole number from {} to {}", key, low, high));
  return std::optional(found->get<uint32_t>());
}

}  // namespace

Result<std::vector<std::string>> ParseCriteria(std::string_view text) {
  constexpr std::string_view kExample = R"({"data_tags": ["mnist"]})";
  UMBEL_ASSIGN(const json document, ParseObject(text, "criteria", kExample));
  return Tags(document, "data_tags");
}

Result<Claim> ParseRelease(std::string_view text) {
  constexpr std::string_view kExample = R"({"project": "p", "learner": "l"})";
  UMBEL_ASSIGN(const json document, ParseObject(text, "release", kExample));
  Claim claim;
  UMBEL_ASSIGN(claim.project, Text(document, "project", false));
  UMBEL_ASSIGN(claim.learner, Text(document, "learner", true));
  return claim;
}

Result<Claim> ParseClaim(std::string_view text) {
  constexpr std::string_view kExample =
      R"({"project": "p", "learner": "l", "tags": ["mnist"], "of": 2})";
  UMBEL_ASSIGN(const json document, ParseObject(text, "assign", kExample));
  Claim claim;
  UMBEL_ASSIGN(claim.project, Text(document, "project", false));
  UMBEL_ASSIGN(claim.learner, Text(document, "learner", true));
  UMBEL_ASSIGN(claim.tags, Tags(document, "tags"));
  UMBEL_ASSIGN(const std::optional<uint32_t> of, Number(document, "of", 1, kLearnersMax));
  if (!of) return Wrong("'of' is missing: how many learners of the project this node has");
  claim.of = *of;
  UMBEL_ASSIGN(claim.index, Number(document, "index", 0, claim.of - 1));
  UMBEL_ASSIGN(claim.uid, Number(document, "uid", 0, UINT32_MAX - 1));
  return claim;
}

}  // namespace umbel::dataset
