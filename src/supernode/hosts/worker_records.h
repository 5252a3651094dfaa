// Records out of the values of one frame. Belongs to one thread.
#pragma once

#include <string>

#include "supernode/hosts/worker_value.h"

namespace umbel::supernode {

/// The frame's arrays share one file: their pieces together are no longer than it, since whoever
/// hashes them would otherwise read the same bytes without end.
class RecordsReader {
 public:
  explicit RecordsReader(uint64_t file_end) : end_(file_end), left_(file_end) {}

  /// where  what the records are, for errors.
  /// errors  kInvalidArgument.
  Result<flower::RecordDict> Read(Value value, const std::string& where);

 private:
  Result<flower::Record> ReadRecord(Value::List& row, const std::string& where);
  Result<flower::ArrayRecord> ReadArrays(Value items, const std::string& where);
  Result<flower::ArrayRef> ReadArray(Value::List& row, const std::string& where);
  Result<flower::FileRange> ReadPiece(const Value& value, const std::string& where);

  uint64_t end_;
  uint64_t left_;
};

}  // namespace umbel::supernode
