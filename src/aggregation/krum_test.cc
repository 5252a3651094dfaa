#include "aggregation/krum.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>

namespace umbel::aggregation {
namespace {

template <typename T>
using Table = std::vector<std::vector<T>>;

template <typename T>
constexpr NumberType kTypeOf = std::is_same_v<T, float>    ? NumberType::kFloat32
                               : std::is_same_v<T, double> ? NumberType::kFloat64
                                                           : NumberType::kInt8;

template <typename T>
class MemorySource final : public BlockSource {
 public:
  explicit MemorySource(const Table<T>& table) : table_(table) {}
  Result<std::span<const std::byte>> Block(size_t update, size_t, uint64_t first,
                                           size_t count) override {
    return std::as_bytes(std::span(table_[update]).subspan(first, count));
  }

 private:
  const Table<T>& table_;
};

template <typename T>
DistanceMatrix DistancesOf(const Table<T>& table) {
  MemorySource<T> source(table);
  const ArrayLayout layout[] = {{kTypeOf<T>, table[0].size()}};
  auto result = Distances(source, table.size(), layout);
  EXPECT_TRUE(result.ok());
  return *result;
}

/// Values of one magnitude, of many, of all, and with zeros.
template <typename T>
T AnyValue(std::mt19937_64& engine, int kind) {
  std::normal_distribution<double> normal;
  const double x = normal(engine);
  switch (kind) {
    case 0:
      return static_cast<T>(x);
    case 1:
      return static_cast<T>(std::ldexp(x, -static_cast<int>(engine() % 60)));
    case 2:
      return engine() % 3 == 0 ? T{} : static_cast<T>(x);
    case 3: {
      T value;
      do {
        if constexpr (sizeof(T) == 4)
          value = std::bit_cast<T>(static_cast<uint32_t>(engine()));
        else
          value = std::bit_cast<T>(engine());
      } while (!std::isfinite(value));
      return value;
    }
    default:
      return static_cast<T>(std::round(x * 4));
  }
}

template <typename T>
std::vector<T> AnyVector(std::mt19937_64& engine, size_t count) {
  std::vector<T> out(count);
  const int kind = static_cast<int>(engine() % 5);
  for (T& value : out) value = AnyValue<T>(engine, kind);
  return out;
}

template <typename T>
void CheckDots(uint64_t seed) {
  std::mt19937_64 engine(seed);
  const size_t count = 1 + engine() % Sliced::kWidth;
  std::vector<T> x = AnyVector<T>(engine, count), y = AnyVector<T>(engine, count);
  const std::vector<double> a(x.begin(), x.end()), b(y.begin(), y.end());
  Sliced s, t;
  s.Cut(std::vector<double>(Sliced::kWidth, 7.7));  // what it held before must not show
  s.Cut(a);
  t.Cut(b);
  ExactScalar dot, square, dot_1, square_1;
  Sliced::AddDot(s, t, dot);
  Sliced::AddDot(s, s, square);
  for (size_t i = 0; i < count; ++i) {
    RC_ASSERT(dot_1.AddProduct(a[i], b[i]).ok());
    RC_ASSERT(square_1.AddProduct(a[i], a[i]).ok());
  }
  RC_ASSERT(dot == dot_1);
  RC_ASSERT(square == square_1);
}

TEST(Sliced, DotProductsAreExact) {
  EXPECT_TRUE(rc::check("float32", CheckDots<float>));
  EXPECT_TRUE(rc::check("float64", CheckDots<double>));
}

TEST(Sliced, TheFullestSlicesDoNotRound) {
  // All values just below a power of two: every slice at its largest.
  const std::vector<double> values(Sliced::kWidth, std::nextafter(2.0, 0.0));
  Sliced sliced;
  sliced.Cut(values);
  ExactScalar dot, one;
  Sliced::AddDot(sliced, sliced, dot);
  ASSERT_TRUE(one.AddProduct(values[0], values[0]).ok());
  for (int i = 0; i < 10; ++i) one.Merge(ExactScalar(one));  // times 1024
  EXPECT_EQ(dot, one);
}

template <typename T>
void CheckDistances(uint64_t seed) {
  std::mt19937_64 engine(seed);
  Table<T> table(1 + engine() % 8);
  const size_t width = 1 + engine() % 1500;
  for (auto& row : table) row = AnyVector<T>(engine, width);
  if (table.size() > 2) table[2] = table[0];
  const DistanceMatrix whole = DistancesOf(table);
  // The true distance, of the two that a seed picks: x*x - 2*x*y + y*y without rounding.
  const size_t i = engine() % table.size(), j = engine() % table.size();
  ExactScalar expected;
  for (size_t k = 0; k < width; ++k) {
    const double x = static_cast<double>(table[i][k]), y = static_cast<double>(table[j][k]);
    RC_ASSERT(expected.AddProduct(x, x).ok() && expected.AddProduct(y, y).ok());
    RC_ASSERT(expected.SubtractProduct(x, y).ok() && expected.SubtractProduct(x, y).ok());
  }
  RC_ASSERT(whole.at(i, j) == expected.Round());
  RC_ASSERT(whole.at(j, i) == whole.at(i, j));
  if (table.size() > 2) RC_ASSERT(whole.at(0, 2) == 0);
  // Blocks in any order, in two sums.
  DistanceSums sums(table.size()), others(table.size());
  const size_t block = 1 + engine() % width;
  for (size_t from = (width - 1) / block * block;; from -= block) {
    std::vector<std::span<const std::byte>> views;
    for (const auto& row : table)
      views.push_back(std::as_bytes(std::span(row).subspan(from, std::min(block, width - from))));
    RC_ASSERT((engine() % 2 == 0 ? sums : others).Add(kTypeOf<T>, views).ok());
    if (from == 0) break;
  }
  sums.Merge(others);
  RC_ASSERT(sums.Finish().values == whole.values);
}

TEST(Krum, DistancesAreTheTrueOnesInAnyBlocks) {
  EXPECT_TRUE(rc::check("float32", CheckDistances<float>));
  EXPECT_TRUE(rc::check("float64", CheckDistances<double>));
}

/// By the definition, over the matrix of small whole numbers, where doubles do not round.
std::vector<size_t> SelectNaively(const DistanceMatrix& d, int malicious, size_t select) {
  const int n = static_cast<int>(d.updates);
  std::vector<std::pair<double, size_t>> scores;
  for (size_t i = 0; i < d.updates; ++i) {
    std::vector<double> others;
    for (size_t j = 0; j < d.updates; ++j)
      if (j != i) others.push_back(d.at(i, j));
    std::sort(others.begin(), others.end());
    others.resize(std::min(others.size(), static_cast<size_t>(std::max(1, n - malicious - 2))));
    scores.emplace_back(std::accumulate(others.begin(), others.end(), 0.0), i);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<size_t> out;
  for (size_t i = 0; i < std::min(select, scores.size()); ++i) out.push_back(scores[i].second);
  return out;
}

TEST(Krum, SelectsTheLowestScoresAndTheFirstOfEqual) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    Table<float> table(1 + engine() % 15, std::vector<float>(1 + engine() % 4));
    for (auto& row : table)
      for (float& value : row) value = static_cast<float>(engine() % 4);
    const DistanceMatrix distances = DistancesOf(table);
    for (int malicious = 0; malicious < 8; ++malicious) {
      const size_t select = 1 + engine() % 17;
      RC_ASSERT(SelectKrum(distances, static_cast<uint64_t>(malicious), select) ==
                SelectNaively(distances, malicious, select));
    }
  }));
}

