// What a strategy does with the updates of one training phase. Belongs to the thread of its
// session.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "aggregation/weight_total.h"
#include "base/result.h"
#include "superlink/rounds/model.h"
#include "superlink/rounds/reply.h"

namespace umbel::superlink::rounds {

/// Updates that are waited for: with fewer, sums are read and written for each.
inline constexpr size_t kFoldTogether = 4;

/// Elements of one array that lie in one chunk of a reply that is still arriving.
struct Piece {
  size_t array = 0;   // of the model
  std::string dtype;  // of the reply's array
  uint64_t first = 0;
  uint64_t count = 0;
  std::shared_ptr<const ChunkPlace> place;
  uint64_t offset = 0;  // bytes of the chunk before the first of them
  double weight = 0;
};

/// What clipping must not forget.
struct ClippingState {
  double norm = 0;       // that this round's replies are clipped to; 0: the plan's
  uint64_t replies = 0;  // those in the checkpoint,
  uint64_t clipped = 0;  // and how many of them were shortened
};

class Aggregator {
 public:
  struct Refused {
    size_t index = 0;  // among the updates given
    Outcome outcome = Outcome::kNonFinite;
    std::string detail;
  };

  virtual ~Aggregator() = default;

  /// Takes updates in, in any order: the result does not depend on it. What Update::folded names is
  /// in already. Refused ones leave no trace, of that neither.
  /// errors  kUnavailable, kDataLoss: our own disk.
  virtual Result<std::vector<Refused>> Add(std::vector<Update> updates) = 0;

  /// Takes parts of replies in before the rest has come. All of one array, dtype and range. A reply
  /// that comes to nothing is taken out again piece by piece. AddPieces may be called for different
  /// places at the same time.
  /// errors  as Add; whatever else fails leaves the sums as they were.
  virtual bool CanFoldPieces() const { return false; }
  virtual Status AddPieces(std::span<const Piece> pieces) {
    static_cast<void>(pieces);
    return Fail(Code::kUnimplemented, "this strategy wants whole replies");
  }
  virtual Status RemovePieces(std::span<const Piece> pieces) { return AddPieces(pieces); }

  /// Arrays of replies have one dimension each, of a length of their own.
  virtual bool AnyLength() const { return false; }

  /// Whether what was taken in can be saved, so that its replies need not be kept.
  virtual bool CanSave() const = 0;
  /// Writes all that was taken in, to a file that is new; Load reads it back.
  virtual Status Save(const std::string& path) = 0;
  virtual Status Load(const std::string& path) = 0;

  /// Before Finish: so many nodes have answered with an error.
  virtual void NoteFailures(size_t replies) { static_cast<void>(replies); }

  /// The next global model, computed as it is asked for. The aggregator must outlive it.
  ///
  /// round   of the run, from 1.
  /// errors  kFailedPrecondition: with so few replies the model stays as it is.
  virtual Result<NextModel> Finish(uint32_t round) = 0;

  /// One array of what Finish gives if replies of just this total weight come to count and nothing
  /// is taken out again (see takebacks). Elements may be asked for once every one of these replies
  /// is folded there. nullopt: not to be known before the end.
  struct Foreseen {
    NewArray array;
    std::vector<NewArray> moments;
  };
  virtual Result<std::optional<Foreseen>> Foresee(size_t array, const aggregation::Divisor& total,
                                                  uint32_t round) {
    static_cast<void>(array), static_cast<void>(total), static_cast<void>(round);
    return std::optional<Foreseen>();
  }
  /// How often something that was folded was taken out again.
  virtual uint64_t takebacks() const { return 0; }
  /// After Finish: the nodes whose replies were used; nullopt: all.
  virtual std::optional<std::vector<NodeId>> Selected() const { return std::nullopt; }
  /// Of a strategy that clips: to be kept with what Save has written, and after Finish, whatever
  /// that returned, for the next round.
  virtual std::optional<ClippingState> Clipping() const { return std::nullopt; }
};

}  // namespace umbel::superlink::rounds
