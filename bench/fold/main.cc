// How fast exact sums take in updates and give out means, beside what memory allows.
//
//   umbel_fold --elements 10000000 --updates 200 --group 16 --threads 1
//
// Prints one line of JSON. Updates lie in memory; where they do not all fit, `--distinct` of them
// are read in turn, at different offsets each time round.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/fold_cpu.h"

namespace {

using namespace umbel;
using namespace umbel::aggregation;

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Range {
  uint64_t first;
  uint64_t n;
};

/// Splits [0, count) over threads, at blocks.
void InParallel(size_t threads, uint64_t count, const std::function<void(Range)>& work) {
  const uint64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<std::jthread> running;
  for (size_t i = 0; i < threads; ++i) {
    const uint64_t begin = std::min(count, blocks * i / threads * kBlock);
    const uint64_t end = std::min(count, blocks * (i + 1) / threads * kBlock);
    running.emplace_back([=, &work] { work({begin, end - begin}); });
  }
}

/// Sums all words, with several accumulators: a read of memory and little else.
uint64_t ReadAll(const float* data, size_t count) {
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 32 <= count; i += 32)
    for (size_t j = 0; j < 16; ++j) {
      uint64_t word;
      std::memcpy(&word, data + i + 2 * j, sizeof word);
      sums[j] += word;
    }
  uint64_t sum = 0;
  for (const uint64_t one : sums) sum += one;
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  size_t elements = 10'000'000;
  size_t updates = 200;
  size_t distinct = 0;
  size_t group = 16;
  size_t threads = 1;
  size_t piece = size_t{5} << 20;
  CLI::App app{"exact sums: GB/s of float32 input, beside a read roof"};
  app.add_option("--elements", elements, "of the array");
  app.add_option("--updates", updates, "folded");
  app.add_option("--distinct", distinct, "in memory; 0: all");
  app.add_option("--group", group, "updates folded in one pass");
  app.add_option("--threads", threads, "over elements");
  app.add_option("--piece-bytes", piece, "of an update that a fold takes");
  CLI11_PARSE(app, argc, argv);
  if (distinct == 0) distinct = updates;
  distinct = std::max(distinct, group);

  std::vector<std::vector<float>> values(distinct);
  InParallel(2, distinct * kBlock, [&](Range range) {
    for (size_t u = range.first / kBlock; u < (range.first + range.n) / kBlock; ++u) {
      std::mt19937 random(static_cast<uint32_t>(u));
      std::normal_distribution<float> normal;
      // Gaussian numbers, each used in several places: making them all anew would take longest.
      std::vector<float> pool(65537);
      for (float& one : pool) one = normal(random);
      values[u].resize(elements);
      for (size_t i = 0; i < elements; ++i) values[u][i] = pool[(i + i / 65521) % pool.size()];
    }
  });
  const auto weight = [](size_t update) { return 50.0 + static_cast<double>(update * 37 % 4951); };

  auto made = ExactSum::Make({Kind::kFloat, 4}, elements, {});
  if (!made.has_value()) {
    std::cerr << made.error().ToString() << "\n";
    return 1;
  }
  ExactSum sum = std::move(*made);
  WeightTotal total;
  for (size_t u = 0; u < updates; ++u) UMBEL_CHECK(total.Add(weight(u)).has_value());

  const auto fold = [&](Range range) {
    const uint64_t step = std::max<uint64_t>(kBlock, piece / sizeof(float) / kBlock * kBlock);
    for (uint64_t at = range.first; at < range.first + range.n; at += step) {
      const uint64_t n = std::min(step, range.first + range.n - at);
      for (size_t u = 0; u < updates; u += group) {
        std::vector<Update> some;
        for (size_t i = u; i < std::min(u + group, updates); ++i)
          some.push_back(
              {std::as_bytes(std::span(values[i % distinct]).subspan(at, n)), weight(i)});
        UMBEL_CHECK(sum.Fold(some, at, n).has_value());
      }
    }
  };
  uint64_t checksum = 0;
  const auto read = [&](Range range) {
    uint64_t here = 0;
    for (size_t u = 0; u < updates; ++u)
      here += ReadAll(values[u % distinct].data() + range.first, range.n);
    __atomic_fetch_add(&checksum, here, __ATOMIC_RELAXED);
  };
  const double gigabytes = 4e-9 * static_cast<double>(elements * updates);
  const double read_seconds = Seconds([&] { InParallel(threads, elements, read); });
  const double first_seconds = Seconds([&] { InParallel(threads, elements, fold); });
  // Once more: the state's pages are there now.
  const double fold_seconds = Seconds([&] { InParallel(threads, elements, fold); });
  for (size_t u = 0; u < updates; ++u) UMBEL_CHECK(total.Add(weight(u)).has_value());

  std::vector<float> mean(elements);
  const Divisor divisor(total);
  const auto round = [&](Range range) {
    UMBEL_CHECK(sum.Mean(divisor, range.first, range.n,
                         std::as_writable_bytes(std::span(mean).subspan(range.first, range.n)))
                    .has_value());
  };
  InParallel(threads, elements, round);
  const double mean_seconds = Seconds([&] { InParallel(threads, elements, round); });
  std::vector<float> copy(elements);
  const double copy_seconds = Seconds([&] {
    InParallel(threads, elements, [&](Range range) {
      std::memcpy(copy.data() + range.first, mean.data() + range.first, 4 * range.n);
    });
  });
  const nlohmann::json found{{"kernels", DefaultKernels().name},
                             {"threads", threads},
                             {"group", group},
                             {"gb", gigabytes},
                             {"read_gb_per_s", gigabytes / read_seconds},
                             {"first_gb_per_s", gigabytes / first_seconds},
                             {"fold_gb_per_s", gigabytes / fold_seconds},
                             {"fold_seconds", first_seconds},
                             {"mean_seconds", mean_seconds},
                             {"mean_elements_per_s", static_cast<double>(elements) / mean_seconds},
                             {"copy_gb_per_s", 4e-9 * static_cast<double>(elements) / copy_seconds},
                             {"state_bytes_per_element", static_cast<double>(sum.memory_bytes()) /
                                                             static_cast<double>(elements)},
                             {"checksum", checksum % 1000}};
  std::cout << found.dump() << "\n";
  return 0;
}
