// The values and frames of docs/worker-protocol.md. The other end runs a stranger's code: what it
// sends is counted before memory is given to it. Values and functions; safe from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "flower/records.h"

namespace umbel::supernode {

inline constexpr size_t kFrameMax = size_t{256} << 20;
inline constexpr size_t kValueDepthMax = 16;
/// Of one frame, keys not counted: 100 MB of memory. The content of a thousand arrays has 20 000.
inline constexpr size_t kValuesMax = 2'000'000;

struct Value {
  using List = std::vector<Value>;
  using Map = std::vector<std::pair<std::string, Value>>;  // keys are distinct

  Value() = default;  // nil
  Value(bool v) : held(v) {}
  Value(int64_t v) : held(v) {}
  Value(int v) : held(int64_t{v}) {}
  /// An `i` where it fits.
  Value(uint64_t v);
  Value(double v) : held(v) {}
  Value(std::string v) : held(std::move(v)) {}
  Value(std::string_view v) : held(std::string(v)) {}
  Value(const char* v) : held(std::string(v)) {}
  Value(flower::Bytes v) : held(std::move(v)) {}
  Value(List v) : held(std::move(v)) {}
  Value(Map v) : held(std::move(v)) {}

  /// nullptr: of another type.
  template <typename T>
  const T* As() const {
    return std::get_if<T>(&held);
  }
  template <typename T>
  T* As() {
    return std::get_if<T>(&held);
  }
  /// "nil", "a bool", "an integer", "a float", "text", "bytes", "a list", "a map"
  std::string_view TypeName() const;

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, flower::Bytes, List,
               Map>
      held;
};

/// errors  kInvalidArgument: what does not keep to the protocol, and at which byte;
///         kResourceExhausted: above a limit.
Result<Value> DecodeValue(std::string_view payload);

/// The value with its length before it, ready for the socket. Keys are distinct.
/// errors  kInvalidArgument: text is not UTF-8; kResourceExhausted: longer than a frame may be, or
///         nested too deep.
Result<std::string> EncodeFrame(const Value& value);

/// Cuts a stream of bytes into the payloads of frames. Belongs to one thread.
class FrameReader {
 public:
  void Feed(std::string_view bytes) { bytes_.append(bytes); }
  /// nullopt: more bytes are needed. errors  kResourceExhausted: the frame is too long.
  Result<std::optional<std::string>> Next();
  /// Nothing of an unfinished frame is held: here a stream may end.
  bool AtBoundary() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t at_ = 0;  // of the next frame
};

}  // namespace umbel::supernode
