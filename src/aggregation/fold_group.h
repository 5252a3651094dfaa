// A group of updates on its way into the blocks of a sum. Belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "aggregation/dtype.h"
#include "aggregation/fold_kernels.h"
#include "aggregation/fold_stage.h"
#include "aggregation/weight_plan.h"
#include "base/result.h"

namespace umbel::aggregation {

/// The same elements of one client's array.
struct Update {
  std::span<const std::byte> bytes;  // any alignment
  double weight = 1;                 // finite, above 0
  bool swapped = false;              // big-endian
};

/// Exponents of what is to be deposited in a block: a multiple of 2^low, less than 2^top.
struct Need {
  int low;
  int top;
};

/// Numbers of `lanes` lanes side by side, in two's complement: limb k of lane i is
/// limbs[k * lanes + i] and counts 2^(64 * (low + k)).
struct LimbView {
  uint64_t* limbs;
  size_t size;
  int low;
  size_t lanes;
};

/// An exponent b so that all numbers are in [-2^b, 2^b).
int BoundOf(const LimbView& view);

class GroupFolder {
 public:
  /// Everything is borrowed and outlives the folder.
  GroupFolder(const Kernels& kernels, ElementType type, const WeightPlan& plan,
              std::span<const Update> updates);

  /// Takes components [from, from + count) of each update as lanes [lead, lead + count) of `lanes`.
  ///
  /// errors  kDataLoss: a number is NaN or infinite; names the update by its index.
  Status Load(size_t from, size_t count, size_t lead, size_t lanes);

  /// Of what was loaded; nullopt where all of it is zero.
  std::optional<Need> need() const;

  /// Adds (or subtracts) what was loaded, modulo 2^(64 * (low + size)). The view reaches down to
  /// need().low.
  ///
  /// returns  BoundOf(view) afterwards.
  int Deposit(const LimbView& view, bool negate);

 private:
  struct Plane {
    std::vector<const void*> x;  // of each update
    Extent extent{0, UINT64_MAX};
    int exponent_min = 0;  // of the numbers that are not zero; subnormal ones count as the smallest
    int exponent_max = 0;
  };

  size_t lane_size() const { return staging_.doubles ? sizeof(double) : sizeof(float); }
  bool IsZero(const Plane& plane) const { return plane.extent.max == 0; }
  uint64_t DepositBands(const Plane& plane, const LimbView& view, bool negate);
  void DepositOneByOne(const Plane& plane, const LimbView& view, bool negate) const;

  const Kernels& kernels_;
  const ElementType type_;
  const Staging staging_;
  const WeightPlan& plan_;
  const std::span<const Update> updates_;
  std::vector<Plane> planes_;
  size_t lanes_ = 0;
  std::vector<double> staged_;  // room for all planes of all updates, made when it is needed
  std::vector<KernelItem> items_;
  std::unique_ptr<uint64_t[]> low_;
  std::unique_ptr<uint64_t[]> high_;
};

/// The indices of updates with a NaN or an infinity among their elements.
///
/// errors  kInvalidArgument: bytes that are no whole number of elements.
Result<std::vector<size_t>> NonFinite(ElementType type, std::span<const Update> updates);

}  // namespace umbel::aggregation
