// One file that is being put: written beside the shelf, moved onto it when it is whole and on the
// disk. Belongs to one thread.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <memory>
#include <string>

#include "base/result.h"

namespace parquet::arrow {
class FileWriter;
}

namespace umbel::dataserver {

class Shelf;
class ChargedFile;

class Incoming {
 public:
  /// Removes what was not published.
  ~Incoming();
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  /// The batch is checked to its last offset: it is a peer's.
  /// errors  kInvalidArgument: it is not valid; kResourceExhausted: a quota, or the disk is full.
  Status Write(const arrow::RecordBatch& batch);
  /// When it returns the file is on the disk.
  Status Finish();
  /// After Finish(): from now on the shelf has it.
  Status Publish();

  uint64_t rows() const { return rows_; }
  uint64_t bytes() const;

 private:
  friend class Shelf;

  Incoming(Shelf& shelf, std::string name, std::string path);
  Status Open(const std::shared_ptr<arrow::Schema>& schema);
  /// What a call of the writer came to; the file's own error says it best.
  Status Said(Status written) const;

  Shelf& shelf_;
  const std::string name_;
  const std::string path_;
  std::shared_ptr<ChargedFile> file_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
  uint64_t rows_ = 0;
  int64_t group_bytes_ = 0;  // in memory, for the row group that is being written
};

}  // namespace umbel::dataserver
