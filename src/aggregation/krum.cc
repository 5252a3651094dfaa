#include "aggregation/krum.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace umbel::aggregation {
namespace {

constexpr size_t kTile = 8;  // updates whose slices stay in the cache while all others pass

size_t PairAt(size_t i, size_t j) { return i * (i + 1) / 2 + j; }  // j <= i

double ScoreOf(std::vector<double> row, size_t closest) {
  std::sort(row.begin(), row.end());
  ExactScalar sum;
  const size_t end = std::min(closest + 1, row.size());
  for (size_t i = 1; i < end; ++i)  // the nearest is the update itself
    if (!sum.Add(row[i]).ok()) return HUGE_VAL;
  return sum.Round();
}

}  // namespace

DistanceSums::DistanceSums(size_t updates)
    : updates_(updates), dots_(updates * (updates + 1) / 2), sliced_(updates) {}

Status DistanceSums::Add(NumberType type, std::span<const std::span<const std::byte>> blocks) {
  if (blocks.size() != updates_)
    return Fail(Code::kInvalidArgument,
                fmt::format("blocks of {} updates, not of {}", blocks.size(), updates_));
  if (updates_ == 0) return {};
  const size_t size = ElementSize(type);
  const size_t count = blocks[0].size() / size;
  std::vector<double> values(Sliced::kWidth);
  const auto load = [&](size_t update, size_t from, size_t piece) {
    const auto out = std::span(values).first(piece);
    Load(type, blocks[update].subspan(from * size, piece * size), out);
    return std::span<const double>(out);
  };
  for (size_t i = 0; i < updates_; ++i) {
    if (blocks[i].size() != count * size)
      return Fail(Code::kInvalidArgument,
                  fmt::format("blocks of {} and {} bytes of {}", blocks[0].size(), blocks[i].size(),
                              ElementName(type)));
    if (!IsFloat(type)) continue;
    for (size_t from = 0; from < count; from += Sliced::kWidth)
      if (!AllFinite(load(i, from, std::min(Sliced::kWidth, count - from))))
        return Fail(Code::kInvalidArgument,
                    fmt::format("update {} has a value that is not finite", i));
  }
  for (size_t from = 0; from < count; from += Sliced::kWidth) {
    const size_t piece = std::min(Sliced::kWidth, count - from);
    for (size_t i = 0; i < updates_; ++i) sliced_[i].Cut(load(i, from, piece));
    for (size_t tile = 0; tile < updates_; tile += kTile)
      for (size_t i = tile; i < updates_; ++i)
        for (size_t j = tile; j < std::min(tile + kTile, i + 1); ++j)
          Sliced::AddDot(sliced_[i], sliced_[j], dots_[PairAt(i, j)]);
  }
  return {};
}

void DistanceSums::Merge(const DistanceSums& other) {
  UMBEL_CHECK(other.updates_ == updates_);
  for (size_t pair = 0; pair < dots_.size(); ++pair) dots_[pair].Merge(other.dots_[pair]);
}

DistanceMatrix DistanceSums::Finish() const {
  DistanceMatrix out{updates_, std::vector<double>(updates_ * updates_)};
  for (size_t i = 0; i < updates_; ++i)
    for (size_t j = 0; j < i; ++j) {
      ExactScalar sum = dots_[PairAt(i, i)];
      sum.Merge(dots_[PairAt(j, j)]);
      sum.Remove(dots_[PairAt(i, j)]);
      sum.Remove(dots_[PairAt(i, j)]);
      out.values[i * updates_ + j] = out.values[j * updates_ + i] = sum.Round();
    }
  return out;
}

Result<DistanceMatrix> Distances(BlockSource& source, size_t updates,
                                 std::span<const ArrayLayout> model) {
  std::vector<size_t> all(updates);
  std::iota(all.begin(), all.end(), size_t{0});
  DistanceSums sums(updates);
  UMBEL_TRY(ForEachBlock(source, all, model, [&](size_t array, uint64_t, auto blocks) {
    return sums.Add(model[array].type, blocks);
  }));
  return sums.Finish();
}

std::vector<size_t> SelectKrum(const DistanceMatrix& distances, uint64_t malicious,
                               uint64_t select) {
  const size_t n = distances.updates;
  const size_t closest = malicious + 3 <= n ? n - 2 - static_cast<size_t>(malicious) : 1;
  std::vector<double> scores(n);
  for (size_t i = 0; i < n; ++i) {
    const auto row = distances.values.begin() + static_cast<std::ptrdiff_t>(i * n);
    scores[i] = ScoreOf(std::vector<double>(row, row + static_cast<std::ptrdiff_t>(n)), closest);
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  order.resize(static_cast<size_t>(std::min<uint64_t>(select, n)));
  return order;
}

Result<BulyanCounts> BulyanCountsOf(size_t updates, uint64_t malicious) {
  if (updates < 3 || (updates - 3) / 4 < malicious)
    return Fail(Code::kFailedPrecondition,
                fmt::format("{} updates are fewer than 4 * num_malicious_nodes {} + 3", updates,
                            malicious));
  const auto f = static_cast<size_t>(malicious);
  return BulyanCounts{.select = updates - 2 * f, .closest = updates - 4 * f};
}

}  // namespace umbel::aggregation
