#include "tensor/sha256.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace umbel::tensor {
namespace {

TEST(Sha256, KnownAnswers) {
  // FIPS 180-4 examples.
  EXPECT_EQ(Sha256Of("").Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Of("abc").Hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hasher;
  const std::string block(1000, 'a');
  for (int i = 0; i < 1000; ++i) hasher.Update(block);
  EXPECT_EQ(hasher.Finish().Hex(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsAsNewAfterFinishAndReset) {
  Sha256 hasher;
  hasher.Update(std::string("x"));
  hasher.Reset();
  EXPECT_EQ(hasher.Finish(), Sha256Of(""));
  hasher.Update(std::string("abc"));
  EXPECT_EQ(hasher.Finish(), Sha256Of("abc"));
}

TEST(Sha256, ThreadsDoNotMeet) {
  std::vector<std::jthread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([i] {
      const std::string bytes(100, static_cast<char>('a' + i));
      const Digest first = Sha256Of(bytes);
      for (int k = 0; k < 1000; ++k) ASSERT_EQ(Sha256Of(bytes), first);
    });
}

RC_GTEST_PROP(Sha256Property, StreamingEqualsWhole, (const std::vector<std::string>& parts)) {
  Sha256 hasher;
  std::string whole;
  for (const std::string& part : parts) {
    hasher.Update(part);
    whole += part;
  }
  RC_ASSERT(hasher.Finish() == Sha256Of(whole));
}

}  // namespace
}  // namespace umbel::tensor
