// What a sum keeps: nothing of order, threads and chunks, nothing of what was removed or refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/exact_sum_cases.h"
#include "aggregation/fold_cpu.h"

namespace umbel::aggregation {
namespace {

using testing::Client;
using testing::Data;
using testing::kAllData;
using testing::MakeClients;
using testing::Random;
using testing::Weights;

constexpr ElementType kF4{Kind::kFloat, 4};
constexpr size_t kCount = 3000;

std::string Words(const ExactSum& sum) {
  std::string out;
  const ByteWriter writer = [&](std::span<const std::byte> bytes) -> Status {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  };
  WordSink sink(writer);
  EXPECT_TRUE(sum.Write(sink).has_value());
  EXPECT_TRUE(sink.Finish().has_value());
  return out;
}

ExactSum NewSum(Budget* budget = nullptr, size_t count = kCount) {
  return ExactSum::Make(kF4, count, {.budget = budget}).value();
}

using Clients = std::vector<Client<float>>;

std::vector<Update> Range(const Clients& clients, std::span<const size_t> order, size_t first,
                          size_t n) {
  std::vector<Update> updates;
  for (const size_t c : order)
    updates.push_back(
        {std::as_bytes(std::span(clients[c].values).subspan(first, n)), clients[c].weight});
  return updates;
}

std::vector<size_t> All(const Clients& clients) {
  std::vector<size_t> order(clients.size());
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

void FoldAll(ExactSum& sum, const Clients& clients) {
  ASSERT_TRUE(sum.Fold(Range(clients, All(clients), 0, sum.count()), 0, sum.count()).has_value());
}

struct Piece {
  std::vector<size_t> clients;
  size_t first;
  size_t n;
};

/// The clients in random order and random groups, each group in random chunks.
std::vector<Piece> RandomPieces(size_t clients, size_t count, Random& random) {
  std::vector<size_t> order(clients);
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), random);
  std::vector<Piece> pieces;
  for (size_t c = 0; c < clients;) {
    const size_t group = std::min<size_t>(clients - c, 1 + random() % 8);
    for (size_t at = 0; at < count;) {
      const size_t n = std::min<size_t>(count - at, 1 + random() % 1500);
      pieces.push_back({{order.begin() + static_cast<ptrdiff_t>(c),
                         order.begin() + static_cast<ptrdiff_t>(c + group)},
                        at,
                        n});
      at += n;
    }
    c += group;
  }
  std::shuffle(pieces.begin(), pieces.end(), random);
  return pieces;
}

void FoldPieces(ExactSum& sum, const Clients& clients, const std::vector<Piece>& pieces,
                size_t threads) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      const Piece& piece = pieces[i];
      const auto updates = Range(clients, piece.clients, piece.first, piece.n);
      EXPECT_TRUE(sum.Fold(updates, piece.first, piece.n).has_value());
    }
  };
  std::vector<std::jthread> running;
  for (size_t i = 1; i < threads; ++i) running.emplace_back(work);
  work();
}

TEST(ExactSumState, KeepsNothingOfOrderThreadsAndChunks) {
  Random random(testing::Seed("KeepsNothingOfOrderThreadsAndChunks"));
  const int permutations = testing::FullSize() ? 1000 : 6;
  for (const Data data : kAllData) {
    const Clients clients = MakeClients<float>(data, Weights::kExamples, 24, kCount, random);
    ExactSum expected = NewSum();
    FoldAll(expected, clients);
    const std::string words = Words(expected);
    for (int turn = 0; turn < permutations; ++turn) {
      for (const size_t threads : {1U, 2U, 4U}) {
        ExactSum sum = NewSum();
        FoldPieces(sum, clients, RandomPieces(clients.size(), kCount, random), threads);
        ASSERT_EQ(Words(sum), words) << "data " << static_cast<int>(data) << " threads " << threads;
      }
    }
  }
}

