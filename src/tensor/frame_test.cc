#include "tensor/frame.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

namespace umbel::tensor {
namespace {

using std::string_literals::operator""s;

TEST(Frame, TheLengthIsBigEndian) {
  EXPECT_EQ(EncodeFrame(""), "\0\0\0\0"s);
  EXPECT_EQ(EncodeFrame("abc"), "\0\0\0\3abc"s);
  EXPECT_EQ(EncodeFrame(std::string(0x010203, 'x')).substr(0, 4), "\0\1\2\3"s);
}

TEST(Frame, AnEmptyMessageIsAMessage) {
  FrameDecoder decoder(10);
  EXPECT_TRUE(decoder.AtBoundary());
  decoder.Feed("\0\0\0"s);
  EXPECT_FALSE(decoder.AtBoundary());
  EXPECT_FALSE(decoder.Next()->has_value());
  decoder.Feed("\0"s);
  EXPECT_EQ(decoder.Next().value(), "");
  EXPECT_TRUE(decoder.AtBoundary());
}

TEST(Frame, ALengthAboveTheMaximumIsAnErrorForGood) {
  FrameDecoder decoder(3);
  decoder.Feed(EncodeFrame("abc") + "\0\0\0\4"s);
  EXPECT_EQ(decoder.Next().value(), "abc");
  for (int i = 0; i < 2; ++i) {
    const auto refused = decoder.Next();
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().message, "frame: length 4 is above 3");
    decoder.Feed("more");
  }
  FrameDecoder huge(kFrameMax);
  huge.Feed("\xff\xff\xff\xff"s);
  EXPECT_FALSE(huge.Next().ok());
}

RC_GTEST_PROP(FrameProperty, AnySplitGivesTheSameMessages,
              (const std::vector<std::string>& messages)) {
  std::string stream;
  for (const std::string& message : messages) stream += EncodeFrame(message);
  FrameDecoder decoder(kFrameMax);
  std::vector<std::string> got;
  while (!stream.empty()) {
    const size_t size = *rc::gen::inRange<size_t>(1, stream.size() + 1);
    decoder.Feed(stream.substr(0, size));
    stream.erase(0, size);
    while (auto message = decoder.Next().value()) got.push_back(*std::move(message));
  }
  RC_ASSERT(decoder.AtBoundary());
  RC_ASSERT(got == messages);
}

TEST(Frame, ManySmallFramesInOnePieceAreLinear) {
  std::string stream;
  for (int i = 0; i < 200'000; ++i) stream += EncodeFrame("x");
  FrameDecoder decoder(10);
  decoder.Feed(stream);
  int count = 0;
  while (decoder.Next()->has_value()) {
    ++count;
    decoder.Feed("");
  }
  EXPECT_EQ(count, 200'000);
}

}  // namespace
}  // namespace umbel::tensor
