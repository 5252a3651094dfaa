// Flower's records in memory: dictionaries in the sender's order. Values; one thread at a time.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "clientapp/array.h"
#include "flower/config.h"
#include "flower/records.h"

namespace umbel::clientapp {

using flower::Bytes;
using flower::ConfigMap;
using flower::ConfigValue;
using flower::MetricValue;

/// As Python's dictionaries: keys are distinct, and stay in the order they came. A look-up passes
/// over all of them.
template <typename V>
class Record {
 public:
  using Item = std::pair<std::string, V>;

  Record() = default;
  /// Of equal keys the last one's value stays.
  Record(std::initializer_list<Item> items) {
    for (const Item& item : items) (*this)[item.first] = item.second;
  }
  /// The keys must be distinct.
  explicit Record(std::vector<Item> items) : items_(std::move(items)) {}

  /// nullptr: no such key.
  V* Find(std::string_view key) {
    for (Item& item : items_)
      if (item.first == key) return &item.second;
    return nullptr;
  }
  const V* Find(std::string_view key) const {
    for (const Item& item : items_)
      if (item.first == key) return &item.second;
    return nullptr;
  }
  /// Made, last, when it is not there.
  V& operator[](std::string_view key) {
    if (V* const found = Find(key)) return *found;
    return items_.emplace_back(std::string(key), V()).second;
  }
  bool Erase(std::string_view key) {
    return std::erase_if(items_, [&](const Item& item) { return item.first == key; }) > 0;
  }

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  auto begin() { return items_.begin(); }
  auto begin() const { return items_.begin(); }
  auto end() { return items_.end(); }
  auto end() const { return items_.end(); }

  bool operator==(const Record&) const = default;

 private:
  std::vector<Item> items_;
};

using ArrayRecord = Record<Array>;
using MetricRecord = Record<MetricValue>;
using ConfigRecord = Record<ConfigValue>;
using AnyRecord = std::variant<ArrayRecord, MetricRecord, ConfigRecord>;

namespace internal {

tl::unexpected<Error> Missing(std::string_view key);
tl::unexpected<Error> OtherType(std::string_view key, std::string_view wanted);

template <typename T>
constexpr std::string_view TypeName() {
  if constexpr (std::is_same_v<T, ArrayRecord>) return "an ArrayRecord";
  if constexpr (std::is_same_v<T, MetricRecord>) return "a MetricRecord";
  if constexpr (std::is_same_v<T, ConfigRecord>) return "a ConfigRecord";
  if constexpr (std::is_same_v<T, bool>) return "a bool";
  if constexpr (std::is_same_v<T, std::string>) return "text";
  if constexpr (std::is_same_v<T, int64_t>) return "an integer of 64 bits";
  if constexpr (std::is_same_v<T, uint64_t>) return "an integer of 64 bits from 0";
  if constexpr (std::is_same_v<T, double>) return "a number";
  return "of the type asked for";
}

template <typename V>
const V* Lookup(const Record<V>& record, std::string_view key) {
  return record.Find(key);
}
inline const flower::ConfigScalar* Lookup(const ConfigMap& config, std::string_view key) {
  const auto found = config.find(std::string(key));
  return found == config.end() ? nullptr : &found->second;
}

template <typename T, typename V>
Result<T> Convert(const V& value, std::string_view key) {
  return std::visit(
      [&](const auto& held) -> Result<T> {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, T>) {
          return held;
        } else if constexpr (std::is_same_v<Held, int64_t> || std::is_same_v<Held, uint64_t>) {
          if constexpr (std::is_same_v<T, double>) return static_cast<double>(held);
          if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, uint64_t>)
            if (std::in_range<T>(held)) return static_cast<T>(held);
        }
        return OtherType(key, TypeName<T>());
      },
      value);
}

}  // namespace internal

/// A value of a MetricRecord or ConfigRecord, or of node_config or run_config. Integers are given
/// as int64_t, uint64_t or double, whatever they came as: TOML and Python have one kind.
///
/// errors  kNotFound: no such key; kInvalidArgument: of another type. Both name the key.
template <typename T, typename Map>
Result<T> Get(const Map& map, std::string_view key) {
  const auto* value = internal::Lookup(map, key);
  if (value == nullptr) return internal::Missing(key);
  return internal::Convert<T>(*value, key);
}
/// The same; `otherwise` when there is no such key.
template <typename T, typename Map>
Result<T> Get(const Map& map, std::string_view key, T otherwise) {
  const auto* value = internal::Lookup(map, key);
  if (value == nullptr) return otherwise;
  return internal::Convert<T>(*value, key);
}

/// The elements of one of the record's arrays, which is to have this type and shape; see Array::As.
/// errors  kNotFound: no such array; kInvalidArgument: another dtype or shape. Both name the key.
template <Element T>
Result<std::span<T>> Values(ArrayRecord& record, std::string_view key,
                            std::initializer_list<int64_t> shape) {
  Array* const array = record.Find(key);
  if (array == nullptr) return internal::Missing(key);
  auto values = array->As<T>(std::span<const int64_t>(shape));
  if (!values.ok())
    return Fail(values.error().code, fmt::format("'{}': {}", key, values.error().message));
  return values;
}

/// What messages and contexts hold.
class RecordDict : public Record<AnyRecord> {
 public:
  using Record<AnyRecord>::Record;

  /// One of its records.
  /// errors  kNotFound: no such key; kInvalidArgument: of another kind. Both name the key.
  Result<ArrayRecord*> Arrays(std::string_view key) { return As<ArrayRecord>(*this, key); }
  Result<MetricRecord*> Metrics(std::string_view key) { return As<MetricRecord>(*this, key); }
  Result<ConfigRecord*> Config(std::string_view key) { return As<ConfigRecord>(*this, key); }
  Result<const ArrayRecord*> Arrays(std::string_view key) const {
    return As<const ArrayRecord>(*this, key);
  }
  Result<const MetricRecord*> Metrics(std::string_view key) const {
    return As<const MetricRecord>(*this, key);
  }
  Result<const ConfigRecord*> Config(std::string_view key) const {
    return As<const ConfigRecord>(*this, key);
  }

 private:
  template <typename R, typename Self>
  static Result<R*> As(Self& self, std::string_view key) {
    auto* const record = self.Find(key);
    if (record == nullptr) return internal::Missing(key);
    R* const held = std::get_if<std::remove_const_t<R>>(record);
    if (held == nullptr)
      return internal::OtherType(key, internal::TypeName<std::remove_const_t<R>>());
    return held;
  }
};

/// Records of a message or state whose arrays lie in `spool`, brought into memory.
///
/// bytes_max  of all arrays together.
/// cost       one copy of the arrays, and 1 MiB.
/// errors     kInvalidArgument: an array that is not NumPy's or breaks NPY's rules, named by its
///            keys; kResourceExhausted: above bytes_max; kDataLoss: the file is shorter than a
///            piece says.
Result<RecordDict> Load(const flower::RecordDict& records, const flower::Spool& spool,
                        uint64_t bytes_max);

/// The reverse: the arrays are appended to `spool`.
/// errors  kResourceExhausted: the disk is full.
Result<flower::RecordDict> Keep(const RecordDict& records, flower::Spool& spool);

}  // namespace umbel::clientapp
