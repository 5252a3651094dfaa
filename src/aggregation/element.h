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

enum class ElementType : uint8_t {
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
Result<ElementType> ElementTypeOf(std::string_view name);
std::string_view ElementName(ElementType type);
size_t ElementSize(ElementType type);  // bytes
bool IsFloat(ElementType type);

/// NumPy's type of an array times a Python float, of a mean, of a median: floats stay as they are,
/// all else becomes float64.
ElementType MeanType(ElementType type);
/// NumPy's type of a sum or difference of two arrays, where at least one is float; of two others
/// float64 (NumPy: an integer), in which alone the optimisers compute with them.
ElementType Promote(ElementType a, ElementType b);

/// Converts elements as NumPy's astype does: integers to the nearest float, float64 to the nearest
/// float32 or half.
///
/// T      float, double or Half.
/// bytes  out.size() elements.
template <typename T>
void Load(ElementType type, std::span<const std::byte> bytes, std::span<T> out);
/// The reverse, into a float type.
template <typename T>
void Store(std::span<const T> values, ElementType type, std::span<std::byte> out);

/// Calls `visit` with a value of the C++ type in which NumPy computes for a float type.
template <typename Visit>
decltype(auto) VisitFloat(ElementType type, Visit visit) {
  if (type == ElementType::kFloat16) return visit(Half());
  if (type == ElementType::kFloat32) return visit(float{});
  return visit(double{});
}

}  // namespace umbel::aggregation
