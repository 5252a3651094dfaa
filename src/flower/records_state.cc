// The state of a Context: records with their arrays inline.
#include <algorithm>
#include <limits>

#include "flower/record_bytes.h"
#include "flower/records.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::AppendBytesField;
using tensor::AppendVarint;
using tensor::WireType;

constexpr uint64_t kStateMax = uint64_t{256} << 20;
constexpr uint64_t kReadSize = uint64_t{1} << 20;

// Fields of RecordDict.Item, besides its key.
constexpr uint32_t kArrays = 2;
constexpr uint32_t kMetrics = 3;
constexpr uint32_t kConfig = 4;
// Of RecordDict and ArrayRecord, and of their items.
constexpr uint32_t kItems = 1;
constexpr uint32_t kKey = 1;
constexpr uint32_t kValue = 2;
// Of Array.
constexpr uint32_t kDtype = 1;
constexpr uint32_t kShape = 2;
constexpr uint32_t kStype = 3;
constexpr uint32_t kData = 4;

tl::unexpected<Error> At(std::string_view name, Error error) {
  error.message = fmt::format("{}: {}", tensor::Quote(name), error.message);
  return Fail(std::move(error));
}

void AppendLength(uint32_t field, uint64_t size, std::string& out) {
  AppendVarint(uint64_t{field} << 3 | uint64_t{static_cast<uint8_t>(WireType::kBytes)}, out);
  AppendVarint(size, out);
}
uint64_t SizeOfField(uint64_t size) {
  std::string length;
  AppendLength(kItems, size, length);  // all our fields have one byte of tag
  return length.size() + size;
}

/// An array without its data, which is read straight into the state: fields up to the data's
/// length.
struct ArrayFields {
  std::string fields;
  uint64_t size = 0;  // with the data
};

Result<ArrayFields> EncodeArray(const ArrayRef& array) {
  UMBEL_TRY(CheckText("dtype", array.dtype));
  UMBEL_TRY(CheckText("stype", array.stype));
  ArrayFields out;
  if (!array.dtype.empty()) AppendBytesField(kDtype, array.dtype, out.fields);
  std::string shape;
  for (const int64_t extent : array.shape) {
    if (extent < 0 || extent > std::numeric_limits<int32_t>::max())
      return Fail(Code::kInvalidArgument, fmt::format("shape holds {}, not an int32", extent));
    AppendVarint(static_cast<uint64_t>(extent), shape);
  }
  if (!shape.empty()) AppendBytesField(kShape, shape, out.fields);
  if (!array.stype.empty()) AppendBytesField(kStype, array.stype, out.fields);
  uint64_t data = 0;
  for (const FileRange& piece : array.pieces) {
    data += piece.size;
    if (piece.size > kStateMax || data > kStateMax)
      return Fail(Code::kResourceExhausted, fmt::format("state has more than {} bytes", kStateMax));
  }
  if (data > 0) AppendLength(kData, data, out.fields);
  out.size = out.fields.size() + data;
  return out;
}

class Encoder {
 public:
  explicit Encoder(const Spool& spool) : spool_(spool) {}

  Status Add(const std::string& name, const Record& record) {
    return std::visit([&](const auto& held) { return AddRecord(name, held); }, record);
  }
  std::string Take() { return std::move(wire_); }

 private:
  Status AddRecord(const std::string& name, const MetricRecord& record) {
    UMBEL_ASSIGN(const std::string body, EncodeMetrics(record));
    UMBEL_TRY(Begin(name, kMetrics, body.size()));
    wire_ += body;
    return {};
  }
  Status AddRecord(const std::string& name, const ConfigRecord& record) {
    UMBEL_ASSIGN(const std::string body, EncodeConfig(record));
    UMBEL_TRY(Begin(name, kConfig, body.size()));
    wire_ += body;
    return {};
  }
  Status AddRecord(const std::string& name, const ArrayRecord& record) {
    UMBEL_TRY(CheckKeys(record));
    std::vector<ArrayFields> arrays;
    std::vector<uint64_t> items;  // their sizes
    uint64_t size = 0;
    for (const auto& [key, array] : record) {
      auto fields = EncodeArray(array);
      if (!fields.ok()) return At(key, fields.error());
      arrays.push_back(*std::move(fields));
      items.push_back((key.empty() ? 0 : SizeOfField(key.size())) +
                      SizeOfField(arrays.back().size));
      size += SizeOfField(items.back());
      if (size > kStateMax) break;
    }
    UMBEL_TRY(Begin(name, kArrays, size));
    for (size_t i = 0; i < record.size(); ++i) {
      const auto& [key, array] = record[i];
      AppendLength(kItems, items[i], wire_);
      if (!key.empty()) AppendBytesField(kKey, key, wire_);
      AppendLength(kValue, arrays[i].size, wire_);
      wire_ += arrays[i].fields;
      for (const FileRange& piece : array.pieces) UMBEL_TRY(AppendPiece(piece));
    }
    return {};
  }

  Status AppendPiece(const FileRange& piece) {
    for (uint64_t done = 0; done < piece.size; done += kReadSize) {
      const FileRange part{piece.offset + done, std::min(kReadSize, piece.size - done)};
      UMBEL_ASSIGN(const std::string bytes, spool_.Read(part));
      wire_ += bytes;
    }
    return {};
  }

