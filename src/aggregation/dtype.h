// What a sum can be made of: NumPy's element types, and the layout all updates of an array share.
// Values; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/npy.h"

namespace umbel::aggregation {

enum class Kind : uint8_t { kBool = 0, kInt = 1, kUnsigned = 2, kFloat = 3, kComplex = 4 };

/// An element, apart from its byte order.
struct ElementType {
  Kind kind = Kind::kFloat;
  uint8_t item_size = 4;  // bytes of an element; a complex one has two components

  size_t components() const { return kind == Kind::kComplex ? 2 : 1; }
  size_t component_size() const { return item_size / components(); }
  /// NumPy's descr of the native type: "<f4".
  std::string Descr() const;

  bool operator==(const ElementType&) const = default;
};

struct Dtype {
  ElementType type;
  bool swapped = false;  // big-endian bytes

  bool operator==(const Dtype&) const = default;
};

/// Reads NumPy's descr.
///
/// errors  kInvalidArgument, which names the dtype: text, bytes, void, object, long double, or
///         anything else that is not bool, integer, float or complex of the usual sizes.
Result<Dtype> ParseDtype(std::string_view descr);

/// The dtype that `array * weight` has in NumPy 2 for a Python float: floats and complex numbers
/// keep theirs, bool and integers become float64. Always native byte order.
ElementType ResultType(ElementType type);

/// What all updates of one array must agree on. A result has the same shape and order.
struct Layout {
  Dtype dtype;
  std::vector<uint64_t> shape;  // empty: a scalar
  bool fortran_order = false;
  uint64_t count = 1;  // elements

  bool operator==(const Layout&) const = default;
};

Result<Layout> LayoutOf(const tensor::NpyHead& head);

/// Whether an update with layout `got` can be added to sums of layout `expected`. Byte order is
/// free. Element order matters only where it can show: with two sizes above 1. A mixture is
/// refused and not transposed, since sums are kept by position in the file.
///
/// errors  kInvalidArgument, which names both sides.
Status CheckSame(const Layout& expected, const Layout& got);

}  // namespace umbel::aggregation
