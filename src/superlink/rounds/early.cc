#include "superlink/rounds/early.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/parallel_for.h"
#include "superlink/rounds/reply.h"

namespace umbel::superlink::rounds {
namespace {

constexpr uint64_t kThreadsFrom = uint64_t{1} << 20;  // elements: below, threads cost more

/// The small objects of a reply; its chunks may be missing yet, and are only counted.
class Outline final : public flower::ObjectSource {
 public:
  explicit Outline(RunObjects& objects) : objects_(objects) {}

  Result<std::string> Read(const ObjectId& id, uint64_t max) override {
    return objects_.Read(id, max);
  }
  Result<std::vector<flower::FileRange>> Chunk(const ObjectId& id) override {
    chunks_.push_back(id);
    return std::vector<flower::FileRange>{{chunks_.size() - 1, 0}};
  }
  const ObjectId& chunk(const flower::FileRange& piece) const {
    return chunks_[static_cast<size_t>(piece.offset)];
  }

 private:
  RunObjects& objects_;
  std::vector<ObjectId> chunks_;
};

}  // namespace

struct EarlyFold::Reply {
  struct Array {
    std::vector<ObjectId> chunks;
    std::optional<tensor::NpyHead> npy;
    std::vector<std::optional<Piece>> folded;  // by chunk
    std::vector<bool> seen;
    size_t prefix = 0;  // chunks from the first on that are folded
  };
  ObjectId id;
  RunObjects objects;
  bool open = false;      // its outline is known
  bool given_up = false;  // folded when it is complete, if at all
  double weight = 0;
  std::vector<Array> arrays{};  // in the model's order
};

EarlyFold::EarlyFold(Engine& engine, RunId run_id, const Model& model, std::string weighted_by_key,
                     Aggregator& aggregator)
    : engine_(engine),
      run_id_(run_id),
      model_(model),
      weighted_by_key_(std::move(weighted_by_key)),
      aggregator_(aggregator) {}
EarlyFold::~EarlyFold() = default;

Status EarlyFold::Look(const std::vector<ObjectId>& open, const std::shared_ptr<Wakeable>& waker) {
  struct Arriving {
    ObjectId instruction;
    ObjectId id;
    std::shared_ptr<const MessageBytes> bytes;
  };
  std::vector<Arriving> arriving;
  engine_.Read([&](State& state, WallTime) {
    Run* run = state.FindRun(run_id_);
    if (!run) return;
    for (const ObjectId& id : open) {
      const auto asked = run->messages.find(id);
      if (asked == run->messages.end() || !asked->second.answer) continue;
      const auto reply = run->messages.find(*asked->second.answer);
      if (reply != run->messages.end() && !reply->second.complete)
        arriving.push_back({id, reply->first, reply->second.bytes});
    }
    run->object_waiters.Add(waker);
  });
  for (const auto& [instruction, id, bytes] : arriving) {
    const auto known = replies_.find(instruction);
    if (known != replies_.end() && known->second->id != id) UMBEL_TRY(Drop(instruction));
    auto& reply = replies_[instruction];
    if (!reply)
      reply =
          std::make_unique<Reply>(Reply{id, {engine_, run_id_, bytes->tree}, false, false, 0, {}});
    if (reply->given_up) continue;
    if (!reply->open) UMBEL_TRY(Open(*reply));
    if (reply->open && !reply->given_up) UMBEL_TRY(Gather(instruction, *reply));
  }
  return FoldWhatIsWorthIt(open.size());
}

Status EarlyFold::Open(Reply& reply) {
  Outline outline(reply.objects);
  const auto records = flower::ReadRecords(reply.id, outline);
  if (!records.ok()) {
    // Not there yet, or never right: the judge of the whole reply will say.
    reply.given_up = records.error().code != Code::kNotFound;
    return {};
  }
  const flower::ArrayRecord* arrays = nullptr;
  const flower::MetricRecord* metrics = nullptr;
  size_t count = 0;
  for (const auto& [name, record] : *records) {
    if (const auto* a = std::get_if<flower::ArrayRecord>(&record)) arrays = a, ++count;
    if (const auto* m = std::get_if<flower::MetricRecord>(&record)) metrics = m, ++count;
  }
  const auto weight = metrics != nullptr ? WeightOf(*metrics, weighted_by_key_) : std::nullopt;
  reply.given_up =
      count != 2 || arrays == nullptr || !weight || arrays->size() != model_.arrays.size();
  if (reply.given_up) return {};
  reply.weight = *weight;
  reply.arrays.resize(model_.arrays.size());
  for (size_t a = 0; a < model_.arrays.size(); ++a) {
    const auto found = std::find_if(arrays->begin(), arrays->end(), [&](const auto& entry) {
      return entry.first == model_.arrays[a].name;
    });
    reply.given_up |= found == arrays->end();
    if (reply.given_up) return {};
    Reply::Array& array = reply.arrays[a];
    for (const flower::FileRange& piece : found->second.pieces)
      array.chunks.push_back(outline.chunk(piece));
    array.folded.resize(array.chunks.size());
    array.seen.resize(array.chunks.size());
  }
  reply.open = true;
  return {};
}

Status EarlyFold::Gather(const ObjectId& instruction, Reply& reply) {
  std::vector<Place> here;
  engine_.Read([&](State& state, WallTime) {
    const Run* run = state.FindRun(run_id_);
    if (!run) return;
    for (size_t a = 0; a < reply.arrays.size(); ++a) {
      const Reply::Array& array = reply.arrays[a];
      for (size_t c = 0; c < array.chunks.size(); ++c) {
        if (array.seen[c]) continue;
        const auto slot = run->objects.find(array.chunks[c]);
        // Chunks come in order; the first one has the head.
        if (slot == run->objects.end() || !slot->second.available) break;
        here.emplace_back(a, c);
      }
    }
  });
  for (const auto& [a, c] : here) {
    auto place = reply.objects.Place(reply.arrays[a].chunks[c]);
    auto piece = place.ok() ? PieceOf(reply, a, c, *std::move(place)) : std::nullopt;
    if (!piece) {
      UMBEL_TRY(Retract(reply));
      reply.given_up = true;
      return {};
    }
    reply.arrays[a].seen[c] = true;
    if (piece->count > 0) waiting_[{a, c}].push_back({instruction, *std::move(piece), c});
  }
  return {};
}

/// nullopt: not what the judge would take, or not cut as Flower cuts.
std::optional<Piece> EarlyFold::PieceOf(Reply& reply, size_t a, size_t c,
                                        std::shared_ptr<const ChunkPlace> place) {
  Reply::Array& array = reply.arrays[a];
  const ModelArray& model = model_.arrays[a];
  if (c == 0) {
    std::string prefix(static_cast<size_t>(std::min<uint64_t>(place->size, 4096)), '\0');
    if (!ReadPlace(*place, 0, prefix).ok()) return std::nullopt;
    auto head = tensor::ParseNpyHead(prefix);
    if (!head.ok() || !head->has_value()) return std::nullopt;
    array.npy = **std::move(head);
  }
  const tensor::NpyHead& npy = *array.npy;
  if (npy.shape != model.npy.shape || npy.fortran_order || npy.dtype.size() < 2 ||
      (npy.dtype[1] == 'c') != (model.npy.dtype[1] == 'c'))
    return std::nullopt;
  const uint64_t file = npy.data_offset + npy.element_count * npy.item_size;
  const uint64_t begin = flower::kArrayChunkSize * c;
  const bool last = c + 1 == array.chunks.size();
  if (begin >= file ||
      (last ? begin + place->size != file : place->size != flower::kArrayChunkSize))
    return std::nullopt;
  const uint64_t data = c == 0 ? npy.data_offset : begin;
  if (data > begin + place->size || (data - npy.data_offset) % npy.item_size != 0 ||
      (begin + place->size - data) % npy.item_size != 0)
    return std::nullopt;
  Piece piece;
  piece.array = a;
  piece.dtype = npy.dtype;
  piece.first = (data - npy.data_offset) / npy.item_size;
  piece.count = (begin + place->size - data) / npy.item_size;
  piece.offset = data - begin;
  piece.place = std::move(place);
  piece.weight = reply.weight;
  return piece;
}

Status EarlyFold::FoldWhatIsWorthIt(size_t open) {
  std::vector<std::vector<Waiting>> groups;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    // Those that have not sent this place yet may still come; when all have, nobody is waited for.
    if (at->second.size() < kFoldTogether && at->second.size() + folded_[at->first] < open) {
      ++at;
      continue;
    }
    // One dtype at a time; there is hardly ever a second.
    std::vector<Waiting>& group = at->second;
    while (!group.empty()) {
      const auto other = std::stable_partition(group.begin(), group.end(), [&](const Waiting& one) {
        return one.piece.dtype == group[0].piece.dtype && one.piece.first == group[0].piece.first &&
               one.piece.count == group[0].piece.count;
      });
      groups.emplace_back(std::make_move_iterator(group.begin()), std::make_move_iterator(other));
      group.erase(group.begin(), other);
    }
    at = waiting_.erase(at);
  }
  return Fold(groups);
}

