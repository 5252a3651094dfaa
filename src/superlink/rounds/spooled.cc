#include "superlink/rounds/spooled.h"

#include <algorithm>

#include "aggregation/krum.h"
#include "aggregation/qfedavg.h"
#include "aggregation/robust.h"
#include "superlink/rounds/report.h"
#include "superlink/rounds/sums.h"

namespace umbel::superlink::rounds {
namespace {

using aggregation::NumberType;
using Kind = aggregation::StrategyKind;

constexpr uint64_t kElements = aggregation::kBlockElements;

template <typename T>
bool FiniteBlock(NumberType type, std::span<const std::byte> bytes, size_t count) {
  std::vector<T> values(count);
  aggregation::Load(type, bytes, std::span<T>(values));
  return aggregation::AllFinite(std::span<const T>(values));
}

class Spooled final : public Aggregator {
 public:
  Spooled(const Plan& plan, const Model& model) : spec_(plan.strategy.base()), model_(model) {}

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    std::vector<Refused> refused;
    for (size_t u = 0; u < updates.size(); ++u) {
      UMBEL_ASSIGN(auto fault, Check(updates[u]));
      if (fault) {
        fault->index = u;
        refused.push_back(*std::move(fault));
      } else {
        updates_.push_back(std::move(updates[u]));
      }
    }
    return refused;
  }

  bool CanSave() const override { return false; }
  Status Save(const std::string&) override { return Cannot(); }
  Status Load(const std::string&) override { return Cannot(); }

  Result<NextModel> Finish(uint32_t round) override {
    std::sort(updates_.begin(), updates_.end(),
              [](const Update& a, const Update& b) { return a.node < b.node; });
    UMBEL_TRY(FindTypes());
    if (spec_.Has("num_malicious_nodes")) UMBEL_TRY(Select());
    switch (spec_.kind) {
      case Kind::kFedMedian:
        return Rule([](NumberType type, auto blocks, auto out) {
          return aggregation::Median(type, blocks, out);
        });
      case Kind::kFedTrimmedAvg:
        return Rule([beta = spec_.Float("beta")](NumberType type, auto blocks, auto out) {
          return aggregation::TrimmedMean(type, blocks, beta, out);
        });
      case Kind::kBulyan:
        return Rule([closest = closest_](NumberType type, auto blocks, auto out) {
          return aggregation::MeanAroundMedian(type, blocks, closest, out);
        });
      case Kind::kQFedAvg:
        return QFedAvg();
      default:
        return Mean(round);
    }
  }

  std::optional<std::vector<NodeId>> Selected() const override { return selected_; }

 private:
  static tl::unexpected<Error> Cannot() {
    return Fail(Code::kUnimplemented, "this strategy keeps its updates, not sums");
  }

  Result<std::optional<Refused>> Check(const Update& update) {
    std::vector<std::byte> bytes;
    for (const ModelArray& array : update.arrays) {
      const auto type = TypeOf(array.npy.dtype);
      if (!type.ok() || !IsPlain(array.npy))
        return std::optional(Refused{
            0, Outcome::kWrongDtype,
            fmt::format("array '{}': {}", array.name,
                        type.ok() ? "it is in Fortran order or big-endian, which this strategy "
                                    "does not take"
                                  : type.error().message)});
      if (!aggregation::IsFloat(*type)) continue;
      for (uint64_t first = 0; first < array.npy.element_count; first += kElements) {
        const uint64_t count = std::min(kElements, array.npy.element_count - first);
        UMBEL_TRY(Read(array, first, count, bytes));
        const bool finite = *type == NumberType::kFloat64
                                ? FiniteBlock<double>(*type, bytes, static_cast<size_t>(count))
                                : FiniteBlock<float>(*type, bytes, static_cast<size_t>(count));
        if (!finite)
          return std::optional(
              Refused{0, Outcome::kNonFinite,
                      fmt::format("array '{}': it has a NaN or an infinity", array.name)});
      }
    }
    return std::optional<Refused>();
  }

  static Status Read(const ModelArray& array, uint64_t first, uint64_t count,
                     std::vector<std::byte>& bytes) {
    bytes.resize(static_cast<size_t>(count * array.npy.item_size));
    return array.file.Read(array.npy.data_offset + first * array.npy.item_size,
                           {reinterpret_cast<char*>(bytes.data()), bytes.size()});
  }

