// What strategies read of replies, and checkpoints of sums.
#include <cstring>
#include <string>

#include "aggregation/exact_scalar.h"
#include "aggregation/partial_aggregate.h"
#include "aggregation/xgboost.h"
#include "base/result.h"
#include "targets.h"

namespace umbel::fuzz {

namespace {

constexpr size_t kChecksumSize = 8;

/// The bytes with the checksum that belongs to them: the fuzzer would not find it.
std::string WithChecksum(std::string_view bytes) {
  std::string out(bytes.substr(0, bytes.size() / sizeof(uint64_t) * sizeof(uint64_t)));
  aggregation::Checksum checksum;
  for (size_t at = 0; at < out.size(); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, out.data() + at, sizeof word);
    checksum.Add(word);
  }
  const uint64_t value = checksum.value();
  char word[kChecksumSize];
  std::memcpy(word, &value, sizeof word);
  return out.append(word, sizeof word);
}

/// What is read is written again as it was, and within the budget.
void ReadAndWrite(std::string_view bytes) {
  aggregation::Budget budget(1 << 20);
  std::string_view rest = bytes;
  const aggregation::ByteReader reader = [&](std::span<std::byte> out) -> Status {
    if (out.size() > rest.size()) return Fail(Code::kDataLoss, "it ends too early");
    std::memcpy(out.data(), rest.data(), out.size());
    rest.remove_prefix(out.size());
    return {};
  };
  {
    const auto partial = aggregation::PartialAggregate::Parse(
        reader, {.sums = {.budget = &budget}, .arrays_max = 1000, .elements_max = 100'000});
    if (partial.has_value()) {
      std::string again;
      const aggregation::ByteWriter writer = [&](std::span<const std::byte> piece) -> Status {
        again.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        return {};
      };
      UMBEL_CHECK(partial->Serialize(writer).has_value());
      UMBEL_CHECK(again + std::string(rest) == bytes);
    } else {
      UMBEL_CHECK(!partial.error().message.empty());
    }
  }
  UMBEL_CHECK(budget.used() == 0);
}

}  // namespace

void PartialAggregate(std::string_view bytes) {
  ReadAndWrite(bytes);
  ReadAndWrite(WithChecksum(bytes));
}

void XgbModel(std::string_view bytes) {
  constexpr aggregation::XgbLimits kLimits{.model_bytes = 1 << 20, .values = 10'000, .depth = 20};
  auto bagging = aggregation::XgbBagging::Start(bytes, kLimits);
  if (!bagging.has_value()) {
    UMBEL_CHECK(!bagging.error().message.empty());
    return;
  }
  UMBEL_CHECK(bagging->Finish().value() == bytes);
  if (!bagging->Add(bytes).has_value()) {
    UMBEL_CHECK(bagging->Finish().value() == bytes);  // no trace
    return;
  }
  // What it writes it reads again, unless that has grown beyond a limit.
  const auto written = bagging->Finish();
  if (!written.has_value()) return;
  const auto again = aggregation::XgbBagging::Start(*written, kLimits);
  UMBEL_CHECK(again.has_value() || again.error().code == Code::kResourceExhausted);
}

void ExactSum(std::string_view bytes) {
  auto sum = aggregation::ExactScalar::Parse(bytes);
  if (!sum.has_value()) return;
  UMBEL_CHECK(sum->Serialize() == bytes);
  aggregation::ExactScalar twice = *sum;
  twice.Merge(*sum);
  UMBEL_CHECK(twice.Sign() == sum->Sign());
  twice.Remove(*sum);
  UMBEL_CHECK(twice.Serialize() == bytes);
}

}  // namespace umbel::fuzz
