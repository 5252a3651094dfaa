// Which bytes of one run's segments are taken. Pure bookkeeping without files or locks: belongs to
// whoever guards it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <tuple>

namespace umbel::store {

/// Space is taken from the tightest gap that fits. The objects of a round are of a few sizes, come
/// mixed and go one node's at a time: what one leaves, the next fills, over pages that exist
/// already.
class ExtentMap {
 public:
  struct Place {
    uint32_t segment = 0;
    uint64_t offset = 0;
  };

  /// Extents begin at multiples of this.
  static constexpr uint64_t kAlignment = 4096;
  /// The largest size that can be asked for: rounding it up cannot overflow.
  static constexpr uint64_t kSizeMax = uint64_t{1} << 48;

  void AddSegment(uint32_t segment, uint64_t capacity);
  /// No more space from this one; what is live in it stays.
  void RetireSegment(uint32_t segment);
  /// Space in a segment that has room. nullopt: a new segment is needed.
  /// cost  logarithmic in the gaps.
  std::optional<Place> Take(uint64_t size);
  /// Marks an extent that is known to be in use. False: it overlaps another.
  bool TakeAt(const Place& place, uint64_t size);
  /// False: no such extent is live.
  bool Free(const Place& place, uint64_t size);

 private:
  struct Segment {
    uint64_t capacity = 0;
    std::map<uint64_t, uint64_t> live;  // offset -> size
    std::map<uint64_t, uint64_t> gaps;  // offset -> size; never side by side
  };
  struct Gap {
    uint64_t size = 0;
    Place place;

    auto operator<=>(const Gap& other) const {
      return std::tie(size, place.segment, place.offset) <=>
             std::tie(other.size, other.place.segment, other.place.offset);
    }
    bool operator==(const Gap& other) const { return (*this <=> other) == 0; }
  };

  void AddGap(uint32_t segment, uint64_t offset, uint64_t size);
  void RemoveGap(uint32_t segment, std::map<uint64_t, uint64_t>::iterator gap);

  std::map<uint32_t, Segment> segments_;
  std::set<Gap> gaps_;  // of all segments, the tightest first
};

}  // namespace umbel::store
