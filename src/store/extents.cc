#include "store/extents.h"

#include <algorithm>
#include <iterator>

namespace umbel::store {

uint64_t ExtentMap::Segment::end() const {
  if (live.empty()) return 0;
  const auto& [offset, size] = *live.rbegin();
  // An extent of no bytes takes a place too, so that every offset names one extent.
  return (offset + std::max<uint64_t>(size, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

void ExtentMap::AddSegment(uint32_t segment, uint64_t capacity) {
  segments_[segment].capacity = capacity;
}

void ExtentMap::RetireSegment(uint32_t segment) {
  if (const auto found = segments_.find(segment); found != segments_.end())
    found->second.capacity = 0;
}

std::optional<ExtentMap::Place> ExtentMap::Take(uint64_t size) {
  const uint64_t wanted = std::max<uint64_t>(size, 1);
  auto chosen = segments_.find(current_);
  if (chosen == segments_.end() || !chosen->second.Fits(wanted)) {
    chosen = segments_.end();
    auto with_room = segments_.end();
    for (auto it = segments_.begin(); it != segments_.end(); ++it) {
      if (!it->second.Fits(wanted)) continue;
      if (!it->second.live.empty()) {
        if (with_room == segments_.end()) with_room = it;
      } else if (chosen == segments_.end() || it->second.capacity < chosen->second.capacity) {
        chosen = it;
      }
    }
    if (chosen == segments_.end()) chosen = with_room;
    if (chosen == segments_.end()) return std::nullopt;
    current_ = chosen->first;
  }
  const Place place{chosen->first, chosen->second.end()};
  chosen->second.live.emplace(place.offset, size);
  return place;
}

bool ExtentMap::TakeAt(const Place& place, uint64_t size) {
  Segment& segment = segments_[place.segment];
  const auto next = segment.live.lower_bound(place.offset);
  if (next != segment.live.end() && next->first < place.offset + std::max<uint64_t>(size, 1))
    return false;
  if (next != segment.live.begin()) {
    const auto& [offset, before] = *std::prev(next);
    if (offset + before > place.offset) return false;
  }
  segment.live.emplace(place.offset, size);
  return true;
}

bool ExtentMap::Free(const Place& place, uint64_t size) {
  const auto segment = segments_.find(place.segment);
  if (segment == segments_.end()) return false;
  const auto extent = segment->second.live.find(place.offset);
  if (extent == segment->second.live.end() || extent->second != size) return false;
  segment->second.live.erase(extent);
  return true;
}

}  // namespace umbel::store
