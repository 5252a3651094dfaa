#include "aggregation/partial_aggregate.h"

#include <array>

namespace umbel::aggregation {
namespace {

constexpr uint64_t kMagic = 0x4d55'534c'4542'4d55 >> 8;  // "MBELSUM", after the version
constexpr uint64_t kVersion = 1;

}  // namespace

Status PartialAggregate::Merge(const PartialAggregate& other) {
  if (other.sums.size() != sums.size())
    return Fail(Code::kInvalidArgument,
                fmt::format("{} arrays merged with {}", sums.size(), other.sums.size()));
  WeightTotal total = weight_total;
  UMBEL_TRY(total.Merge(other.weight_total));
  if (other.update_count > UINT64_MAX - update_count)
    return Fail(Code::kOutOfRange, "more than 2^64 updates");
  std::vector<ExactSum::MergePlan> plans;
  for (size_t i = 0; i < sums.size(); ++i) {
    auto plan = sums[i].PlanMerge(other.sums[i]);
    if (!plan.has_value())
      return Fail(plan.error().code, fmt::format("array {}: {}", i, plan.error().message));
    plans.push_back(std::move(*plan));
  }
  for (size_t i = 0; i < sums.size(); ++i) sums[i].FinishMerge(other.sums[i], std::move(plans[i]));
  weight_total = total;
  update_count += other.update_count;
  return {};
}

Status PartialAggregate::Serialize(const ByteWriter& writer) const {
  WordSink sink(writer);
  UMBEL_TRY(sink.Put(kMagic << 8 | kVersion));
  UMBEL_TRY(sink.Put(update_count));
  UMBEL_TRY(sink.Put(weight_total.words()));
  UMBEL_TRY(sink.Put(sums.size()));
  for (const ExactSum& sum : sums) UMBEL_TRY(sum.Write(sink));
  return sink.Finish();
}

Result<PartialAggregate> PartialAggregate::Parse(const ByteReader& reader,
                                                 const ReadOptions& options) {
  WordSource source(reader);
  UMBEL_ASSIGN(const uint64_t head, source.Take());
  if (head >> 8 != kMagic)
    return Fail(Code::kDataLoss, "no checkpoint of sums: its magic is wrong");
  if ((head & 0xff) != kVersion)
    return Fail(Code::kUnimplemented,
                fmt::format("checkpoint version {} is not {}", head & 0xff, kVersion));
  PartialAggregate partial;
  UMBEL_ASSIGN(partial.update_count, source.Take());
  std::array<uint64_t, WeightTotal::kWords> words{};
  UMBEL_TRY(source.Take(words));
  partial.weight_total = WeightTotal::FromWords(words);
  UMBEL_ASSIGN(const uint64_t arrays, source.Take());
  if (arrays > options.arrays_max)
    return Fail(Code::kResourceExhausted,
                fmt::format("a checkpoint of {} arrays, above {}", arrays, options.arrays_max));
  for (uint64_t i = 0; i < arrays; ++i) {
    UMBEL_ASSIGN(ExactSum sum, ExactSum::Read(source, options.sums, options.elements_max));
    partial.sums.push_back(std::move(sum));
  }
  UMBEL_TRY(source.Finish());
  return partial;
}

}  // namespace umbel::aggregation
