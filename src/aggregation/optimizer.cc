#include "aggregation/optimizer.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace umbel::aggregation {
namespace {

constexpr size_t kPiece = 4096;  // elements at a time: all five arrays stay in the cache

using std::sqrt;

bool IsAdaptive(StrategyKind kind) {
  return kind == StrategyKind::kFedAdagrad || kind == StrategyKind::kFedAdam ||
         kind == StrategyKind::kFedYogi;
}

/// One piece, in the compute type.
template <typename T>
struct Piece {
  size_t count;
  const T* __restrict current;
  const T* __restrict mean;
  T* __restrict first;
  T* __restrict second;
  T* __restrict next;
  double* __restrict wide_next;  // FedAdam's
};

template <typename T>
void FedAvgM(const StrategySpec& spec, const Piece<T>& p) {
  const T rate = static_cast<T>(spec.Float("server_learning_rate"));
  const T momentum = static_cast<T>(spec.Float("server_momentum"));
  const bool keeps = MomentsOf(spec).first;
  for (size_t i = 0; i < p.count; ++i) {
    T step = p.current[i] - p.mean[i];
    if (keeps) p.first[i] = step = momentum * p.first[i] + step;
    p.next[i] = p.current[i] - rate * step;
  }
}

template <typename T>
void FedAdagrad(const StrategySpec& spec, const Piece<T>& p) {
  const T eta = static_cast<T>(spec.Float("eta"));
  const T tau = static_cast<T>(spec.Float("tau"));
  for (size_t i = 0; i < p.count; ++i) {
    const T delta = p.mean[i] - p.current[i];  // which is m, as beta_1 is 0
    p.second[i] = p.second[i] + delta * delta;
    p.next[i] = p.current[i] + eta * delta / (sqrt(p.second[i]) + tau);
  }
}

template <typename T>
void FedAdam(const StrategySpec& spec, uint64_t round, const Piece<T>& p) {
  const double beta_1 = spec.Float("beta_1"), beta_2 = spec.Float("beta_2");
  const double power = static_cast<double>(round) + 1;
  const double eta =
      spec.Float("eta") * std::sqrt(1 - std::pow(beta_2, power)) / (1 - std::pow(beta_1, power));
  const T old_1 = static_cast<T>(beta_1), new_1 = static_cast<T>(1 - beta_1);
  const T old_2 = static_cast<T>(beta_2), new_2 = static_cast<T>(1 - beta_2);
  const T tau = static_cast<T>(spec.Float("tau"));
  for (size_t i = 0; i < p.count; ++i) {
    const T delta = p.mean[i] - p.current[i];
    p.first[i] = old_1 * p.first[i] + new_1 * delta;
    p.second[i] = old_2 * p.second[i] + new_2 * (delta * delta);
    p.wide_next[i] =
        static_cast<double>(p.current[i]) +
        eta * static_cast<double>(p.first[i]) / static_cast<double>(sqrt(p.second[i]) + tau);
  }
}

template <typename T>
void FedYogi(const StrategySpec& spec, const Piece<T>& p) {
  const double beta_1 = spec.Float("beta_1"), beta_2 = spec.Float("beta_2");
  const T eta = static_cast<T>(spec.Float("eta"));
  const T old_1 = static_cast<T>(beta_1), new_1 = static_cast<T>(1 - beta_1);
  const T new_2 = static_cast<T>(1 - beta_2);
  const T tau = static_cast<T>(spec.Float("tau"));
  const T zero = static_cast<T>(0);
  for (size_t i = 0; i < p.count; ++i) {
    const T delta = p.mean[i] - p.current[i];
    const T square = delta * delta;
    const T change = new_2 * square;
    const T v = p.second[i];
    p.first[i] = old_1 * p.first[i] + new_1 * delta;
    // v moves towards the square by its own size, and stays where it is the square.
    p.second[i] = v - (square < v ? change : v < square ? zero - change : zero);
    p.next[i] = p.current[i] + eta * p.first[i] / (sqrt(p.second[i]) + tau);
  }
}

template <typename T>
void Run(const StrategySpec& spec, uint64_t round, const Piece<T>& piece) {
  switch (spec.kind) {
    case StrategyKind::kFedAvgM:
      return FedAvgM(spec, piece);
    case StrategyKind::kFedAdagrad:
      return FedAdagrad(spec, piece);
    case StrategyKind::kFedAdam:
      return FedAdam(spec, round, piece);
    default:
      return FedYogi(spec, piece);
  }
}

}  // namespace

