// SHA-256 of several independent byte strings side by side. One string's rounds follow from each
// other, and a core has nothing else to do meanwhile; with several at hand it has. Pure: no
// threads, no state but the caller's. Different threads may hash different streams.
//
// What runs when n messages wait, with its rate over that of OpenSSL for one message without SHA
// instructions (0.53 GB/s of 5 MiB messages on a Zen 4 core; docs/performance.md):
//
//   path      n = 1         2            3, 4                5..14               15 and more
//   generic   OpenSSL 1     OpenSSL 1    OpenSSL 1           OpenSSL 1           OpenSSL 1
//   avx2      OpenSSL 1     OpenSSL 1    ymm x8 1.2, 1.7     ymm x8 2.1 to 3.3   ymm x8 3.3
//   avx512    OpenSSL 1     xmm x4 1.7   xmm x4 2.4, 3.2     ymm x8 4.0 to 6.3   zmm x16 6.1
//   sha_ni    OpenSSL 3.4   pair 6.4     pair 6.4            pair 6.4            pair 6.4
//
// With SHA instructions OpenSSL does one message at 1.8 GB/s, waiting for each result; a second
// message fills the gaps, and zmm (3.3 GB/s) is no faster than that pair.
//
// With more messages than lanes, those that have most left go first and take turns, so that all
// end about together and no lane idles but at the very end.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/cpu.h"
#include "base/ids.h"

namespace umbel::tensor {

/// One message that arrives in pieces: 112 bytes, a plain value. A copy goes its own way.
class HashStream {
 public:
  /// Bytes taken so far.
  uint64_t size() const { return size_; }

 private:
  friend class HashJob;

  // FIPS 180-4: the first 32 bits of the fractional parts of the square roots of the first primes.
  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> held_{};  // an unfinished block
  uint64_t size_ = 0;
  bool busy_ = false;  // within HashPieces
};

/// The next bytes of a message. With a `digest` they are its last: the digest is written there,
/// and the stream is then as new.
struct HashPiece {
  HashStream* stream = nullptr;
  std::string_view bytes;
  Digest* digest = nullptr;
};

/// Takes every piece. Any cut of a message into pieces gives the same digest.
///
/// pieces  each of another stream (checked); any number, any lengths, any alignment.
/// cost    one allocation of about 250 B a piece; pieces of 4 KiB and more run at full rate.
void HashPieces(std::span<const HashPiece> pieces, const CpuFeatures& cpu = CpuPath());

/// Whole messages: out[i] becomes the digest of messages[i]; both of one length (checked).
void Sha256Many(std::span<const std::string_view> messages, std::span<Digest> out,
                const CpuFeatures& cpu = CpuPath());

}  // namespace umbel::tensor
