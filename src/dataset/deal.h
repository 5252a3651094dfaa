// Who gets which rows: files of a node dealt out among the learners of a project. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace umbel::dataset {

struct DealtFile {
  std::string name;
  uint64_t rows = 0;

  bool operator==(const DealtFile&) const = default;
};

/// Rows first, first + step, first + 2 * step, … of a file.
struct Piece {
  std::string name;
  uint64_t first = 0;
  uint64_t step = 1;
  uint64_t rows = 0;  // how many these are; at least one

  bool operator==(const Piece&) const = default;
};

using Share = std::vector<Piece>;  // by name

/// One share for each learner: disjoint, together every row, none empty, the same for the same
/// files in any order. When there are at least as many files with rows as learners, whole files are
/// dealt, the largest first to whom has fewest rows. Else all rows, in the order of file names, are
/// dealt out like cards, so that a file that is sorted by label gives everybody of each label.
///
/// errors  kFailedPrecondition: fewer rows than learners.
Result<std::vector<Share>> Deal(std::vector<DealtFile> files, size_t learners);

}  // namespace umbel::dataset