Moments MomentsOf(const StrategySpec& spec) {
  switch (spec.kind) {
    case StrategyKind::kFedAvgM:
      return {.first = spec.Float("server_momentum") > 0};
    case StrategyKind::kFedAdagrad:
      return {.second = true};
    case StrategyKind::kFedAdam:
    case StrategyKind::kFedYogi:
      return {.first = true, .second = true};
    default:
      return {};
  }
}

bool IsMean(const StrategySpec& spec) {
  if (spec.kind == StrategyKind::kFedAvgM)
    return spec.Float("server_momentum") == 0 && spec.Float("server_learning_rate") == 1;
  return !IsAdaptive(spec.kind);
}

OptimizerTypes OptimizerTypesOf(const StrategySpec& spec, NumberType current, NumberType mean) {
  if (IsMean(spec)) return {MeanType(mean), MeanType(mean)};
  const NumberType compute = Promote(current, MeanType(mean));
  return {compute, spec.kind == StrategyKind::kFedAdam ? NumberType::kFloat64 : compute};
}

Status OptimizerStep(const StrategySpec& spec, uint64_t round, const OptimizerBlock& block) {
  UMBEL_CHECK(!IsMean(spec));
  const OptimizerTypes types = OptimizerTypesOf(spec, block.current_type, block.mean_type);
  const Moments moments = MomentsOf(spec);
  const size_t count = block.current.size() / ElementSize(block.current_type);
  const size_t moment_size = count * ElementSize(types.compute);
  const auto check = [](std::string_view what, size_t is, size_t should) -> Status {
    if (is == should) return {};
    return Fail(Code::kInvalidArgument, fmt::format("{} of {} bytes, not {}", what, is, should));
  };
  UMBEL_TRY(check("model", block.current.size(), count * ElementSize(block.current_type)));
  UMBEL_TRY(check("mean", block.mean.size(), count * ElementSize(block.mean_type)));
  UMBEL_TRY(check("first moment", block.first.size(), moments.first ? moment_size : 0));
  UMBEL_TRY(check("second moment", block.second.size(), moments.second ? moment_size : 0));
  UMBEL_TRY(check("next model", block.next.size(), count * ElementSize(types.result)));

  VisitFloat(types.compute, [&](auto sample) {
    using T = decltype(sample);
    const size_t most = std::min(count, kPiece);
    std::vector<T> current(most), mean(most), first(most), second(most), next(most);
    std::vector<double> wide_next(most);
    for (size_t from = 0; from < count; from += kPiece) {
      const size_t piece = std::min(kPiece, count - from);
      const auto part = [&](auto bytes, NumberType type) {
        return bytes.subspan(from * ElementSize(type), piece * ElementSize(type));
      };
      const auto of = [&](std::vector<T>& values) { return std::span(values).first(piece); };
      const auto read = [&](std::vector<T>& values) {
        return std::span<const T>(values).first(piece);
      };
      Load(block.current_type, part(block.current, block.current_type), of(current));
      Load(block.mean_type, part(block.mean, block.mean_type), of(mean));
      if (moments.first) Load<T>(types.compute, part(block.first, types.compute), of(first));
      if (moments.second) Load<T>(types.compute, part(block.second, types.compute), of(second));
      Run<T>(spec, round,
             {piece, current.data(), mean.data(), first.data(), second.data(), next.data(),
              wide_next.data()});
      if (moments.first) Store<T>(read(first), types.compute, part(block.first, types.compute));
      if (moments.second) Store<T>(read(second), types.compute, part(block.second, types.compute));
      const auto out = part(block.next, types.result);
      if (spec.kind == StrategyKind::kFedAdam) {
        Store(std::span<const double>(wide_next).first(piece), types.result, out);
      } else {
        Store<T>(read(next), types.result, out);
      }
    }
  });
  return {};
}

void WidenMoment(NumberType from, std::span<const std::byte> moment, NumberType to,
                 std::span<std::byte> out) {
  UMBEL_CHECK(IsFloat(from) && from <= to);
  std::vector<double> values(moment.size() / ElementSize(from));
  Load(from, moment, std::span(values));
  Store(std::span<const double>(values), to, out);
}

}  // namespace umbel::aggregation
