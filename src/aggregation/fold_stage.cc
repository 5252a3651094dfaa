#include "aggregation/fold_stage.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

namespace umbel::aggregation {
namespace {

static_assert(std::endian::native == std::endian::little);

template <typename T>
T Swap(T value) {
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(value));
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
  return value;
}

/// float16 bits: infinities and NaN stay what they are.
float FromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t rest = static_cast<uint32_t>(half & 0x7fffU) << 13;
  // As float bits the exponent is 112 too small, also where the number is subnormal.
  const float value = std::bit_cast<float>(rest) * 0x1p112F;
  const uint32_t bits = rest >= 0x0f800000U ? (rest | 0x7f800000U) : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | sign);
}

/// Raw is the unsigned type of an element's bytes; convert maps it to the lane's type.
template <typename Raw, typename Lane, typename Convert>
void StageAs(bool swapped, const std::byte* bytes, size_t count, size_t lead, size_t size,
             void* lanes, Convert convert) {
  Lane* out = static_cast<Lane*>(lanes);
  std::fill(out, out + lead, Lane{0});
  std::fill(out + lead + count, out + size, Lane{0});
  out += lead;
  const auto run = [&](auto order) {
    for (size_t i = 0; i < count; ++i) {
      Raw raw;
      std::memcpy(&raw, bytes + i * sizeof raw, sizeof raw);
      out[i] = convert(order(raw));
    }
  };
  if (swapped)
    run([](Raw raw) { return Swap(raw); });
  else
    run([](Raw raw) { return raw; });
}

}  // namespace

Staging StagingOf(ElementType type) {
  const size_t size = type.component_size();
  if (type.kind == Kind::kInt || type.kind == Kind::kUnsigned)
    return {.doubles = size >= 4, .planes = size == 8 ? size_t{2} : size_t{1}};
  return {.doubles = size == 8, .planes = 1};
}

void Stage(ElementType type, bool swapped, const std::byte* bytes, size_t count, size_t plane,
           size_t lead, size_t size, void* lanes) {
  const auto as = [&]<typename Raw, typename Lane>(Raw, Lane, auto convert) {
    StageAs<Raw, Lane>(swapped, bytes, count, lead, size, lanes, convert);
  };
  using U1 = uint8_t;
  using U2 = uint16_t;
  using U4 = uint32_t;
  using U8 = uint64_t;
  const size_t width = type.component_size();
  switch (type.kind) {
    case Kind::kBool:
      return as(U1{}, float{}, [](U1 a) { return a == 0 ? 0.0F : 1.0F; });
    case Kind::kInt:
      if (width == 1)
        return as(U1{}, float{}, [](U1 a) { return static_cast<float>(static_cast<int8_t>(a)); });
      if (width == 2)
        return as(U2{}, float{}, [](U2 a) { return static_cast<float>(static_cast<int16_t>(a)); });
      if (width == 4)
        return as(U4{}, double{},
                  [](U4 a) { return static_cast<double>(static_cast<int32_t>(a)); });
      if (plane == 1)
        return as(U8{}, double{}, [](U8 a) { return static_cast<double>(static_cast<U4>(a)); });
      return as(U8{}, double{},
                [](U8 a) { return static_cast<double>(static_cast<int32_t>(a >> 32)) * 0x1p32; });
    case Kind::kUnsigned:
      if (width == 1) return as(U1{}, float{}, [](U1 a) { return static_cast<float>(a); });
      if (width == 2) return as(U2{}, float{}, [](U2 a) { return static_cast<float>(a); });
      if (width == 4) return as(U4{}, double{}, [](U4 a) { return static_cast<double>(a); });
      if (plane == 1)
        return as(U8{}, double{}, [](U8 a) { return static_cast<double>(static_cast<U4>(a)); });
      return as(U8{}, double{},
                [](U8 a) { return static_cast<double>(static_cast<U4>(a >> 32)) * 0x1p32; });
    case Kind::kFloat:
    case Kind::kComplex:
      if (width == 2) return as(U2{}, float{}, FromHalf);
      if (width == 4) return as(U4{}, float{}, [](U4 a) { return std::bit_cast<float>(a); });
      return as(U8{}, double{}, [](U8 a) { return std::bit_cast<double>(a); });
  }
}

}  // namespace umbel::aggregation
