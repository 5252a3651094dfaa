// The weighted sum over the updates of one array, exact: whatever the order, the grouping and the
// threads, the same updates leave the same state. See DESIGN.md beside this file.
//
// Threads: Fold and Remove may run side by side, with each other and on any ranges, the same one
// or overlapping ones included: a block (kBlock components) has an owner at a time. Disjoint
// ranges that begin at multiples of kBlock never meet. Everything else wants the sum for itself,
// except that const functions may run side by side.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "aggregation/dtype.h"
#include "aggregation/exact_sum_budget.h"
#include "aggregation/fold_group.h"
#include "aggregation/fold_kernels.h"
#include "aggregation/limb_slots.h"
#include "aggregation/partial_words.h"
#include "aggregation/weight_total.h"
#include "base/result.h"

namespace umbel::aggregation {

class ExactSum {
 public:
  struct Options {
    Budget* budget = nullptr;          // for growth; borrowed, outlives the sum; nullptr: no limit
    const Kernels* kernels = nullptr;  // nullptr: DefaultKernels()
  };

  /// The sum of nothing: zero everywhere.
  ///
  /// count   elements, of all dimensions; 1 for a scalar.
  /// errors  kResourceExhausted: the budget has no room for the table of blocks (16 bytes for 256
  ///         components).
  static Result<ExactSum> Make(ElementType type, uint64_t count, const Options& options);
  ~ExactSum();
  ExactSum(ExactSum&& other) noexcept;
  ExactSum& operator=(ExactSum&& other) noexcept;

  ElementType type() const { return type_; }
  uint64_t count() const { return count_; }
  /// What it holds, as charged to the budget.
  uint64_t memory_bytes() const;

  /// Adds weight * element for elements [first, first + n) of up to kGroupMax updates in one pass.
  /// Exact for all finite elements and weights, as long as 2^32 updates are not exceeded. Any first
  /// and n; ranges that begin and end at multiples of kBlock elements are fastest. 8 to 16 updates
  /// at a time are enough to be fast.
  ///
  /// updates  n * item_size bytes each. A bool is any byte but 0.
  /// errors   kInvalidArgument: range, sizes, number of updates, or a weight that is not finite and
  ///          above 0; kDataLoss: NaN or infinity, naming the update by its index in `updates`;
  ///          kResourceExhausted: the budget. After an error the sum is as it was, in value and in
  ///          memory.
  /// cost     reads the updates once and 16 bytes of state a component, more for mixed scales.
  Status Fold(std::span<const Update> updates, uint64_t first, uint64_t n);

  /// The opposite of Fold, for updates that were folded: what is left is as if they never were.
  /// Same errors; memory is not given back before Compact.
  Status Remove(std::span<const Update> updates, uint64_t first, uint64_t n);

  /// Adds all of another sum of the same type and count.
  ///
  /// errors  kInvalidArgument: another type or count; kResourceExhausted: the budget; kOutOfRange:
  ///         a sum beyond what 2^32 updates can reach. Nothing is changed then.
  Status Merge(const ExactSum& other);

  /// From here on the sum is one of another type with as many components: what it is rounded to and
  /// what it can be merged with. Its value stays.
  ///
  /// errors  kInvalidArgument: complex and not.
  Status ReadAs(ElementType type);

  /// The two halves of Merge, to merge many sums or none of them: what can fail, which takes the
  /// memory, and what cannot. Neither sum changes in between.
  class MergePlan;
  Result<MergePlan> PlanMerge(const ExactSum& other) const;
  void FinishMerge(const ExactSum& other, MergePlan plan);

  /// Takes memory for `limbs` limbs (8 bytes a component each) beforehand, so that ordinary folds
  /// will not meet the budget. Two are enough for ordinary float32.
  ///
  /// errors  kResourceExhausted: nothing is changed.
  Status Reserve(size_t limbs);

