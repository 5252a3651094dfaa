#include "tensor/npy.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "tensor/quote.h"

namespace umbel::tensor {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kMagic = "\x93NUMPY"sv;
constexpr size_t kTextSizeMax = size_t{1} << 20;  // bytes of an S, U or V element
constexpr uint64_t kBytesMax = uint64_t{1} << 63;
constexpr size_t kAlignment = 64;
constexpr size_t kGrowthDigits = 21;

tl::unexpected<Error> Bad(std::string message, Code code = Code::kInvalidArgument) {
  return Fail(code, "NPY header: " + std::move(message));
}

/// The few Python literals a header consists of.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  std::string_view rest() const { return text_.substr(at_); }
  bool Take(char c) {
    SkipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool Take(std::string_view word) {
    SkipSpace();
    if (!rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  bool AtEnd() {
    SkipSpace();
    return at_ == text_.size();
  }
  /// 'text' or "text", without escapes.
  std::optional<std::string_view> TakeString() {
    SkipSpace();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return std::nullopt;
    const size_t end = text_.find(text_[at_], at_ + 1);
    const std::string_view text = text_.substr(at_ + 1, end - at_ - 1);
    if (end == std::string_view::npos || text.find('\\') != std::string_view::npos)
      return std::nullopt;
    at_ = end + 1;
    return text;
  }
  std::optional<uint64_t> TakeNumber() {
    SkipSpace();
    uint64_t value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) return std::nullopt;
    at_ += static_cast<size_t>(end - begin);
    return value;
  }

 private:
  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
};

/// Bytes of one element.
Result<size_t> ItemSize(std::string_view dtype) {
  struct Kind {
    char kind;
    std::array<size_t, 4> sizes;  // 0: none
  };
  constexpr std::array kNumbers{Kind{'b', {1}}, Kind{'i', {1, 2, 4, 8}}, Kind{'u', {1, 2, 4, 8}},
                                Kind{'f', {2, 4, 8, 16}}, Kind{'c', {8, 16, 32}}};
  const auto refused = [&] {
    return Bad(fmt::format("descr {} is not a number or fixed-size type", Quote(dtype)));
  };
  if (dtype.size() < 3 || "<>|="sv.find(dtype[0]) == std::string_view::npos) return refused();
  const char kind = dtype[1];
  const std::string_view digits = dtype.substr(2);
  size_t size = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size);
  if (error != std::errc() || end != digits.data() + digits.size() || size > kTextSizeMax)
    return refused();
  if (kind == 'S' || kind == 'V') return size;
  if (kind == 'U') return size * 4;
  for (const Kind& known : kNumbers) {
    const bool fits = std::find(known.sizes.begin(), known.sizes.end(), size) != known.sizes.end();
    if (known.kind == kind && size > 0 && fits) return size;
  }
  return refused();
}

Status TakeShape(Reader& reader, std::vector<uint64_t>& shape) {
  if (!reader.Take('(')) return Bad(fmt::format("shape {} is no tuple", Quote(reader.rest())));
  bool comma = true;
  while (!reader.Take(')')) {
    const auto size = reader.TakeNumber();
    if (!comma || !size || *size >= kBytesMax)
      return Bad(fmt::format("shape {} is no tuple of sizes", Quote(reader.rest())));
    if (shape.size() == kNpyDimensionsMax)
      return Bad(fmt::format("shape has more than {} dimensions", kNpyDimensionsMax),
                 Code::kResourceExhausted);
    shape.push_back(*size);
    comma = reader.Take(',');
  }
  if (shape.size() == 1 && !comma) return Bad("shape is a number in parentheses, no tuple");
  return {};
}

Status Count(NpyHead& head) {
  head.element_count = 1;
  // With a zero among them the others cannot matter.
  if (std::find(head.shape.begin(), head.shape.end(), 0) != head.shape.end()) {
    head.element_count = 0;
    return {};
  }
  uint64_t bytes = std::max<size_t>(head.item_size, 1);
  for (const uint64_t size : head.shape) {
    if (bytes >= kBytesMax / size)
      return Bad("shape makes 2^63 bytes or more", Code::kResourceExhausted);
    bytes *= size;
    head.element_count *= size;
  }
  return {};
}

/// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }: each key once, in any order.
Result<NpyHead> ParseDict(std::string_view text) {
  NpyHead head;
  Reader reader(text);
  bool has_descr = false;
  bool has_order = false;
  bool has_shape = false;
  if (!reader.Take('{')) return Bad("it does not begin with '{'");
  for (bool comma = true; !reader.Take('}'); comma = reader.Take(',')) {
    const auto key = reader.TakeString();
    if (!comma || !key || !reader.Take(':'))
      return Bad(fmt::format("no key and value at {}", Quote(reader.rest())));
    if (*key == "descr" && !std::exchange(has_descr, true)) {
      const auto dtype = reader.TakeString();
      if (!dtype) return Bad(fmt::format("descr {} is no plain text", Quote(reader.rest())));
      UMBEL_ASSIGN(head.item_size, ItemSize(*dtype));
      head.dtype = *dtype;
    } else if (*key == "fortran_order" && !std::exchange(has_order, true)) {
      head.fortran_order = reader.Take("True");
      if (!head.fortran_order && !reader.Take("False"))
        return Bad(fmt::format("fortran_order {} is not True or False", Quote(reader.rest())));
    } else if (*key == "shape" && !std::exchange(has_shape, true)) {
      UMBEL_TRY(TakeShape(reader, head.shape));
    } else {
      return Bad(fmt::format("key {} is unknown or there twice", Quote(*key)));
    }
  }
  if (!has_descr || !has_order || !has_shape)
    return Bad("descr, fortran_order or shape is missing");
  if (!reader.AtEnd()) return Bad(fmt::format("{} after the '}}'", Quote(reader.rest())));
  UMBEL_TRY(Count(head));
  return head;
}

}  // namespace

