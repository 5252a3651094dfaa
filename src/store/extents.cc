#include "store/extents.h"

#include <algorithm>
#include <iterator>

namespace umbel::store {

namespace {

/// What an extent takes. One of no bytes takes a place too, so that every offset names one extent.
uint64_t Taken(uint64_t size) {
  return (std::max<uint64_t>(size, 1) + ExtentMap::kAlignment - 1) / ExtentMap::kAlignment *
         ExtentMap::kAlignment;
}

}  // namespace

void ExtentMap::AddGap(uint32_t segment, uint64_t offset, uint64_t size) {
  if (size == 0) return;
  segments_[segment].gaps.emplace(offset, size);
  gaps_.insert({size, {segment, offset}});
}

void ExtentMap::RemoveGap(uint32_t segment, std::map<uint64_t, uint64_t>::iterator gap) {
  gaps_.erase({gap->second, {segment, gap->first}});
  segments_[segment].gaps.erase(gap);
}

void ExtentMap::AddSegment(uint32_t segment, uint64_t capacity) {
  Segment& added = segments_[segment];
  added.capacity = capacity;
  uint64_t at = 0;
  for (const auto& [offset, size] : added.live) {
    if (offset > at) AddGap(segment, at, std::min(offset, capacity) - at);
    at = offset + Taken(size);
    if (at >= capacity) return;
  }
  AddGap(segment, at, capacity - at);
}

void ExtentMap::RetireSegment(uint32_t segment) {
  const auto found = segments_.find(segment);
  if (found == segments_.end()) return;
  found->second.capacity = 0;
  while (!found->second.gaps.empty()) RemoveGap(segment, found->second.gaps.begin());
}

std::optional<ExtentMap::Place> ExtentMap::Take(uint64_t size) {
  // The last gap of a segment need not be a whole number of pages.
  const auto found = gaps_.lower_bound({std::max<uint64_t>(size, 1), {}});
  if (found == gaps_.end()) return std::nullopt;
  const Gap gap = *found;
  Segment& segment = segments_.at(gap.place.segment);
  RemoveGap(gap.place.segment, segment.gaps.find(gap.place.offset));
  const uint64_t taken = std::min(Taken(size), gap.size);
  AddGap(gap.place.segment, gap.place.offset + taken, gap.size - taken);
  segment.live.emplace(gap.place.offset, size);
  return gap.place;
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
  uint64_t begin = place.offset;
  uint64_t end = std::min(begin + Taken(size), segment->second.capacity);
  if (begin >= end) return true;  // a retired segment
  auto& gaps = segment->second.gaps;
  if (const auto next = gaps.find(end); next != gaps.end()) {
    end += next->second;
    RemoveGap(place.segment, next);
  }
  if (const auto next = gaps.lower_bound(begin); next != gaps.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      begin = before->first;
      RemoveGap(place.segment, before);
    }
  }
  AddGap(place.segment, begin, end - begin);
  return true;
}

}  // namespace umbel::store
