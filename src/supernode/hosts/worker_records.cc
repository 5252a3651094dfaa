#include "supernode/hosts/worker_records.h"

#include <algorithm>

#include "flower/record_bytes.h"
#include "supernode/hosts/worker_wire.h"
#include "tensor/quote.h"

namespace umbel::supernode {
namespace {

using flower::Bytes;
using flower::ConfigValue;
using flower::MetricValue;
using flower::Ordered;

tl::unexpected<Error> Bad(std::string_view where, std::string_view rule) {
  return Fail(Code::kInvalidArgument, fmt::format("{}: {}", where, rule));
}

/// "<where>['<key>']", where the key is a stranger's.
std::string Inside(const std::string& where, std::string_view key) {
  return fmt::format("{}[{}]", where, tensor::Quote(key));
}

/// A list of lists of `width`, each beginning with its key, which are distinct.
Result<Value::List> Rows(Value value, size_t width, const std::string& where) {
  auto* rows = value.As<Value::List>();
  if (rows == nullptr) return Bad(where, fmt::format("is {}, not a list", value.TypeName()));
  std::vector<std::string_view> keys;
  keys.reserve(rows->size());
  for (const Value& item : *rows) {
    const auto* row = item.As<Value::List>();
    if (row == nullptr || row->size() != width || row->front().As<std::string>() == nullptr)
      return Bad(where, fmt::format("row {} is not a list of {} that begins with text", keys.size(),
                                    width));
    keys.emplace_back(*row->front().As<std::string>());
  }
  const Status distinct = flower::CheckKeys(std::move(keys));
  if (!distinct.ok()) return Bad(where, distinct.error().message);
  return std::move(*rows);
}

template <typename T>
Result<ConfigValue> ListOf(Value::List& list, const std::string& where) {
  std::vector<T> out;
  out.reserve(list.size());
  for (Value& item : list) {
    T* held = item.As<T>();
    if (held == nullptr)
      return Bad(where,
                 fmt::format("holds {} beside {}", item.TypeName(), list.front().TypeName()));
    out.push_back(std::move(*held));
  }
  return ConfigValue(std::move(out));
}

Result<ConfigValue> Integers(Value::List& list, const std::string& where) {
  const bool large = std::any_of(list.begin(), list.end(),
                                 [](const Value& item) { return item.As<uint64_t>() != nullptr; });
  if (!large) return ListOf<int64_t>(list, where);
  for (Value& item : list) {
    const auto* small = item.As<int64_t>();
    if (small == nullptr) continue;
    if (*small < 0) return Bad(where, fmt::format("holds {} and an integer above 2^63", *small));
    item.held = static_cast<uint64_t>(*small);
  }
  return ListOf<uint64_t>(list, where);
}

Result<ConfigValue> List(Value::List& list, const ConfigValue& empty, const std::string& where) {
  if (list.empty()) return empty;
  const Value& first = list.front();
  if (first.As<bool>() != nullptr) return ListOf<bool>(list, where);
  if (first.As<int64_t>() != nullptr || first.As<uint64_t>() != nullptr)
    return Integers(list, where);
  if (first.As<double>() != nullptr) return ListOf<double>(list, where);
  if (first.As<std::string>() != nullptr) return ListOf<std::string>(list, where);
  if (first.As<Bytes>() != nullptr) return ListOf<Bytes>(list, where);
  return Bad(where, fmt::format("holds {}", first.TypeName()));
}

/// empty  what an empty list is.
Result<ConfigValue> Scalar(Value& value, const ConfigValue& empty, const std::string& where) {
  if (auto* list = value.As<Value::List>()) return List(*list, empty, where);
  std::optional<ConfigValue> scalar = std::visit(
      [](auto& held) -> std::optional<ConfigValue> {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_constructible_v<ConfigValue, std::in_place_type_t<T>, T>)
          return ConfigValue(std::in_place_type<T>, std::move(held));
        return std::nullopt;
      },
      value.held);
  if (!scalar) return Bad(where, fmt::format("is {}", value.TypeName()));
  return *std::move(scalar);
}

Result<flower::ConfigRecord> ReadConfig(Value items, const std::string& where) {
  UMBEL_ASSIGN(Value::List rows, Rows(std::move(items), 2, where));
  flower::ConfigRecord record;
  record.reserve(rows.size());
  for (Value& item : rows) {
    Value::List& row = *item.As<Value::List>();
    std::string& key = *row[0].As<std::string>();
    UMBEL_ASSIGN(ConfigValue value, Scalar(row[1], std::vector<bool>(), Inside(where, key)));
    record.emplace_back(std::move(key), std::move(value));
  }
  return record;
}

Result<flower::MetricRecord> ReadMetrics(Value items, const std::string& where) {
  UMBEL_ASSIGN(Value::List rows, Rows(std::move(items), 2, where));
  flower::MetricRecord record;
  record.reserve(rows.size());
  for (Value& item : rows) {
    Value::List& row = *item.As<Value::List>();
    std::string& key = *row[0].As<std::string>();
    const std::string at = Inside(where, key);
    const std::string_view type = row[1].TypeName();
    UMBEL_ASSIGN(ConfigValue value, Scalar(row[1], std::vector<double>(), at));
    std::optional<MetricValue> metric = flower::ToMetric(std::move(value));
    if (!metric) return Bad(at, fmt::format("is {} that metrics do not have", type));
    record.emplace_back(std::move(key), *std::move(metric));
  }
  return record;
}

template <typename T>
Value HeldToValue(const T& held) {
  return Value(held);
}
template <typename T>
Value HeldToValue(const std::vector<T>& held) {
  Value::List list;
  list.reserve(held.size());
  for (const T& item : held) list.emplace_back(item);
  return list;
}

template <typename T>
Value ItemsToValue(const Ordered<T>& record) {
  Value::List rows;
  rows.reserve(record.size());
  for (const auto& [key, value] : record)
    rows.emplace_back(
        Value::List{key, std::visit([](const auto& held) { return HeldToValue(held); }, value)});
  return rows;
}

Value ItemsToValue(const flower::ArrayRecord& record) {
  Value::List rows;
  rows.reserve(record.size());
  for (const auto& [key, array] : record) {
    Value::List pieces;
    pieces.reserve(array.pieces.size());
    for (const flower::FileRange& piece : array.pieces)
      pieces.emplace_back(Value::List{piece.offset, piece.size});
    rows.emplace_back(
        Value::List{key, array.dtype, HeldToValue(array.shape), array.stype, std::move(pieces)});
  }
  return rows;
}

std::string_view Kind(const flower::ArrayRecord&) { return "a"; }
std::string_view Kind(const flower::MetricRecord&) { return "m"; }
std::string_view Kind(const flower::ConfigRecord&) { return "c"; }

}  // namespace

