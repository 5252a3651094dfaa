// Elements of any type as native floats or doubles, exactly, in aligned lanes. Pure functions;
// safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aggregation/dtype.h"

namespace umbel::aggregation {

/// How elements reach the kernels: as one plane of floats or doubles, or (64-bit integers) as two
/// planes of doubles, high and low halves, whose sum is the element.
struct Staging {
  bool doubles = false;
  size_t planes = 1;
};

Staging StagingOf(ElementType type);

/// Converts `count` components at `bytes` (any alignment) to lanes[lead, lead + count), and sets
/// the other of `size` lanes to zero.
///
/// lanes  `size` floats, or doubles where StagingOf says so.
/// plane  0, or 1 for the low half of 64-bit integers.
void Stage(ElementType type, bool swapped, const std::byte* bytes, size_t count, size_t plane,
           size_t lead, size_t size, void* lanes);

}  // namespace umbel::aggregation