/// Different places side by side, where more than one is waiting.
Status EarlyFold::Fold(std::vector<std::vector<Waiting>>& groups) {
  std::vector<Status> folded(groups.size());
  uint64_t elements = 0;
  for (const auto& group : groups) elements += group.size() * group[0].piece.count;
  const size_t threads = elements < kThreadsFrom ? 1 : HardwareThreads();
  UMBEL_TRY(ParallelFor(groups.size(), threads, [&](size_t g) -> Status {
    std::vector<Piece> pieces;
    for (const Waiting& one : groups[g]) pieces.push_back(one.piece);
    folded[g] = aggregator_.AddPieces(pieces);
    return {};
  }));
  for (size_t g = 0; g < groups.size(); ++g) UMBEL_TRY(Note(groups[g], folded[g]));
  return {};
}

/// What became of a group.
Status EarlyFold::Note(std::vector<Waiting>& group, const Status& folded) {
  if (!folded.ok() && folded.error().code == Code::kUnavailable) return folded;
  for (Waiting& one : group) {
    Reply& reply = *replies_.at(one.instruction);
    if (folded.ok() && !reply.given_up) {
      ++folded_[{one.piece.array, one.chunk}];
      reply.arrays[one.piece.array].folded[one.chunk] = std::move(one.piece);
    } else if (folded.ok()) {
      UMBEL_TRY(aggregator_.RemovePieces({&one.piece, 1}));
    } else {
      // One of them is at fault, or they are too much: each is judged by itself when it is whole.
      reply.given_up = true;
      UMBEL_TRY(Retract(reply));
    }
  }
  return {};
}

