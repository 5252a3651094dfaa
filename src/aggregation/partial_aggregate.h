// What flows up a hierarchy of aggregators: the sums of some updates, not yet divided. Leaf and
// root merge the same type, so hierarchical equals flat to the bit. Threads: as ExactSum.
#pragma once

#include <cstdint>
#include <vector>

#include "aggregation/exact_sum.h"
#include "aggregation/partial_words.h"
#include "aggregation/weight_total.h"
#include "base/result.h"

namespace umbel::aggregation {

struct PartialAggregate {
  std::vector<ExactSum> sums;  // of each array, in the model's order
  WeightTotal weight_total;
  uint64_t update_count = 0;

  struct ReadOptions {
    ExactSum::Options sums;  // a budget is wise where the bytes are a stranger's
    uint64_t arrays_max = 100'000;
    uint64_t elements_max = uint64_t{1} << 40;  // of an array
  };

  /// errors  kInvalidArgument: other arrays; kResourceExhausted, kOutOfRange: as of the sums and of
  ///         weights. The aggregate is as it was then.
  Status Merge(const PartialAggregate& other);

  /// Writes a checkpoint in pieces. The same updates give the same bytes: about the memory of the
  /// sums, without what they do not need. Errors are the writer's.
  Status Serialize(const ByteWriter& writer) const;

  /// Reads a checkpoint from its first byte to its last, and no further.
  ///
  /// errors  kDataLoss: anything Serialize does not write, whose checksum included; kUnimplemented:
  ///         another version; kResourceExhausted: the limits or the budget; and the reader's.
  static Result<PartialAggregate> Parse(const ByteReader& reader, const ReadOptions& options);
};

}  // namespace umbel::aggregation
