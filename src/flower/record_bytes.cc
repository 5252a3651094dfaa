#include "flower/record_bytes.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/utf8.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using tensor::AppendBytesField;
using tensor::AppendVarint;
using tensor::Quote;
using tensor::WireType;

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kItems = 1;  // of a record
constexpr uint32_t kKey = 1;    // of an item
constexpr uint32_t kValue = 2;
constexpr uint32_t kVals = 1;  // of a list

/// Field of a value's kind; that of the list of such is 20 higher.
template <typename T>
constexpr uint32_t kKind = 0;
template <>
constexpr uint32_t kKind<double> = 1;
template <>
constexpr uint32_t kKind<int64_t> = 2;
template <>
constexpr uint32_t kKind<uint64_t> = 3;
template <>
constexpr uint32_t kKind<bool> = 4;
template <>
constexpr uint32_t kKind<std::string> = 5;
template <>
constexpr uint32_t kKind<Bytes> = 6;
constexpr uint32_t kLists = 20;

template <typename T>
constexpr WireType kWireType = std::is_same_v<T, double> ? WireType::kFixed64 : WireType::kVarint;

// -- writing

void AppendNumber(double value, std::string& out) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}
void AppendNumber(int64_t value, std::string& out) {  // zigzag
  AppendVarint((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63), out);
}
void AppendNumber(uint64_t value, std::string& out) { AppendVarint(value, out); }
void AppendNumber(bool value, std::string& out) { AppendVarint(value ? 1 : 0, out); }

Status AppendText(uint32_t field, const std::string& text, std::string& out) {
  UMBEL_TRY(CheckText("text", text));
  AppendBytesField(field, text, out);
  return {};
}
Status AppendText(uint32_t field, const Bytes& bytes, std::string& out) {
  AppendBytesField(field, bytes.bytes, out);
  return {};
}

template <typename T>
constexpr bool kIsText = std::is_same_v<T, std::string> || std::is_same_v<T, Bytes>;

template <typename T>
Status AppendValue(const T& value, std::string& out) {
  if constexpr (kIsText<T>) {
    return AppendText(kKind<T>, value, out);
  } else {
    AppendVarint(kKind<T> << 3 | static_cast<uint32_t>(kWireType<T>), out);
    AppendNumber(value, out);
    return {};
  }
}

template <typename T>
Status AppendValue(const std::vector<T>& values, std::string& out) {
  std::string list;
  if constexpr (kIsText<T>) {
    for (const T& value : values) UMBEL_TRY(AppendText(kVals, value, list));
  } else if (!values.empty()) {
    std::string packed;
    for (const T value : values) AppendNumber(value, packed);
    AppendBytesField(kVals, packed, list);
  }
  AppendBytesField(kLists + kKind<T>, list, out);
  return {};
}

tl::unexpected<Error> AtKey(std::string_view key, Error error) {
  error.message = fmt::format("{}: {}", Quote(key), error.message);
  return Fail(std::move(error));
}

template <typename Value>
Result<std::string> EncodeRecord(const Ordered<Value>& record) {
  UMBEL_TRY(CheckKeys(record));
  std::string wire;
  for (const auto& [key, value] : record) {
    std::string bytes;
    const Status done =
        std::visit([&](const auto& held) { return AppendValue(held, bytes); }, value);
    if (!done.ok()) return AtKey(key, done.error());
    std::string item;
    if (!key.empty()) AppendBytesField(kKey, key, item);
    AppendBytesField(kValue, bytes, item);
    AppendBytesField(kItems, item, wire);
  }
  return wire;
}

// -- reading

template <typename T>
T FromWire(uint64_t number) {
  if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<double>(number);
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return static_cast<int64_t>((number >> 1) ^ (0 - (number & 1)));
  } else {
    return static_cast<T>(number);
  }
}

template <typename T>
Status ReadText(std::string_view bytes, Budget& budget, T& out) {
  UMBEL_TRY(budget.Take(bytes.size()));
  if constexpr (std::is_same_v<T, Bytes>) {
    out.bytes = bytes;
  } else {
    UMBEL_TRY(CheckText("text", bytes));
    out = bytes;
  }
  return {};
}

template <typename T>
Status ReadPacked(std::string_view packed, Budget& budget, std::vector<T>& out) {
  if constexpr (std::is_same_v<T, double>) {
    if (packed.size() % sizeof(double) != 0)
      return Fail(Code::kInvalidArgument, "a list of doubles is cut off");
    UMBEL_TRY(budget.Take(packed.size()));
    const size_t before = out.size();
    out.resize(before + packed.size() / sizeof(double));
    if (!packed.empty()) std::memcpy(out.data() + before, packed.data(), packed.size());
  } else {
    tensor::WireCursor cursor(packed);
    while (cursor.at() < packed.size()) {
      UMBEL_TRY(budget.Take(sizeof(T)));
      UMBEL_ASSIGN(const uint64_t number, cursor.ReadNumber(packed.size()));
      out.push_back(FromWire<T>(number));
    }
  }
  return {};
}

