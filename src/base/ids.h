// Identifiers as types: a NodeId never passes for a RunId. Values; safe from any thread.
#pragma once

#include <fmt/format.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel {

/// A 64-bit identifier; Tag makes each kind its own type. 0 is "none".
template <typename Tag>
struct Id {
  uint64_t value = 0;

  constexpr auto operator<=>(const Id&) const = default;
  constexpr explicit operator bool() const { return value != 0; }
};

using RunId = Id<struct RunTag>;
using TaskId = Id<struct TaskTag>;
using NodeId = Id<struct NodeTag>;
using SeriesId = Id<struct SeriesTag>;

/// The SuperLink's own node id, and the source of every instruction.
inline constexpr NodeId kSuperLinkNode{1};

/// A SHA-256, which is what names Flower's objects, messages and FABs.
struct Digest {
  std::array<uint8_t, 32> bytes{};

  auto operator<=>(const Digest&) const = default;
  std::string Hex() const;
  /// errors  kInvalidArgument: not 64 lowercase hexadecimal digits.
  static Result<Digest> FromHex(std::string_view hex);
};

using ObjectId = Digest;

/// Keyed by a secret of the process: a peer may announce ids that nothing hashes to, and would
/// otherwise fill one bucket with them.
size_t HashOf(const Digest& digest);

std::string HexEncode(std::string_view bytes);
/// errors  kInvalidArgument: odd length or a character outside [0-9a-f].
Result<std::string> HexDecode(std::string_view hex);

}  // namespace umbel

template <typename Tag>
struct std::hash<umbel::Id<Tag>> {
  // Ids are random already.
  size_t operator()(umbel::Id<Tag> id) const noexcept { return id.value; }
};

template <>
struct std::hash<umbel::Digest> {
  size_t operator()(const umbel::Digest& digest) const noexcept { return umbel::HashOf(digest); }
};

template <typename Tag>
struct fmt::formatter<umbel::Id<Tag>> : fmt::formatter<uint64_t> {
  template <typename Context>
  auto format(umbel::Id<Tag> id, Context& context) const {
    return fmt::formatter<uint64_t>::format(id.value, context);
  }
};
