#include "aggregation/exact_sum.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <thread>

#include "aggregation/fold_cpu.h"
#include "aggregation/weight_plan.h"

namespace umbel::aggregation {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr size_t kCapacityMin = 2;  // what most blocks of float32 end up with
constexpr size_t kSlotsFrom = 256;  // blocks; below, slots are not worth a mapping
static_assert(kCapacityMin * kBlock * sizeof(uint64_t) <= LimbSlots::kSlotBytes);

uint64_t LimbBytes(size_t limbs, size_t lanes) { return uint64_t{8} * limbs * lanes; }

int FloorDiv64(int a) { return a >> 6; }

uint64_t* NewLimbs(size_t limbs, size_t lanes) {
  return static_cast<uint64_t*>(::operator new(LimbBytes(limbs, lanes), kAlignment));
}

void DeleteLimbs(uint64_t* limbs) { ::operator delete(limbs, kAlignment); }

uint64_t SignOf(uint64_t limb) { return 0 - (limb >> 63); }

/// to += from, modulo what `to` has room for above. Its window reaches down to that of `from`.
void AddLimbs(const LimbView& from, const LimbView& to) {
  uint64_t carry[kBlock] = {};
  const auto skip = static_cast<size_t>(from.low - to.low);
  for (size_t k = skip; k < to.size; ++k) {
    const bool beyond = k - skip >= from.size;
    const uint64_t* const in = from.limbs + std::min(k - skip, from.size - 1) * from.lanes;
    uint64_t* const out = to.limbs + k * to.lanes;
    for (size_t lane = 0; lane < to.lanes; ++lane) {
      const uint64_t part = beyond ? SignOf(in[lane]) : in[lane];
      const uint64_t sum = out[lane] + part;
      const uint64_t with = sum + carry[lane];
      carry[lane] = (sum < part ? 1U : 0U) | (with < sum ? 1U : 0U);
      out[lane] = with;
    }
  }
}

}  // namespace