TEST(ExactSumState, IsTheSameOnEveryKernel) {
  Random random(testing::Seed("IsTheSameOnEveryKernel"));
  for (const Data data : kAllData) {
    const Clients clients = MakeClients<float>(data, Weights::kFractions, 9, kCount, random);
    std::vector<std::string> words;
    for (const Kernels* kernels : SupportedKernels()) {
      ExactSum sum = ExactSum::Make(kF4, kCount, {.kernels = kernels}).value();
      FoldAll(sum, clients);
      words.push_back(Words(sum));
      EXPECT_EQ(words.back(), words.front()) << kernels->name;
    }
  }
}

TEST(ExactSumState, RemoveLeavesNoTrace) {
  Random random(testing::Seed("RemoveLeavesNoTrace"));
  for (const Data data : kAllData) {
    const Clients clients = MakeClients<float>(data, Weights::kFractions, 12, kCount, random);
    const Clients others = MakeClients<float>(Data::kHostile, Weights::kHostile, 5, kCount, random);
    ExactSum expected = NewSum();
    FoldAll(expected, clients);
    expected.Compact();
    ExactSum sum = NewSum();
    FoldAll(sum, others);
    FoldAll(sum, clients);
    for (const Piece& piece : RandomPieces(others.size(), kCount, random))
      ASSERT_TRUE(
          sum.Remove(Range(others, piece.clients, piece.first, piece.n), piece.first, piece.n)
              .has_value());
    EXPECT_EQ(Words(sum), Words(expected));
    sum.Compact();
    EXPECT_EQ(sum.memory_bytes(), expected.memory_bytes());
    ASSERT_TRUE(sum.Remove(Range(clients, All(clients), 0, kCount), 0, kCount).has_value());
    EXPECT_EQ(Words(sum), Words(NewSum()));
  }
}

TEST(ExactSumState, MergedEqualsFlat) {
  Random random(testing::Seed("MergedEqualsFlat"));
  for (const Data data : kAllData) {
    const Clients clients = MakeClients<float>(data, Weights::kExamples, 15, kCount, random);
    ExactSum flat = NewSum();
    FoldAll(flat, clients);
    ExactSum parts[3] = {NewSum(), NewSum(), NewSum()};
    for (const size_t c : All(clients)) {
      const auto updates = Range(clients, std::span(&c, 1), 0, kCount);
      ASSERT_TRUE(parts[random() % 3].Fold(updates, 0, kCount).has_value());
    }
    ASSERT_TRUE(parts[1].Merge(parts[2]).has_value());
    ASSERT_TRUE(parts[0].Merge(parts[1]).has_value());
    EXPECT_EQ(Words(parts[0]), Words(flat)) << static_cast<int>(data);
  }
}

TEST(ExactSumState, GoesOnAfterManyFolds) {
  Random random(7);
  const Clients clients = MakeClients<float>(Data::kGaussian, Weights::kExamples, 2, 64, random);
  ExactSum sum = NewSum(nullptr, 64);
  ExactSum power = NewSum(nullptr, 64);
  FoldAll(power, clients);
  for (int i = 0; i < 40; ++i) {
    ExactSum copy = NewSum(nullptr, 64);
    ASSERT_TRUE(copy.Merge(power).has_value());
    ASSERT_TRUE(power.Merge(copy).has_value());  // doubles
  }
  Clients large = clients;
  for (Client<float>& client : large) client.weight *= 0x1p40;
  FoldAll(sum, large);
  EXPECT_EQ(Words(sum), Words(power));
}

TEST(ExactSumState, ARefusedFoldLeavesNoTrace) {
  Random random(testing::Seed("ARefusedFoldLeavesNoTrace"));
  const Clients clients =
      MakeClients<float>(Data::kGaussian, Weights::kExamples, 6, kCount, random);
  for (const bool infinite : {false, true}) {
    Budget budget(1 << 20);
    ExactSum sum = NewSum(&budget);
    FoldAll(sum, clients);
    const std::string words = Words(sum);
    const uint64_t bytes = sum.memory_bytes();
    EXPECT_EQ(budget.used(), bytes);
    Clients bad = MakeClients<float>(Data::kHostile, Weights::kExamples, 3, kCount, random);
    bad[1].values[2 * kCount / 3] =
        infinite ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    const Status done = sum.Fold(Range(bad, All(bad), 0, kCount), 0, kCount);
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, Code::kDataLoss);
    EXPECT_NE(done.error().message.find("update 1"), std::string::npos) << done.error().message;
    EXPECT_EQ(Words(sum), words);
    EXPECT_EQ(sum.memory_bytes(), bytes);
    EXPECT_EQ(budget.used(), bytes);
    const auto found = NonFinite(kF4, Range(bad, All(bad), 0, kCount));
    EXPECT_EQ(found.value(), std::vector<size_t>{1});
  }
}

