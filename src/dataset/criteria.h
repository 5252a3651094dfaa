// What clients of a data server ask for, as JSON. Functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::dataset {

inline constexpr size_t kRequestBytesMax = 64 * 1024;
inline constexpr size_t kTagsMax = 1000;
inline constexpr uint32_t kLearnersMax = 1000;

/// The criteria of list_flights: {"data_tags": ["a", "b"]}; other keys are ignored.
/// returns the tags, sorted, each once; at least one.
/// errors  kInvalidArgument: no JSON object, no tag, a tag that is no text or empty.
Result<std::vector<std::string>> ParseCriteria(std::string_view json);

/// Which learner asks for its part, and of what.
struct Claim {
  std::string project;  // "" is a project too
  std::string learner;
  std::vector<std::string> tags;  // sorted, each once
  uint32_t of = 0;                // learners of the project on this node
  std::optional<uint32_t> index;  // which part, 0 to of - 1; the first free one when it is not said
  std::optional<uint32_t> uid;    // who may use the socket; the server's user when it is not said

  bool operator==(const Claim&) const = default;
};

/// {"project": "p", "learner": "l", "tags": ["a"], "of": 2, "index": 0, "uid": 1000}; the first and
/// the last two may be left out.
/// errors  kInvalidArgument: names the key.
Result<Claim> ParseClaim(std::string_view json);

/// {"project": "p", "learner": "l"}: as ParseClaim, of these two.
Result<Claim> ParseRelease(std::string_view json);

}  // namespace umbel::dataset