/// Holds a block for the length of a deposit: microseconds, so others spin.
class ExactSum::Owner {
 public:
  explicit Owner(Block& block) : block_(block) {
    while (block_.busy.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  ~Owner() { block_.busy.store(false, std::memory_order_release); }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

 private:
  Block& block_;
};

// -- birth and death ------------------------------------------------------------------------------

Result<ExactSum> ExactSum::Make(ElementType type, uint64_t count, const Options& options) {
  Options complete = options;
  if (complete.kernels == nullptr) {
    complete.kernels = &DefaultKernels();
  }
  constexpr uint64_t kCountMax = uint64_t{1} << 56;
  if (count > kCountMax)
    return Fail(Code::kResourceExhausted, fmt::format("a sum of {} elements", count));
  const uint64_t blocks = (count * type.components() + kBlock - 1) / kBlock;
  if (options.budget != nullptr && !options.budget->Take(blocks * sizeof(Block)))
    return Fail(
        Code::kResourceExhausted,
        fmt::format("a sum of {} elements needs {} bytes; {} of {} are taken", count,
                    blocks * sizeof(Block), options.budget->used(), options.budget->bytes_max()));
  return ExactSum(type, count, complete);
}

ExactSum::ExactSum(ElementType type, uint64_t count, const Options& options)
    : type_(type), count_(count), budget_(options.budget), kernels_(options.kernels) {
  blocks_.reset(new Block[block_count()]);
  if (block_count() >= kSlotsFrom) slots_ = LimbSlots(block_count());
}

ExactSum::~ExactSum() {
  if (blocks_ == nullptr) return;
  if (budget_ != nullptr) budget_->Give(memory_bytes());
  for (size_t i = 0; i < block_count(); ++i)
    if (blocks_[i].limbs != slots_.At(i)) DeleteLimbs(blocks_[i].limbs);
}

ExactSum::ExactSum(ExactSum&& other) noexcept = default;

ExactSum& ExactSum::operator=(ExactSum&& other) noexcept {
  std::swap(type_, other.type_);
  std::swap(count_, other.count_);
  std::swap(budget_, other.budget_);
  std::swap(kernels_, other.kernels_);
  std::swap(blocks_, other.blocks_);
  std::swap(slots_, other.slots_);
  return *this;
}

uint64_t ExactSum::memory_bytes() const {
  uint64_t bytes = block_count() * sizeof(Block);
  for (size_t i = 0; i < block_count(); ++i) bytes += LimbBytes(blocks_[i].capacity, Lanes(i));
  return bytes;
}

size_t ExactSum::Filled(size_t block) const {
  return static_cast<size_t>(std::min<uint64_t>(kBlock, components() - uint64_t{block} * kBlock));
}

size_t ExactSum::Lanes(size_t block) const {
  return (Filled(block) + kLaneStep - 1) / kLaneStep * kLaneStep;
}

LimbView ExactSum::View(size_t block) const {
  return {blocks_[block].limbs, blocks_[block].size, blocks_[block].low, Lanes(block)};
}

// -- windows --------------------------------------------------------------------------------------

/// The smallest window that holds what is there and what is needed, together.
Result<ExactSum::Window> ExactSum::WindowFor(const Block& block, Need need) const {
  int low = FloorDiv64(need.low);
  int end = low + 1;
  int top = need.top;
  if (block.size > 0) {
    low = std::min<int>(low, block.low);
    end = block.low + block.size;
    top = std::max<int>(top, block.bound) + 1;
  }
  end = std::max(end, FloorDiv64(top) + 1);  // with room for the sign
  if (low < kLimbMin || end > kLimbEnd)
    return Fail(Code::kOutOfRange, "a sum beyond what 2^32 updates can reach");
  return Window{low, static_cast<size_t>(end - low)};
}

size_t ExactSum::Capacity(const Block& block, Window window) {
  return std::max({window.size, kCapacityMin, size_t{block.capacity}});
}

Status ExactSum::Charge(uint64_t bytes) const {
  if (budget_ == nullptr || budget_->Take(bytes)) return {};
  return Fail(Code::kResourceExhausted, fmt::format("sums need {} bytes more; {} of {} are taken",
                                                    bytes, budget_->used(), budget_->bytes_max()));
}

/// Moves a block into a window that holds its values, taking from or giving to the budget.
Status ExactSum::SetWindow(size_t index, Window window, size_t capacity) {
  const uint64_t before = LimbBytes(blocks_[index].capacity, Lanes(index));
  const uint64_t after = LimbBytes(capacity, Lanes(index));
  if (after > before) UMBEL_TRY(Charge(after - before));
  Move(index, window, capacity);
  if (budget_ != nullptr && before > after) budget_->Give(before - after);
  return {};
}

/// Without asking the budget.
void ExactSum::Move(size_t index, Window window, size_t capacity) {
  Block& block = blocks_[index];
  const size_t lanes = Lanes(index);
  uint64_t* const slot = capacity <= kCapacityMin ? slots_.At(index) : nullptr;
  uint64_t* const limbs = capacity == 0 ? nullptr : slot ? slot : NewLimbs(capacity, lanes);
  std::array<uint64_t, kCapacityMin * kBlock> kept;
  const uint64_t* before = block.limbs;
  if (limbs == block.limbs && limbs != nullptr) {  // within its slot
    std::copy_n(block.limbs, block.size * lanes, kept.data());
    before = kept.data();
  }
  for (size_t k = 0; k < window.size; ++k) {
    uint64_t* const out = limbs + k * lanes;
    const int from = window.low + static_cast<int>(k) - block.low;
    if (block.size == 0 || from < 0) {
      std::fill(out, out + lanes, 0);
    } else if (from < block.size) {
      std::copy_n(before + static_cast<size_t>(from) * lanes, lanes, out);
    } else {
      const uint64_t* const top = before + (block.size - size_t{1}) * lanes;
      std::transform(top, top + lanes, out, SignOf);
    }
  }
  if (limbs != block.limbs) Release(index, block.limbs);
  block.limbs = limbs;
  block.low = static_cast<int16_t>(window.low);
  block.size = static_cast<uint8_t>(window.size);
  block.capacity = static_cast<uint8_t>(capacity);
}

void ExactSum::Release(size_t index, uint64_t* limbs) {
  if (limbs == nullptr) return;
  if (limbs == slots_.At(index)) {
    slots_.GiveBack(index);
  } else {
    DeleteLimbs(limbs);
  }
}

/// The smallest window for the values alone; it is unique, which makes checkpoints canonical.
ExactSum::Window ExactSum::Needed(size_t index) const {
  const LimbView view = View(index);
  const auto limb = [&](size_t k) { return std::span(view.limbs + k * view.lanes, view.lanes); };
  size_t first = 0;
  size_t end = view.size;
  const auto is_zero = [](uint64_t word) { return word == 0; };
  while (first < end && std::all_of(limb(first).begin(), limb(first).end(), is_zero)) ++first;
  if (first == end) return {};
  const auto is_sign = [](uint64_t below, uint64_t word) { return word == SignOf(below); };
  while (end - first > 1 &&
         std::equal(limb(end - 2).begin(), limb(end - 2).end(), limb(end - 1).begin(), is_sign))
    --end;
  return {view.low + static_cast<int>(first), end - first};
}

Status ExactSum::Reserve(size_t limbs) {
  const size_t most = std::min<size_t>(limbs, kLimbEnd - kLimbMin);
  uint64_t more = 0;
  for (size_t i = 0; i < block_count(); ++i)
    more += LimbBytes(std::max<size_t>(most, blocks_[i].capacity) - blocks_[i].capacity, Lanes(i));
  UMBEL_TRY(Charge(more));
  for (size_t i = 0; i < block_count(); ++i)
    if (blocks_[i].capacity < most) Move(i, {blocks_[i].low, blocks_[i].size}, most);
  return {};
}

void ExactSum::Compact() {
  for (size_t i = 0; i < block_count(); ++i) {
    const Window window = Needed(i);
    if (window.size == blocks_[i].capacity) continue;
    const Status done = SetWindow(i, window, window.size);
    UMBEL_CHECK(done.has_value());
    blocks_[i].bound = window.size == 0 ? kNoBound : static_cast<int16_t>(BoundOf(View(i)));
  }
}

// -- folding --------------------------------------------------------------------------------------

Status ExactSum::CheckRange(uint64_t first, uint64_t n, size_t item_size, size_t bytes) const {
  if (first > count_ || n > count_ - first)
    return Fail(Code::kInvalidArgument,
                fmt::format("elements {} to {} of an array that has {}", first, first + n, count_));
  if (bytes != n * item_size)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} bytes for {} elements of {} bytes", bytes, n, item_size));
  return {};
}

Status ExactSum::Fold(std::span<const Update> updates, uint64_t first, uint64_t n) {
  return Apply(updates, first, n, false);
}

Status ExactSum::Remove(std::span<const Update> updates, uint64_t first, uint64_t n) {
  return Apply(updates, first, n, true);
}

Status ExactSum::Apply(std::span<const Update> updates, uint64_t first, uint64_t n, bool negate) {
  if (updates.size() > kGroupMax)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} updates in a group, above {}", updates.size(), kGroupMax));
  std::vector<double> weights;
  for (const Update& update : updates) {
    UMBEL_TRY(CheckRange(first, n, type_.item_size, update.bytes.size()));
    weights.push_back(update.weight);
  }
  if (updates.empty()) return {};
  UMBEL_ASSIGN(const WeightPlan plan, MakeWeightPlan(weights, kernels_->weight_bits));

