#include "tensor/hash_lanes.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "tensor/sha256.h"
#include "tensor/sha256_kernels.h"

namespace umbel::tensor {
namespace {

struct Path {
  const char* name;
  CpuFeatures cpu;
};

constexpr Path kPaths[] = {{"generic", {}},
                           {"avx2", {.avx2 = true}},
                           {"avx512", {.avx2 = true, .avx512 = true}},
                           {"sha_ni", {.sha_ni = true}}};

/// The paths of this CPU. Those it lacks are named, so that a log tells what was not tested.
std::vector<Path> Executable() {
  std::vector<Path> out;
  for (const Path& path : kPaths)
    if (ChooseCpu(path.name, PresentCpu()).ok())
      out.push_back(path);
    else
      std::printf("[  NOT RUN ] path %s: this CPU has only: %s\n", path.name,
                  CpuName(PresentCpu()).c_str());
  return out;
}

uint64_t Seed() {
  static const uint64_t kSeed = [] {
    const char* asked = std::getenv("UMBEL_SEED");
    const uint64_t seed = asked ? std::strtoull(asked, nullptr, 10) : std::random_device{}();
    std::printf("UMBEL_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
  }();
  return kSeed;
}

std::string Noise(std::mt19937_64& random, size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

/// A buffer of exactly the message's size, so that ASan sees a read past either end, and views into
/// it from an odd address on.
struct Unaligned {
  Unaligned(std::mt19937_64& random, size_t size, size_t shift)
      : buffer(new char[shift + size]), view(buffer.get() + shift, size) {
    for (size_t i = 0; i < shift + size; ++i) buffer[i] = static_cast<char>(random());
  }
  std::unique_ptr<char[]> buffer;
  std::string_view view;
};

void ExpectOpenSsl(const std::vector<Unaligned>& messages, const Path& path) {
  std::vector<std::string_view> views;
  views.reserve(messages.size());
  for (const Unaligned& message : messages) views.push_back(message.view);
  std::vector<Digest> found(views.size());
  Sha256Many(views, found, path.cpu);
  for (size_t i = 0; i < views.size(); ++i)
    ASSERT_EQ(found[i].Hex(), Sha256Of(views[i]).Hex())
        << path.name << ", message " << i << " of " << views.size() << ", " << views[i].size()
        << " B";
}

TEST(HashLanes, KnownAnswers) {
  const std::string_view messages[] = {"abc", "", "abc"};
  for (const Path& path : Executable()) {
    Digest found[3];
    Sha256Many(messages, found, path.cpu);
    EXPECT_EQ(found[0].Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(found[1].Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(found[2], found[0]);
  }
  Sha256Many({}, {});
}

TEST(HashLanes, EveryLengthAtEveryDepth) {
  std::mt19937_64 random(Seed());
  for (const Path& path : Executable())
    for (size_t depth = 1; depth <= 40; ++depth) {
      std::vector<Unaligned> messages;
      for (size_t i = 0; i < depth; ++i)
        messages.emplace_back(random, random() % 301, random() % 17);
      ExpectOpenSsl(messages, path);
    }
}

TEST(HashLanes, LengthsAroundTheEndOfABlock) {
  std::mt19937_64 random(Seed());
  for (const Path& path : Executable()) {
    std::vector<Unaligned> messages;
    for (const size_t blocks : {0U, 64U, 128U, 1024U * 64U, 1025U * 64U})
      for (const size_t rest : {0U, 1U, 54U, 55U, 56U, 57U, 63U})
        messages.emplace_back(random, blocks + rest, random() % 64);
    std::shuffle(messages.begin(), messages.end(), random);
    ExpectOpenSsl(messages, path);
    // Equal lengths: all lanes pad in the same step.
    for (const size_t size : {55U, 56U, 63U, 64U, 119U, 120U, 127U, 128U}) {
      std::vector<Unaligned> equal;
      for (size_t i = 0; i < 16; ++i) equal.emplace_back(random, size, i);
      ExpectOpenSsl(equal, path);
    }
  }
}

TEST(HashLanes, LongMessagesOfUnequalLengthsTakeTurns) {
  std::mt19937_64 random(Seed());
  for (const Path& path : Executable())
    for (const size_t depth : {1U, 2U, 3U, 5U, 9U, 17U}) {
      std::vector<Unaligned> messages;
      for (size_t i = 0; i < depth; ++i)
        messages.emplace_back(random, i % 3 == 2 ? random() % 300 : random() % (1U << 20),
                              random() % 64);
      ExpectOpenSsl(messages, path);
    }
}

/// Every kernel by itself, also where no path would choose it; idle lanes repeat the first.
TEST(HashLanes, EveryKernelEqualsOpenSsl) {
  std::mt19937_64 random(Seed());
  for (const ShaWidth& width : AllWidths()) {
    if (width.needs && !(PresentCpu().*width.needs)) {
      std::printf("[  NOT RUN ] kernel %s: this CPU has only: %s\n", width.name,
                  CpuName(PresentCpu()).c_str());
      continue;
    }
    for (const size_t blocks : {0U, 1U, 2U, 3U, 33U})
      for (size_t busy = 1; busy <= width.lanes; ++busy) {
        std::vector<Unaligned> data;
        for (size_t i = 0; i < busy; ++i) data.emplace_back(random, blocks * kShaBlock, i * 3 % 64);
        ShaState found[kLanesMax];
        ShaState expected[kLanesMax];
        ShaState* states[kLanesMax];
        const uint8_t* from[kLanesMax];
        for (size_t lane = 0; lane < width.lanes; ++lane) {
          const size_t which = lane < busy ? lane : 0;
          states[lane] = &found[which];
          from[lane] = reinterpret_cast<const uint8_t*>(data[which].view.data());
        }
        for (size_t lane = 0; lane < busy; ++lane) {
          for (size_t word = 0; word < 8; ++word)
            found[lane][word] = expected[lane][word] = static_cast<uint32_t>(random());
          ShaState* state = &expected[lane];
          ShaOpenSsl(&state, &from[lane], blocks);
        }
        width.run(states, from, blocks);
        for (size_t lane = 0; lane < busy; ++lane)
          ASSERT_EQ(std::memcmp(found[lane], expected[lane], sizeof(ShaState)), 0)
              << width.name << ", lane " << lane << " of " << busy << ", " << blocks << " blocks";
      }
  }
}

/// A path takes only kernels that its CPU has, whatever waits.
TEST(HashLanes, AChoiceKeepsToTheCpu) {
  for (unsigned bits = 0; bits < 8; ++bits) {
    const CpuFeatures cpu{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    for (size_t waiting = 1; waiting < 100; ++waiting) {
      const ShaWidth& width = WidthFor(cpu, waiting);
      EXPECT_TRUE(!width.needs || cpu.*width.needs) << width.name;
      EXPECT_TRUE(bits > 0 || width.lanes == 1);
    }
  }
  EXPECT_STREQ(WidthFor(kPaths[2].cpu, 4).name, "avx512 xmm");
  EXPECT_STREQ(WidthFor(kPaths[2].cpu, 8).name, "avx512 ymm");
  EXPECT_STREQ(WidthFor(kPaths[2].cpu, 16).name, "avx512 zmm");
  EXPECT_STREQ(WidthFor(kPaths[1].cpu, 8).name, "avx2 ymm");
  EXPECT_STREQ(WidthFor(kPaths[3].cpu, 8).name, "sha_ni pair");
}

TEST(HashLanes, AStreamIsAsNewAfterItsDigest) {
  HashStream stream;
  Digest first;
  Digest second;
  const HashPiece a[] = {{&stream, "abc", &first}};
  HashPieces(a);
  EXPECT_EQ(stream.size(), 0U);
  const HashPiece b[] = {{&stream, "abc", &second}};
  HashPieces(b);
  EXPECT_EQ(first, Sha256Of("abc"));
  EXPECT_EQ(second, first);
}

TEST(HashLanesDeathTest, TwoPiecesOfOneStream) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  HashStream stream;
  const HashPiece pieces[] = {{&stream, "a"}, {&stream, "b"}};
  EXPECT_DEATH(HashPieces(pieces), "busy_");
}

/// Streams that come and go and give pieces of any size, as uploads do: equal to OpenSSL.
void StreamsInPieces(uint64_t seed, const Path& path) {
  struct Upload {
    std::string bytes;
    size_t given = 0;
    HashStream stream;
    Digest digest;
    bool ended = false;
  };
  std::mt19937_64 random(seed);
  const size_t most = 1 + random() % 20;
  const size_t step = size_t{1} << (random() % 14);
  std::vector<Upload> uploads(1 + random() % 40);
  for (Upload& upload : uploads) upload.bytes = Noise(random, random() % (8 * step));
  size_t open = uploads.size();
  while (open > 0) {
    std::vector<HashPiece> pieces;
    for (Upload& upload : uploads) {
      if (upload.ended || pieces.size() == most || random() % 3 == 0) continue;
      const size_t left = upload.bytes.size() - upload.given;
      const size_t take = std::min<size_t>(left, random() % (2 * step));
      // The digest is wanted with the last bytes, or later with none.
      upload.ended = take == left && random() % 2 == 0;
      open -= upload.ended ? 1 : 0;
      pieces.push_back({&upload.stream, std::string_view(upload.bytes).substr(upload.given, take),
                        upload.ended ? &upload.digest : nullptr});
      upload.given += take;
    }
    HashPieces(pieces, path.cpu);
  }
  for (const Upload& upload : uploads)
    RC_ASSERT(upload.digest.Hex() == Sha256Of(upload.bytes).Hex());
}

RC_GTEST_PROP(HashLanesProperty, AnyCutIntoPiecesGivesOpenSslsDigest, (uint64_t seed)) {
  for (const Path& path : kPaths)
    if (ChooseCpu(path.name, PresentCpu()).ok()) StreamsInPieces(seed, path);
}

RC_GTEST_PROP(HashLanesProperty, ManyEqualsOpenSsl, (const std::vector<std::string>& messages)) {
  const std::vector<std::string_view> views(messages.begin(), messages.end());
  for (const Path& path : kPaths) {
    if (!ChooseCpu(path.name, PresentCpu()).ok()) continue;
    std::vector<Digest> found(views.size());
    Sha256Many(views, found, path.cpu);
    for (size_t i = 0; i < views.size(); ++i) RC_ASSERT(found[i] == Sha256Of(views[i]));
  }
}

}  // namespace
}  // namespace umbel::tensor
