// What the server reads of a Parquet file: its footer, and some or all of its rows as a stream.
// Files may be damaged or hostile: everything wrong with one is an error that names it. Functions;
// any thread.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "dataset/deal.h"

namespace umbel::dataserver {

struct Summary {
  uint64_t bytes = 0;  // of the file
  uint64_t rows = 0;
  std::shared_ptr<arrow::Schema> schema;
};

/// Reads the footer only.
/// errors  kDataLoss: not a Parquet file, or a damaged one; kNotFound.
Result<Summary> Inspect(const std::string& path);

/// The rows of a piece, in batches of about a megabyte: memory does not grow with the file.
/// path   of the file, which `piece.name` is the name of.
/// errors kDataLoss, also while reading.
Result<std::shared_ptr<arrow::RecordBatchReader>> OpenRows(const std::string& path,
                                                           const dataset::Piece& piece);

}  // namespace umbel::dataserver
