#include "aggregation/partial_aggregate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "aggregation/exact_sum_cases.h"

namespace umbel::aggregation {
namespace {

using testing::Client;
using testing::Data;
using testing::MakeClients;
using testing::Random;
using testing::Weights;

constexpr size_t kCounts[] = {1, 700, 0, 256};

PartialAggregate Empty(Budget* budget = nullptr) {
  PartialAggregate partial;
  for (const size_t count : kCounts)
    partial.sums.push_back(ExactSum::Make({Kind::kFloat, 4}, count, {.budget = budget}).value());
  return partial;
}

/// Adds a client whose arrays all begin with the same numbers.
void Add(PartialAggregate& partial, const Client<float>& client) {
  for (ExactSum& sum : partial.sums) {
    const Update update{
        std::as_bytes(std::span(client.values).first(static_cast<size_t>(sum.count()))),
        client.weight};
    ASSERT_TRUE(sum.Fold({&update, 1}, 0, sum.count()).has_value());
  }
  ASSERT_TRUE(partial.weight_total.Add(client.weight).has_value());
  ++partial.update_count;
}

std::string Checkpoint(const PartialAggregate& partial) {
  std::string out;
  const ByteWriter writer = [&](std::span<const std::byte> bytes) -> Status {
    EXPECT_LE(bytes.size(), kPieceBytes + 8);
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  };
  EXPECT_TRUE(partial.Serialize(writer).has_value());
  return out;
}

Result<PartialAggregate> Parse(std::string_view bytes,
                               const PartialAggregate::ReadOptions& options = {}) {
  const ByteReader reader = [&](std::span<std::byte> out) -> Status {
    if (out.size() > bytes.size()) return Fail(Code::kDataLoss, "it ends too early");
    std::memcpy(out.data(), bytes.data(), out.size());
    bytes.remove_prefix(out.size());
    return {};
  };
  auto parsed = PartialAggregate::Parse(reader, options);
  EXPECT_TRUE(!parsed.has_value() || bytes.empty());
  return parsed;
}

TEST(PartialAggregate, ACheckpointIsCanonicalAndComesBack) {
  Random random(testing::Seed("ACheckpointIsCanonicalAndComesBack"));
  for (const Data data : testing::kAllData) {
    auto clients = MakeClients<float>(data, Weights::kFractions, 9, 700, random);
    PartialAggregate whole = Empty();
    for (const auto& client : clients) Add(whole, client);
    const std::string bytes = Checkpoint(whole);

    std::shuffle(clients.begin(), clients.end(), random);
    PartialAggregate parts[2] = {Empty(), Empty()};
    for (size_t i = 0; i < clients.size(); ++i) Add(parts[i % 2], clients[i]);
    ASSERT_TRUE(parts[0].Merge(parts[1]).has_value());
    EXPECT_EQ(Checkpoint(parts[0]), bytes);

    auto again = Parse(bytes);
    ASSERT_TRUE(again.has_value()) << again.error().ToString();
    EXPECT_EQ(again->update_count, 9U);
    EXPECT_EQ(Checkpoint(*again), bytes);
    Add(*again, clients[0]);  // goes on
    Add(whole, clients[0]);
    EXPECT_EQ(Checkpoint(*again), Checkpoint(whole));
  }
}

TEST(PartialAggregate, AnyChangedByteIsFound) {
  Random random(testing::Seed("AnyChangedByteIsFound"));
  PartialAggregate partial = Empty();
  for (const auto& client : MakeClients<float>(Data::kGaussian, Weights::kOne, 3, 700, random))
    Add(partial, client);
  const std::string bytes = Checkpoint(partial);
  const PartialAggregate::ReadOptions options{.sums = {}, .elements_max = 1'000'000};
  for (size_t turn = 0; turn < 2000; ++turn) {
    std::string changed = bytes;
    const size_t at = turn < 400 ? turn : random() % bytes.size();
    changed[at] = static_cast<char>(changed[at] ^ (1 + random() % 255));
    EXPECT_FALSE(Parse(changed, options).has_value()) << at;
  }
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() - 1})
    EXPECT_FALSE(Parse(std::string_view(bytes).substr(0, size), options).has_value()) << size;
}

TEST(PartialAggregate, AFailedMergeLeavesNoTrace) {
  Random random(testing::Seed("AFailedMergeLeavesNoTrace"));
  const auto ordinary = MakeClients<float>(Data::kGaussian, Weights::kOne, 2, 700, random);
  const auto hostile = MakeClients<float>(Data::kHostile, Weights::kHostile, 2, 700, random);
  Budget budget(40'000);
  PartialAggregate partial = Empty(&budget);
  for (const auto& client : ordinary) Add(partial, client);
  PartialAggregate large = Empty();
  for (const auto& client : hostile) Add(large, client);
  const std::string bytes = Checkpoint(partial);
  const uint64_t used = budget.used();
  EXPECT_EQ(partial.Merge(large).error().code, Code::kResourceExhausted);
  EXPECT_EQ(Checkpoint(partial), bytes);
  EXPECT_EQ(budget.used(), used);
  const auto refused = Parse(Checkpoint(large), {.sums = {.budget = &budget}});
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_EQ(budget.used(), used);
  EXPECT_EQ(Parse(bytes, {.sums = {}, .arrays_max = 3}).error().code, Code::kResourceExhausted);
  EXPECT_EQ(Parse(bytes, {.sums = {}, .elements_max = 699}).error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace umbel::aggregation