Value RecordsToValue(const flower::RecordDict& records) {
  Value::List rows;
  rows.reserve(records.size());
  for (const auto& [name, record] : records)
    std::visit(
        [&, key = &name](const auto& held) {
          rows.emplace_back(Value::List{*key, Kind(held), ItemsToValue(held)});
        },
        record);
  return rows;
}

Result<flower::RecordDict> RecordsFromValue(Value value, uint64_t file_end) {
  RecordsReader reader(file_end);
  return reader.Read(std::move(value), "records");
}

Result<flower::RecordDict> RecordsReader::Read(Value value, const std::string& where) {
  UMBEL_ASSIGN(Value::List rows, Rows(std::move(value), 3, where));
  flower::RecordDict records;
  records.reserve(rows.size());
  for (Value& item : rows) {
    Value::List& row = *item.As<Value::List>();
    std::string& name = *row[0].As<std::string>();
    UMBEL_ASSIGN(flower::Record record, ReadRecord(row, Inside(where, name)));
    records.emplace_back(std::move(name), std::move(record));
  }
  return records;
}

Result<flower::Record> RecordsReader::ReadRecord(Value::List& row, const std::string& where) {
  const auto* kind = row[1].As<std::string>();
  if (kind != nullptr && *kind == "a") {
    UMBEL_ASSIGN(flower::ArrayRecord arrays, ReadArrays(std::move(row[2]), where));
    return flower::Record(std::move(arrays));
  }
  if (kind != nullptr && *kind == "m") {
    UMBEL_ASSIGN(flower::MetricRecord metrics, ReadMetrics(std::move(row[2]), where));
    return flower::Record(std::move(metrics));
  }
  if (kind != nullptr && *kind == "c") {
    UMBEL_ASSIGN(flower::ConfigRecord config, ReadConfig(std::move(row[2]), where));
    return flower::Record(std::move(config));
  }
  return Bad(where,
             fmt::format("kind is {}, not 'a', 'm' or 'c'",
                         kind != nullptr ? tensor::Quote(*kind) : std::string(row[1].TypeName())));
}

