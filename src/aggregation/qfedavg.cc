#include "aggregation/qfedavg.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "aggregation/sort_columns.h"

namespace umbel::aggregation {
namespace {

constexpr size_t kScratch = size_t{1} << 18;  // elements of all replies together
constexpr double kEpsilon = 1e-10;            // Flower's; a loss of 0 has powers, too

/// The gradient of `count` elements of one reply, in its type T.
template <typename T>
void Gradient(NumberType current_type, std::span<const std::byte> current, NumberType reply_type,
              std::span<const std::byte> reply, T lipschitz, std::span<T> out) {
  const auto subtract = [&](auto sample) {  // in the wider type of both, then rounded to T
    using Wide = decltype(sample);
    std::vector<Wide> a(out.size()), b(out.size());
    Load(current_type, current, std::span(a));
    Load(reply_type, reply, std::span(b));
    for (size_t i = 0; i < out.size(); ++i) {
      if constexpr (std::is_same_v<T, Wide>) {
        out[i] = (a[i] - b[i]) * lipschitz;
      } else {
        out[i] = static_cast<T>(a[i] - b[i]) * lipschitz;
      }
    }
  };
  VisitFloat(Promote(current_type, reply_type), subtract);
}

double Lipschitz(const StrategySpec& spec) { return 1.0 / spec.Float("client_learning_rate"); }

}  // namespace

Status AddGradientSquares(const StrategySpec& spec, const UpdateBlock& block,
                          ExactScalar& squares) {
  const size_t size = ElementSize(block.type), current_size = ElementSize(block.current_type);
  const size_t count = block.reply.size() / size;
  if (block.reply.size() != count * size || block.current.size() != count * current_size)
    return Fail(Code::kInvalidArgument,
                fmt::format("a reply of {} bytes of {} for a model of {} bytes of {}",
                            block.reply.size(), ElementName(block.type), block.current.size(),
                            ElementName(block.current_type)));
  return VisitFloat(MeanType(block.type), [&](auto sample) -> Status {
    using T = decltype(sample);
    std::vector<T> gradient(std::min(count, kScratch / 16));
    std::vector<float> wide;
    for (size_t from = 0; from < count; from += gradient.size()) {
      const size_t piece = std::min(gradient.size(), count - from);
      const auto part = std::span(gradient).first(piece);
      Gradient<T>(block.current_type,
                  block.current.subspan(from * current_size, piece * current_size), block.type,
                  block.reply.subspan(from * size, piece * size), static_cast<T>(Lipschitz(spec)),
                  part);
      if constexpr (std::is_same_v<T, Half>) {
        wide.clear();
        for (const Half value : part) wide.push_back(static_cast<float>(value));
        UMBEL_TRY(squares.AddSquares(std::span<const float>(wide)));
      } else {
        UMBEL_TRY(squares.AddSquares(std::span<const T>(part)));
      }
    }
    return {};
  });
}

Result<QFedAvgTerm> QFedAvgTermOf(const StrategySpec& spec, double loss,
                                  const ExactScalar& squares) {
  const double q = spec.Float("q");
  QFedAvgTerm term;
  term.loss_power = std::pow(loss + kEpsilon, q);
  term.h =
      q * std::pow(loss + kEpsilon, q - 1) * squares.Round() + Lipschitz(spec) * term.loss_power;
  if (!std::isfinite(loss) || !std::isfinite(term.loss_power) || !std::isfinite(term.h))
    return Fail(Code::kInvalidArgument, fmt::format("{} {} gives no finite weight for q {}",
                                                    spec.Text("train_loss_key"), loss, q));
  return term;
}

Status QFedAvgBlock(const StrategySpec& spec, NumberType current_type,
                    std::span<const std::byte> current, NumberType reply_type,
                    std::span<const std::span<const std::byte>> replies,
                    std::span<const QFedAvgTerm> terms, std::span<std::byte> out) {
  const size_t size = ElementSize(reply_type), current_size = ElementSize(current_type);
  const size_t count = current.size() / current_size;
  UMBEL_CHECK(out.size() == count * sizeof(double));
  if (replies.empty() || replies.size() != terms.size())
    return Fail(Code::kInvalidArgument,
                fmt::format("{} replies and {} terms", replies.size(), terms.size()));
  for (const auto& reply : replies)
    if (reply.size() != count * size)
      return Fail(Code::kInvalidArgument,
                  fmt::format("a reply of {} bytes, not {}", reply.size(), count * size));
  ExactScalar total;
  for (const QFedAvgTerm& term : terms) UMBEL_TRY(total.Add(term.h));
  const double sum_h = total.Round();
  if (!(sum_h > 0) || !std::isfinite(sum_h))
    return Fail(Code::kInvalidArgument, fmt::format("the sum of h {} not in (0, inf)", sum_h));

  return VisitFloat(MeanType(reply_type), [&](auto sample) -> Status {
    using T = decltype(sample);
    const size_t columns = std::min(count, std::max<size_t>(64, kScratch / replies.size()));
    std::vector<T> gradient(columns);
    std::vector<double> deltas(replies.size() * columns), next(columns);
    for (size_t from = 0; from < count; from += columns) {
      const size_t piece = std::min(columns, count - from);
      const auto base = current.subspan(from * current_size, piece * current_size);
      for (size_t k = 0; k < replies.size(); ++k) {
        Gradient<T>(current_type, base, reply_type, replies[k].subspan(from * size, piece * size),
                    static_cast<T>(Lipschitz(spec)), std::span(gradient).first(piece));
        double* row = deltas.data() + k * piece;
        for (size_t i = 0; i < piece; ++i) {
          const double delta = static_cast<double>(gradient[i]) * terms[k].loss_power;
          // Zeros of one sign only, so that equal numbers have equal bits.
          row[i] = static_cast<double>(static_cast<T>(delta)) + 0.0;
        }
      }
      if (!AllFinite(std::span<const double>(deltas).first(replies.size() * piece)))
        return Fail(Code::kInvalidArgument, "a delta is not finite");
      SortColumns(deltas.data(), replies.size(), piece);
      Load(current_type, base, std::span(next).first(piece));
      for (size_t i = 0; i < piece; ++i) {
        double sum = 0;
        for (size_t k = 0; k < replies.size(); ++k) sum += deltas[k * piece + i];
        next[i] -= sum / sum_h;
      }
      Store(std::span<const double>(next).first(piece), NumberType::kFloat64,
            out.subspan(from * sizeof(double), piece * sizeof(double)));
    }
    return {};
  });
}

}  // namespace umbel::aggregation