  GroupFolder folder(*kernels_, type_, plan, updates);
  std::vector<Grown> grown;
  const uint64_t begin = first * type_.components();
  const uint64_t end = begin + n * type_.components();
  for (uint64_t at = begin; at < end;) {
    const auto block = static_cast<size_t>(at / kBlock);
    const auto lead = static_cast<size_t>(at % kBlock);
    const auto some = static_cast<size_t>(std::min<uint64_t>(kBlock - lead, end - at));
    Status done = folder.Load(static_cast<size_t>(at - begin), some, lead, Lanes(block));
    if (done.has_value()) done = ApplyToBlock(folder, block, negate, grown);
    if (!done.has_value()) {
      // Exactness makes this a clean way out, and reading all updates twice is the other one.
      Undo(folder, begin, at, !negate, grown);
      return done;
    }
    at += some;
  }
  return {};
}

Status ExactSum::ApplyToBlock(GroupFolder& folder, size_t index, bool negate,
                              std::vector<Grown>& grown) {
  const std::optional<Need> need = folder.need();
  if (!need) return {};
  Block& block = blocks_[index];
  const Owner owner(block);
  UMBEL_ASSIGN(const Window window, WindowFor(block, *need));
  const Window before{block.low, block.size};
  if (window != before) {
    const size_t capacity_before = block.capacity;
    UMBEL_TRY(
        SetWindow(index, window, std::max({window.size, kCapacityMin, size_t{block.capacity}})));
    grown.push_back({index, before, capacity_before, block.bound});
  }
  block.bound = static_cast<int16_t>(folder.Deposit(View(index), negate));
  return {};
}

