#include "superlink/rounds/objects.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tensor/tree.h"

namespace umbel::superlink::rounds {
namespace {

constexpr int kNumberShift = 32;  // a chunk is smaller than 2^32 bytes

Status ReadAt(int fd, uint64_t offset, std::span<char> out) {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Fail(Code::kUnavailable, fmt::format("reading a segment file: {}", strerror(errno)));
    if (got == 0) return Fail(Code::kDataLoss, "a segment file is shorter than an object in it");
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace

Status ReadPlace(const ChunkPlace& place, uint64_t offset, std::span<char> out) {
  if (offset > place.size || out.size() > place.size - offset)
    return Fail(Code::kOutOfRange, fmt::format("bytes {} to {} of a chunk of {}", offset,
                                               offset + out.size(), place.size));
  if (place.extent)
    return ReadAt(place.file->fd(), place.extent->offset + place.head + offset, out);
  std::memcpy(out.data(), place.inline_bytes.data() + place.head + offset, out.size());
  return {};
}

ArrayFile::ArrayFile(std::vector<std::shared_ptr<const ChunkPlace>> chunks)
    : chunks_(std::move(chunks)) {
  begins_.reserve(chunks_.size() + 1);
  uint64_t at = 0;
  for (const auto& chunk : chunks_) {
    begins_.push_back(at);
    at += chunk->size;
  }
  begins_.push_back(at);
}

Status ArrayFile::Read(uint64_t offset, std::span<char> out) const {
  if (offset > size() || out.size() > size() - offset)
    return Fail(Code::kOutOfRange, fmt::format("bytes {} to {} of an array of {}", offset,
                                               offset + out.size(), size()));
  if (read_) return read_(offset, out);
  size_t i = static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), offset) -
                                 begins_.begin()) -
             1;
  while (!out.empty()) {
    const ChunkPlace& chunk = *chunks_[i];
    const uint64_t within = offset - begins_[i];
    const size_t take = static_cast<size_t>(std::min<uint64_t>(chunk.size - within, out.size()));
    UMBEL_TRY(ReadPlace(chunk, within, out.first(take)));
    out = out.subspan(take);
    offset += take;
    ++i;
  }
  return {};
}

RunObjects::RunObjects(Engine& engine, RunId run_id, std::string_view tree)
    : engine_(engine), run_id_(run_id), only_(std::in_place) {
  if (auto ids = tensor::ParseTree(tree); ids.ok()) *only_ = std::move(ids->ids);
  std::sort(only_->begin(), only_->end());
}

Result<RunObjects::Found> RunObjects::Find(const ObjectId& id) {
  if (only_ && !std::binary_search(only_->begin(), only_->end(), id))
    return Fail(Code::kNotFound, fmt::format("object {} is not in the message's tree", id.Hex()));
  auto found = engine_.Read([&](State& state, WallTime) -> std::optional<Found> {
    Run* run = state.FindRun(run_id_);
    if (!run) return std::nullopt;
    const auto slot = run->objects.find(id);
    if (slot == run->objects.end() || !slot->second.available) return std::nullopt;
    Found out{slot->second.size, slot->second.extent, std::nullopt};
    if (const auto made = run->made_objects.find(id); made != run->made_objects.end())
      out.made = made->second;
    return out;
  });
  if (!found)
    return Fail(Code::kNotFound, fmt::format("run {} has no object {}", run_id_, id.Hex()));
  return *std::move(found);
}

Result<std::string> RunObjects::Read(const ObjectId& id, uint64_t max) {
  UMBEL_ASSIGN(Found found, Find(id));
  if (found.size > max)
    return Fail(Code::kResourceExhausted,
                fmt::format("object {} has {} bytes, more than {}", id.Hex(), found.size, max));
  if (found.made) return *std::move(found.made);
  if (found.extent) return engine_.segments().Read(*found.extent);
  return engine_.store().ReadInline(run_id_, id);
}

Result<std::vector<flower::FileRange>> RunObjects::Chunk(const ObjectId& id) {
  UMBEL_ASSIGN(auto place, Place(id));
  const flower::FileRange piece{uint64_t{places_.size()} << kNumberShift, place->size};
  places_.push_back(std::move(place));
  return std::vector<flower::FileRange>{piece};
}

Result<std::shared_ptr<const ChunkPlace>> RunObjects::Place(const ObjectId& id) {
  UMBEL_ASSIGN(Found found, Find(id));
  auto place = std::make_shared<ChunkPlace>();
  place->id = id;
  std::string prefix;
  if (found.extent) {
    UMBEL_ASSIGN(place->file, engine_.segments().File(*found.extent));
    prefix.resize(static_cast<size_t>(std::min(flower::kChunkHeadMax, found.size)));
    UMBEL_TRY(ReadAt(place->file->fd(), found.extent->offset, prefix));
    place->extent = std::move(found.extent);
  } else if (found.made) {
    place->inline_bytes = *std::move(found.made);
    prefix = place->inline_bytes.substr(0, flower::kChunkHeadMax);
  } else {
    UMBEL_ASSIGN(place->inline_bytes, engine_.store().ReadInline(run_id_, id));
    prefix = place->inline_bytes.substr(0, flower::kChunkHeadMax);
  }
  UMBEL_ASSIGN(place->head, flower::ChunkHeadSize(id, prefix, found.size));
  place->size = found.size - place->head;
  return std::shared_ptr<const ChunkPlace>(std::move(place));
}

ArrayFile RunObjects::File(const flower::ArrayRef& array) const {
  std::vector<std::shared_ptr<const ChunkPlace>> chunks;
  chunks.reserve(array.pieces.size());
  for (const flower::FileRange& piece : array.pieces)
    chunks.push_back(places_[static_cast<size_t>(piece.offset >> kNumberShift)]);
  return ArrayFile(std::move(chunks));
}

}  // namespace umbel::superlink::rounds
