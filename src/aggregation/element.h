// What the elements of an array may be where the strategies compute, NumPy's rules for the types of
// results, and where blocks of updates come from. Blocks are bytes in C order and this machine's
// byte order, at any alignment. Functions and values; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "aggregation/half.h"
#include "base/result.h"

namespace umbel::aggregation {

enum class NumberType : uint8_t {
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kFloat16,
  kFloat32,
  kFloat64,
};

/// name    NumPy's: "float32".
/// errors  kInvalidArgument: text, complex numbers, dates, or no dtype at all.
Result<NumberType> NumberTypeOf(std::string_view name);
std::string_view ElementName(NumberType type);
size_t ElementSize(NumberType type);  // bytes
bool IsFloat(NumberType type);

/// NumPy's type of an array times a Python float, of a mean, of a median: floats stay as they are,
/// all else becomes float64.
NumberType MeanType(NumberType type);
/// NumPy's type of a sum or difference of two arrays, where at least one is float; of two others
/// float64 (NumPy: an integer), in which alone the optimisers compute with them.
NumberType Promote(NumberType a, NumberType b);

/// Converts elements as NumPy's astype does: integers to the nearest float, float64 to the nearest
/// float32 or half.
///
/// T      float, double or Half.
/// bytes  out.size() elements.
template <typename T>
void Load(NumberType type, std::span<const std::byte> bytes, std::span<T> out);
/// The reverse, into a float type.
template <typename T>
void Store(std::span<const T> values, NumberType type, std::span<std::byte> out);

/// Calls `visit` with a value of the C++ type in which NumPy computes for a float type.
template <typename Visit>
decltype(auto) VisitFloat(NumberType type, Visit visit) {
  if (type == NumberType::kFloat16) return visit(Half());
  if (type == NumberType::kFloat32) return visit(float{});
  return visit(double{});
}

}  // namespace umbel::aggregation
