// Large objects live in preallocated segment files, one set per run, unlinked with the run.
// Space is handed out by extents; a segment whose extents are all free is used again.
// Every method may be called from any thread; the files are only ever grown and overwritten.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "store/rows.h"

namespace umbel::store {

/// `size` bytes at `offset` of segment number `segment` (from 1) of a run.
struct Extent {
  RunId run_id;
  uint32_t segment = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

/// One open segment file, on loan for one extent. Keep it while reading: space that is freed, and a
/// run that is dropped, go only with the last holder.
class SegmentFile {
 public:
  virtual ~SegmentFile() = default;
  virtual int fd() const = 0;
};

class Segments {
 public:
  /// directory  "<state>/objects"; "" uses unlinked temporary files.
  /// known      extents that are in use, from Store::Load; segment files of other runs are removed.
  static Result<std::unique_ptr<Segments>> Open(const std::string& directory, bool sync,
                                                const std::vector<ObjectRow>& known,
                                                uint64_t segment_bytes = uint64_t{64} << 20);
  virtual ~Segments() = default;

  /// errors  kResourceExhausted: the disk is full (the message says how much was asked);
  ///         kNotFound: the run was dropped meanwhile.
  virtual Result<Extent> Allocate(RunId run_id, uint64_t size) = 0;
  /// Writes into the extent at `at` bytes from its start.
  /// errors  kOutOfRange: does not fit the extent; kNotFound: the run was dropped.
  virtual Status Write(const Extent& extent, uint64_t at, std::span<const char> bytes) = 0;
  /// With `sync`: fdatasync of the file (grouped: one call serves all that wait) and, once, of its
  /// folder. Without: nothing. A failure stays with the file, which then takes nothing new.
  virtual Status Sync(const Extent& extent) = 0;
  /// errors  kNotFound: no such segment; kDataLoss: the file is shorter than the extent.
  virtual Result<std::string> Read(const Extent& extent) = 0;
  virtual Result<std::shared_ptr<SegmentFile>> File(const Extent& extent) = 0;
  /// Gives the space back. Call after the row that named it is durably gone.
  virtual void Free(const Extent& extent) = 0;
  virtual void DropRun(RunId run_id) = 0;
  virtual uint64_t bytes_on_disk() const = 0;
};

}  // namespace umbel::store
