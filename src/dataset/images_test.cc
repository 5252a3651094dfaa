#include "dataset/images.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>
#include <map>

#include "base/file.h"
#include "base/testing.h"

namespace umbel::dataset {
namespace {

using umbel::testing::TempDir;
using namespace std::string_literals;

std::string Idx(uint32_t magic, const std::vector<uint32_t>& sizes, std::string_view values) {
  std::string bytes;
  const auto add = [&](uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  };
  add(magic);
  for (const uint32_t size : sizes) add(size);
  return bytes.append(values);
}

TEST(ImagesTest, IdxIsRead) {
  const auto images = ParseIdxImages(Idx(0x0803, {2, 1, 3}, "abcdef"));
  ASSERT_TRUE(images.ok()) << images.error().message;
  EXPECT_EQ(images->height, 1U);
  EXPECT_EQ(images->width, 3U);
  EXPECT_EQ(images->pixels, (std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
  const auto labels = ParseIdxLabels(Idx(0x0801, {2}, "\x01\x02"));
  ASSERT_TRUE(labels.ok()) << labels.error().message;
  EXPECT_EQ(*labels, (std::vector<uint8_t>{1, 2}));
}

TEST(ImagesTest, IdxThatLiesIsRefused) {
  for (const std::string& bytes :
       {""s, "\0\0\x08"s, Idx(0x0801, {2, 1, 3}, "abcdef"), Idx(0x0903, {2, 1, 3}, "abcdef"),
        Idx(0x0803, {2, 1, 3}, "abcde"), Idx(0x0803, {2, 1, 3}, "abcdefg"),
        Idx(0x0803, {0, 1, 3}, ""), Idx(0x0803, {0xffffffff, 0xffffffff, 0xffffffff}, "a"),
        Idx(0x0803, {0xffffffff, 4096, 4096}, "a"), Idx(0x0803, {2, 1}, "")}) {
    const auto images = ParseIdxImages(bytes);
    ASSERT_FALSE(images.ok());
    EXPECT_TRUE(images.error().message.starts_with("IDX: ")) << images.error().message;
  }
}

TEST(ImagesTest, DigitsAreRead) {
  std::string line = "0,16,8";
  for (int i = 3; i < 64; ++i) line += ",1";
  const auto digits = ParseDigits(line + ",7\r\n" + line + ",9");
  ASSERT_TRUE(digits.ok()) << digits.error().message;
  ASSERT_EQ(digits->size(), 2U);
  EXPECT_EQ(digits->labels, (std::vector<uint8_t>{7, 9}));
  EXPECT_EQ(digits->image(1)[0], 0);
  EXPECT_EQ(digits->image(1)[1], 255);
  EXPECT_EQ(digits->image(1)[2], 128);
  EXPECT_EQ(digits->image(1)[63], 16);
  for (const std::string& csv : {""s, line, line + ",10", line + ",7,8", line + ",x", "17," + line,
                                 "-1," + line, line + ",7\n1,2"})
    EXPECT_FALSE(ParseDigits(csv).ok()) << csv;
}

TEST(ImagesTest, GzipThatIsDamagedOrTooLongIsRefused) {
  TempDir dir;
  const std::string path = dir.path() + "/x.gz";
  const std::string content(100'000, 'x');
  gzFile file = ::gzopen(path.c_str(), "wb");
  ASSERT_EQ(::gzwrite(file, content.data(), static_cast<unsigned>(content.size())), 100'000);
  ::gzclose(file);
  EXPECT_EQ(*ReadGzip(path, content.size()), content);
  EXPECT_EQ(ReadGzip(path, content.size() - 1).error().code, Code::kResourceExhausted);
  const std::string bytes = *ReadFile(path);
  ASSERT_TRUE(WriteFileAtomic(path, bytes.substr(0, bytes.size() / 2)).ok());
  EXPECT_NE(ReadGzip(path, content.size()).error().message.find("damaged"), std::string::npos);
  ASSERT_TRUE(WriteFileAtomic(path, "plain text").ok());
  EXPECT_NE(ReadGzip(path, 100).error().message.find("not a gzip"), std::string::npos);
  EXPECT_EQ(ReadGzip(dir.path() + "/none", 1).error().code, Code::kNotFound);
}

TEST(ImagesTest, FashionMnistOfDebian) {
  const std::string folder = "/usr/share/datasets/fashion-mnist";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "dataset-fashion-mnist is not installed";
  const auto images = ReadFashionMnist(folder);
  ASSERT_TRUE(images.ok()) << images.error().message;
  ASSERT_EQ(images->size(), 60'000U);
  EXPECT_EQ(images->width, 28U);
  std::map<uint8_t, int> of;
  for (const uint8_t label : images->labels) ++of[label];
  for (uint8_t label = 0; label < 10; ++label) EXPECT_EQ(of[label], 6000);
}

}  // namespace
}  // namespace umbel::dataset
