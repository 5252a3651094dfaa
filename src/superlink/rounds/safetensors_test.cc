#include "superlink/rounds/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/testing.h"
#include "superlink/rounds/npz.h"
#include "superlink/rounds/rounds_testing.h"
#include "tensor/safetensors.h"

namespace umbel::superlink::rounds {
namespace {

using testing::ArrayOf;
using testing::BytesOf;
using umbel::testing::TempDir;

TEST(Safetensors, HasTheArraysOfTheNpzFile) {
  const TempDir folder;
  const std::string path = folder.path() + "/model.npz";
  const std::vector<double> large(300'000, 0.5);
  ASSERT_TRUE(WriteNpz(path, {ArrayOf("w", "<f4", {2, 1}, BytesOf<float>({1, 2})),
                              ArrayOf("large", "<f8", {large.size()}, BytesOf(large)),
                              ArrayOf("none", "<i8", {0}, ""), ArrayOf("bytes", "|u1", {3}, "abc")})
                  .ok());
  const auto file = MakeSafetensors(path, folder.path());
  ASSERT_TRUE(file.ok()) << file.error().message;
  std::string bytes(8'000'000, '\0');
  const ssize_t size = ::pread(file->get(), bytes.data(), bytes.size(), 0);
  ASSERT_GT(size, 8);
  bytes.resize(static_cast<size_t>(size));
  const auto head = *tensor::SafetensorsHeadSize(bytes.substr(0, 8), bytes.size());
  const std::string data = bytes.substr(8 + head);
  const auto read = tensor::ParseSafetensorsHead(bytes.substr(8, head), data.size());
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->size(), 4u);
  EXPECT_EQ((*read)[0].name, "w");
  EXPECT_EQ((*read)[0].shape, (std::vector<uint64_t>{2, 1}));
  EXPECT_EQ(data, BytesOf<float>({1, 2}) + BytesOf(large) + "abc");
}

TEST(Safetensors, WhatItCannotHoldIsNamed) {
  const TempDir folder;
  const std::string path = folder.path() + "/model.npz";
  ASSERT_TRUE(WriteNpz(path, {ArrayOf("c", "<c8", {1}, "12345678")}).ok());
  const auto complex = MakeSafetensors(path, folder.path());
  EXPECT_EQ(complex.error().code, Code::kFailedPrecondition);
  EXPECT_NE(complex.error().message.find("'c'"), std::string::npos);
  ASSERT_TRUE(WriteNpz(path, {ArrayOf("b", ">f4", {1}, "1234")}).ok());
  EXPECT_NE(MakeSafetensors(path, folder.path()).error().message.find("take the .npz file"),
            std::string::npos);
  EXPECT_EQ(MakeSafetensors(folder.path() + "/other", folder.path()).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace umbel::superlink::rounds
