// SHA-256's compression over several independent messages at once, one message to a lane, by
// instruction set. Inner header of hash_lanes.cc, its tests and bench. Pure; any thread.
//
// All read the blocks where they lie, at any alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu.h"

namespace umbel::tensor {

inline constexpr size_t kShaBlock = 64;
inline constexpr size_t kLanesMax = 16;

/// The words a..h between two blocks.
using ShaState = uint32_t[8];

/// Takes `blocks` blocks of 64 B from each of the kernel's lanes: lane i reads from data[i] and
/// brings *states[i] forward. Every lane is read; an idle one may repeat another's pointers.
using ShaKernel = void (*)(ShaState* const* states, const uint8_t* const* data, size_t blocks);

struct ShaWidth {
  const char* name;
  size_t lanes;
  ShaKernel run;
  bool CpuFeatures::*needs;  // null: runs everywhere
};

/// The best kernel on `cpu` when `waiting` messages have blocks to give; waiting >= 1. It may have
/// more lanes than that, or fewer. hash_lanes.h has the table.
const ShaWidth& WidthFor(const CpuFeatures& cpu, size_t waiting);

/// Every kernel of this build, the portable one first, whether or not this CPU executes it.
std::span<const ShaWidth> AllWidths();

/// FIPS 180-4: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
extern const uint32_t kShaRound[64];

/// OpenSSL's, one lane: it takes SHA instructions, AVX2 or AVX by itself.
void ShaOpenSsl(ShaState* const* states, const uint8_t* const* data, size_t blocks);

#if defined(__x86_64__)
void ShaAvx2Ymm(ShaState* const* states, const uint8_t* const* data, size_t blocks);    // 8 lanes
void ShaAvx512Xmm(ShaState* const* states, const uint8_t* const* data, size_t blocks);  // 4
void ShaAvx512Ymm(ShaState* const* states, const uint8_t* const* data, size_t blocks);  // 8
void ShaAvx512Zmm(ShaState* const* states, const uint8_t* const* data, size_t blocks);  // 16
void ShaNiPair(ShaState* const* states, const uint8_t* const* data, size_t blocks);     // 2
#endif

}  // namespace umbel::tensor
