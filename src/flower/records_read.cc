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

tl::unexpected<Error> At(const ObjectId& id, Error error) {
  error.message = fmt::format("object {}: {}", id.Hex(), error.message);
  return Fail(std::move(error));
}

tl::unexpected<Error> Bad(const ObjectId& id, std::string_view rule) {
  return Fail(Code::kInvalidArgument, fmt::format("object {}: {}", id.Hex(), rule));
}

Status CheckType(const ObjectId& id, const ObjectHead& head, ObjectType wanted) {
  if (head.type == wanted) return {};
  return Bad(id, fmt::format("is of type {}, not {}", tensor::ObjectTypeName(head.type),
                             tensor::ObjectTypeName(wanted)));
}

class Reader {
 public:
  explicit Reader(ObjectSource& source) : source_(source) {}

  Result<RecordDict> ReadContent(const ObjectId& message) {
    UMBEL_ASSIGN(const ObjectId content, ContentOf(message));
    UMBEL_ASSIGN(const Ordered<ObjectId> names, ReadDict(content));
    RecordDict dict;
    for (const auto& [name, record] : names) {
      UMBEL_TRY(budget_.Take(sizeof dict[0]));
      UMBEL_ASSIGN(Record read, ReadRecord(record));
      dict.emplace_back(name, std::move(read));
    }
    return dict;
  }

  Result<Ordered<ObjectId>> ReadIds(const ObjectId& message) {
    UMBEL_ASSIGN(const ObjectId content, ContentOf(message));
    return ReadDict(content);
  }

  Result<ArrayRecord> ReadArrayRecord(const ObjectId& id) {
    UMBEL_ASSIGN(const Object object, Load(id));
    UMBEL_TRY(CheckType(id, object.head, ObjectType::kArrayRecord));
    UMBEL_ASSIGN(Record record, ReadArrays(id, object));
    return std::get<ArrayRecord>(std::move(record));
  }

 private:
  struct Object {
    ObjectHead head;
    std::string whole;

    std::string_view body() const { return std::string_view(whole).substr(head.head_size); }
  };

  Result<Object> Load(const ObjectId& id) {
    Object object;
    UMBEL_ASSIGN(object.whole, source_.Read(id, budget_.left()));
    UMBEL_TRY(budget_.Take(object.whole.size()));
    auto head = tensor::ParseObject(object.whole);
    if (!head.ok()) return At(id, head.error());
    object.head = *std::move(head);
    return object;
  }

  Result<ObjectId> ContentOf(const ObjectId& message) {
    UMBEL_ASSIGN(const Object object, Load(message));
    UMBEL_TRY(CheckType(message, object.head, ObjectType::kMessage));
    if (object.head.children.size() != 1)
      return Bad(message,
                 fmt::format("is a message of {} contents, not 1", object.head.children.size()));
    return object.head.children[0];
  }

  Result<Ordered<ObjectId>> ReadDict(const ObjectId& id) {
    UMBEL_ASSIGN(const Object object, Load(id));
    UMBEL_TRY(CheckType(id, object.head, ObjectType::kRecordDict));
    auto names = ReadNames(object.body(), budget_);
    if (!names.ok()) return At(id, names.error());
    return names;
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
    UMBEL_ASSIGN(Pieces pieces, source_.Chunk(id));
    return &chunks_.emplace(id, std::move(pieces)).first->second;
  }

  ObjectSource& source_;
  Budget budget_{kRecordsMax};
  std::unordered_map<ObjectId, Pieces> chunks_;
};

/// A chunk that the spool keeps in memory is appended to its file, where pieces lie.
class SpoolSource final : public ObjectSource {
 public:
  explicit SpoolSource(Spool& spool) : spool_(spool) {}

  Result<std::string> Read(const ObjectId& id, uint64_t max) override {
    return spool_.Read(id, max);
  }

  Result<std::vector<FileRange>> Chunk(const ObjectId& id) override {
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
    UMBEL_ASSIGN(uint64_t skip, ChunkHeadSize(id, prefix, stored->size()));
    std::vector<FileRange> pieces;
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

 private:
  Spool& spool_;
};

}  // namespace

Result<RecordDict> ReadRecords(const Parcel& parcel) {
  if (parcel.error)
    return Fail(Code::kInvalidArgument,
                fmt::format("message {}: is an error and has no records", parcel.head.message_id));
  UMBEL_ASSIGN(const ObjectId id, Digest::FromHex(parcel.head.message_id));
  UMBEL_CHECK(parcel.objects != nullptr);
  SpoolSource source(*parcel.objects);
  return ReadRecords(id, source);
}

Result<RecordDict> ReadRecords(const ObjectId& message, ObjectSource& source) {
  return Reader(source).ReadContent(message);
}

Result<Ordered<ObjectId>> ReadRecordIds(const ObjectId& message, ObjectSource& source) {
  return Reader(source).ReadIds(message);
}

Result<ArrayRecord> ReadArrayRecord(const ObjectId& record, ObjectSource& source) {
  return Reader(source).ReadArrayRecord(record);
}

Result<uint64_t> ChunkHeadSize(const ObjectId& id, std::string_view prefix, uint64_t size) {
  const auto parsed = tensor::ParseObjectHead(prefix.substr(0, kChunkHeadMax));
  if (!parsed.ok()) return At(id, parsed.error());
  if (!parsed->has_value()) return Bad(id, "has no head of a chunk");
  const ObjectHead& head = **parsed;
  UMBEL_TRY(CheckType(id, head, ObjectType::kArrayChunk));
  if (head.head_size + head.body_size != size)
    return Bad(id, fmt::format("has {} bytes, its head says {} + {}", size, head.head_size,
                               head.body_size));
  return head.head_size;
}

}  // namespace umbel::flower
