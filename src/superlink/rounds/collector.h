// The replies of one phase: judged as they come, folded, and remembered. Belongs to the thread of
// its session.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/wake.h"
#include "superlink/engine.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/early.h"
#include "superlink/rounds/foresight.h"
#include "superlink/rounds/plan.h"

namespace umbel::rounds {
class Answered;
class Phase;
class Progress;
}  // namespace umbel::rounds

namespace umbel::superlink::rounds {

/// A node's part in the phase.
struct Part {
  NodeId node;
  Outcome outcome = Outcome::kLate;
  std::string detail;
  double weight = 0;
  double seconds = 0;  // from asked to answered
  uint64_t bytes = 0;
  flower::MetricRecord metrics;
  bool folded = false;  // into sums that can be saved
};

Status EncodePart(const ObjectId& instruction, const Part& part, ::umbel::rounds::Answered* out);

class Collector {
 public:
  /// early_from  bytes of model from which replies are folded while they arrive.
  static Result<std::unique_ptr<Collector>> Make(Engine& engine, RunId run_id, const Plan& plan,
                                                 const Model& model, bool train,
                                                 const ::umbel::rounds::Progress& progress,
                                                 uint64_t early_from);

  /// Judges what has come, and folds what is worth it. False: the run is gone.
  /// errors  kUnavailable, kDataLoss: our own disk; kInvalidArgument: the plan fails a run with
  /// such
  ///         a reply.
  Result<bool> Look(const std::shared_ptr<Wakeable>& waker);
  /// Folds the rest, which may refuse some; of replies that are still arriving nothing stays.
  Status Close();

  /// After Close: the writer of the next model, which may have written much of it already.
  std::unique_ptr<ModelWriter> TakeWriter();

  /// Everybody has answered, or as many as the plan wants.
  bool Full() const;
  /// Replies that were judged and are still kept: their bytes, their number.
  uint64_t spooled() const { return spooled_; }
  size_t kept() const { return kept_; }
  size_t accepted() const;
  size_t asked() const { return parts_.size(); }
  Aggregator* aggregator() { return aggregator_.get(); }

  /// Writes the sums to `path` ("": nowhere) and what they hold to `progress`.
  /// returns  instructions whose replies need not be kept any more.
  Result<std::vector<ObjectId>> Save(const std::string& path, ::umbel::rounds::Progress* progress);

  /// Writes what the aggregator has to find again to `progress`.
  void KeepClipping(::umbel::rounds::Progress* progress) const;
  /// Closed, and the strategy has made no model of the replies: neither are their metrics used.
  void SetUnused() { unused_ = true; }

  std::vector<ObjectId> Instructions() const;
  /// Those that count and, of training that is closed, were used; by node: the order of arrival
  /// shows nowhere.
  std::vector<std::pair<ObjectId, const Part*>> Accepted() const;
  Result<flower::MetricRecord> MeanMetrics() const;
  void Describe(::umbel::rounds::Phase* phase) const;
  /// Who does not count and why, for a person.
  std::string Reasons() const;

 private:
  Collector(Engine& engine, RunId run_id, const Plan& plan, const Model& model, bool train);
  Status Begin(const ::umbel::rounds::Progress& progress, uint64_t early_from);
  Status Fold();
  Status Foresee();
  aggregation::WeightTotal Total() const;
  void Answered(const ObjectId& instruction);

  Engine& engine_;
  const RunId run_id_;
  const Plan& plan_;
  const Model& model_;
  const bool train_;
  double asked_at_ = 0;
  std::map<ObjectId, Part> parts_;  // by instruction
  std::vector<ObjectId> open_;      // instructions without an answer
  std::vector<std::string> open_text_;
  std::vector<Update> pending_;  // judged, not yet folded
  std::unique_ptr<Aggregator> aggregator_;
  std::optional<EarlyFold> early_;
  std::optional<Foresight> foresight_;
  uint64_t spooled_ = 0;
  size_t kept_ = 0;
  bool unused_ = false;
};

}  // namespace umbel::superlink::rounds
