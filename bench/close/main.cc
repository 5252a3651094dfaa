// What the end of a round costs at the least: one pass over the sums, which makes the new model's
// numbers, and hashing the objects that hold them, on all cores. Nothing is written anywhere.
//
//   umbel_close --elements 250000000 --updates 6
//
// Prints one line of JSON.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "aggregation/exact_sum.h"
#include "base/parallel_for.h"
#include "tensor/hash_lanes.h"

namespace {

using namespace umbel;
using namespace umbel::aggregation;

constexpr uint64_t kObject = 5'242'880 / sizeof(float);  // elements of one object

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t elements = 250'000'000;
  size_t updates = 6;
  size_t together = 4;
  size_t times = 3;
  CLI::App app{"the floor of closing a round, in seconds"};
  app.add_option("--elements", elements, "of the model, float32");
  app.add_option("--updates", updates, "folded beforehand");
  app.add_option("--together", together, "objects hashed side by side by each core");
  app.add_option("--times", times, "measured so often; the median counts");
  CLI11_PARSE(app, argc, argv);

  auto made = ExactSum::Make({Kind::kFloat, 4}, elements, {});
  if (!made.has_value()) {
    std::cerr << made.error().ToString() << "\n";
    return 1;
  }
  ExactSum sum = std::move(*made);
  const uint64_t objects = (elements + kObject - 1) / kObject;
  const size_t threads = HardwareThreads();
  WeightTotal total;
  for (size_t u = 0; u < updates; ++u)
    UMBEL_CHECK(total.Add(static_cast<double>(1 + u % 7)).has_value());
  // As the trainers of umbel_load: one model and a number for each update.
  std::vector<float> pool(size_t{kObject} + 65536);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& one : pool) one = normal(random);
  UMBEL_CHECK(
      ParallelFor(static_cast<size_t>(objects), threads, [&](size_t i) {
        const uint64_t first = i * kObject;
        const uint64_t count = std::min(kObject, elements - first);
        std::vector<std::vector<float>> values(updates);
        std::vector<Update> some;
        for (size_t u = 0; u < updates; ++u) {
          values[u].resize(count);
          for (uint64_t j = 0; j < count; ++j)
            values[u][j] = pool[i % 65536 + j] + static_cast<float>(1 + u) / 1024;
          some.push_back({std::as_bytes(std::span(values[u])), static_cast<double>(1 + u % 7)});
        }
        return sum.Fold(some, first, count);
      }).has_value());

  const Divisor divisor(total);
  const size_t groups = static_cast<size_t>((objects + together - 1) / together);
  std::vector<Digest> digests(static_cast<size_t>(objects));
  const auto pass = [&](bool mean, bool hash) {
    return Seconds([&] {
      UMBEL_CHECK(ParallelFor(groups, threads, [&](size_t group) -> Status {
                    thread_local std::vector<std::vector<float>> out;
                    out.resize(together);
                    std::vector<std::string_view> views;
                    const uint64_t begin = group * together;
                    for (uint64_t i = begin; i < std::min(begin + together, objects); ++i) {
                      const uint64_t count = std::min(kObject, elements - i * kObject);
                      std::vector<float>& values = out[i - begin];
                      values.resize(count);
                      if (mean)
                        UMBEL_TRY(sum.Mean(divisor, i * kObject, count,
                                           std::as_writable_bytes(std::span(values))));
                      views.emplace_back(reinterpret_cast<const char*>(values.data()), 4 * count);
                    }
                    if (hash)
                      tensor::Sha256Many(views, std::span(digests).subspan(begin, views.size()));
                    return {};
                  }).has_value());
    });
  };
  const auto median = [&](bool mean, bool hash) {
    std::vector<double> found;
    for (size_t i = 0; i < times; ++i) found.push_back(pass(mean, hash));
    std::sort(found.begin(), found.end());
    return found[found.size() / 2];
  };
  const double both = median(true, true);
  const nlohmann::json out{{"threads", threads},
                           {"seconds", both},
                           {"mean_seconds", median(true, false)},
                           {"hash_seconds", median(false, true)},
                           {"state_bytes", sum.memory_bytes()},
                           {"first", digests[0].Hex()}};
  std::cout << out.dump() << "\n";
  return 0;
}
