// q-FedAvg (Li et al., ICLR 2020, openreview.net/pdf?id=ByexElSYDr): replies weighed by their loss,
// over all replies twice. First of each reply, over all its blocks: AddGradientSquares, then
// QFedAvgTermOf; with the terms of all, QFedAvgBlock of each block. Functions; safe from any
// thread.
#pragma once

#include <cstddef>
#include <span>

#include "aggregation/clipping.h"
#include "aggregation/element.h"
#include "aggregation/exact_scalar.h"
#include "aggregation/strategy.h"

namespace umbel::aggregation {

/// Adds the squares of L * (current - reply), L being 1 / client_learning_rate; differences and
/// products are rounded to the reply's type as NumPy does (integers: float64), the sum is exact.
/// errors  kInvalidArgument: a square is not finite, or reply and current differ in size.
Status AddGradientSquares(const StrategySpec& spec, const UpdateBlock& block, ExactScalar& squares);

/// What a reply weighs.
struct QFedAvgTerm {
  double loss_power = 0;  // (loss + 1e-10)^q
  double h = 0;
};
/// loss     the reply's metric train_loss_key.
/// squares  of the reply's gradient.
/// errors   kInvalidArgument: the weight is not finite, as of a negative loss.
Result<QFedAvgTerm> QFedAvgTermOf(const StrategySpec& spec, double loss,
                                  const ExactScalar& squares);

/// One block of the next model, in float64 as NumPy 2 has it: current - sum(delta) / sum(h), where
/// delta is the reply's gradient times loss_power in the reply's type, and both sums are
/// independent of the order (deltas: smallest first, in float64; h: exact).
///
/// replies  one block of each reply, of `reply_type`.
/// out      float64, as many elements as each block has.
/// errors   kInvalidArgument: no replies, not one term for each, sizes that differ, sum(h) not
/// above
///          0, a delta that is not finite.
Status QFedAvgBlock(const StrategySpec& spec, NumberType current_type,
                    std::span<const std::byte> current, NumberType reply_type,
                    std::span<const std::span<const std::byte>> replies,
                    std::span<const QFedAvgTerm> terms, std::span<std::byte> out);

}  // namespace umbel::aggregation
