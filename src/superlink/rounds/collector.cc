#include "superlink/rounds/collector.h"

#include <algorithm>

#include "superlink/rounds/aggregators.h"
#include "superlink/rounds/report.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace pb = ::umbel::rounds;
namespace {

ObjectId ToId(std::string_view bytes) {
  ObjectId id;
  if (bytes.size() == id.bytes.size()) std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
  return id;
}

/// Of a reply that was let go with a checkpoint: its sums are in there, or it did not count.
Result<Part> DecodePart(const pb::Answered& answered) {
  Part part;
  part.node = NodeId{answered.node_id()};
  part.outcome = OutcomeOf(answered.outcome().outcome());
  part.detail = answered.outcome().detail();
  part.weight = answered.weight();
  part.seconds = answered.outcome().seconds();
  part.bytes = answered.outcome().bytes();
  part.folded = answered.folded();
  UMBEL_ASSIGN(part.metrics, DecodeMetrics(answered.metrics()));
  return part;
}

ClippingState ReadClipping(const pb::Clipping& kept) {
  return {kept.norm(), kept.replies(), kept.clipped()};
}

}  // namespace

Status EncodePart(const ObjectId& instruction, const Part& part, pb::Answered* out) {
  out->set_node_id(part.node.value);
  out->set_instruction(instruction.bytes.data(), instruction.bytes.size());
  out->mutable_outcome()->set_outcome(std::string(Name(part.outcome)));
  out->mutable_outcome()->set_detail(part.detail);
  out->mutable_outcome()->set_seconds(part.seconds);
  out->mutable_outcome()->set_bytes(part.bytes);
  out->set_weight(part.weight);
  UMBEL_TRY(EncodeMetrics(part.metrics, out->mutable_metrics()));
  out->set_folded(part.folded);
  return {};
}

Collector::Collector(Engine& engine, RunId run_id, const Plan& plan, const Model& model, bool train)
    : engine_(engine), run_id_(run_id), plan_(plan), model_(model), train_(train) {}

Result<std::unique_ptr<Collector>> Collector::Make(Engine& engine, RunId run_id, const Plan& plan,
                                                   const Model& model, bool train,
                                                   const pb::Progress& progress,
                                                   uint64_t early_from) {
  std::unique_ptr<Collector> made(new Collector(engine, run_id, plan, model, train));
  UMBEL_TRY(made->Begin(progress, early_from));
  return made;
}

Status Collector::Begin(const pb::Progress& progress, uint64_t early_from) {
  asked_at_ = progress.asked_at();
  for (const pb::Asked& asked : progress.asked()) {
    Part part;
    part.node = NodeId{asked.node_id()};
    parts_.emplace(ToId(asked.instruction()), std::move(part));
  }
  for (const auto& [id, part] : parts_) {
    open_.push_back(id);
    open_text_.push_back(id.Hex());
  }
  if (train_) {
    UMBEL_ASSIGN(aggregator_,
                 MakeAggregator(plan_, model_, progress.seed(), ReadClipping(progress.clipping())));
    if (!progress.checkpoint().empty()) UMBEL_TRY(aggregator_->Load(progress.checkpoint()));
    if (aggregator_->CanFoldPieces() && model_.bytes() >= early_from)
      early_.emplace(engine_, run_id_, model_, plan_.Key("weighted_by_key"), *aggregator_);
    // With over-selection nobody knows who will count.
    if (early_ && plan_.close_train_at == 0)
      foresight_.emplace(engine_, run_id_, model_, progress.round(), *aggregator_, 2 * early_from);
  }
  for (const pb::Answered& answered : progress.answered()) {
    const ObjectId id = ToId(answered.instruction());
    UMBEL_ASSIGN(parts_[id], DecodePart(answered));
    Answered(id);
  }
  return {};
}

void Collector::Answered(const ObjectId& instruction) {
  std::erase(open_, instruction);
  std::erase(open_text_, instruction.Hex());
}

size_t Collector::accepted() const {
  return static_cast<size_t>(std::count_if(parts_.begin(), parts_.end(), [](const auto& entry) {
    return entry.second.outcome == Outcome::kAccepted;
  }));
}

