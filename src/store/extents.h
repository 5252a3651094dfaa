// Which bytes of one run's segments are taken. Pure bookkeeping without files or locks: belongs to
// whoever guards it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace umbel::store {

/// Space is taken behind the last live extent of a segment. What is freed before that waits until
/// all behind it is free too: the objects of a round come and go together, so that is soon, and a
/// segment that is empty starts again at 0, over pages that exist already.
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
  /// Space in a segment that has room: the last one used, else the tightest empty one, else the
  /// first with room behind its last extent. nullopt: a new segment is needed.
  std::optional<Place> Take(uint64_t size);
  /// Marks an extent that is known to be in use. False: it overlaps another.
  bool TakeAt(const Place& place, uint64_t size);
  /// False: no such extent is live.
  bool Free(const Place& place, uint64_t size);

 private:
  struct Segment {
    uint64_t capacity = 0;
    std::map<uint64_t, uint64_t> live;  // offset -> size

    uint64_t end() const;
    bool Fits(uint64_t size) const { return end() <= capacity && size <= capacity - end(); }
  };

  std::map<uint32_t, Segment> segments_;
  uint32_t current_ = 0;
};

}  // namespace umbel::store
