// Replies of training that are still arriving: what of them can be folded already. Our nodes send
// the small objects first and then each array's chunks in order, so that nearly all of a reply is
// in the sums when its last byte comes. Belongs to the thread of its session.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/wake.h"
#include "superlink/engine.h"
#include "superlink/rounds/aggregator.h"
#include "superlink/rounds/model.h"

namespace umbel::superlink::rounds {

class EarlyFold {
 public:
  /// All are borrowed and outlive this.
  EarlyFold(Engine& engine, RunId run_id, const Model& model, std::string weighted_by_key,
            Aggregator& aggregator);

  /// Folds what has come of replies to `open`, in groups where several have sent the same place.
  /// errors  kUnavailable, kDataLoss: our own disk.
  Status Look(const std::vector<ObjectId>& open, const std::shared_ptr<Wakeable>& waker);

  /// The reply is complete and counts: what of each array is folded already. Of another reply to
  /// the same instruction, which never became complete, nothing stays.
  Result<std::vector<std::vector<ElementRange>>> Take(const ObjectId& instruction,
                                                      const ObjectId& reply);
  /// It does not count, or is not waited for any more: what was folded is taken out again.
  Status Drop(const ObjectId& instruction);
  /// All of them; they are folded when they are complete.
  Status DropAll();

  /// What is known of replies that are still arriving.
  struct Outlook {
    std::vector<double> weights;
    std::vector<uint64_t>
        ready;  // of each array: elements folded of all of them, from the first on
  };
  /// nullopt: one to `open` has not said yet what it brings, or will be folded at its end only.
  std::optional<Outlook> Foresee(const std::vector<ObjectId>& open);

 private:
  struct Reply;
  struct Waiting {
    ObjectId instruction;
    Piece piece;
    size_t chunk = 0;
  };
  using Place = std::pair<size_t, size_t>;  // array, chunk

  Status Open(Reply& reply);
  Status Gather(const ObjectId& instruction, Reply& reply);
  std::optional<Piece> PieceOf(Reply& reply, size_t array, size_t chunk,
                               std::shared_ptr<const ChunkPlace> place);
  Status FoldWhatIsWorthIt(size_t open);
  Status Fold(std::vector<std::vector<Waiting>>& groups);
  Status Note(std::vector<Waiting>& group, const Status& folded);
  Status Retract(Reply& reply);

  Engine& engine_;
  const RunId run_id_;
  const Model& model_;
  const std::string weighted_by_key_;
  Aggregator& aggregator_;
  std::unordered_map<ObjectId, std::unique_ptr<Reply>> replies_;  // by instruction
  std::map<Place, std::vector<Waiting>> waiting_;
  std::map<Place, size_t> folded_;  // how many have been, of each place

 public:
  ~EarlyFold();
};

}  // namespace umbel::superlink::rounds
