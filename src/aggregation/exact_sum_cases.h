// For tests: random updates of every kind that has broken a sum somewhere. Replays from its seed.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace umbel::aggregation::testing {

using Random = std::mt19937_64;

/// UMBEL_SEED, or a new one; printed, so that a failure can be replayed.
inline uint64_t Seed(const char* test) {
  const char* given = std::getenv("UMBEL_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << test << ": UMBEL_SEED=" << seed << "\n";
  return seed;
}

inline bool FullSize() {
  const char* size = std::getenv("UMBEL_SIZE");
  return size != nullptr && std::string(size) == "full";
}

/// One client's array and its weight.
template <typename T>
struct Client {
  std::vector<T> values;
  double weight = 1;
};

enum class Data {
  kGaussian,
  kLogUniform,
  kScales,      // each coordinate its own
  kCancelling,  // pairs, and small noise between
  kSubnormal,
  kHostile,  // any finite bits
  kSparse,   // most are zero
  kEqual,    // all clients the same
};
inline constexpr Data kAllData[] = {Data::kGaussian,   Data::kLogUniform, Data::kScales,
                                    Data::kCancelling, Data::kSubnormal,  Data::kHostile,
                                    Data::kSparse,     Data::kEqual};

enum class Weights { kOne, kExamples, kLarge, kFractions, kHostile };
inline constexpr Weights kAllWeights[] = {Weights::kOne, Weights::kExamples, Weights::kLarge,
                                          Weights::kFractions, Weights::kHostile};

template <typename T>
T AnyFinite(Random& random) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  while (true) {
    const T value = std::bit_cast<T>(static_cast<Bits>(random()));
    if (std::isfinite(value)) return value;
  }
}

inline double MakeWeight(Weights kind, Random& random) {
  const double unit = std::uniform_real_distribution<>(0.5, 1)(random);
  switch (kind) {
    case Weights::kOne:
      return 1;
    case Weights::kExamples:
      return std::floor(unit * 5000);
    case Weights::kLarge:
      return std::floor(std::ldexp(unit, 62));
    case Weights::kFractions:
      return unit * 100;
    case Weights::kHostile:
      return std::abs(AnyFinite<double>(random)) + std::numeric_limits<double>::denorm_min();
  }
  return 1;
}

template <typename T>
std::vector<Client<T>> MakeClients(Data data, Weights weights, size_t clients, size_t count,
                                   Random& random) {
  std::normal_distribution<> normal;
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<>(low, high)(random);
  };
  std::vector<double> scale(count);
  for (double& one : scale) one = std::exp2(uniform(-50, 0));
  std::vector<Client<T>> made(clients);
  for (size_t c = 0; c < clients; ++c) {
    const size_t later = clients - clients / 3;
    made[c].weight = data == Data::kCancelling && c >= later ? made[c - later].weight
                                                             : MakeWeight(weights, random);
    for (size_t i = 0; i < count; ++i) {
      double value = normal(random);
      switch (data) {
        case Data::kGaussian:
          break;
        case Data::kLogUniform:
          value *= std::exp2(uniform(-60, 4));
          break;
        case Data::kScales:
          value *= scale[i];
          break;
        case Data::kCancelling:
          // Small noise stands between the two halves of each pair.
          if (c >= later)
            value = -static_cast<double>(made[c - later].values[i]);
          else if (c >= clients / 3)
            value *= 1e-9;
          break;
        case Data::kSubnormal:
          value *= std::ldexp(1.0, std::numeric_limits<T>::min_exponent - 3);
          break;
        case Data::kHostile:
          value = static_cast<double>(AnyFinite<T>(random));
          break;
        case Data::kSparse:
          if (random() % 8 != 0) value = random() % 2 == 0 ? 0.0 : -0.0;
          break;
        case Data::kEqual:
          if (c > 0) value = static_cast<double>(made[0].values[i]);
          break;
      }
      made[c].values.push_back(static_cast<T>(value));
    }
  }
  return made;
}

}  // namespace umbel::aggregation::testing