bool Collector::Full() const {
  const uint32_t close_at = train_ ? plan_.close_train_at : plan_.close_evaluate_at;
  return open_.empty() || (close_at > 0 && accepted() >= close_at);
}

Result<bool> Collector::Look(const std::shared_ptr<Wakeable>& waker) {
  auto found = engine_.Read([&](State& state, WallTime now) -> std::optional<Collected> {
    Run* run = state.FindRun(run_id_);
    if (!run) return std::nullopt;
    return state.CollectReplies(*run, open_text_, waker, now);
  });
  if (!found) return false;
  const Wanted wanted{train_ ? &model_ : nullptr, plan_.Key("weighted_by_key"),
                      train_ && aggregator_->AnyLength()};
  for (const auto& bytes : found->messages) {
    RunObjects objects(engine_, run_id_, bytes->tree);
    UMBEL_ASSIGN(Judged judged, Judge(bytes->body, wanted, objects));
    const ObjectId id = judged.update.instruction;
    const auto at = parts_.find(id);
    if (at == parts_.end()) continue;
    Part& part = at->second;
    Answered(id);
    ++kept_;
    part.outcome = judged.outcome;
    part.detail = std::move(judged.detail);
    part.seconds = UnixSeconds(engine_.clock().Now()) - asked_at_;
    part.bytes = judged.update.bytes;
    if (part.outcome != Outcome::kAccepted) {
      if (early_) UMBEL_TRY(early_->Drop(id));
      if (part.outcome == Outcome::kNonFinite && plan_.fail_on_non_finite)
        return Fail(Code::kInvalidArgument, fmt::format("node {}: {}", part.node, part.detail));
      // What is refused lies there too, until a checkpoint lets it go.
      if (train_ && part.outcome != Outcome::kFailed) spooled_ += model_.bytes();
      continue;
    }
    part.weight = judged.update.weight;
    part.metrics = judged.update.metrics;
    judged.update.node = part.node;
    if (!train_) continue;
    spooled_ += part.bytes;
    if (early_) {
      UMBEL_ASSIGN(judged.update.folded, early_->Take(id, judged.update.reply));
    }
    pending_.push_back(std::move(judged.update));
  }
  if (early_ && !open_.empty()) UMBEL_TRY(early_->Look(open_, waker));
  if (pending_.size() >= kFoldTogether || (Full() && !pending_.empty())) UMBEL_TRY(Fold());
  if (foresight_ && !open_.empty()) UMBEL_TRY(Foresee());
  return true;
}

Status Collector::Foresee() {
  const auto outlook = early_->Foresee(open_);
  if (!outlook) return {};
  // Of those that are complete hardly anything is left to fold.
  UMBEL_TRY(Fold());
  aggregation::WeightTotal total = Total();
  for (const double weight : outlook->weights) UMBEL_TRY(total.Add(weight));
  foresight_->Look(total, outlook->ready);
  return {};
}

aggregation::WeightTotal Collector::Total() const {
  aggregation::WeightTotal total;
  for (const auto& [id, part] : parts_)
    if (part.outcome == Outcome::kAccepted && !total.Add(part.weight).ok()) return {};
  return total;
}

std::unique_ptr<ModelWriter> Collector::TakeWriter() {
  return foresight_ ? foresight_->Take(Total()) : ModelWriter::Make(engine_, run_id_);
}

Status Collector::Close() {
  UMBEL_TRY(Fold());
  if (aggregator_)
    aggregator_->NoteFailures(
        static_cast<size_t>(std::count_if(parts_.begin(), parts_.end(), [](const auto& entry) {
          return entry.second.outcome == Outcome::kFailed;
        })));
  if (!early_) return {};
  for (const ObjectId& id : open_) UMBEL_TRY(early_->Drop(id));
  return {};
}

Status Collector::Fold() {
  if (pending_.empty()) return {};
  std::vector<ObjectId> ids;
  for (const Update& update : pending_) ids.push_back(update.instruction);
  UMBEL_ASSIGN(const auto refused, aggregator_->Add(std::exchange(pending_, {})));
  for (const Aggregator::Refused& one : refused) {
    Part& part = parts_.at(ids[one.index]);
    part.outcome = one.outcome;
    part.detail = one.detail;
    if (one.outcome == Outcome::kNonFinite && plan_.fail_on_non_finite)
      return Fail(Code::kInvalidArgument, fmt::format("node {}: {}", part.node, one.detail));
  }
  for (const ObjectId& id : ids) {
    Part& part = parts_.at(id);
    if (part.outcome == Outcome::kAccepted) part.folded = true;
  }
  return {};
}