template <typename T>
Result<std::vector<T>> ReadList(std::string_view wire, Budget& budget) {
  std::vector<T> list;
  UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
    if constexpr (kIsText<T>) {
      if (!field.Is(kVals)) return {};
      UMBEL_TRY(budget.Take(sizeof(T)));
      return ReadText(field.bytes, budget, list.emplace_back());
    } else {
      if (field.Is(kVals)) return ReadPacked(field.bytes, budget, list);
      if (!field.Is(kVals, kWireType<T>)) return {};
      UMBEL_TRY(budget.Take(sizeof(T)));
      list.push_back(FromWire<T>(field.number));
      return {};
    }
  }));
  return list;
}

/// Reads the field if it is a T or a list of them.
template <typename T>
Status ReadKind(const ProtoField& field, Budget& budget, std::optional<ConfigValue>& value) {
  if constexpr (kIsText<T>) {
    if (field.Is(kKind<T>)) return ReadText(field.bytes, budget, value.emplace().emplace<T>());
  } else {
    if (field.Is(kKind<T>, kWireType<T>)) value = FromWire<T>(field.number);
  }
  if (!field.Is(kLists + kKind<T>)) return {};
  UMBEL_ASSIGN(value, ReadList<T>(field.bytes, budget));
  return {};
}

Result<ConfigValue> ReadValue(std::string_view wire, Budget& budget) {
  std::optional<ConfigValue> value;
  UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
    UMBEL_TRY(ReadKind<double>(field, budget, value));
    UMBEL_TRY(ReadKind<int64_t>(field, budget, value));
    UMBEL_TRY(ReadKind<uint64_t>(field, budget, value));
    UMBEL_TRY(ReadKind<bool>(field, budget, value));
    UMBEL_TRY(ReadKind<std::string>(field, budget, value));
    return ReadKind<Bytes>(field, budget, value);
  }));
  if (!value) return Fail(Code::kInvalidArgument, "has no value");
  return *std::move(value);
}

Result<std::pair<std::string, ConfigValue>> ReadItem(std::string_view wire, Budget& budget) {
  std::string_view key;
  std::string_view bytes;
  UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
    if (field.Is(kKey)) key = field.bytes;
    if (field.Is(kValue)) bytes = field.bytes;
    return {};
  }));
  UMBEL_TRY(budget.Take(sizeof(std::pair<std::string, ConfigValue>) + key.size()));
  auto value = ReadValue(bytes, budget);
  if (!value.ok()) return AtKey(key, value.error());
  return std::pair(std::string(key), *std::move(value));
}

}  // namespace

Status CheckText(std::string_view what, std::string_view text) {
  if (IsUtf8(text)) return {};
  return Fail(Code::kInvalidArgument, fmt::format("{} {} is not UTF-8", what, Quote(text)));
}

Status CheckKeys(std::vector<std::string_view> keys) {
  for (const std::string_view key : keys) UMBEL_TRY(CheckText("key", key));
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return {};
  return Fail(Code::kInvalidArgument, fmt::format("key {} stands twice", Quote(*twice)));
}

Status ForEachField(std::string_view wire, const std::function<Status(const ProtoField&)>& take) {
  tensor::WireCursor cursor(wire);
  while (cursor.at() < wire.size()) {
    UMBEL_ASSIGN(const tensor::WireTag tag, cursor.ReadTag(wire.size()));
    ProtoField field{tag.field, tag.type, {}, 0};
    if (tag.type == WireType::kVarint) {
      UMBEL_ASSIGN(field.number, cursor.ReadNumber(wire.size()));
    } else if (tag.type == WireType::kBytes) {
      UMBEL_ASSIGN(const size_t size, cursor.ReadLength(wire.size()));
      field.bytes = cursor.Take(size);
    } else {
      UMBEL_TRY(cursor.Skip(tag, wire.size()));
      if (tag.type == WireType::kFixed64)
        std::memcpy(&field.number, wire.data() + cursor.at() - sizeof field.number,
                    sizeof field.number);
    }
    UMBEL_TRY(take(field));
  }
  return {};
}

Result<std::string> EncodeMetrics(const MetricRecord& record) { return EncodeRecord(record); }
Result<std::string> EncodeConfig(const ConfigRecord& record) { return EncodeRecord(record); }

Result<ConfigRecord> DecodeConfig(std::string_view wire, Budget& budget) {
  ConfigRecord record;
  UMBEL_TRY(ForEachField(wire, [&](const ProtoField& field) -> Status {
    if (!field.Is(kItems)) return {};
    UMBEL_ASSIGN(record.emplace_back(), ReadItem(field.bytes, budget));
    return {};
  }));
  UMBEL_TRY(CheckKeys(record));
  return record;
}

std::optional<MetricValue> ToMetric(ConfigValue value) {
  return std::visit(
      [](auto& held) -> std::optional<MetricValue> {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_constructible_v<MetricValue, std::in_place_type_t<T>, T>)
          return MetricValue(std::in_place_type<T>, std::move(held));
        return std::nullopt;
      },
      value);
}

Result<MetricRecord> DecodeMetrics(std::string_view wire, Budget& budget) {
  UMBEL_ASSIGN(ConfigRecord all, DecodeConfig(wire, budget));
  MetricRecord record;
  record.reserve(all.size());
  for (auto& [key, value] : all) {
    std::optional<MetricValue> metric = ToMetric(std::move(value));
    if (!metric)
      return Fail(Code::kInvalidArgument,
                  fmt::format("{} is not a number, as metrics are", Quote(key)));
    record.emplace_back(std::move(key), *std::move(metric));
  }
  return record;
}

}  // namespace umbel::flower
