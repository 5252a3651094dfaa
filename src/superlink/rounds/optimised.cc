#include <algorithm>

#include "aggregation/dtype.h"
#include "aggregation/optimizer.h"
#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/sums.h"

namespace umbel::superlink::rounds {
namespace {

using aggregation::NumberType;

/// What one array's step needs, wherever it is asked for.
struct Work {
  const ModelArray* current = nullptr;
  NumberType current_type = NumberType::kFloat32;
  const ModelArray* moments[2] = {nullptr, nullptr};
  NumberType stored_type = NumberType::kFloat32;
  NewArray mean;
  NumberType mean_type = NumberType::kFloat32;
  aggregation::OptimizerTypes types{};
};

class Optimised final : public Aggregator {
 public:
  Optimised(const Plan& plan, const Model& model, std::unique_ptr<Aggregator> sums)
      : spec_(plan.strategy.base()), model_(model), sums_(std::move(sums)) {}

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    return sums_->Add(std::move(updates));
  }
  bool CanFoldPieces() const override { return sums_->CanFoldPieces(); }
  Status AddPieces(std::span<const Piece> pieces) override { return sums_->AddPieces(pieces); }
  Status RemovePieces(std::span<const Piece> pieces) override {
    return sums_->RemovePieces(pieces);
  }
  bool CanSave() const override { return sums_->CanSave(); }
  Status Save(const std::string& path) override { return sums_->Save(path); }
  Status Load(const std::string& path) override { return sums_->Load(path); }

  Result<NextModel> Finish(uint32_t round) override {
    UMBEL_ASSIGN(NextModel next, sums_->Finish(round));
    if (aggregation::IsMean(spec_)) return next;
    next.moments.resize(MomentCount(spec_));
    for (size_t a = 0; a < model_.arrays.size(); ++a) {
      UMBEL_ASSIGN(Foreseen stepped, ArrayOf(a, std::move(next.arrays[a]), round));
      next.arrays[a] = std::move(stepped.array);
      for (size_t m = 0; m < next.moments.size(); ++m)
        next.moments[m].push_back(std::move(stepped.moments[m]));
    }
    return next;
  }

  Result<std::optional<Foreseen>> Foresee(size_t array, const aggregation::Divisor& total,
                                          uint32_t round) override {
    UMBEL_ASSIGN(auto mean, sums_->Foresee(array, total, round));
    if (!mean || aggregation::IsMean(spec_)) return mean;
    UMBEL_ASSIGN(Foreseen stepped, ArrayOf(array, std::move(mean->array), round));
    return std::optional(std::move(stepped));
  }
  uint64_t takebacks() const override { return sums_->takebacks(); }

 private:
  /// The step of one array from its mean.
  Result<Foreseen> ArrayOf(size_t a, NewArray mean, uint32_t round) const {
    const aggregation::Moments kept = aggregation::MomentsOf(spec_);
    const size_t moments = MomentCount(spec_);
    UMBEL_ASSIGN(const Work work, Prepare(a, std::move(mean), moments));
    const auto fill = [this, work, round, kept](size_t wanted) {
      return
          [this, work, round, kept, wanted](uint64_t first, uint64_t count, std::span<char> out) {
            return Step(work, round, kept, wanted, first, count, out);
          };
    };
    const std::string& name = work.mean.name;
    Foreseen stepped{{name, DescrOf(work.types.result), work.mean.shape, fill(0)}, {}};
    for (size_t m = 0; m < moments; ++m)
      stepped.moments.push_back({name, DescrOf(work.types.compute), work.mean.shape, fill(m + 1)});
    return stepped;
  }

  Result<Work> Prepare(size_t a, NewArray mean, size_t moments) const {
    Work work;
    work.current = &model_.arrays[a];
    UMBEL_ASSIGN(work.current_type, TypeOf(work.current->npy.dtype));
    UMBEL_ASSIGN(work.mean_type, TypeOf(mean.dtype));
    work.mean = std::move(mean);
    work.types = aggregation::OptimizerTypesOf(spec_, work.current_type, work.mean_type);
    for (size_t m = 0; m < std::min(moments, model_.moments.size()); ++m) {
      work.moments[m] = &model_.moments[m][a];
      UMBEL_ASSIGN(work.stored_type, TypeOf(work.moments[m]->npy.dtype));
    }
    return work;
  }

  static Status ReadNative(const ModelArray& array, uint64_t first, std::span<std::byte> out) {
    return array.file.Read(array.npy.data_offset + first * array.npy.item_size,
                           {reinterpret_cast<char*>(out.data()), out.size()});
  }

  /// wanted  0: the next model; 1, 2: its moments.
  Status Step(const Work& work, uint32_t round, aggregation::Moments kept, size_t wanted,
              uint64_t first, uint64_t count, std::span<char> out) const {
    const auto bytes = [&](NumberType type) {
      return std::vector<std::byte>(static_cast<size_t>(count) * aggregation::ElementSize(type));
    };
    std::vector<std::byte> current = bytes(work.current_type);
    UMBEL_TRY(ReadNative(*work.current, first, current));
    std::vector<std::byte> mean = bytes(work.mean_type);
    UMBEL_TRY(work.mean.fill(first, count, {reinterpret_cast<char*>(mean.data()), mean.size()}));
    std::vector<std::byte> moments[2];
    for (size_t m = 0; m < size_t{kept.first} + size_t{kept.second}; ++m) {
      moments[m] = bytes(work.types.compute);
      if (work.moments[m] == nullptr) continue;
      std::vector<std::byte> stored = bytes(work.stored_type);
      UMBEL_TRY(ReadNative(*work.moments[m], first, stored));
      if (work.stored_type == work.types.compute) {
        moments[m] = std::move(stored);
      } else {
        aggregation::WidenMoment(work.stored_type, stored, work.types.compute, moments[m]);
      }
    }
    std::vector<std::byte> next = bytes(work.types.result);
    aggregation::OptimizerBlock block;
    block.current_type = work.current_type;
    block.current = current;
    block.mean_type = work.mean_type;
    block.mean = mean;
    block.first = kept.first ? std::span(moments[0]) : std::span<std::byte>();
    block.second = kept.second ? std::span(moments[kept.first ? 1 : 0]) : std::span<std::byte>();
    block.next = next;
    UMBEL_TRY(aggregation::OptimizerStep(spec_, round, block));
    const std::vector<std::byte>& result = wanted == 0 ? next : moments[wanted - 1];
    UMBEL_CHECK(result.size() == out.size());
    std::copy(result.begin(), result.end(), reinterpret_cast<std::byte*>(out.data()));
    return {};
  }

  const aggregation::StrategySpec spec_;
  const Model& model_;
  std::unique_ptr<Aggregator> sums_;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeOptimised(const Plan& plan, const Model& model) {
  UMBEL_ASSIGN(auto sums, MakeSums(model));
  for (const ModelArray& array : model.arrays) {
    const auto type = TypeOf(array.npy.dtype);
    if (!type.ok() || array.npy.fortran_order || array.npy.dtype[0] == '>')
      return Fail(
          Code::kInvalidArgument,
          fmt::format("array '{}' of the model: {}", array.name,
                      type.ok() ? "give it in C order and little-endian" : type.error().message));
  }
  return std::unique_ptr<Aggregator>(std::make_unique<Optimised>(plan, model, std::move(sums)));
}

}  // namespace umbel::superlink::rounds