  /// The type all updates' arrays have, or can be converted to without loss.
  Status FindTypes() {
    types_.clear();
    for (size_t a = 0; a < model_.arrays.size(); ++a) {
      std::optional<NumberType> common;
      for (const Update& update : updates_) {
        UMBEL_ASSIGN(const NumberType type, TypeOf(update.arrays[a].npy.dtype));
        if (!common) {
          common = type;
        } else if (*common != type) {
          common =
              aggregation::Promote(aggregation::MeanType(*common), aggregation::MeanType(type));
        }
      }
      types_.push_back(common.value_or(NumberType::kFloat32));
    }
    return {};
  }

  /// A block of each update, in the common type.
  class Blocks {
   public:
    Status Load(const Spooled& all, size_t a, uint64_t first, uint64_t count) {
      bytes_.resize(all.updates_.size());
      views_.clear();
      for (size_t u = 0; u < all.updates_.size(); ++u) {
        const ModelArray& array = all.updates_[u].arrays[a];
        UMBEL_TRY(Read(array, first, count, bytes_[u]));
        UMBEL_ASSIGN(const NumberType stored, TypeOf(array.npy.dtype));
        if (stored != all.types_[a]) {
          std::vector<double> values(static_cast<size_t>(count));
          aggregation::Load(stored, bytes_[u], std::span(values));
          bytes_[u].resize(static_cast<size_t>(count) * aggregation::ElementSize(all.types_[a]));
          aggregation::Store(std::span<const double>(values), all.types_[a], std::span(bytes_[u]));
        }
        views_.emplace_back(bytes_[u]);
      }
      return {};
    }
    std::span<const std::span<const std::byte>> views() const { return views_; }

   private:
    std::vector<std::vector<std::byte>> bytes_;
    std::vector<std::span<const std::byte>> views_;
  };

  /// Blocks of [first, first + count) that fit a core's cache, each with its part of `out`.
  template <typename Use>
  Status EachBlock(uint64_t first, uint64_t count, Use use) const {
    const uint64_t together = std::max<uint64_t>(1024, kElements * 4 / (updates_.size() + 4));
    for (uint64_t done = 0; done < count; done += together)
      UMBEL_TRY(use(first + done, std::min(together, count - done)));
    return {};
  }

  NewArray Named(size_t a, NumberType type) const {
    return {model_.arrays[a].name, DescrOf(type), model_.arrays[a].npy.shape, {}};
  }

  template <typename F>
  Result<NextModel> Rule(F rule) {
    NextModel next;
    for (size_t a = 0; a < model_.arrays.size(); ++a) {
      const NumberType result = aggregation::MeanType(types_[a]);
      NewArray array = Named(a, result);
      array.fill = [this, a, rule, result](uint64_t first, uint64_t count, std::span<char> out) {
        return EachBlock(first, count, [&](uint64_t at, uint64_t size) -> Status {
          Blocks blocks;
          UMBEL_TRY(blocks.Load(*this, a, at, size));
          const auto item = aggregation::ElementSize(result);
          return rule(types_[a], blocks.views(),
                      std::as_writable_bytes(out.subspan(static_cast<size_t>(at - first) * item,
                                                         static_cast<size_t>(size) * item)));
        });
      };
      next.arrays.push_back(std::move(array));
    }
    return next;
  }

  Status Select() {
    const auto malicious = static_cast<uint64_t>(spec_.Int("num_malicious_nodes"));
    uint64_t select = 0;
    if (spec_.kind == Kind::kBulyan) {
      UMBEL_ASSIGN(const auto counts, aggregation::BulyanCountsOf(updates_.size(), malicious));
      select = counts.select;
      closest_ = counts.closest;
    } else if (spec_.Has("num_nodes_to_select")) {
      select = static_cast<uint64_t>(spec_.Int("num_nodes_to_select"));
    } else {
      select = 1;
    }
    aggregation::DistanceSums sums(updates_.size());
    for (size_t a = 0; a < model_.arrays.size(); ++a)
      UMBEL_TRY(EachBlock(0, model_.arrays[a].npy.element_count,
                          [&](uint64_t first, uint64_t count) -> Status {
                            Blocks blocks;
                            UMBEL_TRY(blocks.Load(*this, a, first, count));
                            return sums.Add(types_[a], blocks.views());
                          }));
    std::vector<Update> kept;
    selected_.emplace();
    for (const size_t u : aggregation::SelectKrum(sums.Finish(), malicious, select)) {
      selected_->push_back(updates_[u].node);
      kept.push_back(updates_[u]);
    }
    updates_ = std::move(kept);
    return {};
  }

