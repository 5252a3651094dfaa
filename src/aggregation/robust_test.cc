#include "aggregation/robust.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

namespace umbel::aggregation {
namespace {

template <typename T>
using Table = std::vector<std::vector<T>>;  // update, element

template <typename T>
constexpr NumberType kTypeOf = std::is_same_v<T, float>     ? NumberType::kFloat32
                               : std::is_same_v<T, double>  ? NumberType::kFloat64
                               : std::is_same_v<T, int64_t> ? NumberType::kInt64
                                                            : NumberType::kUint8;

using Rule = std::function<Status(NumberType, std::span<const std::span<const std::byte>>,
                                  std::span<std::byte>)>;
const Rule kMedian = Median;
Rule Trimmed(double beta) {
  return [=](auto type, auto updates, auto out) { return TrimmedMean(type, updates, beta, out); };
}
Rule Around(size_t closest) {
  return [=](auto t, auto updates, auto out) { return MeanAroundMedian(t, updates, closest, out); };
}

/// The rule on columns [from, from + count).
template <typename T, typename Out = std::conditional_t<std::is_floating_point_v<T>, T, double>>
std::vector<Out> Apply(const Rule& rule, const Table<T>& table, size_t from, size_t count) {
  std::vector<std::span<const std::byte>> views;
  for (const auto& row : table) views.push_back(std::as_bytes(std::span(row).subspan(from, count)));
  std::vector<Out> out(count);
  const Status status = rule(kTypeOf<T>, views, std::as_writable_bytes(std::span(out)));
  EXPECT_TRUE(status.ok()) << status.error().ToString();
  return out;
}
template <typename T>
auto Apply(const Rule& rule, const Table<T>& table) {
  return Apply<T>(rule, table, 0, table[0].size());
}

template <typename T>
std::vector<T> Column(const Table<T>& table, size_t c) {
  std::vector<T> out;
  for (const auto& row : table) out.push_back(row[c]);
  std::sort(out.begin(), out.end());
  return out;
}

/// With many ties, so that comparators meet equal values.
template <typename T>
Table<T> AnyTable(std::mt19937_64& engine) {
  std::normal_distribution<double> normal(0, 40);
  Table<T> table(1 + engine() % 40, std::vector<T>(1 + engine() % 200));
  const bool ties = engine() % 2 == 0;
  for (auto& row : table)
    for (T& value : row) {
      const double x = ties ? std::round(normal(engine) / 20) : normal(engine);
      value = static_cast<T>(std::is_unsigned_v<T> ? std::fabs(x) : x);
    }
  return table;
}

template <typename T>
void CheckAgainstSorting(uint64_t seed) {
  std::mt19937_64 engine(seed);
  const Table<T> table = AnyTable<T>(engine);
  const size_t n = table.size();
  const double beta = static_cast<double>(engine() % 50) / 100;
  const size_t cut = static_cast<size_t>(beta * static_cast<double>(n));
  const size_t closest = 1 + engine() % n;
  const auto median = Apply(kMedian, table), trimmed = Apply(Trimmed(beta), table),
             around = Apply(Around(closest), table);
  using Out = typename decltype(median)::value_type;
  for (size_t c = 0; c < table[0].size(); ++c) {
    const std::vector<T> sorted = Column(table, c);
    const Out expected =
        n % 2 != 0 ? static_cast<Out>(sorted[n / 2])
                   : (static_cast<Out>(sorted[n / 2 - 1]) + static_cast<Out>(sorted[n / 2])) / 2;
    RC_ASSERT(median[c] == expected);
    double sum = 0;
    for (size_t i = cut; i < n - cut; ++i) sum += static_cast<double>(sorted[i]);
    RC_ASSERT(trimmed[c] == static_cast<Out>(sum / static_cast<double>(n - 2 * cut)));
    RC_ASSERT(trimmed[c] >= static_cast<Out>(sorted[0]) &&
              trimmed[c] <= static_cast<Out>(sorted[n - 1]));
    std::vector<std::pair<Out, T>> by_distance;
    for (const T value : sorted)
      by_distance.emplace_back(std::abs(static_cast<Out>(value) - expected), value);
    std::sort(by_distance.begin(), by_distance.end());
    double mean = 0;
    for (size_t i = 0; i < closest; ++i) mean += static_cast<double>(by_distance[i].second);
    mean /= static_cast<double>(closest);
    RC_ASSERT(std::fabs(around[c] - mean) <= 1e-5 * (1 + std::fabs(mean)));
  }
}

TEST(Robust, EqualsSortingEachCoordinate) {
  EXPECT_TRUE(rc::check("float32", CheckAgainstSorting<float>));
  EXPECT_TRUE(rc::check("float64", CheckAgainstSorting<double>));
  EXPECT_TRUE(rc::check("int64", CheckAgainstSorting<int64_t>));
  EXPECT_TRUE(rc::check("uint8", CheckAgainstSorting<uint8_t>));
}

TEST(Robust, NeitherOrderNorBlocksShow) {
  EXPECT_TRUE(rc::check([](uint64_t seed) {
    std::mt19937_64 engine(seed);
    Table<float> table = AnyTable<float>(engine);
    const size_t width = table[0].size();
    for (const Rule& rule : {kMedian, Trimmed(0.2), Around(1 + engine() % table.size())}) {
      const auto whole = Apply(rule, table);
      std::shuffle(table.begin(), table.end(), engine);
      const size_t cut = engine() % width;
      auto parts = Apply<float>(rule, table, 0, cut);
      for (const float value : Apply<float>(rule, table, cut, width - cut)) parts.push_back(value);
      // Bit by bit: the tables have zeros of both signs.
      RC_ASSERT(std::memcmp(whole.data(), parts.data(), 4 * width) == 0);
    }
  }));
}

TEST(Robust, WithoutCutIsTheMeanAndOfOneItself) {
  const Table<float> one = {{1.5f, -0.1f, 3e38f}};
  for (const Rule& rule : {kMedian, Trimmed(0), Trimmed(0.49), Around(1)})
    EXPECT_EQ(Apply(rule, one), one[0]);
  const Table<double> three = {{1}, {2}, {6}};
  EXPECT_EQ(Apply(Trimmed(0), three)[0], 3);
  EXPECT_EQ(Apply(Trimmed(0.34), three)[0], 2);
  EXPECT_EQ(Apply(Around(3), three)[0], 3);
  EXPECT_EQ(Apply(Around(2), three)[0], 1.5);
}

TEST(Robust, TheLargestDoNotOverflow) {
  const float f = std::numeric_limits<float>::max();
  const double d = std::numeric_limits<double>::max();
  for (const Rule& rule : {kMedian, Trimmed(0)}) {
    EXPECT_EQ(Apply(rule, Table<float>{{f}, {f}})[0], f);
    EXPECT_EQ(Apply(rule, Table<double>{{d}, {d}})[0], d);
    EXPECT_EQ(Apply(rule, Table<double>{{-d}, {d}})[0], 0);
  }
}

TEST(Robust, ManyUpdatesAndManyColumns) {
  std::mt19937_64 engine(5);
  std::normal_distribution<float> normal;
  Table<float> table(301, std::vector<float>(1000));
  for (auto& row : table)
    for (float& value : row) value = normal(engine);
  const auto median = Apply(kMedian, table);
  for (size_t c = 0; c < median.size(); ++c) EXPECT_EQ(median[c], Column(table, c)[150]);
  table.resize(3);
  for (auto& row : table) row.resize(50'000, 2.0f);
  EXPECT_EQ(Apply(kMedian, table)[49'999], 2.0f);
}

TEST(Robust, HalvesAreNumPys) {
  const auto half = [](float x) { return Half(x); };
  const std::vector<Half> a = {half(1), half(0.1f)}, b = {half(2), half(0.2f)};
  const std::span<const std::byte> views[] = {std::as_bytes(std::span(a)),
                                              std::as_bytes(std::span(b))};
  std::vector<Half> out(2);
  ASSERT_TRUE(Median(NumberType::kFloat16, views, std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(static_cast<float>(out[0]), 1.5f);
  EXPECT_TRUE(out[1] == Half((static_cast<float>(a[1]) + static_cast<float>(b[1])) / 2));
}

TEST(Robust, RefusesWhatItCannotSort) {
  const std::vector<float> good = {1, 2}, bad = {1, NAN}, shorter = {1};
  std::vector<float> out(2);
  const auto run = [&](const std::vector<float>& second, const Rule& rule) {
    const std::span<const std::byte> views[] = {std::as_bytes(std::span(good)),
                                                std::as_bytes(std::span(second))};
    return rule(NumberType::kFloat32, views, std::as_writable_bytes(std::span(out)));
  };
  EXPECT_TRUE(run(good, kMedian).ok());
  EXPECT_EQ(run(bad, kMedian).error().message,
            "update 1 has a value that is not finite among elements 0 to 1 of its block");
  EXPECT_FALSE(run(shorter, kMedian).ok());
  EXPECT_EQ(run(good, Trimmed(0.5)).error().message, "beta 0.5 not in [0, 0.5)");
  EXPECT_FALSE(run(good, Trimmed(NAN)).ok());
  EXPECT_FALSE(run(good, Around(0)).ok());
  EXPECT_FALSE(run(good, Around(3)).ok());
  EXPECT_FALSE(Median(NumberType::kFloat32, {}, {}).ok());
}

}  // namespace
}  // namespace umbel::aggregation