Result<std::vector<ObjectId>> Collector::Save(const std::string& path, pb::Progress* progress) {
  UMBEL_TRY(Fold());
  // Half a reply is not to be in a checkpoint that nobody could take it out of.
  if (early_) UMBEL_TRY(early_->DropAll());
  if (foresight_) foresight_->Drop();
  if (!path.empty()) UMBEL_TRY(aggregator_->Save(path));
  std::vector<ObjectId> saved;
  progress->clear_answered();
  for (const auto& [id, part] : parts_) {
    const bool open = std::find(open_.begin(), open_.end(), id) != open_.end();
    if (open || (part.outcome == Outcome::kAccepted && !part.folded)) continue;
    saved.push_back(id);
    UMBEL_TRY(EncodePart(id, part, progress->add_answered()));
  }
  progress->set_checkpoint(path);
  KeepClipping(progress);
  spooled_ = 0;
  kept_ = 0;
  return saved;
}

void Collector::KeepClipping(pb::Progress* progress) const {
  const auto state = aggregator_ ? aggregator_->Clipping() : std::nullopt;
  if (!state) return;
  progress->mutable_clipping()->set_norm(state->norm);
  progress->mutable_clipping()->set_replies(state->replies);
  progress->mutable_clipping()->set_clipped(state->clipped);
}

std::vector<ObjectId> Collector::Instructions() const {
  std::vector<ObjectId> ids;
  for (const auto& [id, part] : parts_) ids.push_back(id);
  return ids;
}

std::vector<std::pair<ObjectId, const Part*>> Collector::Accepted() const {
  std::vector<std::pair<ObjectId, const Part*>> used;
  if (unused_) return used;
  for (const auto& [id, part] : parts_)
    if (part.outcome == Outcome::kAccepted) used.emplace_back(id, &part);
  const auto selected = aggregator_ ? aggregator_->Selected() : std::nullopt;
  if (selected)
    std::erase_if(used, [&](const auto& entry) {
      return std::find(selected->begin(), selected->end(), entry.second->node) == selected->end();
    });
  std::sort(used.begin(), used.end(),
            [](const auto& a, const auto& b) { return a.second->node < b.second->node; });
  return used;
}

Result<flower::MetricRecord> Collector::MeanMetrics() const {
  std::vector<const flower::MetricRecord*> metrics;
  for (const auto& [id, part] : Accepted()) metrics.push_back(&part->metrics);
  return rounds::MeanMetrics(metrics, plan_.Key("weighted_by_key"));
}

void Collector::Describe(pb::Phase* phase) const {
  phase->set_asked(static_cast<uint32_t>(parts_.size()));
  phase->set_accepted(static_cast<uint32_t>(accepted()));
  phase->set_bytes_sent(model_.bytes() * parts_.size());
  uint64_t received = 0;
  std::vector<const Part*> sorted;
  for (const auto& [id, part] : parts_) sorted.push_back(&part);
  std::sort(sorted.begin(), sorted.end(),
            [](const Part* a, const Part* b) { return a->node < b->node; });
  for (const Part* part : sorted) {
    pb::NodeOutcome* one = phase->add_nodes();
    one->set_node_id(part->node.value);
    one->set_outcome(std::string(Name(part->outcome)));
    one->set_detail(part->detail);
    one->set_seconds(part->seconds);
    one->set_bytes(part->bytes);
    received += part->bytes;
  }
  phase->set_bytes_received(received);
  phase->set_unused(unused_);
}

std::string Collector::Reasons() const {
  std::string text;
  for (const auto& [id, part] : parts_)
    if (part.outcome != Outcome::kAccepted)
      text += fmt::format("{}node {}: {} {}", text.empty() ? "" : "; ", part.node,
                          Name(part.outcome), part.detail);
  return text.empty() ? "no other was asked" : text;
}

}  // namespace umbel::superlink::rounds
