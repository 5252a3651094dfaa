#include "superlink/rounds/foresight.h"

#include <utility>

namespace umbel::superlink::rounds {
namespace {

// Nodes that begin and never end cost us the work no more often than this.
constexpr int kAttemptsMax = 3;

}  // namespace

Foresight::Foresight(Engine& engine, RunId run_id, const Model& model, uint32_t round,
                     Aggregator& aggregator, uint64_t together)
    : engine_(engine),
      run_id_(run_id),
      model_(model),
      round_(round),
      aggregator_(aggregator),
      together_(together) {}

bool Foresight::Holds(const aggregation::WeightTotal& total) const {
  return writer_ && total_ == total && takebacks_ == aggregator_.takebacks();
}

void Foresight::Look(const aggregation::WeightTotal& total, const std::vector<uint64_t>& ready) {
  if (writer_ && !Holds(total)) Drop();
  if (!writer_) {
    if (attempts_ == kAttemptsMax) return;
    total_ = total;
    takebacks_ = aggregator_.takebacks();
    written_.assign(model_.arrays.size(), 0);
  }
  uint64_t fresh = 0;
  for (size_t a = 0; a < ready.size(); ++a)
    fresh += (ready[a] - written_[a]) * model_.arrays[a].npy.item_size;
  if (fresh == 0 || fresh < together_) return;
  if (!writer_) {
    writer_ = ModelWriter::Make(engine_, run_id_);
    ++attempts_;
  }
  if (Write(ready).ok()) return;
  // The end of the round will say whether it is more than a guess that went wrong.
  Drop();
  attempts_ = kAttemptsMax;
}

Status Foresight::Write(const std::vector<uint64_t>& ready) {
  const aggregation::Divisor divisor(total_);
  std::vector<std::pair<size_t, Aggregator::Foreseen>> parts;
  for (size_t a = 0; a < ready.size(); ++a) {
    if (ready[a] == written_[a]) continue;
    UMBEL_ASSIGN(auto foreseen, aggregator_.Foresee(a, divisor, round_));
    if (foreseen) parts.emplace_back(a, *std::move(foreseen));
  }
  std::vector<ModelWriter::Ready> all;
  for (const auto& [a, foreseen] : parts) {
    all.push_back({0, a, &foreseen.array, ready[a]});
    for (size_t m = 0; m < foreseen.moments.size(); ++m)
      all.push_back({m + 1, a, &foreseen.moments[m], ready[a]});
  }
  UMBEL_TRY(writer_->Write(all));
  written_ = ready;
  return {};
}

std::unique_ptr<ModelWriter> Foresight::Take(const aggregation::WeightTotal& total) {
  if (Holds(total)) return std::move(writer_);
  return ModelWriter::Make(engine_, run_id_);
}

}  // namespace umbel::superlink::rounds
