#include "superlink/rounds/clipped.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "aggregation/clipping.h"
#include "aggregation/noise.h"
#include "base/parallel_for.h"

namespace umbel::superlink::rounds {
namespace {

using aggregation::NumberType;
using aggregation::StrategyKind;

constexpr uint64_t kTaskElements = uint64_t{64} << 10;  // stay in a core's cache
constexpr uint64_t kThreadsFrom = uint64_t{1} << 20;    // elements: below, threads cost too much

Status ReadElements(const ModelArray& array, uint64_t first, std::span<std::byte> out) {
  return array.file.Read(array.npy.data_offset + first * array.npy.item_size,
                         {reinterpret_cast<char*>(out.data()), out.size()});
}

/// An array of a reply beside the model's.
struct Pair {
  ModelArray reply;
  ModelArray current;
  NumberType reply_type = NumberType::kFloat32;
  NumberType current_type = NumberType::kFloat32;

  NumberType clipped_type() const {
    return aggregation::ClippedType({reply_type, {}, current_type, {}});
  }

  /// Calls `use` with the elements [first, first + count).
  template <typename Use>
  Status With(uint64_t first, uint64_t count, Use use) const {
    thread_local std::vector<std::byte> theirs, ours;
    theirs.resize(static_cast<size_t>(count) * aggregation::ElementSize(reply_type));
    ours.resize(static_cast<size_t>(count) * aggregation::ElementSize(current_type));
    UMBEL_TRY(ReadElements(reply, first, theirs));
    UMBEL_TRY(ReadElements(current, first, ours));
    return use(aggregation::UpdateBlock{reply_type, theirs, current_type, ours});
  }
};

/// The reply's array as the wrapped strategy is to see it.
ModelArray ClippedArray(Pair pair, double factor) {
  const NumberType type = pair.clipped_type();
  const uint64_t item = aggregation::ElementSize(type);
  ModelArray array;
  array.name = pair.reply.name;
  array.npy.dtype = DescrOf(type);
  array.npy.shape = pair.reply.npy.shape;
  array.npy.item_size = item;
  array.npy.element_count = pair.reply.npy.element_count;
  const uint64_t size = item * array.npy.element_count;
  const auto shared = std::make_shared<const Pair>(std::move(pair));
  array.file = ArrayFile(size, [shared, factor, item](uint64_t offset, std::span<char> out) {
    UMBEL_CHECK(offset % item == 0 && out.size() % item == 0);
    return shared->With(offset / item, out.size() / item,
                        [&](const aggregation::UpdateBlock& block) {
                          return aggregation::ClipBlock(block, factor, std::as_writable_bytes(out));
                        });
  });
  return array;
}

class Clipped final : public Aggregator {
 public:
  Clipped(const Plan& plan, const Model& model, uint64_t seed, const ClippingState& state,
          const aggregation::AdaptiveNoise& adaptive, std::unique_ptr<Aggregator> inner)
      : spec_(plan.strategy),
        model_(model),
        seed_(seed),
        adaptive_(adaptive),
        inner_(std::move(inner)),
        state_(state) {
    if (state_.norm == 0)
      state_.norm = spec_.Float(is_adaptive() ? "initial_clipping_norm" : "clipping_norm");
  }

  Result<std::vector<Refused>> Add(std::vector<Update> updates) override {
    std::vector<Refused> refused;
    std::vector<Update> clipped;
    std::vector<size_t> places;   // of those, among `updates`
    std::vector<bool> shortened;  // each of those
    for (size_t u = 0; u < updates.size(); ++u) {
      std::vector<Pair> pairs;
      std::optional<Refused> fault = Match(updates[u], pairs);
      aggregation::UpdateNorm norm;
      if (!fault) {
        UMBEL_ASSIGN(fault, Measure(pairs, norm));
      }
      if (fault) {
        fault->index = u;
        refused.push_back(*std::move(fault));
        continue;
      }
      const double factor = aggregation::ClipFactor(norm.Norm(), state_.norm);
      updates[u].arrays.clear();
      for (Pair& pair : pairs) updates[u].arrays.push_back(ClippedArray(std::move(pair), factor));
      places.push_back(u);
      shortened.push_back(factor < 1);
      clipped.push_back(std::move(updates[u]));
    }
    UMBEL_ASSIGN(std::vector<Refused> others, inner_->Add(std::move(clipped)));
    std::vector<bool> counts(places.size(), true);
    for (Refused& one : others) {
      counts[one.index] = false;
      one.index = places[one.index];
      refused.push_back(std::move(one));
    }
    for (size_t i = 0; i < places.size(); ++i) {
      if (!counts[i]) continue;
      ++state_.replies;
      state_.clipped += shortened[i];
    }
    return refused;
  }

  bool CanSave() const override { return inner_->CanSave(); }
  Status Save(const std::string& path) override { return inner_->Save(path); }
  Status Load(const std::string& path) override { return inner_->Load(path); }

  void NoteFailures(size_t replies) override { failures_ = replies; }

