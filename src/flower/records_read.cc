// From objects to records.
#include <algorithm>
#include <unordered_map>

#include "flower/record_bytes.h"
#include "flower/record_json.h"
#include "flower/records.h"
#include "tensor/object.h"

namespace umbel::flower {
namespace {

using tensor::ObjectHead;
using tensor::ObjectType;

// A chunk has no children: "ArrayChunk", two spaces, 19 digits, NUL.
constexpr uint64_t kChunkHeadMax = 32;

tl::unexpected<Error> At(const ObjectId& id, Error error) {
  error.message = fmt::format("object {}: {}", id.Hex(), error.message);
  return Fail(std::move(error));
}

tl::unexpected<Error> Bad(const ObjectId& id, std::string_view rule) {
  return Fail(Code::kInvalidArgument, fmt::format("object {}: {}", id.Hex(), rule));
}

class Reader {
 public:
  explicit Reader(Spool& spool) : spool_(spool) {}

  Result<RecordDict> ReadContent(const ObjectId& message) {
    UMBEL_ASSIGN(const Object object, Load(message));
    UMBEL_TRY(CheckType(message, object.head, ObjectType::kMessage));
    if (object.head.children.size() != 1)
      return Bad(message,
                 fmt::format("is a message of {} contents, not 1", object.head.children.size()));
    return ReadDict(object.head.children[0]);
  }

 private:
  struct Object {
    ObjectHead head;
    std::string whole;

    std::string_view body() const { return std::string_view(whole).substr(head.head_size); }
  };

  Result<Object> Load(const ObjectId& id) {
    Object object;
    UMBEL_ASSIGN(object.whole, spool_.Read(id, budget_.left()));
    UMBEL_TRY(budget_.Take(object.whole.size()));
    auto head = tensor::ParseObject(object.whole);
    if (!head.ok()) return At(id, head.error());
    object.head = *std::move(head);
    return object;
  }

  static Status CheckType(const ObjectId& id, const ObjectHead& head, ObjectType wanted) {
    if (head.type == wanted) return {};
    return Bad(id, fmt::format("is of type {}, not {}", tensor::ObjectTypeName(head.type),
                               tensor::ObjectTypeName(wanted)));
  }

  Result<RecordDict> ReadDict(const ObjectId& id) {
    UMBEL_ASSIGN(const Object object, Load(id));
    UMBEL_TRY(CheckType(id, object.head, ObjectType::kRecordDict));
    const auto names = ReadNames(object.body(), budget_);
    if (!names.ok()) return At(id, names.error());
    RecordDict dict;
    for (const auto& [name, record] : *names) {
      UMBEL_TRY(budget_.Take(sizeof dict[0]));
      UMBEL_ASSIGN(Record read, ReadRecord(record));
      dict.emplace_back(name, std::move(read));
    }
    return dict;
  }

  Result<Record> ReadRecord(const ObjectId& id) {
    UMBEL_ASSIGN(const Object object, Load(id));
    switch (object.head.type) {
      case ObjectType::kArrayRecord:
        return ReadArrays(id, object);
      case ObjectType::kMetricRecord: {
        auto metrics = DecodeMetrics(object.body(), budget_);
        if (!metrics.ok()) return At(id, metrics.error());
        return Record(*std::move(metrics));
      }
      case ObjectType::kConfigRecord: {
        auto config = DecodeConfig(object.body(), budget_);
        if (!config.ok()) return At(id, config.error());
        return Record(*std::move(config));
      }
      default:
        return Bad(id, fmt::format("is of type {}, not a record",
                                   tensor::ObjectTypeName(object.head.type)));
    }
  }

  Result<Record> ReadArrays(const ObjectId& id, const Object& object) {
    const auto names = ReadNames(object.body(), budget_);
    if (!names.ok()) return At(id, names.error());
    ArrayRecord record;
    for (const auto& [name, array] : *names) {
      UMBEL_TRY(budget_.Take(sizeof record[0]));
      UMBEL_ASSIGN(ArrayRef ref, ReadOneArray(array));
      record.emplace_back(name, std::move(ref));
    }
    return Record(std::move(record));
  }

