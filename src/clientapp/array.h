// An array in memory, as ClientApps written in C++ see it. A value; one thread at a time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "tensor/npy.h"

namespace umbel::clientapp {

/// What an element may be; text and complex numbers are reached as bytes.
template <typename T>
concept Element = std::same_as<T, bool> || std::same_as<T, float> || std::same_as<T, double> ||
    std::same_as<T, int8_t> || std::same_as<T, int16_t> || std::same_as<T, int32_t> ||
    std::same_as<T, int64_t> || std::same_as<T, uint8_t> || std::same_as<T, uint16_t> ||
    std::same_as<T, uint32_t> || std::same_as<T, uint64_t>;

/// NumPy's name of it: "float32".
template <Element T>
std::string DtypeOf() {
  if constexpr (std::same_as<T, bool>) return "bool";
  const std::string_view kind = std::floating_point<T>    ? "float"
                                : std::signed_integral<T> ? "int"
                                                          : "uint";
  return fmt::format("{}{}", kind, 8 * sizeof(T));
}

/// Elements in C order and this machine's byte order, aligned for any of them.
class Array {
 public:
  /// No elements: float32 of shape [0].
  Array() = default;

  /// Zeros.
  ///
  /// dtype   NumPy's name: "float32", "int64", "bool", "complex64"; "<U8", "|S8" for text.
  /// shape   [] is a scalar.
  /// errors  kInvalidArgument: another dtype, or a negative size; kResourceExhausted: more than 64
  ///         dimensions, or 2^63 bytes.
  static Result<Array> Zeros(std::string_view dtype, std::span<const int64_t> shape);
  /// A copy of `values`.
  /// errors  Zeros()'s; kInvalidArgument: not as many values as the shape has elements.
  template <Element T>
  static Result<Array> Of(std::span<const T> values, std::span<const int64_t> shape) {
    UMBEL_ASSIGN(Array array, Zeros(DtypeOf<T>(), shape));
    UMBEL_TRY(array.Fill(std::as_bytes(values)));
    return array;
  }

  /// Reads a whole NPY file. Fortran order and foreign byte order are undone.
  /// errors  ParseNpyHead()'s; kInvalidArgument: the header is not whole, or the data is not as
  ///         long as the header says.
  static Result<Array> FromNpy(std::string_view npy);
  /// The same, the header being read already; `data` is what follows it.
  static Result<Array> FromNpy(const tensor::NpyHead& head, std::vector<char> data);
  /// Byte for byte what np.save writes.
  std::string ToNpy() const { return NpyHead().append(data_.data(), data_.size()); }
  /// Its header; bytes() comes after.
  std::string NpyHead() const;

  const std::string& dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  /// Number of elements.
  size_t size() const { return count_; }

  std::span<const char> bytes() const { return data_; }
  std::span<char> bytes() { return data_; }

  /// The elements, row by row; they stay the array's.
  /// errors  kInvalidArgument: the array has another dtype.
  template <Element T>
  Result<std::span<const T>> As() const {
    UMBEL_TRY(CheckDtype(DtypeOf<T>()));
    return std::span<const T>(reinterpret_cast<const T*>(data_.data()), count_);
  }
  template <Element T>
  Result<std::span<T>> As() {
    UMBEL_TRY(CheckDtype(DtypeOf<T>()));
    return std::span<T>(reinterpret_cast<T*>(data_.data()), count_);
  }
  /// The same of an array that is to have this shape.
  /// errors  kInvalidArgument: another dtype or shape.
  template <Element T>
  Result<std::span<const T>> As(std::span<const int64_t> shape) const {
    UMBEL_TRY(CheckShape(shape));
    return As<T>();
  }
  template <Element T>
  Result<std::span<T>> As(std::span<const int64_t> shape) {
    UMBEL_TRY(CheckShape(shape));
    return As<T>();
  }

  bool operator==(const Array&) const = default;

 private:
  Status Fill(std::span<const std::byte> bytes);
  Status CheckDtype(std::string_view wanted) const;
  Status CheckShape(std::span<const int64_t> wanted) const;

  std::string dtype_ = "float32";
  std::vector<int64_t> shape_ = {0};
  size_t count_ = 0;
  std::vector<char> data_;
};

}  // namespace umbel::clientapp
