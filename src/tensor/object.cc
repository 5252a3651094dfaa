#include "tensor/object.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "tensor/quote.h"
#include "tensor/sha256.h"

namespace umbel::tensor {
namespace {

struct Named {
  ObjectType type;
  std::string_view name;
};
constexpr std::array kTypes{
    Named{ObjectType::kArrayChunk, "ArrayChunk"},
    Named{ObjectType::kArray, "Array"},
    Named{ObjectType::kArrayRecord, "ArrayRecord"},
    Named{ObjectType::kConfigRecord, "ConfigRecord"},
    Named{ObjectType::kMetricRecord, "MetricRecord"},
    Named{ObjectType::kRecordDict, "RecordDict"},
    Named{ObjectType::kMessage, "Message"},
};
constexpr size_t kIdDigits = 64;
constexpr size_t kLengthDigitsMax = 19;  // below 2^63.1: head and body still add up in 64 bits

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

Result<std::optional<ObjectHead>> Bad(std::string_view field, std::string_view value,
                                      std::string_view rule) {
  return Fail(Code::kInvalidArgument,
              fmt::format("object head: {} {} {}", field, Quote(value), rule));
}

/// One pass over the head's bytes. `text` ends before the NUL if `complete`, and otherwise with the
/// bytes that have arrived; running out of those is then no error.
Result<std::optional<ObjectHead>> Parse(std::string_view text, bool complete) {
  const auto more = [&](std::string_view missing) -> Result<std::optional<ObjectHead>> {
    if (!complete) return std::nullopt;
    return Bad("end", text.substr(text.size() - std::min<size_t>(text.size(), 16)), missing);
  };

  ObjectHead head;
  const std::string_view name = text.substr(0, text.find(' '));
  const bool name_ended = name.size() < text.size();
  const auto* known = std::find_if(kTypes.begin(), kTypes.end(), [&](const Named& candidate) {
    return name_ended ? candidate.name == name : candidate.name.starts_with(name);
  });
  if (known == kTypes.end()) return Bad("type", name, "is not one Flower has");
  if (!name_ended) return more("comes before the children");
  head.type = known->type;

  size_t at = name.size() + 1;
  if (at == text.size()) return more("comes before the children");
  if (text[at] == ' ') {
    ++at;
  } else {
    while (true) {
      const std::string_view id = text.substr(at, kIdDigits);
      if (!std::all_of(id.begin(), id.end(), IsHex))
        return Bad("child", id, "is not 64 lowercase hexadecimal digits");
      at += id.size();
      if (at == text.size()) return more("comes inside the children");
      UMBEL_ASSIGN(head.children.emplace_back(), Digest::FromHex(id));
      const char separator = text[at++];
      if (separator == ' ') break;
      if (separator != ',')
        return Bad("separator", text.substr(at - 1, 1), "after a child is not ',' or ' '");
      if (at == text.size()) return more("comes inside the children");
    }
  }

  const std::string_view length = text.substr(at);
  if (length.empty()) return more("comes before the body length");
  if (length.size() > kLengthDigitsMax || (length.size() > 1 && length[0] == '0') ||
      !std::all_of(length.begin(), length.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return Bad("body length", length, "is not a number of at most 19 digits");
  if (!complete) return std::nullopt;
  std::from_chars(length.data(), length.data() + length.size(), head.body_size);
  head.head_size = text.size() + 1;
  return head;
}

}  // namespace

std::string_view ObjectTypeName(ObjectType type) {
  for (const Named& candidate : kTypes)
    if (candidate.type == type) return candidate.name;
  return "";
}

Result<std::optional<ObjectHead>> ParseObjectHead(std::string_view prefix, size_t head_max) {
  const std::string_view window = prefix.substr(0, head_max);
  const size_t end = window.find('\0');
  if (end != std::string_view::npos) return Parse(window.substr(0, end), true);
  auto parsed = Parse(window, false);
  if (parsed.has_value() && window.size() == head_max)
    return Fail(Code::kResourceExhausted,
                fmt::format("object head: no end within {} bytes", head_max));
  return parsed;
}

Result<ObjectHead> ParseObject(std::string_view whole) {
  UMBEL_ASSIGN(std::optional<ObjectHead> head, ParseObjectHead(whole));
  if (!head) return Fail(Code::kInvalidArgument, "object head: no NUL ends it");
  if (head->body_size != whole.size() - head->head_size)
    return Fail(Code::kInvalidArgument,
                fmt::format("object body: {} bytes, the head says {}",
                            whole.size() - head->head_size, head->body_size));
  return *std::move(head);
}

std::string MakeObject(ObjectType type, std::span<const ObjectId> children, std::string_view body) {
  const std::string length = fmt::format("{}", body.size());
  const std::string_view name = ObjectTypeName(type);
  std::string object;
  object.reserve(name.size() + children.size() * (kIdDigits + 1) + length.size() + 3 + body.size());
  object.append(name).push_back(' ');
  for (const ObjectId& child : children) {
    if (&child != children.data()) object.push_back(',');
    object.append(child.Hex());
  }
  object.append(" ").append(length).push_back('\0');
  object.append(body);
  return object;
}

ObjectId ObjectIdOf(std::string_view whole) { return Sha256Of(whole); }

}  // namespace umbel::tensor
