// The head of a safetensors file: eight bytes, little-endian, with the length of the JSON that
// follows; then come the arrays' bytes, in C order and little-endian. Functions; safe from any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::tensor {

struct SafeTensor {
  std::string name;
  std::string descr;            // NumPy's: "<f4", "|u1"
  std::vector<uint64_t> shape;  // empty: a scalar
  uint64_t begin = 0;           // of its bytes, from the end of the head
  uint64_t size = 0;            // bytes
};

inline constexpr size_t kSafetensorsLength = 8;
inline constexpr uint64_t kSafetensorsHeadMax = uint64_t{16} << 20;

/// How long the JSON is.
///
/// length     the file's first kSafetensorsLength bytes, or fewer if there are no more.
/// file_size  of all of it.
/// errors     kInvalidArgument: too short, or the JSON would be longer than the file or the limit.
Result<uint64_t> SafetensorsHeadSize(std::string_view length, uint64_t file_size);

/// The arrays, in the order of their bytes; what "__metadata__" says is read over.
///
/// data_size  bytes after the head: the arrays must fill them, without gap or overlap.
/// errors     kInvalidArgument: not such JSON, a name or field twice, a dtype NumPy does not have,
///            offsets that do not fit; the message names the array and the rule.
Result<std::vector<SafeTensor>> ParseSafetensorsHead(std::string_view json, uint64_t data_size);

/// A whole head, with the length before it and blanks after it up to a multiple of 8 bytes. The
/// arrays' bytes come in the order given; `begin` and `size` are not read.
///
/// errors  kInvalidArgument: a dtype that safetensors does not have, byte order included; a name
///         that is taken or reserved.
Result<std::string> MakeSafetensorsHead(std::span<const SafeTensor> arrays);

}  // namespace umbel::tensor
