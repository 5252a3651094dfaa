// Flower's inflatable objects: `<Type> <child ids, comma separated> <body length>` NUL body,
// named by the SHA-256 of all of it. Functions; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace umbel::tensor {

enum class ObjectType {
  kArrayChunk,
  kArray,
  kArrayRecord,
  kConfigRecord,
  kMetricRecord,
  kRecordDict,
  kMessage,
};

/// The name on the wire: "ArrayChunk", ...
std::string_view ObjectTypeName(ObjectType type);

struct ObjectHead {
  ObjectType type = ObjectType::kArrayChunk;
  std::vector<ObjectId> children;  // in the head's order, repeats kept
  uint64_t head_size = 0;          // bytes, including the NUL
  uint64_t body_size = 0;          // bytes, below 10^19

  bool operator==(const ObjectHead&) const = default;
};

/// 250 000 children, far above what the largest model of one record has.
inline constexpr size_t kObjectHeadMax = size_t{16} << 20;

/// Reads the head from the first bytes of an object that may still be arriving.
///
/// prefix   the bytes so far, from the object's first.
/// returns  nullopt while the NUL has not arrived and the bytes may still become a head.
/// cost     linear in the head; when feeding a stream, call again only after the prefix has
///          doubled, or a head of many children is read once per packet.
/// errors   kInvalidArgument: no continuation of `prefix` is valid; kResourceExhausted: no NUL
///          within head_max bytes.
Result<std::optional<ObjectHead>> ParseObjectHead(std::string_view prefix,
                                                  size_t head_max = kObjectHeadMax);

/// The same for a complete object, whose length must be what its head says.
Result<ObjectHead> ParseObject(std::string_view whole);

std::string MakeObject(ObjectType type, std::span<const ObjectId> children, std::string_view body);

/// What the object is called: the SHA-256 of head and body.
ObjectId ObjectIdOf(std::string_view whole);

}  // namespace umbel::tensor
