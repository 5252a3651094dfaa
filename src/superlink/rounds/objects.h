// The objects of one run as native rounds read them: small ones whole, chunks where they lie.
// Belongs to the thread of its session; the places it gives out may be read from any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/records.h"
#include "superlink/engine.h"

namespace umbel::superlink::rounds {

/// A chunk's bytes without its head: in a segment file that stays while this is held, or in memory.
struct ChunkPlace {
  ObjectId id;
  ExtentPtr extent;  // null: `inline_bytes`
  std::shared_ptr<store::SegmentFile> file;
  std::string inline_bytes;
  uint64_t head = 0;  // bytes of the extent before the chunk's own
  uint64_t size = 0;
};

/// Bytes of a chunk, from `offset` on. Any thread.
/// errors  kOutOfRange: beyond its end; kDataLoss: the file is shorter than its extent.
Status ReadPlace(const ChunkPlace& place, uint64_t offset, std::span<char> out);

/// The bytes of an array's NPY file, read from its chunks. A value; reading is safe from any
/// thread.
class ArrayFile {
 public:
  ArrayFile() = default;
  explicit ArrayFile(std::vector<std::shared_ptr<const ChunkPlace>> chunks);
  /// Bytes that are computed when they are read. `read` may be called from any thread, and only for
  /// what lies within `size`.
  using Reader = std::function<Status(uint64_t offset, std::span<char> out)>;
  ArrayFile(uint64_t size, Reader read) : begins_{size}, read_(std::move(read)) {}

  uint64_t size() const { return begins_.empty() ? 0 : begins_.back(); }
  const std::vector<std::shared_ptr<const ChunkPlace>>& chunks() const { return chunks_; }
  /// errors  kOutOfRange: beyond the end; kDataLoss: a file is shorter than its extent.
  Status Read(uint64_t offset, std::span<char> out) const;

 private:
  std::vector<std::shared_ptr<const ChunkPlace>> chunks_;
  std::vector<uint64_t> begins_;  // of each chunk, and the end
  Reader read_;                   // in place of chunks
};

/// Objects of a run that are complete. Held places stay readable when their messages are gone.
class RunObjects final : public flower::ObjectSource {
 public:
  RunObjects(Engine& engine, RunId run_id) : engine_(engine), run_id_(run_id) {}
  /// Only objects that a message's tree names: whoever sent it has sent all of them. What the run
  /// has from others, and the message merely mentions, is not found.
  ///
  /// tree  serialized ObjectTree; one that cannot be read names nothing.
  RunObjects(Engine& engine, RunId run_id, std::string_view tree);

  Result<std::string> Read(const ObjectId& id, uint64_t max) override;
  /// One piece a chunk: its offset is the chunk's number here times 2^32.
  Result<std::vector<flower::FileRange>> Chunk(const ObjectId& id) override;
  /// The array that ReadRecords found.
  ArrayFile File(const flower::ArrayRef& array) const;
  /// One chunk that is here. errors  kNotFound; as Chunk.
  Result<std::shared_ptr<const ChunkPlace>> Place(const ObjectId& id);

 private:
  struct Found {
    uint64_t size = 0;
    ExtentPtr extent;
    std::optional<std::string> made;  // an object of a reply made here
  };
  Result<Found> Find(const ObjectId& id);

  Engine& engine_;
  const RunId run_id_;
  std::optional<std::vector<ObjectId>> only_;  // sorted; nullopt: all of the run
  std::vector<std::shared_ptr<const ChunkPlace>> places_;
};

}  // namespace umbel::superlink::rounds