  Result<NextModel> Finish(uint32_t round) override {
    const ClippingState was = std::exchange(state_, {state_.norm, 0, 0});
    if (failures_ > 0)
      return Fail(Code::kFailedPrecondition,
                  fmt::format("{} of its replies {} an error, with which {} aggregates nothing",
                              failures_, failures_ == 1 ? "is" : "are", spec_.name()));
    const aggregation::Noise noise(seed_, round);
    double multiplier = 0;
    if (is_adaptive()) {
      const double norm = aggregation::NextClippingNorm(spec_, adaptive_, was.norm, was.clipped,
                                                        was.replies, noise);
      if (!std::isfinite(norm) || norm <= 0)
        return Fail(
            Code::kOutOfRange,
            fmt::format("the clipping norm went from {} to {}: clip_norm_lr {} or "
                        "clipped_count_stddev {} is too large",
                        was.norm, norm, spec_.Float("clip_norm_lr"), adaptive_.count_deviation));
      state_.norm = norm;
      multiplier = adaptive_.noise_multiplier;
    } else {
      multiplier = spec_.Float("noise_multiplier");
    }
    UMBEL_ASSIGN(NextModel next, inner_->Finish(round));
    const double deviation =
        aggregation::NoiseDeviation(multiplier, state_.norm, spec_.Int("num_sampled_clients"));
    if (deviation == 0) return next;
    for (size_t a = 0; a < next.arrays.size(); ++a) {
      NewArray& array = next.arrays[a];
      UMBEL_ASSIGN(const NumberType type, TypeOf(array.dtype));
      array.fill = [fill = std::move(array.fill), noise, deviation, type,
                    stream = static_cast<uint32_t>(a)](uint64_t first, uint64_t count,
                                                       std::span<char> out) -> Status {
        UMBEL_TRY(fill(first, count, out));
        return aggregation::AddNoise(noise, stream, first, deviation, type,
                                     std::as_writable_bytes(out));
      };
    }
    return next;
  }

  std::optional<std::vector<NodeId>> Selected() const override { return inner_->Selected(); }
  std::optional<ClippingState> Clipping() const override { return state_; }

 private:
  bool is_adaptive() const { return spec_.kind == StrategyKind::kServerSideAdaptiveClipping; }

  std::optional<Refused> Match(const Update& update, std::vector<Pair>& pairs) const {
    for (size_t a = 0; a < model_.arrays.size(); ++a) {
      const ModelArray& reply = update.arrays[a];
      const auto type = TypeOf(reply.npy.dtype);
      if (!type.ok() || !IsPlain(reply.npy))
        return Refused{0, Outcome::kWrongDtype,
                       fmt::format("array '{}': {}", reply.name,
                                   type.ok() ? "it is in Fortran order or big-endian, which is "
                                               "not clipped"
                                             : type.error().message)};
      pairs.push_back({reply, model_.arrays[a], *type, *TypeOf(model_.arrays[a].npy.dtype)});
    }
    return std::nullopt;
  }

  static Result<std::optional<Refused>> Measure(const std::vector<Pair>& pairs,
                                                aggregation::UpdateNorm& norm) {
    struct Part {
      size_t array = 0;
      uint64_t first = 0;
      uint64_t count = 0;
    };
    std::vector<Part> parts;
    uint64_t elements = 0;
    for (size_t a = 0; a < pairs.size(); ++a) {
      const uint64_t count = pairs[a].reply.npy.element_count;
      for (uint64_t first = 0; first < count; first += kTaskElements)
        parts.push_back({a, first, std::min(kTaskElements, count - first)});
      elements += count;
    }
    std::mutex mutex;
    std::optional<size_t> wrong;  // the first array that is not finite
    UMBEL_TRY(ParallelFor(parts.size(), elements < kThreadsFrom ? 1 : HardwareThreads(),
                          [&](size_t p) -> Status {
                            const Part& part = parts[p];
                            aggregation::UpdateNorm one;
                            bool finite = true;
                            UMBEL_TRY(pairs[part.array].With(
                                part.first, part.count, [&](const aggregation::UpdateBlock& block) {
                                  finite = one.Add(block).ok();
                                  return Status();
                                }));
                            const std::lock_guard lock(mutex);
                            if (finite) {
                              norm.Merge(one);
                            } else {
                              wrong = std::min(wrong.value_or(part.array), part.array);
                            }
                            return {};
                          }));
    if (!wrong) return std::optional<Refused>();
    return std::optional(Refused{
        0, Outcome::kNonFinite,
        fmt::format("array '{}': it, or its difference from the model's, has a NaN or an infinity",
                    pairs[*wrong].reply.name)});
  }

  const aggregation::StrategySpec spec_;
  const Model& model_;
  const uint64_t seed_;
  const aggregation::AdaptiveNoise adaptive_;
  std::unique_ptr<Aggregator> inner_;
  ClippingState state_;
  size_t failures_ = 0;
};

}  // namespace

Result<std::unique_ptr<Aggregator>> MakeClipped(const Plan& plan, const Model& model, uint64_t seed,
                                                const ClippingState& state,
                                                std::unique_ptr<Aggregator> inner) {
  for (const ModelArray& array : model.arrays) {
    const auto type = TypeOf(array.npy.dtype);
    if (!type.ok() || !IsPlain(array.npy))
      return Fail(
          Code::kInvalidArgument,
          fmt::format("array '{}' of the model: {}", array.name,
                      type.ok() ? "give it in C order and little-endian" : type.error().message));
  }
  aggregation::AdaptiveNoise adaptive;
  if (plan.strategy.kind == StrategyKind::kServerSideAdaptiveClipping) {
    UMBEL_ASSIGN(adaptive, aggregation::AdaptiveNoiseOf(plan.strategy));
  }
  return std::unique_ptr<Aggregator>(
      std::make_unique<Clipped>(plan, model, seed, state, adaptive, std::move(inner)));
}

}  // namespace umbel::superlink::rounds
