#include "aggregation/fold_group.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "aggregation/fold_cpu.h"

namespace umbel::aggregation {
namespace {

using Wide = unsigned __int128;

/// What sets floats and doubles apart here.
struct LaneFormat {
  int fraction;  // bits
  int bias;
  uint64_t infinity;
  int band;  // exponents that fit on one grid
};
constexpr LaneFormat kF4{23, 127, 0x7f800000, 28};
constexpr LaneFormat kF8{52, 1023, 0x7ff0000000000000, 25};
constexpr int kHighFraction = 25;  // of a double's high part
// Where a block's doubles are spread over more bands they are deposited one by one.
constexpr int kBandsMax = 10;
constexpr Part kFloatParts[] = {Part::kWhole};
constexpr Part kDoubleParts[] = {Part::kHigh, Part::kLow};

constexpr size_t kLine = 64;  // bytes that a prefetch brings

/// Asks for the bytes of an update that the next block will want. Many updates are read in turn, a
/// piece of each, and hardware that looks ahead does not see that many.
void Prefetch(std::span<const std::byte> bytes, size_t from, size_t size) {
  const size_t end = std::min(bytes.size(), from + size);
  for (size_t at = from; at < end; at += kLine) __builtin_prefetch(bytes.data() + at);
}

int FloorDiv64(int a) { return a >> 6; }

int ExponentOf(uint64_t bits, const LaneFormat& format) {
  return std::max(static_cast<int>(bits >> format.fraction), 1) - format.bias;
}

uint64_t BitsOfExponent(int exponent) { return static_cast<uint64_t>(exponent + 1023) << 52; }

Digits DigitsOf(int band_min, int band, bool lowest, bool banded) {
  Digits digits{};
  digits.banded = banded;
  digits.from = lowest ? 0 : BitsOfExponent(band_min);
  digits.width = BitsOfExponent(band_min + band) - digits.from;
  return digits;
}

void SetScale(Digits& digits, int exponent, bool split) {
  const int first = split ? -exponent / 2 : -exponent;
  digits.scale1 = std::ldexp(1.0, first);
  digits.scale2 = std::ldexp(1.0, -exponent - first);
}

}  // namespace

int BoundOf(const LimbView& view) {
  uint64_t top = 0;
  const uint64_t* const limbs = view.limbs + (view.size - 1) * view.lanes;
  for (size_t i = 0; i < view.lanes; ++i) top |= limbs[i] ^ (0 - (limbs[i] >> 63));
  return 64 * (view.low + static_cast<int>(view.size) - 1) + static_cast<int>(std::bit_width(top));
}

GroupFolder::GroupFolder(const Kernels& kernels, ElementType type, const WeightPlan& plan,
                         std::span<const Update> updates)
    : kernels_(kernels),
      type_(type),
      staging_(StagingOf(type)),
      plan_(plan),
      updates_(updates),
      planes_(staging_.planes),
      low_(new uint64_t[kBlock]),
      high_(new uint64_t[kBlock]) {
  for (Plane& plane : planes_) plane.x.resize(updates.size());
}

Status GroupFolder::Load(size_t from, size_t count, size_t lead, size_t lanes) {
  const LaneFormat& format = staging_.doubles ? kF8 : kF4;
  const size_t width = type_.component_size();
  const bool floats = type_.kind == Kind::kFloat || type_.kind == Kind::kComplex;
  const bool whole = lead == 0 && count == lanes && floats && width == lane_size();
  lanes_ = lanes;
  for (size_t p = 0; p < planes_.size(); ++p) {
    Plane& plane = planes_[p];
    plane.extent = {0, UINT64_MAX};
    for (size_t i = 0; i < updates_.size(); ++i) {
      const std::byte* const bytes = updates_[i].bytes.data() + from * width;
      Prefetch(updates_[i].bytes, (from + kBlock) * width, kBlock * width);
      if (whole && !updates_[i].swapped) {
        plane.x[i] = bytes;
      } else {
        if (staged_.empty()) staged_.resize(planes_.size() * updates_.size() * kBlock);
        double* const lane = staged_.data() + (p * updates_.size() + i) * kBlock;
        Stage(type_, updates_[i].swapped, bytes, count, p, lead, lanes, lane);
        plane.x[i] = lane;
      }
      const Extent extent = staging_.doubles ? kernels_.extent_f8(plane.x[i], lanes)
                                             : kernels_.extent_f4(plane.x[i], lanes);
      if (extent.max >= format.infinity)
        return Fail(Code::kDataLoss,
                    fmt::format("update {}: NaN or infinity among its numbers", i));
      plane.extent.max = std::max(plane.extent.max, extent.max);
      plane.extent.min_less_one = std::min(plane.extent.min_less_one, extent.min_less_one);
    }
    if (IsZero(plane)) continue;
    plane.exponent_min = ExponentOf(plane.extent.min_less_one + 1, format);
    plane.exponent_max = ExponentOf(plane.extent.max, format);
  }
  return {};
}

std::optional<Need> GroupFolder::need() const {
  std::optional<Need> need;
  for (const Plane& plane : planes_) {
    if (IsZero(plane)) continue;
    const int fraction = staging_.doubles ? kF8.fraction : kF4.fraction;
    const Need one{plane.exponent_min - fraction + plan_.low_exponent,
                   plane.exponent_max + 1 + plan_.sum_exponent};
    need = need ? Need{std::min(need->low, one.low), std::max(need->top, one.top) + 1} : one;
  }
  return need;
}

int GroupFolder::Deposit(const LimbView& view, bool negate) {
  UMBEL_CHECK(view.lanes == lanes_ && need().has_value() && FloorDiv64(need()->low) >= view.low);
  uint64_t top = 0;
  bool known = false;
  for (const Plane& plane : planes_) {
    if (IsZero(plane)) continue;
    const int range = plane.exponent_max - plane.exponent_min;
    known = !staging_.doubles || range / kF8.band < kBandsMax;
    if (known)
      top = DepositBands(plane, view, negate);
    else
      DepositOneByOne(plane, view, negate);
  }
  if (!known) return BoundOf(view);
  return 64 * (view.low + static_cast<int>(view.size) - 1) + static_cast<int>(std::bit_width(top));
}

uint64_t GroupFolder::DepositBands(const Plane& plane, const LimbView& view, bool negate) {
  const LaneFormat& format = staging_.doubles ? kF8 : kF4;
  const bool banded = plane.exponent_max - plane.exponent_min >= format.band;
  uint64_t top = 0;
  for (const WeightPass& pass : plan_.passes) {
    items_.clear();
    for (const WeightPass::Piece& piece : pass.pieces)
      items_.push_back({plane.x[piece.update], piece.weight});
    const Wide bias = kernels_.bias * pass.sum;
    const auto add = [&](int exponent) {
      const int place = exponent + pass.exponent;
      const int limb = FloorDiv64(place);
      top = kernels_.add(view.limbs, view.size, view.lanes, static_cast<size_t>(limb - view.low),
                         place - 64 * limb, negate, low_.get(), high_.get(),
                         static_cast<uint64_t>(bias), static_cast<uint64_t>(bias >> 64));
    };
    for (int e = plane.exponent_min; e <= plane.exponent_max; e += format.band) {
      Digits digits = DigitsOf(e, format.band, e == plane.exponent_min, banded);
      const auto parts = staging_.doubles ? std::span<const Part>(kDoubleParts)
                                          : std::span<const Part>(kFloatParts);
      for (const Part part : parts) {
        const int grid = e - (part == Part::kHigh ? kHighFraction : format.fraction);
        SetScale(digits, grid, staging_.doubles);
        if (part == Part::kWhole)
          kernels_.accumulate_f4(items_.data(), items_.size(), view.lanes, digits, low_.get(),
                                 high_.get());
        else
          kernels_.accumulate_f8(items_.data(), items_.size(), view.lanes, digits, part, low_.get(),
                                 high_.get());
        add(grid);
      }
    }
  }
  return top;
}

void GroupFolder::DepositOneByOne(const Plane& plane, const LimbView& view, bool negate) const {
  for (size_t i = 0; i < updates_.size(); ++i) {
    const SplitWeight& weight = plan_.weights[i];
    for (size_t lane = 0; lane < view.lanes; ++lane) {
      double x;
      std::memcpy(&x, static_cast<const char*>(plane.x[i]) + lane * sizeof x, sizeof x);
      if (x == 0) continue;
      const SplitWeight split = SplitOf(std::abs(x));
      const bool minus = std::signbit(x) != negate;
      const int place = split.exponent + weight.exponent;
      const int limb = FloorDiv64(place);
      const int shift = place - 64 * limb;
      const Wide product = static_cast<Wide>(split.mantissa) * weight.mantissa;
      const Wide shifted = product << shift;
      const uint64_t words[3] = {
          static_cast<uint64_t>(shifted), static_cast<uint64_t>(shifted >> 64),
          shift == 0 ? 0 : static_cast<uint64_t>(product >> 64) >> (64 - shift)};
      uint64_t carry = 0;
      const auto first = static_cast<size_t>(limb - view.low);
      for (size_t k = first; k < view.size && (k < first + 3 || carry != 0); ++k) {
        uint64_t& at = view.limbs[k * view.lanes + lane];
        const Wide word = k < first + 3 ? words[k - first] : 0;
        const Wide sum = minus ? static_cast<Wide>(at) - word - carry : word + carry + at;
        at = static_cast<uint64_t>(sum);
        carry = (sum >> 64) != 0 ? 1 : 0;
      }
    }
  }
}

Result<std::vector<size_t>> NonFinite(ElementType type, std::span<const Update> updates) {
  const Kernels* const kernels = &DefaultKernels();
  std::vector<size_t> found;
  for (size_t i = 0; i < updates.size(); ++i) {
    const size_t size = updates[i].bytes.size();
    if (size % type.item_size != 0)
      return Fail(Code::kInvalidArgument,
                  fmt::format("update {}: {} bytes are no whole number of elements of {}", i, size,
                              type.item_size));
    const double weight = 1;
    UMBEL_ASSIGN(const WeightPlan plan, MakeWeightPlan({&weight, 1}, kernels->weight_bits));
    GroupFolder folder(*kernels, type, plan, updates.subspan(i, 1));
    const size_t count = size / type.component_size();
    for (size_t at = 0; at < count; at += kBlock) {
      const size_t some = std::min(kBlock, count - at);
      if (folder.Load(at, some, 0, (some + kLaneStep - 1) / kLaneStep * kLaneStep).has_value())
        continue;
      found.push_back(i);
      break;
    }
  }
  return found;
}

}  // namespace umbel::aggregation
