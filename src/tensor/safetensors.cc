#include "tensor/safetensors.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "tensor/npy.h"
#include "tensor/quote.h"

namespace umbel::tensor {
namespace {

constexpr std::string_view kMetadataName = "__metadata__";
constexpr size_t kAlignment = 8;
constexpr uint64_t kSizeMax = std::numeric_limits<int64_t>::max();  // of one dimension

struct Type {
  std::string_view name;
  std::string_view descr;
  uint64_t size;
};
constexpr Type kTypes[] = {
    {"BOOL", "|b1", 1}, {"U8", "|u1", 1},  {"I8", "|i1", 1},  {"U16", "<u2", 2},
    {"I16", "<i2", 2},  {"U32", "<u4", 4}, {"I32", "<i4", 4}, {"U64", "<u8", 8},
    {"I64", "<i8", 8},  {"F16", "<f2", 2}, {"F32", "<f4", 4}, {"F64", "<f8", 8},
};

tl::unexpected<Error> Bad(std::string_view why) {
  return Fail(Code::kInvalidArgument, fmt::format("safetensors: {}", why));
}

/// Takes the JSON apart as it is read: nothing is built that a hostile head could make large.
class Reader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Result<std::vector<SafeTensor>> Take(std::string_view json) {
    const bool read = nlohmann::json::sax_parse(json.begin(), json.end(), this);
    if (!error_.empty()) return Bad(error_);
    if (!read) return Bad("its head is not JSON");
    return std::move(tensors_);
  }

  bool null() override { return Wrong("null"); }
  bool boolean(bool) override { return Wrong("true or false"); }
  bool number_integer(number_integer_t) override { return Wrong("a number below 0"); }
  bool number_float(number_float_t, const string_t&) override { return Wrong("a fraction"); }
  bool binary(binary_t&) override { return Wrong("bytes"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (at_ == At::kSizes) {
      if (tensors_.back().shape.size() == kNpyDimensionsMax)
        return Refuse(fmt::format("it has more than {} dimensions", kNpyDimensionsMax));
      tensors_.back().shape.push_back(value);
      return true;
    }
    if (at_ != At::kOffsets || offsets_ == 2) return Wrong("a number");
    (offsets_++ == 0 ? tensors_.back().begin : end_) = value;
    return true;
  }

  bool string(string_t& value) override {
    if (at_ == At::kNote) {
      at_ = At::kNotes;
      return true;
    }
    if (at_ != At::kDtype) return Wrong("text");
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const Type& t) { return t.name == value; });
    if (type == std::end(kTypes))
      return Refuse(fmt::format("its dtype {} is none of NumPy's: convert it, to F32 for instance",
                                Quote(value)));
    tensors_.back().descr = type->descr;
    item_ = type->size;
    at_ = At::kFields;
    return true;
  }

  bool start_object(size_t) override {
    if (at_ == At::kBegin) return Go(At::kNames);
    if (at_ == At::kMetadata) return Go(At::kNotes);
    if (at_ != At::kTensor) return Wrong("an object");
    fields_ = 0;
    offsets_ = 0;
    return Go(At::kFields);
  }

  bool key(string_t& name) override {
    if (at_ == At::kNotes) return Go(At::kNote);
    if (at_ == At::kNames) {
      if (!names_.insert(name).second) {
        error_ = fmt::format("{} is there twice", Quote(name));
        return false;
      }
      if (name == kMetadataName) return Go(At::kMetadata);
      tensors_.emplace_back().name = name;
      return Go(At::kTensor);
    }
    constexpr std::pair<std::string_view, At> kFieldNames[] = {
        {"dtype", At::kDtype}, {"shape", At::kShape}, {"data_offsets", At::kOffsetsBegin}};
    for (unsigned i = 0; i < std::size(kFieldNames); ++i) {
      if (kFieldNames[i].first != name) continue;
      if (fields_ & 1U << i) return Refuse(fmt::format("it has {} twice", name));
      fields_ |= 1U << i;
      return Go(kFieldNames[i].second);
    }
    return Refuse(fmt::format("it has an unknown field {}", Quote(name)));
  }

  bool end_object() override {
    if (at_ == At::kNotes) return Go(At::kNames);
    if (at_ == At::kNames) return Go(At::kEnd);
    if (fields_ != 7) return Refuse("dtype, shape or data_offsets is missing");
    return Measure() && Go(At::kNames);
  }

  bool start_array(size_t) override {
    if (at_ == At::kShape) return Go(At::kSizes);
    if (at_ == At::kOffsetsBegin) return Go(At::kOffsets);
    return Wrong("a list");
  }

  bool end_array() override {
    if (at_ == At::kOffsets && offsets_ != 2) return Refuse("its data_offsets are not two numbers");
    return Go(At::kFields);
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    if (error_.empty()) error_ = fmt::format("its head is not JSON, at byte {}", position);
    return false;
  }