  /// The item up to its record's bytes.
  Status Begin(const std::string& name, uint32_t field, uint64_t size) {
    const uint64_t item = (name.empty() ? 0 : SizeOfField(name.size())) + SizeOfField(size);
    if (wire_.size() + item > kStateMax)
      return Fail(Code::kResourceExhausted, fmt::format("state has more than {} bytes", kStateMax));
    AppendLength(kItems, item, wire_);
    if (!name.empty()) AppendBytesField(kKey, name, wire_);
    AppendLength(field, size, wire_);
    return {};
  }

  const Spool& spool_;
  std::string wire_;
};

class Decoder {
 public:
  explicit Decoder(Spool& spool) : spool_(spool) {}

  Result<RecordDict> Read(std::string_view wire) {
    RecordDict records;
    UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
      if (!field.Is(kItems)) return {};
      UMBEL_TRY(budget_.Take(sizeof records[0]));
      return ReadItem(field.bytes, records);
    }));
    UMBEL_TRY(CheckKeys(records));
    return records;
  }

 private:
  Status ReadItem(std::string_view wire, RecordDict& records) {
    std::string_view name;
    ProtoField record;
    UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
      if (field.Is(kKey)) name = field.bytes;
      if (field.Is(kArrays) || field.Is(kMetrics) || field.Is(kConfig)) record = field;
      return {};
    }));
    UMBEL_TRY(budget_.Take(name.size()));
    auto read = ReadRecord(record);
    if (!read.ok()) return At(name, read.error());
    records.emplace_back(name, *std::move(read));
    return {};
  }

  Result<Record> ReadRecord(const ProtoField& record) {
    if (record.field == kArrays) return ReadArrays(record.bytes);
    if (record.field == kMetrics) {
      UMBEL_ASSIGN(MetricRecord metrics, DecodeMetrics(record.bytes, budget_));
      return Record(std::move(metrics));
    }
    if (record.field == kConfig) {
      UMBEL_ASSIGN(ConfigRecord config, DecodeConfig(record.bytes, budget_));
      return Record(std::move(config));
    }
    return Fail(Code::kInvalidArgument, "has no record");
  }

  Result<Record> ReadArrays(std::string_view wire) {
    ArrayRecord record;
    UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
      if (!field.Is(kItems)) return {};
      UMBEL_TRY(budget_.Take(sizeof record[0]));
      std::string_view key;
      std::string_view value;
      UMBEL_TRY(ForEachField(field.bytes, [&](const ProtoField& part) -> Status {
        if (part.Is(kKey)) key = part.bytes;
        if (part.Is(kValue)) value = part.bytes;
        return {};
      }));
      UMBEL_TRY(budget_.Take(key.size()));
      auto array = ReadArray(value);
      if (!array.ok()) return At(key, array.error());
      record.emplace_back(key, *std::move(array));
      return {};
    }));
    UMBEL_TRY(CheckKeys(record));
    return Record(std::move(record));
  }

  Result<ArrayRef> ReadArray(std::string_view wire) {
    ArrayRef array;
    std::string_view data;
    UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
      if (field.Is(kDtype)) return ReadText("dtype", field.bytes, array.dtype);
      if (field.Is(kStype)) return ReadText("stype", field.bytes, array.stype);
      if (field.Is(kShape)) return ReadShape(field.bytes, array.shape);
      if (field.Is(kShape, WireType::kVarint)) return AddExtent(field.number, array.shape);
      if (field.Is(kData)) data = field.bytes;
      return {};
    }));
    if (!data.empty()) {
      UMBEL_ASSIGN(array.pieces.emplace_back(), spool_.Append(data));
    }
    return array;
  }

  Status ReadText(std::string_view what, std::string_view text, std::string& out) {
    UMBEL_TRY(budget_.Take(text.size()));
    UMBEL_TRY(CheckText(what, text));
    out = text;
    return {};
  }
  Status ReadShape(std::string_view packed, std::vector<int64_t>& shape) {
    tensor::WireCursor cursor(packed);
    while (cursor.at() < packed.size()) {
      UMBEL_ASSIGN(const uint64_t extent, cursor.ReadNumber(packed.size()));
      UMBEL_TRY(AddExtent(extent, shape));
    }
    return {};
  }
  Status AddExtent(uint64_t extent, std::vector<int64_t>& shape) {
    UMBEL_TRY(budget_.Take(sizeof extent));
    if (extent > uint64_t{std::numeric_limits<int32_t>::max()})
      return Fail(Code::kInvalidArgument,
                  fmt::format("shape holds {}", static_cast<int64_t>(extent)));
    shape.push_back(static_cast<int64_t>(extent));
    return {};
  }

  Spool& spool_;
  Budget budget_{kRecordsMax};
};

}  // namespace

Result<std::string> EncodeState(const RecordDict& records, const Spool& spool) {
  UMBEL_TRY(CheckKeys(records));
  Encoder encoder(spool);
  for (const auto& [name, record] : records) {
    const Status added = encoder.Add(name, record);
    if (!added.ok()) return At(name, added.error());
  }
  return encoder.Take();
}

Result<RecordDict> DecodeState(std::string_view serialized, Spool& spool) {
  if (serialized.size() > kStateMax)
    return Fail(Code::kResourceExhausted,
                fmt::format("state has {} bytes, more than {}", serialized.size(), kStateMax));
  Decoder decoder(spool);
  return decoder.Read(serialized);
}

}  // namespace umbel::flower
