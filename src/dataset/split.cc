#include "dataset/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace umbel::dataset {
namespace {

constexpr size_t kPartsMax = 10'000;
constexpr double kAlphaMax = 1e6;
constexpr int kDrawsMax = 200;

Status CheckParts(size_t rows, size_t parts) {
  if (parts == 0 || parts > kPartsMax)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} partitions: must be 1 to {}", parts, kPartsMax));
  if (rows < parts)
    return Fail(Code::kInvalidArgument, fmt::format("{} rows for {} partitions", rows, parts));
  return {};
}

/// Gamma draws, not yet divided by their sum: only their ratio matters.
std::vector<double> Weights(size_t parts, double alpha, std::mt19937_64& engine) {
  std::gamma_distribution<double> gamma(alpha, 1.0);
  std::vector<double> weights(parts);
  double sum = 0;
  // With a very small alpha all draws may underflow to 0.
  while (sum == 0) {
    for (double& weight : weights) weight = gamma(engine);
    sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

Partitions Draw(const std::vector<std::vector<uint32_t>>& by_label, size_t parts, double alpha,
                std::mt19937_64& engine) {
  Partitions partitions(parts);
  for (std::vector<uint32_t> rows : by_label) {
    std::shuffle(rows.begin(), rows.end(), engine);
    const std::vector<double> weights = Weights(parts, alpha, engine);
    double upto = 0;
    size_t begin = 0;
    for (size_t part = 0; part < parts; ++part) {
      upto += weights[part];
      const size_t end = part + 1 == parts
                             ? rows.size()
                             : std::min(rows.size(), static_cast<size_t>(std::llround(
                                                         upto * static_cast<double>(rows.size()))));
      for (; begin < end; ++begin) partitions[part].push_back(rows[begin]);
    }
  }
  return partitions;
}

}  // namespace

Result<Partitions> SplitIid(size_t rows, size_t parts, uint64_t seed) {
  UMBEL_TRY(CheckParts(rows, parts));
  std::vector<uint32_t> order(rows);
  std::iota(order.begin(), order.end(), 0U);
  std::mt19937_64 engine(seed);
  std::shuffle(order.begin(), order.end(), engine);
  Partitions partitions(parts);
  for (size_t part = 0; part < parts; ++part)
    partitions[part].assign(order.begin() + static_cast<ptrdiff_t>(rows * part / parts),
                            order.begin() + static_cast<ptrdiff_t>(rows * (part + 1) / parts));
  return partitions;
}

Result<Partitions> SplitDirichlet(std::span<const uint8_t> labels, size_t parts, double alpha,
                                  uint64_t seed, size_t rows_min) {
  UMBEL_TRY(CheckParts(labels.size(), parts));
  if (!(alpha > 0 && alpha <= kAlphaMax))
    return Fail(Code::kInvalidArgument, fmt::format("alpha {} not in (0, {}]", alpha, kAlphaMax));
  std::vector<std::vector<uint32_t>> by_label(256);
  for (size_t row = 0; row < labels.size(); ++row)
    by_label[labels[row]].push_back(static_cast<uint32_t>(row));
  std::mt19937_64 engine(seed);
  for (int draw = 0; draw < kDrawsMax; ++draw) {
    Partitions partitions = Draw(by_label, parts, alpha, engine);
    if (std::any_of(partitions.begin(), partitions.end(),
                    [&](const auto& part) { return part.size() < rows_min; }))
      continue;
    for (auto& part : partitions) std::shuffle(part.begin(), part.end(), engine);
    return partitions;
  }
  return Fail(Code::kFailedPrecondition,
              fmt::format("with alpha {} no {} partitions of {} rows came out in which each has {} "
                          "rows: take a larger alpha or fewer partitions",
                          alpha, parts, labels.size(), rows_min));
}

}  // namespace umbel::dataset