  /// Gives back all memory that the values do not need.
  void Compact();

  /// The mean, sum / divisor, of elements [first, first + n), each the correctly rounded value
  /// (half to even) in ResultType(type()), native byte order. A zero is +0, unless a negative mean
  /// was too small.
  ///
  /// divisor  of the total of all weights folded.
  /// out      n * ResultType(type()).item_size bytes.
  /// errors   kInvalidArgument: range or size.
  /// cost     one pass over the state of the range; ranges at multiples of kBlock share nothing.
  Status Mean(const Divisor& divisor, uint64_t first, uint64_t n, std::span<std::byte> out) const;

  /// The sum itself, likewise; infinity where the type has no room for it.
  Status Sum(uint64_t first, uint64_t n, std::span<std::byte> out) const;

  /// Canonical: equal values write equal words. Errors are the sink's.
  Status Write(WordSink& sink) const;

  /// Reads what Write wrote.
  ///
  /// errors  kDataLoss: anything Write does not write; kResourceExhausted: the budget, or more
  ///         than count_max elements; and the source's.
  static Result<ExactSum> Read(WordSource& source, const Options& options, uint64_t count_max);

 private:
  struct Block {
    uint64_t* limbs = nullptr;  // capacity times lanes
    int16_t low = 0;            // limb 0 counts 2^(64 low)
    int16_t bound = kNoBound;   // all values are in [-2^bound, 2^bound)
    uint8_t size = 0;           // limbs in use; 0: all values are zero
    uint8_t capacity = 0;
    std::atomic<bool> busy = false;
  };
  struct Window {
    int low = 0;
    size_t size = 0;
    bool operator==(const Window&) const = default;
  };
  struct Grown {
    size_t block;
    Window window;
    size_t capacity;
    int bound;
  };
  class Owner;

  static constexpr int16_t kNoBound = INT16_MIN;
  // 2^-1074 of both, and 2^1024 of both times 2^32, with room to spare.
  static constexpr int kLimbMin = -34;
  static constexpr int kLimbEnd = 36;

  ExactSum(ElementType type, uint64_t count, const Options& options);

  Status Charge(uint64_t bytes) const;
  uint64_t components() const { return count_ * type_.components(); }
  size_t block_count() const { return static_cast<size_t>((components() + kBlock - 1) / kBlock); }
  /// Components in a block; its lanes are these rounded up.
  size_t Filled(size_t block) const;
  size_t Lanes(size_t block) const;
  LimbView View(size_t block) const;

  Status CheckRange(uint64_t first, uint64_t n, size_t item_size, size_t bytes) const;
  Status Apply(std::span<const Update> updates, uint64_t first, uint64_t n, bool negate);
  Status ApplyToBlock(GroupFolder& folder, size_t block, bool negate, std::vector<Grown>& grown);
  void Undo(GroupFolder& folder, uint64_t first, uint64_t end, bool negate,
            const std::vector<Grown>& grown);

  static size_t Capacity(const Block& block, Window window);
  Result<Window> WindowFor(const Block& block, Need need) const;
  Status SetWindow(size_t block, Window window, size_t capacity);
  void Move(size_t block, Window window, size_t capacity);
  void Release(size_t block, uint64_t* limbs);
  Window Needed(size_t block) const;

  Status Rounded(const Divisor& divisor, uint64_t first, uint64_t n,
                 std::span<std::byte> out) const;
  void RoundBlock(const Divisor& divisor, size_t block, size_t from, size_t n,
                  std::byte* out) const;

  ElementType type_;
  uint64_t count_;
  Budget* budget_;
  const Kernels* kernels_;
  std::unique_ptr<Block[]> blocks_;
  LimbSlots slots_;  // one a block; none of a small sum
};

class ExactSum::MergePlan {
 private:
  friend class ExactSum;
  std::vector<Window> windows_;
  Reservation memory_;
};

}  // namespace umbel::aggregation
