// NumPy's NPY files: the header, of versions 1 to 3 as read and of version 1 as written. Functions;
// safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::tensor {

struct NpyHead {
  std::string dtype;  // NumPy's descr: byte order, kind, size; "<f4"
  bool fortran_order = false;
  std::vector<uint64_t> shape;  // empty: a scalar
  size_t data_offset = 0;       // bytes before the data
  size_t item_size = 0;         // bytes of an element
  uint64_t element_count = 0;   // product of the shape; times item_size it still fits 63 bits

  bool operator==(const NpyHead&) const = default;
};

/// The limit NumPy itself has for headers from strangers.
inline constexpr size_t kNpyHeadMax = 10'000;
inline constexpr size_t kNpyDimensionsMax = 64;

/// Reads the header from the first bytes of an array that may still be arriving.
///
/// returns  nullopt while more bytes are needed.
/// errors   kInvalidArgument: not NPY, a broken header, or a dtype that is not bool, int, float,
///          complex or fixed-size bytes or text: objects would be pickles, which nobody here opens;
///          kResourceExhausted: a header or shape above the limits.
Result<std::optional<NpyHead>> ParseNpyHead(std::string_view prefix);

/// The header of an array in C order, byte for byte as np.save writes it; the data comes right
/// after.
///
/// descr  NumPy's: "<f4".
/// shape  at most kNpyDimensionsMax sizes.
std::string MakeNpyHead(std::string_view descr, std::span<const uint64_t> shape);

/// NumPy's name of a descr: "float32" of "<f4".
/// errors  kInvalidArgument: text, bytes or anything else that is not a number.
Result<std::string> DtypeName(std::string_view descr);

}  // namespace umbel::tensor
