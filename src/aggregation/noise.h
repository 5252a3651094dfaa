// Gaussian noise that can be computed again: each number is a function of the run's seed, the
// round, the array and the element's place, so that restarts, threads and blocks cannot show.
// Values; safe from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "aggregation/element.h"

namespace umbel::aggregation {

/// One block of Philox4x32-10 (Salmon et al., SC 2011), a random function of counter and key.
std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// The noise of one round of one run. The seed is a secret of the run: who knows it can take the
/// noise off again.
class Noise {
 public:
  Noise(uint64_t seed, uint32_t round) : seed_(seed), round_(round) {}

  /// Standard normal numbers (Box and Muller, of 53 bits) of places [first, first + out.size()).
  ///
  /// stream  the array's place in the model; kCountStream is for the noise of a count.
  /// cost    about 40 ns a number.
  void Normal(uint32_t stream, uint64_t first, std::span<double> out) const;

  static constexpr uint32_t kCountStream = 0xffff'ffff;

 private:
  uint64_t seed_;
  uint32_t round_;
};

/// Adds noise of standard deviation `deviation` to a block in place, as NumPy does: each number of
/// the noise is rounded to the block's type, then added in it.
///
/// first   the place of the block's first element in its array.
/// errors  kInvalidArgument: the type is not float.
Status AddNoise(const Noise& noise, uint32_t array, uint64_t first, double deviation,
                NumberType type, std::span<std::byte> block);

}  // namespace umbel::aggregation
