#include "aggregation/noise.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace umbel::aggregation {
namespace {

constexpr size_t kPiece = 4096;  // elements at a time

/// 53 bits in (0, 1]: the logarithm stays finite.
double Unit(uint32_t low, uint32_t high) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 32 | low) >> 11;
  return static_cast<double>(bits + 1) * 0x1p-53;
}

}  // namespace

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

void Noise::Normal(uint32_t stream, uint64_t first, std::span<double> out) const {
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed_),
                                       static_cast<uint32_t>(seed_ >> 32)};
  // Places 2k and 2k + 1 share a block.
  for (size_t i = 0; i < out.size();) {
    const uint64_t place = first + i;
    const uint64_t pair = place / 2;
    const auto bits = Philox(
        {static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32), stream, round_}, key);
    const double radius = std::sqrt(-2 * std::log(Unit(bits[0], bits[1])));
    const double angle = 2 * std::numbers::pi * Unit(bits[2], bits[3]);
    if (place % 2 == 0) {
      out[i++] = radius * std::cos(angle);
      if (i == out.size()) break;
    }
    out[i++] = radius * std::sin(angle);
  }
}

Status AddNoise(const Noise& noise, uint32_t array, uint64_t first, double deviation,
                NumberType type, std::span<std::byte> block) {
  if (!IsFloat(type))
    return Fail(Code::kInvalidArgument,
                fmt::format("noise cannot be added to {}", ElementName(type)));
  const size_t size = ElementSize(type);
  const size_t count = block.size() / size;
  VisitFloat(type, [&](auto sample) {
    using T = decltype(sample);
    std::vector<double> normal(std::min(count, kPiece));
    std::vector<T> values(normal.size());
    for (size_t from = 0; from < count; from += kPiece) {
      const size_t piece = std::min(kPiece, count - from);
      noise.Normal(array, first + from, std::span(normal).first(piece));
      const auto bytes = block.subspan(from * size, piece * size);
      Load(type, bytes, std::span(values).first(piece));
      for (size_t i = 0; i < piece; ++i)
        values[i] = values[i] + static_cast<T>(normal[i] * deviation);
      Store(std::span<const T>(values).first(piece), type, bytes);
    }
  });
  return {};
}

}  // namespace umbel::aggregation