TEST(Krum, AnOutlierIsNotSelected) {
  const Table<float> table = {{1, 1}, {1.1f, 1}, {900, -900}, {1, 1.1f}, {1, 0.9f}};
  const auto selected = SelectKrum(DistancesOf(table), 1, 4);
  EXPECT_EQ(selected.size(), 4u);
  EXPECT_EQ(std::count(selected.begin(), selected.end(), 2u), 0);
  EXPECT_EQ(SelectKrum(DistancesOf(Table<float>{{3}}), 0, 1), std::vector<size_t>{0});
}

TEST(Krum, HugeUpdatesAreInfinitelyFar) {
  const Table<double> table = {{1e300}, {0}, {1}, {2}};
  const DistanceMatrix distances = DistancesOf(table);
  EXPECT_EQ(distances.at(0, 1), HUGE_VAL);
  EXPECT_EQ(SelectKrum(distances, 0, 4).back(), 0u);
}

TEST(Krum, RefusesBlocksThatDoNotMatch) {
  const std::vector<float> good = {1, 2}, bad = {1, INFINITY};
  DistanceSums sums(2);
  const auto view = [](const std::vector<float>& row) { return std::as_bytes(std::span(row)); };
  const auto add = [&](std::vector<std::span<const std::byte>> views) {
    return sums.Add(NumberType::kFloat32, views).ok();
  };
  EXPECT_FALSE(add({view(good)}));
  EXPECT_FALSE(add({view(good), view(good).first(4)}));
  EXPECT_FALSE(add({view(good), view(bad)}));
  EXPECT_EQ(sums.Finish().at(0, 1), 0);
  EXPECT_TRUE(add({view(good), view(good)}));
}

TEST(Bulyan, NeedsFourTimesTheMaliciousAndThree) {
  const auto counts = BulyanCountsOf(11, 2);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->select, 7u);
  EXPECT_EQ(counts->closest, 3u);
  EXPECT_EQ(BulyanCountsOf(10, 2).error().message,
            "10 updates are fewer than 4 * num_malicious_nodes 2 + 3");
  EXPECT_FALSE(BulyanCountsOf(2, 0).ok());
  EXPECT_TRUE(BulyanCountsOf(3, 0).ok());
  EXPECT_FALSE(BulyanCountsOf(100, ~uint64_t{0}).ok());
}

}  // namespace
}  // namespace umbel::aggregation