  Result<ArrayRef> ReadOneArray(const ObjectId& id) {
    UMBEL_ASSIGN(const Object object, Load(id));
    UMBEL_TRY(CheckType(id, object.head, ObjectType::kArray));
    auto body = ReadArray(object.body(), budget_);
    if (!body.ok()) return At(id, body.error());
    ArrayRef array{std::move(body->dtype), std::move(body->shape), std::move(body->stype), {}};
    for (const uint64_t index : body->chunks) {
      if (index >= object.head.children.size())
        return Bad(id, fmt::format("'arraychunk_ids' holds {}, but there are {} chunks", index,
                                   object.head.children.size()));
      UMBEL_ASSIGN(const Pieces* pieces, Chunk(object.head.children[index]));
      for (const FileRange& piece : *pieces) {
        UMBEL_TRY(budget_.Take(sizeof piece));
        array.pieces.push_back(piece);
      }
    }
    return array;
  }

  using Pieces = std::vector<FileRange>;

  /// Where the bytes of a chunk lie.
  Result<const Pieces*> Chunk(const ObjectId& id) {
    const auto known = chunks_.find(id);
    if (known != chunks_.end()) return &known->second;
    UMBEL_ASSIGN(Pieces pieces, FindChunk(id));
    return &chunks_.emplace(id, std::move(pieces)).first->second;
  }

  Result<Pieces> FindChunk(const ObjectId& id) {
    const StoredObject* stored = spool_.Find(id);
    if (stored == nullptr)
      return Fail(Code::kNotFound, fmt::format("object {} is not in the spool", id.Hex()));
    const FileRange body = stored->body;
    std::string prefix = stored->head.substr(0, kChunkHeadMax);
    if (prefix.size() == stored->head.size()) {
      const uint64_t more = std::min(kChunkHeadMax - prefix.size(), body.size);
      UMBEL_ASSIGN(const std::string begin, spool_.Read(FileRange{body.offset, more}));
      prefix += begin;
    }
    const auto parsed = tensor::ParseObjectHead(prefix);
    if (!parsed.ok()) return At(id, parsed.error());
    if (!parsed->has_value()) return Bad(id, "has no head of a chunk");
    const ObjectHead& head = **parsed;
    UMBEL_TRY(CheckType(id, head, ObjectType::kArrayChunk));
    if (head.head_size + head.body_size != stored->size())
      return Bad(id, fmt::format("has {} bytes, its head says {} + {}", stored->size(),
                                 head.head_size, head.body_size));
    Pieces pieces;
    uint64_t skip = head.head_size;  // bytes of stored->body that are the head's
    if (skip < stored->head.size()) {
      // Bytes that are only in memory; a piece is of the file.
      const std::string_view inside = std::string_view(stored->head).substr(skip);
      UMBEL_ASSIGN(pieces.emplace_back(), spool_.Append(inside));
      skip = 0;
    } else {
      skip -= stored->head.size();
    }
    if (body.size > skip) pieces.push_back({body.offset + skip, body.size - skip});
    return pieces;
  }

  Spool& spool_;
  Budget budget_{kRecordsMax};
  std::unordered_map<ObjectId, Pieces> chunks_;
};

}  // namespace

Result<RecordDict> ReadRecords(const Parcel& parcel) {
  if (parcel.error)
    return Fail(Code::kInvalidArgument,
                fmt::format("message {}: is an error and has no records", parcel.head.message_id));
  UMBEL_ASSIGN(const ObjectId id, Digest::FromHex(parcel.head.message_id));
  UMBEL_CHECK(parcel.objects != nullptr);
  Reader reader(*parcel.objects);
  return reader.ReadContent(id);
}

}  // namespace umbel::flower
