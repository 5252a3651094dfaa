// What a server may answer our client.
#include <algorithm>

#include "base/result.h"
#include "http/client_answer.h"
#include "targets.h"

namespace umbel::fuzz {
namespace {

constexpr size_t kBodyMax = 8192;

struct Verdict {
  bool complete = false;
  Code code = Code::kUnknown;  // unless complete
  int status = 0;
  std::string body;

  bool operator==(const Verdict&) const = default;
};

Verdict Read(std::string_view bytes, size_t piece, bool head_only) {
  http::AnswerReader reader;
  reader.Begin(head_only, kBodyMax);
  Verdict verdict;
  while (!bytes.empty() && !verdict.complete) {
    const auto space = reader.Space();
    UMBEL_CHECK(!space.empty());
    const size_t count = std::min({piece, bytes.size(), space.size()});
    std::copy_n(bytes.data(), count, space.data());
    bytes.remove_prefix(count);
    const auto filled = reader.Filled(count);
    if (!filled.ok()) return {false, filled.error().code, 0, ""};
    verdict.complete = *filled;
  }
  if (!verdict.complete) {
    const Status ended = reader.Ended();
    if (!ended.ok()) return {false, ended.error().code, 0, ""};
    UMBEL_CHECK(!reader.reusable());
  }
  verdict.complete = true;
  verdict.status = reader.status();
  verdict.body = reader.TakeBody();
  UMBEL_CHECK(verdict.status >= 200 && verdict.status < 600);
  UMBEL_CHECK(verdict.body.size() <= kBodyMax && (!head_only || verdict.body.empty()));
  return verdict;
}

}  // namespace

/// The first byte says in which pieces the rest arrives; its top bit, that HEAD was asked.
void HttpResponse(std::string_view bytes) {
  if (bytes.empty()) return;
  const size_t first = static_cast<uint8_t>(bytes[0]);
  bytes.remove_prefix(1);
  const bool head_only = (first & 0x80) != 0;
  UMBEL_CHECK(Read(bytes, SIZE_MAX, head_only) == Read(bytes, 1 + (first & 0x7f), head_only));
}

}  // namespace umbel::fuzz
