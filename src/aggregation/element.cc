#include "aggregation/element.h"

#include <array>
#include <type_traits>

#include "tensor/quote.h"

namespace umbel::aggregation {
namespace {

struct Row {
  std::string_view name;
  size_t size;
};
constexpr std::array<Row, 12> kRows = {{{"bool", 1},
                                        {"int8", 1},
                                        {"int16", 2},
                                        {"int32", 4},
                                        {"int64", 8},
                                        {"uint8", 1},
                                        {"uint16", 2},
                                        {"uint32", 4},
                                        {"uint64", 8},
                                        {"float16", 2},
                                        {"float32", 4},
                                        {"float64", 8}}};

template <typename From, typename T>
void LoadAs(std::span<const std::byte> bytes, std::span<T> out) {
  if constexpr (std::is_same_v<From, T>) {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size_bytes());
  } else {
    for (size_t i = 0; i < out.size(); ++i) {
      From value;
      std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
      if constexpr (std::is_same_v<T, Half>) {
        out[i] = Half(static_cast<double>(value));
      } else {
        out[i] = static_cast<T>(value);
      }
    }
  }
}

template <typename To, typename T>
void StoreAs(std::span<const T> values, std::span<std::byte> out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const To value = static_cast<To>(values[i]);
    std::memcpy(out.data() + i * sizeof(To), &value, sizeof(To));
  }
}

}  // namespace

Result<NumberType> NumberTypeOf(std::string_view name) {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (kRows[i].name == name) return static_cast<NumberType>(i);
  return Fail(Code::kInvalidArgument,
              fmt::format("dtype {} is not bool, an integer or a float", tensor::Quote(name)));
}

std::string_view ElementName(NumberType type) { return kRows[static_cast<size_t>(type)].name; }
size_t ElementSize(NumberType type) { return kRows[static_cast<size_t>(type)].size; }
bool IsFloat(NumberType type) { return type >= NumberType::kFloat16; }

NumberType MeanType(NumberType type) { return IsFloat(type) ? type : NumberType::kFloat64; }

NumberType Promote(NumberType a, NumberType b) {
  if (!IsFloat(a)) std::swap(a, b);
  if (!IsFloat(a)) return NumberType::kFloat64;
  if (IsFloat(b)) return std::max(a, b);
  const size_t size = ElementSize(b);  // an integer of 1, 2, 4 or 8 bytes
  const NumberType holds = size == 1   ? NumberType::kFloat16
                           : size == 2 ? NumberType::kFloat32
                                       : NumberType::kFloat64;
  return std::max(a, holds);
}

template <typename T>
void Load(NumberType type, std::span<const std::byte> bytes, std::span<T> out) {
  UMBEL_CHECK(bytes.size() == out.size() * ElementSize(type));
  switch (type) {
    case NumberType::kBool:
    case NumberType::kUint8:
      return LoadAs<uint8_t>(bytes, out);
    case NumberType::kInt8:
      return LoadAs<int8_t>(bytes, out);
    case NumberType::kInt16:
      return LoadAs<int16_t>(bytes, out);
    case NumberType::kInt32:
      return LoadAs<int32_t>(bytes, out);
    case NumberType::kInt64:
      return LoadAs<int64_t>(bytes, out);
    case NumberType::kUint16:
      return LoadAs<uint16_t>(bytes, out);
    case NumberType::kUint32:
      return LoadAs<uint32_t>(bytes, out);
    case NumberType::kUint64:
      return LoadAs<uint64_t>(bytes, out);
    case NumberType::kFloat16:
      return LoadAs<Half>(bytes, out);
    case NumberType::kFloat32:
      return LoadAs<float>(bytes, out);
    case NumberType::kFloat64:
      return LoadAs<double>(bytes, out);
  }
}

template <typename T>
void Store(std::span<const T> values, NumberType type, std::span<std::byte> out) {
  UMBEL_CHECK(IsFloat(type) && out.size() == values.size() * ElementSize(type));
  if (type == NumberType::kFloat16) return StoreAs<Half>(values, out);
  if (type == NumberType::kFloat32) return StoreAs<float>(values, out);
  return StoreAs<double>(values, out);
}

template void Load(NumberType, std::span<const std::byte>, std::span<Half>);
template void Load(NumberType, std::span<const std::byte>, std::span<float>);
template void Load(NumberType, std::span<const std::byte>, std::span<double>);
template void Store(std::span<const Half>, NumberType, std::span<std::byte>);
template void Store(std::span<const float>, NumberType, std::span<std::byte>);
template void Store(std::span<const double>, NumberType, std::span<std::byte>);

}  // namespace umbel::aggregation
