#include "supernode/hosts/worker_value.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/utf8.h"
#include "tensor/quote.h"

namespace umbel::supernode {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kHeadSize = sizeof(uint32_t);
constexpr size_t kKeyMin = kHeadSize + 1;  // of a map's entry: an empty key and nil

template <typename T>
void Append(T value, std::string& out) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

class Encoder {
 public:
  Result<std::string> Frame(const Value& value) {
    Append(uint32_t{0}, out_);
    UMBEL_TRY(Write(value, 0));
    UMBEL_TRY(CheckSize(0));
    const auto size = static_cast<uint32_t>(out_.size() - kHeadSize);
    std::memcpy(out_.data(), &size, sizeof size);
    return std::move(out_);
  }

 private:
  Status CheckSize(size_t more) const {
    if (out_.size() - kHeadSize + more <= kFrameMax) return {};
    return Fail(Code::kResourceExhausted, fmt::format("a frame has more than {} bytes", kFrameMax));
  }
  /// A count or a length, of what takes a byte each or more.
  Status WriteCount(size_t count) {
    UMBEL_TRY(CheckSize(count));
    Append(static_cast<uint32_t>(count), out_);
    return {};
  }
  Status WriteBytes(std::string_view bytes) {
    UMBEL_TRY(WriteCount(bytes.size()));
    out_ += bytes;
    return {};
  }

  Status WriteText(std::string_view text) {
    if (!IsUtf8(text))
      return Fail(Code::kInvalidArgument, fmt::format("text {} is not UTF-8", tensor::Quote(text)));
    return WriteBytes(text);
  }

  Status Write(const Value& value, size_t depth) {
    return std::visit([&](const auto& held) { return WriteHeld(held, depth); }, value.held);
  }
  Status WriteHeld(std::monostate, size_t) {
    out_ += 'n';
    return {};
  }
  Status WriteHeld(bool held, size_t) {
    out_ += held ? 't' : 'f';
    return {};
  }
  Status WriteHeld(int64_t held, size_t) { return WriteNumber('i', held); }
  Status WriteHeld(uint64_t held, size_t) { return WriteNumber('u', held); }
  Status WriteHeld(double held, size_t) { return WriteNumber('d', held); }
  template <typename T>
  Status WriteNumber(char type, T held) {
    out_ += type;
    Append(held, out_);
    return {};
  }
  Status WriteHeld(const std::string& held, size_t) {
    out_ += 's';
    return WriteText(held);
  }
  Status WriteHeld(const flower::Bytes& held, size_t) {
    out_ += 'b';
    return WriteBytes(held.bytes);
  }
  Status WriteHeld(const Value::List& held, size_t depth) {
    UMBEL_TRY(Open('l', held.size(), depth));
    for (const Value& item : held) UMBEL_TRY(Write(item, depth + 1));
    return {};
  }
  Status WriteHeld(const Value::Map& held, size_t depth) {
    UMBEL_TRY(Open('m', held.size(), depth));
    for (const auto& [key, item] : held) {
      UMBEL_TRY(WriteText(key));
      UMBEL_TRY(Write(item, depth + 1));
    }
    return {};
  }
  Status Open(char type, size_t count, size_t depth) {
    if (depth == kValueDepthMax)
      return Fail(Code::kResourceExhausted,
                  fmt::format("a value is nested deeper than {}", kValueDepthMax));
    out_ += type;
    return WriteCount(count);
  }

  std::string out_;
};

class Decoder {
 public:
  explicit Decoder(std::string_view payload) : payload_(payload) {}

  Result<Value> Whole() {
    UMBEL_ASSIGN(Value value, Read(0));
    if (at_ != payload_.size())
      return Bad(fmt::format("{} bytes are too many", payload_.size() - at_));
    return value;
  }

 private:
  tl::unexpected<Error> Bad(std::string_view what, Code code = Code::kInvalidArgument) const {
    return Fail(code, fmt::format("frame byte {}: {}", at_, what));
  }
  size_t left() const { return payload_.size() - at_; }