 private:
  enum class At {
    kBegin,
    kNames,  // in the outermost object
    kMetadata,
    kNotes,  // in the metadata
    kNote,
    kTensor,
    kFields,  // in an array's object
    kDtype,
    kShape,
    kSizes,  // in its list
    kOffsetsBegin,
    kOffsets,  // in their list
    kEnd,
  };

  bool Go(At at) {
    at_ = at;
    return true;
  }

  bool Refuse(std::string_view why) {
    error_ = fmt::format("array {}: {}", Quote(tensors_.back().name), why);
    return false;
  }

  bool Wrong(std::string_view what) {
    const bool inside = at_ != At::kBegin && at_ != At::kNames && at_ != At::kMetadata &&
                        at_ != At::kNotes && at_ != At::kNote && at_ != At::kEnd;
    if (inside) return Refuse(fmt::format("its head has {} where it must not", what));
    error_ = fmt::format("its head has {} where it must not", what);
    return false;
  }

  /// Do its offsets hold what its shape says?
  bool Measure() {
    SafeTensor& tensor = tensors_.back();
    uint64_t size = item_;
    const bool empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
    for (const uint64_t n : tensor.shape)
      if (n > kSizeMax || (!empty && __builtin_mul_overflow(size, n, &size)))
        return Refuse("its shape is too large");
    if (empty) size = 0;
    if (end_ < tensor.begin || end_ - tensor.begin != size)
      return Refuse(fmt::format("its data_offsets are [{}, {}], its shape takes {} bytes",
                                tensor.begin, end_, size));
    tensor.size = size;
    return true;
  }

  At at_ = At::kBegin;
  std::string error_;
  std::set<std::string, std::less<>> names_;
  std::vector<SafeTensor> tensors_;
  // Of the last of them:
  unsigned fields_ = 0;  // bits of those that were there
  unsigned offsets_ = 0;
  uint64_t end_ = 0;
  uint64_t item_ = 0;
};

}  // namespace

Result<uint64_t> SafetensorsHeadSize(std::string_view length, uint64_t file_size) {
  if (length.size() < kSafetensorsLength)
    return Bad(fmt::format("it has {} bytes, fewer than {}", file_size, kSafetensorsLength));
  uint64_t size = 0;
  for (size_t i = 0; i < kSafetensorsLength; ++i)
    size |= uint64_t{static_cast<unsigned char>(length[i])} << (8 * i);
  if (size > file_size - kSafetensorsLength)
    return Bad(fmt::format("its head would have {} bytes, it has {} itself", size, file_size));
  if (size > kSafetensorsHeadMax)
    return Bad(fmt::format("its head has {} bytes, more than {}", size, kSafetensorsHeadMax));
  return size;
}

Result<std::vector<SafeTensor>> ParseSafetensorsHead(std::string_view json, uint64_t data_size) {
  if (!json.starts_with('{')) return Bad("its head does not begin with '{'");
  UMBEL_ASSIGN(std::vector<SafeTensor> tensors, Reader().Take(json));
  std::stable_sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.begin, a.size) < std::pair(b.begin, b.size);
  });
  uint64_t at = 0;
  for (const SafeTensor& tensor : tensors) {
    if (tensor.begin != at)
      return Bad(fmt::format("array {}: it begins at byte {} of the data, {} {}",
                             Quote(tensor.name), tensor.begin,
                             tensor.begin < at ? "within the array before, which ends at"
                                               : "after a gap that begins at",
                             at));
    if (tensor.size > data_size - at)
      return Bad(fmt::format("array {}: it ends at byte {} of the data, which has {}",
                             Quote(tensor.name), tensor.begin + tensor.size, data_size));
    at += tensor.size;
  }
  if (at != data_size) return Bad(fmt::format("{} bytes follow the last array", data_size - at));
  return tensors;
}

Result<std::string> MakeSafetensorsHead(std::span<const SafeTensor> arrays) {
  std::set<std::string_view> names;
  std::string json = "{";
  uint64_t at = 0;
  for (const SafeTensor& array : arrays) {
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const Type& t) { return t.descr == array.descr; });
    if (type == std::end(kTypes))
      return Bad(fmt::format("array {}: it has no dtype {}", Quote(array.name), array.descr));
    if (array.name == kMetadataName || !names.insert(array.name).second)
      return Bad(fmt::format("array {}: the name is {}", Quote(array.name),
                             array.name == kMetadataName ? "reserved" : "taken"));
    uint64_t size = type->size;
    std::string shape;
    for (const uint64_t n : array.shape) {
      size *= n;
      shape += fmt::format("{}{}", shape.empty() ? "" : ",", n);
    }
    const std::string name =
        nlohmann::json(array.name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        json.size() == 1 ? "" : ",", name, type->name, shape, at, at + size);
    at += size;
  }
  json += "}";
  json.append((kAlignment - json.size() % kAlignment) % kAlignment, ' ');
  std::string head(kSafetensorsLength, '\0');
  for (size_t i = 0; i < kSafetensorsLength; ++i)
    head[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  return head + json;
}

}  // namespace umbel::tensor