  /// Krum and MultiKrum: the weighted mean of those selected.
  Result<NextModel> Mean(uint32_t round) {
    UMBEL_ASSIGN(mean_, MakeSums(model_));
    UMBEL_ASSIGN(const auto refused, mean_->Add(updates_));
    if (!refused.empty()) return Fail(Code::kResourceExhausted, refused[0].detail);
    return mean_->Finish(round);
  }

  Result<NextModel> QFedAvg() {
    std::vector<aggregation::QFedAvgTerm> terms;
    for (const Update& update : updates_) {
      const auto loss = MetricOf(update.metrics, spec_.Text("train_loss_key"));
      if (!loss)
        return Fail(Code::kInvalidArgument, fmt::format("node {}: its metrics have no number '{}'",
                                                        update.node, spec_.Text("train_loss_key")));
      aggregation::ExactScalar squares;
      for (size_t a = 0; a < model_.arrays.size(); ++a) {
        UMBEL_ASSIGN(const NumberType current_type, TypeOf(model_.arrays[a].npy.dtype));
        UMBEL_ASSIGN(const NumberType type, TypeOf(update.arrays[a].npy.dtype));
        std::vector<std::byte> reply;
        std::vector<std::byte> current;
        UMBEL_TRY(EachBlock(0, model_.arrays[a].npy.element_count,
                            [&](uint64_t first, uint64_t count) -> Status {
                              UMBEL_TRY(Read(update.arrays[a], first, count, reply));
                              UMBEL_TRY(Read(model_.arrays[a], first, count, current));
                              return aggregation::AddGradientSquares(
                                  spec_, {type, reply, current_type, current}, squares);
                            }));
      }
      UMBEL_ASSIGN(const auto term, aggregation::QFedAvgTermOf(spec_, *loss, squares));
      terms.push_back(term);
    }
    NextModel next;
    for (size_t a = 0; a < model_.arrays.size(); ++a) {
      UMBEL_ASSIGN(const NumberType current_type, TypeOf(model_.arrays[a].npy.dtype));
      NewArray array = Named(a, NumberType::kFloat64);
      array.fill = [this, a, current_type, terms](uint64_t first, uint64_t count,
                                                  std::span<char> out) {
        return EachBlock(first, count, [&](uint64_t at, uint64_t size) -> Status {
          Blocks blocks;
          UMBEL_TRY(blocks.Load(*this, a, at, size));
          std::vector<std::byte> current;
          UMBEL_TRY(Read(model_.arrays[a], at, size, current));
          return aggregation::QFedAvgBlock(
              spec_, current_type, current, types_[a], blocks.views(), terms,
              std::as_writable_bytes(out.subspan(static_cast<size_t>(at - first) * sizeof(double),
                                                 static_cast<size_t>(size) * sizeof(double))));
        });
      };
      next.arrays.push_back(std::move(array));
    }
    return next;
  }

  const aggregation::StrategySpec spec_;
  const Model& model_;
  std::vector<Update> updates_;
  std::vector<NumberType> types_;  // of each array, for all updates
  std::optional<std::vector<NodeId>> selected_;
  size_t closest_ = 0;
  std::unique_ptr<Aggregator> mean_;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeSpooled(const Plan& plan, const Model& model) {
  for (const ModelArray& array : model.arrays) {
    const auto type = TypeOf(array.npy.dtype);
    if (!type.ok() || !IsPlain(array.npy))
      return Fail(
          Code::kInvalidArgument,
          fmt::format("array '{}' of the model: {}", array.name,
                      type.ok() ? "give it in C order and little-endian" : type.error().message));
  }
  return std::unique_ptr<Aggregator>(std::make_unique<Spooled>(plan, model));
}

}  // namespace umbel::superlink::rounds