Result<flower::ArrayRecord> RecordsReader::ReadArrays(Value items, const std::string& where) {
  UMBEL_ASSIGN(Value::List rows, Rows(std::move(items), 5, where));
  flower::ArrayRecord record;
  record.reserve(rows.size());
  for (Value& item : rows) {
    Value::List& row = *item.As<Value::List>();
    std::string& key = *row[0].As<std::string>();
    UMBEL_ASSIGN(flower::ArrayRef array, ReadArray(row, Inside(where, key)));
    record.emplace_back(std::move(key), std::move(array));
  }
  return record;
}

Result<flower::ArrayRef> RecordsReader::ReadArray(Value::List& row, const std::string& where) {
  auto* dtype = row[1].As<std::string>();
  const auto* shape = row[2].As<Value::List>();
  auto* stype = row[3].As<std::string>();
  const auto* pieces = row[4].As<Value::List>();
  if (dtype == nullptr) return Bad(where, "dtype is not text");
  if (shape == nullptr) return Bad(where, "shape is not a list");
  if (stype == nullptr) return Bad(where, "stype is not text");
  if (pieces == nullptr) return Bad(where, "pieces are not a list");
  flower::ArrayRef array{std::move(*dtype), {}, std::move(*stype), {}};
  for (const Value& item : *shape) {
    const auto* extent = item.As<int64_t>();
    if (extent == nullptr || *extent < 0)
      return Bad(where, "shape holds what is not an integer from 0 up");
    array.shape.push_back(*extent);
  }
  for (const Value& item : *pieces) {
    UMBEL_ASSIGN(array.pieces.emplace_back(), ReadPiece(item, where));
  }
  return array;
}

Result<flower::FileRange> RecordsReader::ReadPiece(const Value& value, const std::string& where) {
  const auto* pair = value.As<Value::List>();
  const auto number = [&](size_t i) { return (*pair)[i].As<int64_t>(); };
  if (pair == nullptr || pair->size() != 2 || number(0) == nullptr || number(1) == nullptr)
    return Bad(where, "a piece is not [offset, size]");
  if (*number(0) < 0 || *number(1) < 0) return Bad(where, "a piece lies before the file");
  const flower::FileRange piece{static_cast<uint64_t>(*number(0)),
                                static_cast<uint64_t>(*number(1))};
  if (piece.offset > end_ || piece.size > end_ - piece.offset)
    return Bad(where, fmt::format("a piece of {} bytes at {} ends after {}", piece.size,
                                  piece.offset, end_));
  if (piece.size > left_)
    return Bad(where, fmt::format("pieces are longer together than the file's {} bytes", end_));
  left_ -= piece.size;
  return piece;
}

}  // namespace umbel::supernode