Status EarlyFold::Retract(Reply& reply) {
  for (Reply::Array& array : reply.arrays) {
    array.prefix = 0;
    for (size_t c = 0; c < array.folded.size(); ++c) {
      if (!array.folded[c]) continue;
      --folded_[{array.folded[c]->array, c}];
      UMBEL_TRY(aggregator_.RemovePieces({&*array.folded[c], 1}));
      array.folded[c].reset();
    }
  }
  return {};
}

Result<std::vector<std::vector<ElementRange>>> EarlyFold::Take(const ObjectId& instruction,
                                                               const ObjectId& reply) {
  std::vector<std::vector<ElementRange>> folded;
  const auto found = replies_.find(instruction);
  if (found == replies_.end()) return folded;
  if (found->second->id != reply) {
    UMBEL_TRY(Drop(instruction));
    return folded;
  }
  for (const Reply::Array& array : found->second->arrays) {
    auto& ranges = folded.emplace_back();
    for (const auto& piece : array.folded)
      if (piece) ranges.push_back({piece->first, piece->count});
  }
  for (auto& [place, group] : waiting_)
    std::erase_if(group, [&](const Waiting& one) { return one.instruction == instruction; });
  // What it has folded is not waited for by others: `open` counts it no more either.
  for (const Reply::Array& array : found->second->arrays)
    for (size_t c = 0; c < array.folded.size(); ++c)
      if (array.folded[c]) --folded_[{array.folded[c]->array, c}];
  replies_.erase(found);
  return folded;
}

Status EarlyFold::Drop(const ObjectId& instruction) {
  const auto found = replies_.find(instruction);
  if (found == replies_.end()) return {};
  for (auto& [place, group] : waiting_)
    std::erase_if(group, [&](const Waiting& one) { return one.instruction == instruction; });
  UMBEL_TRY(Retract(*found->second));
  replies_.erase(found);
  return {};
}

std::optional<EarlyFold::Outlook> EarlyFold::Foresee(const std::vector<ObjectId>& open) {
  Outlook outlook;
  for (const ModelArray& array : model_.arrays) outlook.ready.push_back(array.npy.element_count);
  for (const ObjectId& instruction : open) {
    const auto found = replies_.find(instruction);
    if (found == replies_.end() || !found->second->open || found->second->given_up)
      return std::nullopt;
    Reply& reply = *found->second;
    outlook.weights.push_back(reply.weight);
    for (size_t a = 0; a < reply.arrays.size(); ++a) {
      Reply::Array& array = reply.arrays[a];
      while (array.prefix < array.folded.size() && array.folded[array.prefix]) ++array.prefix;
      const auto* last = array.prefix > 0 ? &*array.folded[array.prefix - 1] : nullptr;
      outlook.ready[a] = std::min(outlook.ready[a], last ? last->first + last->count : 0);
    }
  }
  return outlook;
}

Status EarlyFold::DropAll() {
  waiting_.clear();
  for (auto& [instruction, reply] : replies_) {
    UMBEL_TRY(Retract(*reply));
    reply->given_up = true;
  }
  return {};
}

}  // namespace umbel::superlink::rounds
