#include "aggregation/clipping.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

namespace umbel::aggregation {
namespace {

constexpr size_t kPiece = 16384;  // elements at a time

Result<size_t> CountOf(const UpdateBlock& block) {
  const size_t count = block.reply.size() / ElementSize(block.type);
  if (block.reply.size() != count * ElementSize(block.type) ||
      block.current.size() != count * ElementSize(block.current_type))
    return Fail(Code::kInvalidArgument,
                fmt::format("a block of {} bytes of {} does not match one of {} bytes of {}",
                            block.reply.size(), ElementName(block.type), block.current.size(),
                            ElementName(block.current_type)));
  return count;
}

/// Calls `use` with the differences of each piece in T, the current values, and where it starts.
template <typename T, typename Use>
Status ForPieces(const UpdateBlock& block, size_t count, Use use) {
  std::vector<T> reply(std::min(count, kPiece)), current(reply.size());
  for (size_t from = 0; from < count; from += kPiece) {
    const size_t piece = std::min(kPiece, count - from);
    const auto bytes = [&](std::span<const std::byte> all, NumberType type) {
      return all.subspan(from * ElementSize(type), piece * ElementSize(type));
    };
    const auto differences = std::span(reply).first(piece);
    const auto base = std::span(current).first(piece);
    Load(block.type, bytes(block.reply, block.type), differences);
    Load(block.current_type, bytes(block.current, block.current_type), base);
    for (size_t i = 0; i < piece; ++i) differences[i] = differences[i] - base[i];
    UMBEL_TRY(use(differences, base, from));
  }
  return {};
}

}  // namespace

Status UpdateNorm::Add(const UpdateBlock& block) {
  UMBEL_ASSIGN(const size_t count, CountOf(block));
  return VisitFloat(ClippedType(block), [&](auto sample) {
    using T = decltype(sample);
    return ForPieces<T>(block, count, [&](std::span<T> differences, auto, size_t) -> Status {
      if constexpr (std::is_same_v<T, Half>) {
        std::vector<float> wide;
        for (const Half value : differences) wide.push_back(static_cast<float>(value));
        return squares_.AddSquares(std::span<const float>(wide));
      } else {
        return squares_.AddSquares(std::span<const T>(differences));
      }
    });
  });
}

double UpdateNorm::Norm() const { return std::sqrt(squares_.Round()); }

double ClipFactor(double norm, double clipping_norm) {
  return norm > clipping_norm ? clipping_norm / norm : 1.0;
}

NumberType ClippedType(const UpdateBlock& block) { return Promote(block.type, block.current_type); }

Status ClipBlock(const UpdateBlock& block, double factor, std::span<std::byte> out) {
  UMBEL_ASSIGN(const size_t count, CountOf(block));
  const NumberType type = ClippedType(block);
  const size_t size = ElementSize(type);
  UMBEL_CHECK(out.size() == count * size);
  return VisitFloat(type, [&](auto sample) {
    using T = decltype(sample);
    const T scale = static_cast<T>(factor);
    return ForPieces<T>(
        block, count, [&](std::span<T> differences, std::span<T> base, size_t from) {
          for (size_t i = 0; i < base.size(); ++i) base[i] = base[i] + differences[i] * scale;
          Store(std::span<const T>(base), type, out.subspan(from * size, base.size() * size));
          return Status();
        });
  });
}

Result<AdaptiveNoise> AdaptiveNoiseOf(const StrategySpec& spec) {
  const double multiplier = spec.Float("noise_multiplier");
  const bool given = spec.Has("clipped_count_stddev");
  AdaptiveNoise out;
  if (multiplier == 0) {
    out.count_deviation = given ? spec.Float("clipped_count_stddev") : 0;
    return out;
  }
  out.count_deviation = given ? spec.Float("clipped_count_stddev")
                              : static_cast<double>(spec.Int("num_sampled_clients")) / 20;
  if (multiplier >= 2 * out.count_deviation)
    return Fail(Code::kInvalidArgument,
                fmt::format("noise_multiplier {} not below twice the clipped_count_stddev {}{}",
                            multiplier, out.count_deviation,
                            given ? "" : ", by default a 20th of num_sampled_clients"));
  out.noise_multiplier =
      std::pow(std::pow(multiplier, -2) - std::pow(2 * out.count_deviation, -2), -0.5);
  return out;
}

double NextClippingNorm(const StrategySpec& spec, const AdaptiveNoise& adaptive, double norm,
                        uint64_t clipped, uint64_t replies, const Noise& noise) {
  std::array<double, 1> normal;
  noise.Normal(Noise::kCountStream, 0, normal);
  const double count = static_cast<double>(clipped) + adaptive.count_deviation * normal[0];
  const double fraction = count / static_cast<double>(replies);
  return norm *
         std::exp(-spec.Float("clip_norm_lr") * (fraction - spec.Float("target_clipped_quantile")));
}

double NoiseDeviation(double noise_multiplier, double clipping_norm, int64_t num_sampled_clients) {
  return noise_multiplier * clipping_norm / static_cast<double>(num_sampled_clients);
}

}  // namespace umbel::aggregation
