#include "clientapp/array.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>

#include "tensor/quote.h"

namespace umbel::clientapp {
namespace {

static_assert(std::endian::native == std::endian::little);

/// Kinds with a name of their own, and the letter NPY has for them.
struct Kind {
  char letter;
  std::string_view name;
};
constexpr std::array kKinds{Kind{'i', "int"}, Kind{'u', "uint"}, Kind{'f', "float"},
                            Kind{'c', "complex"}};

bool IsText(char letter) { return letter == 'S' || letter == 'U' || letter == 'V'; }

/// "<f4" → "float32". Of what ParseNpyHead() lets pass.
std::string NameOf(const tensor::NpyHead& head) {
  const char letter = head.dtype[1];
  if (letter == 'b') return "bool";
  for (const Kind& kind : kKinds)
    if (kind.letter == letter) return fmt::format("{}{}", kind.name, 8 * head.item_size);
  return fmt::format("{}{}", letter == 'U' ? '<' : '|', head.dtype.substr(1));
}

/// "float32" → "<f4". Sizes that do not exist are ParseNpyHead()'s to refuse.
Result<std::string> DescrOf(std::string_view name) {
  if (name == "bool") return "|b1";
  if (name.size() >= 3 && (name[0] == '<' || name[0] == '|') && IsText(name[1]))
    return std::string(name);
  for (const Kind& kind : kKinds) {
    if (!name.starts_with(kind.name)) continue;
    const std::string_view digits = name.substr(kind.name.size());
    size_t bits = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (error != std::errc() || end != digits.data() + digits.size() || bits % 8 != 0) break;
    return fmt::format("{}{}{}", bits == 8 ? '|' : '<', kind.letter, bits / 8);
  }
  return Fail(Code::kInvalidArgument, fmt::format("dtype {} is unknown", tensor::Quote(name)));
}

std::string Text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// Turns each number of `data` round; bytes have no order.
void Swap(const tensor::NpyHead& head, std::vector<char>& data) {
  const char letter = head.dtype[1];
  if (letter == 'S' || letter == 'V' || data.empty()) return;
  const size_t width = letter == 'U' ? 4 : letter == 'c' ? head.item_size / 2 : head.item_size;
  for (size_t at = 0; at < data.size(); at += width)
    std::reverse(data.data() + at, data.data() + at + width);
}

/// The last index runs fastest instead of the first.
std::vector<char> ToCOrder(const tensor::NpyHead& head, const std::vector<char>& data) {
  std::vector<char> out(data.size());
  const size_t dimensions = head.shape.size();
  std::vector<size_t> strides(dimensions, 1), index(dimensions, 0);
  for (size_t d = 1; d < dimensions; ++d) strides[d] = strides[d - 1] * head.shape[d - 1];
  size_t from = 0;
  for (size_t to = 0; to < head.element_count; ++to) {
    std::memcpy(out.data() + to * head.item_size, data.data() + from * head.item_size,
                head.item_size);
    for (size_t d = dimensions; d-- > 0;) {
      from += strides[d];
      if (++index[d] < head.shape[d]) break;
      from -= strides[d] * head.shape[d];
      index[d] = 0;
    }
  }
  return out;
}

}  // namespace

Result<Array> Array::Zeros(std::string_view dtype, std::span<const int64_t> shape) {
  UMBEL_ASSIGN(const std::string descr, DescrOf(dtype));
  if (shape.size() > tensor::kNpyDimensionsMax)
    return Fail(Code::kResourceExhausted, fmt::format("shape has {} dimensions, more than {}",
                                                      shape.size(), tensor::kNpyDimensionsMax));
  for (const int64_t size : shape)
    if (size < 0)
      return Fail(Code::kInvalidArgument, fmt::format("shape {} has a negative size", Text(shape)));
  // The header's reader knows the sizes and the limits.
  const std::vector<uint64_t> sizes(shape.begin(), shape.end());
  UMBEL_ASSIGN(const auto head, tensor::ParseNpyHead(tensor::MakeNpyHead(descr, sizes)));
  return FromNpy(*head, std::vector<char>(head->element_count * head->item_size));
}

Result<Array> Array::FromNpy(std::string_view npy) {
  UMBEL_ASSIGN(const auto head, tensor::ParseNpyHead(npy));
  if (!head) return Fail(Code::kInvalidArgument, "NPY header: it is not whole");
  return FromNpy(
      *head, std::vector<char>(npy.begin() + static_cast<ptrdiff_t>(head->data_offset), npy.end()));
}

Result<Array> Array::FromNpy(const tensor::NpyHead& head, std::vector<char> data) {
  const uint64_t wanted = head.element_count * head.item_size;
  if (data.size() != wanted)
    return Fail(Code::kInvalidArgument,
                fmt::format("NPY data has {} bytes, its shape makes {}", data.size(), wanted));
  Array array;
  array.dtype_ = NameOf(head);
  array.shape_.assign(head.shape.begin(), head.shape.end());
  array.count_ = head.element_count;
  if (head.dtype[0] == '>') Swap(head, data);
  if (head.fortran_order && !data.empty()) data = ToCOrder(head, data);
  array.data_ = std::move(data);
  return array;
}

std::string Array::NpyHead() const {
  const std::vector<uint64_t> sizes(shape_.begin(), shape_.end());
  return tensor::MakeNpyHead(DescrOf(dtype_).value(), sizes);
}

Status Array::Fill(std::span<const std::byte> bytes) {
  if (bytes.size() != data_.size())
    return Fail(Code::kInvalidArgument,
                fmt::format("values of {} bytes for shape {} of {}, which has {} bytes",
                            bytes.size(), Text(shape_), dtype_, data_.size()));
  if (!bytes.empty()) std::memcpy(data_.data(), bytes.data(), bytes.size());
  return {};
}

Status Array::CheckDtype(std::string_view wanted) const {
  if (dtype_ == wanted) return {};
  return Fail(Code::kInvalidArgument, fmt::format("dtype is {}, not {}", dtype_, wanted));
}

Status Array::CheckShape(std::span<const int64_t> wanted) const {
  if (std::ranges::equal(shape_, wanted)) return {};
  return Fail(Code::kInvalidArgument,
              fmt::format("shape is {}, not {}", Text(shape_), Text(wanted)));
}

}  // namespace umbel::clientapp
