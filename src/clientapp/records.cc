#include "clientapp/records.h"

#include <algorithm>
#include <optional>

#include "tensor/quote.h"

namespace umbel::clientapp {

using flower::ArrayRef;
using flower::FileRange;
using flower::Spool;

namespace internal {

tl::unexpected<Error> Missing(std::string_view key) {
  return Fail(Code::kNotFound, fmt::format("there is no {}", tensor::Quote(key)));
}
tl::unexpected<Error> OtherType(std::string_view key, std::string_view wanted) {
  return Fail(Code::kInvalidArgument, fmt::format("{} is not {}", tensor::Quote(key), wanted));
}

}  // namespace internal

namespace {

constexpr std::string_view kStype = "numpy.ndarray";
constexpr uint64_t kPartSize = uint64_t{1} << 20;

tl::unexpected<Error> At(std::string_view key, Error error) {
  error.message = fmt::format("{}: {}", tensor::Quote(key), error.message);
  return Fail(std::move(error));
}

Result<Array> LoadArray(const ArrayRef& ref, const Spool& spool) {
  if (ref.stype != kStype)
    return Fail(Code::kInvalidArgument,
                fmt::format("stype is {}, not {}", tensor::Quote(ref.stype), kStype));
  std::optional<tensor::NpyHead> head;
  std::string begin;  // until the header is whole
  std::vector<char> data;
  for (const FileRange& piece : ref.pieces) {
    for (uint64_t done = 0; done < piece.size; done += kPartSize) {
      const FileRange part{piece.offset + done, std::min(kPartSize, piece.size - done)};
      UMBEL_ASSIGN(const std::string bytes, spool.Read(part));
      if (head) {
        data.insert(data.end(), bytes.begin(), bytes.end());
        continue;
      }
      begin += bytes;
      UMBEL_ASSIGN(head, tensor::ParseNpyHead(begin));
      if (!head) continue;
      data.reserve(ref.size() - head->data_offset);
      data.assign(begin.begin() + static_cast<ptrdiff_t>(head->data_offset), begin.end());
    }
  }
  if (!head) return Fail(Code::kInvalidArgument, "NPY header: it is not whole");
  return Array::FromNpy(*head, std::move(data));
}

Result<AnyRecord> LoadRecord(const flower::ArrayRecord& record, const Spool& spool) {
  std::vector<ArrayRecord::Item> arrays;
  for (const auto& [key, ref] : record) {
    auto array = LoadArray(ref, spool);
    if (!array.ok()) return At(key, array.error());
    arrays.emplace_back(key, *std::move(array));
  }
  return AnyRecord(ArrayRecord(std::move(arrays)));
}
Result<AnyRecord> LoadRecord(const flower::MetricRecord& record, const Spool&) {
  return AnyRecord(MetricRecord(record));
}
Result<AnyRecord> LoadRecord(const flower::ConfigRecord& record, const Spool&) {
  return AnyRecord(ConfigRecord(record));
}

Result<flower::Record> KeepRecord(const ArrayRecord& record, Spool& spool) {
  flower::ArrayRecord refs;
  for (const auto& [key, array] : record) {
    ArrayRef ref{array.dtype(), array.shape(), std::string(kStype), {}};
    UMBEL_ASSIGN(const FileRange head, spool.Append(array.NpyHead()));
    UMBEL_ASSIGN(const FileRange data, spool.Append(array.bytes()));
    ref.pieces = {head, data};
    refs.emplace_back(key, std::move(ref));
  }
  return flower::Record(std::move(refs));
}
Result<flower::Record> KeepRecord(const MetricRecord& record, Spool&) {
  return flower::Record(flower::MetricRecord(record.begin(), record.end()));
}
Result<flower::Record> KeepRecord(const ConfigRecord& record, Spool&) {
  return flower::Record(flower::ConfigRecord(record.begin(), record.end()));
}

}  // namespace

Result<RecordDict> Load(const flower::RecordDict& records, const Spool& spool, uint64_t bytes_max) {
  // One chunk may stand in many places: what came by the wire says nothing of the size.
  uint64_t left = bytes_max;
  for (const auto& [name, record] : records) {
    const auto* const arrays = std::get_if<flower::ArrayRecord>(&record);
    if (arrays == nullptr) continue;
    for (const auto& [key, array] : *arrays)
      for (const FileRange& piece : array.pieces) {
        if (piece.size > left)
          return Fail(Code::kResourceExhausted,
                      fmt::format("arrays have more than {} bytes", bytes_max));
        left -= piece.size;
      }
  }
  std::vector<RecordDict::Item> out;
  for (const auto& [name, record] : records) {
    auto loaded = std::visit([&](const auto& held) { return LoadRecord(held, spool); }, record);
    if (!loaded.ok()) return At(name, loaded.error());
    out.emplace_back(name, *std::move(loaded));
  }
  return RecordDict(std::move(out));
}

Result<flower::RecordDict> Keep(const RecordDict& records, Spool& spool) {
  flower::RecordDict out;
  for (const auto& [name, record] : records) {
    auto kept = std::visit([&](const auto& held) { return KeepRecord(held, spool); }, record);
    if (!kept.ok()) return At(name, kept.error());
    out.emplace_back(name, *std::move(kept));
  }
  return out;
}

}  // namespace umbel::clientapp