/// Takes back what was applied to components [first, end), and the memory that it took.
void ExactSum::Undo(GroupFolder& folder, uint64_t first, uint64_t end, bool negate,
                    const std::vector<Grown>& grown) {
  for (uint64_t at = first; at < end;) {
    const auto index = static_cast<size_t>(at / kBlock);
    const auto lead = static_cast<size_t>(at % kBlock);
    const auto some = static_cast<size_t>(std::min<uint64_t>(kBlock - lead, end - at));
    UMBEL_CHECK(folder.Load(static_cast<size_t>(at - first), some, lead, Lanes(index)).has_value());
    if (folder.need()) {
      // Needs no window: what was there before fits in this one.
      const Owner owner(blocks_[index]);
      blocks_[index].bound = static_cast<int16_t>(folder.Deposit(View(index), negate));
    }
    at += some;
  }
  for (const Grown& growth : grown) {
    Block& block = blocks_[growth.block];
    const Owner owner(block);
    // Another thread may have come to need it in between.
    const Window needed = Needed(growth.block);
    const int end_before = growth.window.low + static_cast<int>(growth.window.size);
    const bool fits =
        needed.size == 0 || (growth.window.size > 0 && needed.low >= growth.window.low &&
                             needed.low + static_cast<int>(needed.size) <= end_before);
    const Window window = fits ? growth.window : needed;
    const size_t capacity = fits ? growth.capacity : std::max(window.size, kCapacityMin);
    UMBEL_CHECK(capacity <= block.capacity);
    UMBEL_CHECK(SetWindow(growth.block, window, capacity).has_value());
    block.bound = window.size == 0 ? kNoBound : static_cast<int16_t>(BoundOf(View(growth.block)));
  }
}

// -- merging --------------------------------------------------------------------------------------

Status ExactSum::ReadAs(ElementType type) {
  if (type.components() != type_.components())
    return Fail(Code::kInvalidArgument,
                fmt::format("a sum of {} read as {}", type_.Descr(), type.Descr()));
  type_ = type;
  return {};
}

Status ExactSum::Merge(const ExactSum& other) {
  UMBEL_ASSIGN(MergePlan plan, PlanMerge(other));
  FinishMerge(other, std::move(plan));
  return {};
}

Result<ExactSum::MergePlan> ExactSum::PlanMerge(const ExactSum& other) const {
  if (other.type_ != type_ || other.count_ != count_)
    return Fail(Code::kInvalidArgument,
                fmt::format("a sum of {} {} merged with one of {} {}", count_, type_.Descr(),
                            other.count_, other.type_.Descr()));
  MergePlan plan;
  uint64_t more = 0;
  for (size_t i = 0; i < block_count(); ++i) {
    const Block& ours = blocks_[i];
    const Block& theirs = other.blocks_[i];
    plan.windows_.push_back({ours.low, ours.size});
    if (theirs.size == 0) continue;
    UMBEL_ASSIGN(plan.windows_[i], WindowFor(ours, {64 * theirs.low, theirs.bound + 1}));
    more += LimbBytes(Capacity(ours, plan.windows_[i]) - ours.capacity, Lanes(i));
  }
  UMBEL_TRY(Charge(more));
  plan.memory_ = Reservation(budget_, more);
  return plan;
}

void ExactSum::FinishMerge(const ExactSum& other, MergePlan plan) {
  plan.memory_.Keep();
  for (size_t i = 0; i < block_count(); ++i) {
    const LimbView theirs = other.View(i);
    if (theirs.size == 0) continue;
    Block& block = blocks_[i];
    const Window window = plan.windows_[i];
    if (window != Window{block.low, block.size}) Move(i, window, Capacity(block, window));
    const LimbView ours = View(i);
    AddLimbs(theirs, ours);
    block.bound = static_cast<int16_t>(BoundOf(ours));
  }
}

}  // namespace umbel::aggregation