TEST(ExactSumState, TheBudgetIsKept) {
  Random random(testing::Seed("TheBudgetIsKept"));
  const Clients clients =
      MakeClients<float>(Data::kGaussian, Weights::kExamples, 6, kCount, random);
  const Clients bad = MakeClients<float>(Data::kHostile, Weights::kHostile, 2, kCount, random);
  Budget budget(30 * kCount);
  {
    ExactSum sum = NewSum(&budget);
    ASSERT_TRUE(sum.Reserve(2).has_value());
    EXPECT_EQ(budget.used(), sum.memory_bytes());
    EXPECT_EQ(sum.Reserve(9).error().code, Code::kResourceExhausted);
    FoldAll(sum, clients);
    EXPECT_LE(sum.memory_bytes(), 25 * kCount);
    const std::string words = Words(sum);
    const uint64_t bytes = sum.memory_bytes();
    const Status done = sum.Fold(Range(bad, All(bad), 0, kCount), 0, kCount);
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, Code::kResourceExhausted);
    EXPECT_EQ(Words(sum), words);
    EXPECT_EQ(sum.memory_bytes(), bytes);
    EXPECT_EQ(budget.used(), bytes);

    ExactSum large = NewSum();
    FoldAll(large, bad);
    EXPECT_EQ(sum.Merge(large).error().code, Code::kResourceExhausted);
    EXPECT_EQ(Words(sum), words);
    EXPECT_EQ(budget.used(), bytes);
    EXPECT_EQ(ExactSum::Make(kF4, uint64_t{1} << 50, {.budget = &budget}).error().code,
              Code::kResourceExhausted);
  }
  EXPECT_EQ(budget.used(), 0U);
}

TEST(ExactSumState, OrdinaryDataTakesSixteenBytes) {
  Random random(testing::Seed("OrdinaryDataTakesSixteenBytes"));
  const size_t count = 64 * kBlock;
  const auto bytes = [&](Data data) {
    const Clients clients = MakeClients<float>(data, Weights::kExamples, 100, count, random);
    ExactSum sum = NewSum(nullptr, count);
    FoldAll(sum, clients);
    return static_cast<double>(sum.memory_bytes()) / count;
  };
  EXPECT_LE(bytes(Data::kGaussian), 16.5);
  EXPECT_LE(bytes(Data::kScales), 24.5);
  EXPECT_LE(bytes(Data::kLogUniform), 24.5);
}

TEST(ExactSumState, WrongRangesAreRefused) {
  ExactSum sum = NewSum(nullptr, 10);
  const std::vector<float> values(10, 1.0F);
  const auto fold = [&](size_t bytes, uint64_t first, uint64_t n, double weight) {
    const Update update{std::as_bytes(std::span(values)).first(bytes), weight};
    const Status done = sum.Fold({&update, 1}, first, n);
    return done.has_value() ? Code{} : done.error().code;
  };
  EXPECT_EQ(fold(40, 0, 10, 1), Code{});
  EXPECT_EQ(fold(40, 1, 10, 1), Code::kInvalidArgument);
  EXPECT_EQ(fold(40, UINT64_MAX, 10, 1), Code::kInvalidArgument);
  EXPECT_EQ(fold(36, 0, 10, 1), Code::kInvalidArgument);
  for (const double weight : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                              std::numeric_limits<double>::infinity()})
    EXPECT_EQ(fold(40, 0, 10, weight), Code::kInvalidArgument);
  EXPECT_EQ(fold(0, 10, 0, 1), Code{});
  const std::vector<Update> many(257, Update{std::as_bytes(std::span(values)), 1});
  EXPECT_EQ(sum.Fold(many, 0, 10).error().code, Code::kInvalidArgument);
  std::vector<float> out(10);
  const auto bytes = std::as_writable_bytes(std::span(out));
  EXPECT_TRUE(sum.Sum(0, 10, bytes).has_value());
  EXPECT_EQ(out, values);
  EXPECT_FALSE(sum.Sum(0, 9, bytes).has_value());
  EXPECT_FALSE(sum.Sum(5, 10, bytes).has_value());
  const ExactSum other = ExactSum::Make({Kind::kFloat, 8}, 10, {}).value();
  EXPECT_EQ(sum.Merge(other).error().code, Code::kInvalidArgument);
}

