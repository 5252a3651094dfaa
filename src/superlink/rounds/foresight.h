// The next global model, written while the last replies arrive. Our nodes send their arrays in
// order, so once all that were asked are sending, what all of them have sent is final: its mean can
// be taken, hashed and stored before the rest is here, and little is left to do after the last
// byte. Should one of them come to nothing after all, what was written is let go. Belongs to the
// thread of its session.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "aggregation/weight_total.h"
#include "base/ids.h"
#include "base/result.h"
#include "superlink/engine.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/model.h"

namespace umbel::superlink::rounds {

class Foresight {
 public:
  /// All are borrowed and outlive this.
  /// together  bytes of arrays that are worth a write: chunks for every core, and for its lanes.
  Foresight(Engine& engine, RunId run_id, const Model& model, uint32_t round,
            Aggregator& aggregator, uint64_t together);

  /// Writes what is final if it is worth it.
  ///
  /// total  of the weights of all replies that count or are arriving.
  /// ready  of each array, elements from the first on that are folded of every one of them.
  void Look(const aggregation::WeightTotal& total, const std::vector<uint64_t>& ready);
  /// Lets go of what is written.
  void Drop() { writer_.reset(); }
  /// What was written, if replies of this total weight are what the sums are made of; else a writer
  /// that has written nothing.
  std::unique_ptr<ModelWriter> Take(const aggregation::WeightTotal& total);

 private:
  bool Holds(const aggregation::WeightTotal& total) const;
  Status Write(const std::vector<uint64_t>& ready);

  Engine& engine_;
  const RunId run_id_;
  const Model& model_;
  const uint32_t round_;
  Aggregator& aggregator_;
  const uint64_t together_;
  std::unique_ptr<ModelWriter> writer_;  // null: nothing is written
  aggregation::WeightTotal total_;       // that it was written for
  uint64_t takebacks_ = 0;               // of then
  std::vector<uint64_t> written_;        // elements of each array
  int attempts_ = 0;
};

}  // namespace umbel::superlink::rounds
