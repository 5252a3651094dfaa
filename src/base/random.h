// Randomness as a parameter. SystemRng is safe from any thread; SeededRng belongs to one.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>

namespace umbel {

class Rng {
 public:
  virtual ~Rng() = default;
  virtual void Fill(std::span<uint8_t> out) = 0;

  uint64_t U64();
  /// `bytes` random bytes as 2 x bytes lowercase hexadecimal digits.
  std::string Hex(size_t bytes);
  /// A random UUID (version 4) as text.
  std::string Uuid();
};

/// The operating system's generator: ids and tokens nobody can guess.
class SystemRng final : public Rng {
 public:
  void Fill(std::span<uint8_t> out) override;
};

/// Replays from its seed; for tests and simulations only.
class SeededRng final : public Rng {
 public:
  explicit SeededRng(uint64_t seed) : engine_(seed) {}
  void Fill(std::span<uint8_t> out) override;

 private:
  std::mt19937_64 engine_;
};

}  // namespace umbel