TEST(ExactSumState, ReadAsAnotherTypeKeepsTheValueAndMerges) {
  constexpr ElementType kF8{Kind::kFloat, 8};
  const float narrow[] = {1.5F, -2.25F};
  const double wide[] = {0.1, 1e300};
  ExactSum sum = ExactSum::Make(kF4, 2, {}).value();
  ExactSum other = ExactSum::Make(kF8, 2, {}).value();
  const Update one{std::as_bytes(std::span(narrow)), 1.0};
  const Update two{std::as_bytes(std::span(wide)), 1.0};
  ASSERT_TRUE(sum.Fold({&one, 1}, 0, 2).has_value());
  ASSERT_TRUE(other.Fold({&two, 1}, 0, 2).has_value());
  EXPECT_FALSE(sum.Merge(other).has_value());
  EXPECT_FALSE(sum.ReadAs({Kind::kComplex, 8}).has_value());
  ASSERT_TRUE(sum.ReadAs(kF8).has_value());
  ASSERT_TRUE(sum.Merge(other).has_value());
  double out[2] = {};
  ASSERT_TRUE(sum.Sum(0, 2, std::as_writable_bytes(std::span(out))).has_value());
  EXPECT_EQ(out[0], 1.5 + 0.1);
  EXPECT_EQ(out[1], 1e300);
}

/// A large sum has a slot for each of its blocks; some outgrow it and come back, each part by
/// itself a small sum that has none.
TEST(ExactSumState, ALargeSumIsItsParts) {
  Random random(7);
  constexpr size_t kLarge = 300 * kBlock + 70;
  constexpr size_t kPart = 10 * kBlock;
  const Clients ordinary =
      MakeClients<float>(Data::kGaussian, Weights::kExamples, 5, kLarge, random);
  const Clients wild = MakeClients<float>(Data::kHostile, Weights::kHostile, 2, kLarge, random);
  Budget budget(uint64_t{1} << 30);
  ExactSum sum = NewSum(&budget, kLarge);
  const auto check = [&](bool with_wild) {
    std::vector<float> whole(kLarge);
    ASSERT_TRUE(sum.Sum(0, kLarge, std::as_writable_bytes(std::span(whole))).has_value());
    for (size_t at = 0; at < kLarge; at += kPart) {
      const size_t n = std::min(kPart, kLarge - at);
      ExactSum part = NewSum(nullptr, n);
      ASSERT_TRUE(part.Fold(Range(ordinary, All(ordinary), at, n), 0, n).has_value());
      if (with_wild) {
        ASSERT_TRUE(part.Fold(Range(wild, All(wild), at, n), 0, n).has_value());
      }
      std::vector<float> out(n);
      ASSERT_TRUE(part.Sum(0, n, std::as_writable_bytes(std::span(out))).has_value());
      ASSERT_TRUE(std::equal(out.begin(), out.end(), whole.begin() + static_cast<ptrdiff_t>(at)));
    }
  };
  FoldAll(sum, ordinary);
  const std::string before = Words(sum);
  check(false);
  const uint64_t small = sum.memory_bytes();
  FoldAll(sum, wild);
  check(true);
  EXPECT_GT(sum.memory_bytes(), small);
  ASSERT_TRUE(sum.Remove(Range(wild, All(wild), 0, kLarge), 0, kLarge).has_value());
  sum.Compact();
  check(false);
  EXPECT_LE(sum.memory_bytes(), small);
  EXPECT_EQ(budget.used(), sum.memory_bytes());
  EXPECT_EQ(Words(sum), before);
  FoldAll(sum, wild);
  check(true);
}

}  // namespace
}  // namespace umbel::aggregation