  template <typename T>
  Result<T> Number() {
    if (sizeof(T) > left()) return Bad("a number is cut off");
    T value;
    std::memcpy(&value, payload_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  /// Of things that take at least `each` bytes.
  Result<size_t> Count(size_t each) {
    UMBEL_ASSIGN(const auto count, Number<uint32_t>());
    if (count > left() / each) return Bad(fmt::format("{} is more than what is left", count));
    return size_t{count};
  }
  Result<std::string> Raw() {
    UMBEL_ASSIGN(const size_t size, Count(1));
    std::string bytes(payload_.substr(at_, size));
    at_ += size;
    return bytes;
  }
  Result<std::string> Text() {
    UMBEL_ASSIGN(std::string text, Raw());
    if (!IsUtf8(text)) return Bad(fmt::format("{} is not UTF-8", tensor::Quote(text)));
    return text;
  }

  Result<Value> Read(size_t depth) {
    if (++values_ > kValuesMax)
      return Bad(fmt::format("more than {} values", kValuesMax), Code::kResourceExhausted);
    UMBEL_ASSIGN(const char type, Number<char>());
    switch (type) {
      case 'n':
        return Value();
      case 't':
        return Value(true);
      case 'f':
        return Value(false);
      case 'i':
        return Held(Number<int64_t>());
      case 'u':
        return Unsigned();
      case 'd':
        return Held(Number<double>());
      case 's':
        return Held(Text());
      case 'b': {
        UMBEL_ASSIGN(std::string bytes, Raw());
        return Value(flower::Bytes{std::move(bytes)});
      }
      case 'l':
      case 'm':
        if (depth == kValueDepthMax)
          return Bad(fmt::format("nested deeper than {}", kValueDepthMax),
                     Code::kResourceExhausted);
        return type == 'l' ? ReadList(depth) : ReadMap(depth);
      default:
        return Bad(fmt::format("{} is no type", tensor::Quote({&type, 1})));
    }
  }
  template <typename T>
  static Result<Value> Held(Result<T> read) {
    if (!read.ok()) return Fail(std::move(read).error());
    return Value(*std::move(read));
  }
  Result<Value> Unsigned() {
    UMBEL_ASSIGN(const auto number, Number<uint64_t>());
    if (number <= uint64_t{std::numeric_limits<int64_t>::max()})
      return Bad(fmt::format("{} is an i, not a u", number));
    return Value(number);
  }
  Result<Value> ReadList(size_t depth) {
    UMBEL_ASSIGN(const size_t count, Count(1));
    if (count > kValuesMax - values_)
      return Bad(fmt::format("more than {} values", kValuesMax), Code::kResourceExhausted);
    Value::List list;
    list.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      UMBEL_ASSIGN(list.emplace_back(), Read(depth + 1));
    }
    return Value(std::move(list));
  }
  Result<Value> ReadMap(size_t depth) {
    UMBEL_ASSIGN(const size_t count, Count(kKeyMin));
    if (count > kValuesMax - values_)
      return Bad(fmt::format("more than {} values", kValuesMax), Code::kResourceExhausted);
    Value::Map map;
    map.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      UMBEL_ASSIGN(std::string key, Text());
      UMBEL_ASSIGN(Value value, Read(depth + 1));
      map.emplace_back(std::move(key), std::move(value));
    }
    std::vector<std::string_view> keys;
    keys.reserve(count);
    for (const auto& [key, value] : map) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) return Bad(fmt::format("key {} stands twice", tensor::Quote(*twice)));
    return Value(std::move(map));
  }

  std::string_view payload_;
  size_t at_ = 0;
  size_t values_ = 0;
};

}  // namespace

Value::Value(uint64_t v) {
  if (v <= uint64_t{std::numeric_limits<int64_t>::max()}) {
    held = static_cast<int64_t>(v);
  } else {
    held = v;
  }
}

std::string_view Value::TypeName() const {
  constexpr std::string_view kNames[] = {"nil",  "a bool", "an integer", "an integer", "a float",
                                         "text", "bytes",  "a list",     "a map"};
  return kNames[held.index()];
}

Result<Value> DecodeValue(std::string_view payload) {
  if (payload.size() > kFrameMax)
    return Fail(Code::kResourceExhausted,
                fmt::format("frame: has {} bytes, more than {}", payload.size(), kFrameMax));
  return Decoder(payload).Whole();
}

Result<std::string> EncodeFrame(const Value& value) { return Encoder().Frame(value); }

Result<std::optional<std::string>> FrameReader::Next() {
  if (bytes_.size() - at_ < kHeadSize) return std::nullopt;
  uint32_t size = 0;
  std::memcpy(&size, bytes_.data() + at_, sizeof size);
  if (size > kFrameMax)
    return Fail(Code::kResourceExhausted,
                fmt::format("frame: its length is {}, more than {}", size, kFrameMax));
  if (bytes_.size() - at_ - kHeadSize < size) return std::nullopt;
  std::string payload = bytes_.substr(at_ + kHeadSize, size);
  at_ += kHeadSize + size;
  if (at_ == bytes_.size() || at_ > bytes_.size() / 2) {
    bytes_.erase(0, at_);
    at_ = 0;
  }
  return payload;
}

}  // namespace umbel::supernode
