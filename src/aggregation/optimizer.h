// The server optimisers: from the model of the round and the mean of its replies to the next model,
// one block at a time. Elements do not see each other, so blocks may be of any size and in any
// order, by any threads. FedAvg and FedProx have no optimiser: their next model is the mean.
// Functions; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/element.h"
#include "aggregation/strategy.h"

namespace umbel::aggregation {

/// The arrays of the model's size that a strategy keeps between rounds.
struct Moments {
  bool first = false;   // m, or FedAvgM's momentum
  bool second = false;  // v
};
Moments MomentsOf(const StrategySpec& spec);

/// True if the next model is the mean itself: so for every strategy but the optimisers, and for an
/// FedAvgM of rate 1 without momentum.
bool IsMean(const StrategySpec& spec);

/// The types of one array.
struct OptimizerTypes {
  NumberType compute;  // of the moments, too
  NumberType result;   // of the next model
};
/// NumPy 2's: the wider of model and mean, except that FedAdam's result is float64 always, as its
/// corrected rate is a float64 of NumPy's and not of Python's.
///
/// current  the model's; integers compute as float64.
/// mean     MeanType() of the replies'.
OptimizerTypes OptimizerTypesOf(const StrategySpec& spec, NumberType current, NumberType mean);

/// One block of one array; all spans hold the same number of elements.
struct OptimizerBlock {
  NumberType current_type = NumberType::kFloat32;
  std::span<const std::byte> current;
  NumberType mean_type = NumberType::kFloat32;
  std::span<const std::byte> mean;
  std::span<std::byte> first;  // moments of the compute type, read and replaced; empty if not kept
  std::span<std::byte> second;
  std::span<std::byte> next;  // of the result type
};

/// FedAvgM (Hsu et al., arXiv:1909.06335); FedAdagrad, FedAdam, FedYogi (Reddi et al.,
/// arXiv:2003.00295), each operation rounded to the compute type as in Flower's NumPy code:
///
///   FedAvgM     d = x - mean; m = momentum * m + d (first: d); x - rate * m
///   the others  d = mean - x; m = beta_1 * m + (1 - beta_1) * d; v as the method says;
///               x + eta * m / (sqrt(v) + tau), for FedAdam in float64 and with eta corrected for
///               the bias of both moments by the number of the round plus one
///
/// Moments start as zeros. When the compute type is wider than in the round before (FedAdam
/// computes the first round of a float32 model in float32, all others in float64), WidenMoment
/// rewrites them.
///
/// spec    an optimiser: IsMean() is false.
/// round   of the run, from 1.
/// errors  kInvalidArgument: sizes that do not match.
/// cost    0.5 to 1.5 GB/s of float32 model a core; allocates 256 KB.
Status OptimizerStep(const StrategySpec& spec, uint64_t round, const OptimizerBlock& block);

/// Rewrites stored moments for a wider compute type; exact.
void WidenMoment(NumberType from, std::span<const std::byte> moment, NumberType to,
                 std::span<std::byte> out);

}  // namespace umbel::aggregation
