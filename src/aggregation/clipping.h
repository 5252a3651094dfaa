// Differential privacy at the server: each update is clipped to a norm before the wrapped strategy
// aggregates, then noise is added to the result. Fixed norm: McMahan et al., arXiv:1710.06963;
// adaptive norm: Andrew et al., arXiv:1905.03871. Per round, in Flower's order:
//   1. of each reply, over all its blocks: UpdateNorm, then ClipFactor, then ClipBlock;
//   2. adaptive only: NextClippingNorm from the number of replies whose factor was below 1;
//   3. of the aggregate: AddNoise (noise.h) with NoiseDeviation of the norm, the new one if
//   adaptive.
// A reply with an error cancels the round's aggregation. Values and functions; an UpdateNorm
// belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/element.h"
#include "aggregation/exact_scalar.h"
#include "aggregation/noise.h"
#include "aggregation/strategy.h"

namespace umbel::aggregation {

/// A block of an array in a reply, and the same of the model the node was given.
struct UpdateBlock {
  NumberType type = NumberType::kFloat32;
  std::span<const std::byte> reply;
  NumberType current_type = NumberType::kFloat32;
  std::span<const std::byte> current;
};

/// The Euclidean norm of an update, over all arrays: exact squares of the differences, which are
/// rounded to their type as NumPy does.
class UpdateNorm {
 public:
  /// errors  kInvalidArgument: a difference is not finite, or reply and current differ in size.
  Status Add(const UpdateBlock& block);
  void Merge(const UpdateNorm& other) { squares_.Merge(other.squares_); }
  double Norm() const;

 private:
  ExactScalar squares_;
};

/// min(1, clipping_norm / norm); 1 for an update of zeros, where Flower divides by zero.
double ClipFactor(double norm, double clipping_norm);

/// The type of a clipped reply: that of reply minus current. Integers become float64 (Flower: an
/// error), as their mean would anyway.
NumberType ClippedType(const UpdateBlock& block);

/// current + factor * (reply - current), each operation rounded to ClippedType. (Flower leaves
/// arrays without dimensions unclipped, by an oversight that costs privacy; we clip all.)
///
/// out     as many elements as the block has, of ClippedType.
/// errors  kInvalidArgument: reply and current differ in size.
Status ClipBlock(const UpdateBlock& block, double factor, std::span<std::byte> out);

/// What adaptive clipping derives from its noise_multiplier.
struct AdaptiveNoise {
  double count_deviation = 0;   // of the noise on the number of clipped updates
  double noise_multiplier = 0;  // for the model, so that both together cost the one that was asked
};
/// spec    an adaptive clipping.
/// errors  kInvalidArgument: clipped_count_stddev is too small for the noise_multiplier.
Result<AdaptiveNoise> AdaptiveNoiseOf(const StrategySpec& spec);

/// Adaptive clipping's norm for the next round, and for this round's noise.
///
/// norm     the norm that this round's replies were clipped to.
/// clipped  how many of the `replies` were shortened; gets noise of its own.
double NextClippingNorm(const StrategySpec& spec, const AdaptiveNoise& adaptive, double norm,
                        uint64_t clipped, uint64_t replies, const Noise& noise);

/// The standard deviation of the noise on each parameter.
double NoiseDeviation(double noise_multiplier, double clipping_norm, int64_t num_sampled_clients);

}  // namespace umbel::aggregation