Result<std::optional<NpyHead>> ParseNpyHead(std::string_view prefix) {
  const std::string_view magic = prefix.substr(0, kMagic.size());
  if (!kMagic.starts_with(magic)) return Bad(fmt::format("{} is not its magic", Quote(magic)));
  if (prefix.size() < kMagic.size() + 2) return std::nullopt;
  const auto major = static_cast<uint8_t>(prefix[kMagic.size()]);
  const auto minor = static_cast<uint8_t>(prefix[kMagic.size() + 1]);
  if (major < 1 || major > 3 || minor != 0)
    return Bad(fmt::format("version {}.{} is not 1.0, 2.0 or 3.0", major, minor));

  const size_t width = major == 1 ? 2 : 4;
  const size_t start = kMagic.size() + 2 + width;
  if (prefix.size() < start) return std::nullopt;
  size_t size = 0;
  for (size_t i = 0; i < width; ++i)
    size |= size_t{static_cast<uint8_t>(prefix[start - width + i])} << (8 * i);
  if (size > kNpyHeadMax)
    return Bad(fmt::format("its length {} is above {}", size, kNpyHeadMax),
               Code::kResourceExhausted);
  if (prefix.size() - start < size) return std::nullopt;
  UMBEL_ASSIGN(NpyHead head, ParseDict(prefix.substr(start, size)));
  head.data_offset = start + size;
  return head;
}

std::string MakeNpyHead(std::string_view descr, std::span<const uint64_t> shape) {
  UMBEL_CHECK(shape.size() <= kNpyDimensionsMax);
  std::string tuple;
  for (const uint64_t size : shape) tuple += fmt::format("{}{}", tuple.empty() ? "" : ", ", size);
  if (shape.size() == 1) tuple += ",";
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, tuple);
  // NumPy leaves room for the first size to grow, then ends the line where the data is aligned.
  if (!shape.empty()) text.append(kGrowthDigits - fmt::format("{}", shape[0]).size(), ' ');
  constexpr size_t kStart = kMagic.size() + 4;
  text.append(kAlignment - (kStart + text.size() + 1) % kAlignment, ' ');
  text.push_back('\n');
  std::string head(kMagic);
  for (const size_t byte : {size_t{1}, size_t{0}, text.size() & 0xff, text.size() >> 8})
    head.push_back(static_cast<char>(byte));
  return head + text;
}

Result<std::string> DtypeName(std::string_view descr) {
  if (descr.size() < 3 || descr.find_first_of("fiucb", 1) != 1)
    return Fail(Code::kInvalidArgument, fmt::format("dtype {} is not a number", Quote(descr)));
  unsigned bytes = 0;
  for (const char c : descr.substr(2)) {
    if (c < '0' || c > '9' || bytes > 99)
      return Fail(Code::kInvalidArgument, fmt::format("dtype {} is not a number", Quote(descr)));
    bytes = bytes * 10 + static_cast<unsigned>(c - '0');
  }
  if (descr[1] == 'b') return std::string("bool");
  const std::string_view kind = descr[1] == 'f'   ? "float"
                                : descr[1] == 'i' ? "int"
                                : descr[1] == 'u' ? "uint"
                                                  : "complex";
  return fmt::format("{}{}", kind, bytes * 8);
}

}  // namespace umbel::tensor
