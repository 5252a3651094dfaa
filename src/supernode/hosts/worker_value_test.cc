#include "supernode/hosts/worker_value.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

namespace umbel::supernode {
namespace {

using std::string_literals::operator""s;

std::string Payload(const Value& value) { return EncodeFrame(value).value().substr(4); }

void ExpectBad(const std::string& payload, std::string_view why,
               Code code = Code::kInvalidArgument) {
  const auto refused = DecodeValue(payload);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, code) << refused.error().message;
  EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
}

std::string Number(char type, uint64_t bits) {
  std::string out(1, type);
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(bits >> (8 * i)));
  return out;
}

TEST(WorkerValue, IsWrittenAsTheProtocolSays) {
  EXPECT_EQ(EncodeFrame(Value()).value(), "\x01\0\0\0n"s);
  EXPECT_EQ(Payload(true), "t");
  EXPECT_EQ(Payload(false), "f");
  EXPECT_EQ(Payload(-2), Number('i', UINT64_MAX - 1));
  EXPECT_EQ(Payload(uint64_t{5}), Number('i', 5));
  EXPECT_EQ(Payload(UINT64_MAX), Number('u', UINT64_MAX));
  EXPECT_EQ(Payload(1.0), Number('d', 0x3ff0000000000000));
  EXPECT_EQ(Payload("é"), "s\x02\0\0\0\xc3\xa9"s);
  EXPECT_EQ(Payload(flower::Bytes{"\xff"}), "b\x01\0\0\0\xff"s);
  EXPECT_EQ(Payload(Value::List{"a", Value()}), "l\x02\0\0\0s\x01\0\0\0an"s);
  EXPECT_EQ(Payload(Value::Map{{"k", true}}), "m\x01\0\0\0\x01\0\0\0kt"s);
}

TEST(WorkerValue, BrokenBytesAreRefusedWithTheirPlace) {
  ExpectBad("", "frame byte 0: a number is cut off");
  ExpectBad("x", "'x' is no type");
  ExpectBad("nn", "frame byte 1: 1 bytes are too many");
  ExpectBad("i1234567", "cut off");
  ExpectBad("s\x05\0\0\0abcd"s, "5 is more than what is left");
  ExpectBad("s\x02\0\0\0\xc3("s, "'\\xc3(' is not UTF-8");
  ExpectBad("l\xff\xff\xff\xffn"s, "4294967295 is more than");
  ExpectBad("m\x02\0\0\0\x01\0\0\0kn"s, "2 is more than");
  ExpectBad("m\x02\0\0\0\x01\0\0\0kn\x01\0\0\0kn"s, "key 'k' stands twice");
  ExpectBad("m\x01\0\0\0\x01\0\0\0\xffn"s, "is not UTF-8");
  ExpectBad(Number('u', 5), "5 is an i, not a u");
  ExpectBad("l\x02\0\0\0n"s, "2 is more than");
}

TEST(WorkerValue, DepthAndCountsAreLimited) {
  Value deep;
  for (size_t i = 0; i < kValueDepthMax; ++i) deep = Value::List{deep};
  EXPECT_TRUE(DecodeValue(Payload(deep)).ok());
  EXPECT_EQ(EncodeFrame(Value::List{deep}).error().code, Code::kResourceExhausted);
  ExpectBad("l\x01\0\0\0"s + Payload(deep), "nested deeper", Code::kResourceExhausted);
  std::string many = "l\x80\x84\x1e\0"s + std::string(kValuesMax, 'n');  // kValuesMax items
  ExpectBad(many, "more than 2000000 values", Code::kResourceExhausted);
  EXPECT_EQ(EncodeFrame(Value::List{flower::Bytes{std::string(kFrameMax, 'b')}}).error().code,
            Code::kResourceExhausted);
}

TEST(WorkerValue, TextThatIsNotUtf8IsNotSent) {
  EXPECT_EQ(EncodeFrame("\xff").error().code, Code::kInvalidArgument);
  EXPECT_EQ(EncodeFrame(Value::Map{{"\xff", true}}).error().code, Code::kInvalidArgument);
}

TEST(FrameReader, CutsFramesWhereverTheBytesBreak) {
  const std::string stream = EncodeFrame("one").value() + EncodeFrame(Value()).value() +
                             EncodeFrame(Value::List{1, 2}).value();
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    FrameReader reader;
    std::vector<std::string> payloads;
    for (size_t at = 0; at < stream.size(); at += piece) {
      reader.Feed(std::string_view(stream).substr(at, piece));
      while (true) {
        const auto next = reader.Next();
        ASSERT_TRUE(next.ok());
        if (!next->has_value()) break;
        payloads.push_back(**next);
      }
    }
    EXPECT_TRUE(reader.AtBoundary());
    const std::vector<std::string> expected = {Payload("one"), "n", Payload(Value::List{1, 2})};
    EXPECT_EQ(payloads, expected);
  }
  FrameReader half;
  half.Feed(stream.substr(0, 3));
  EXPECT_FALSE(half.Next().value().has_value());
  EXPECT_FALSE(half.AtBoundary());
}

TEST(FrameReader, ALongFrameIsRefusedByItsLength) {
  FrameReader reader;
  reader.Feed("\x01\0\0\x10"s);
  EXPECT_EQ(reader.Next().error().code, Code::kResourceExhausted);
  FrameReader longest;
  longest.Feed("\0\0\0\x10"s);
  EXPECT_TRUE(longest.Next().ok());
}

rc::Gen<Value> AnyValue(int depth) {
  const auto text = rc::gen::container<std::string>(rc::gen::inRange('a', 'd'));
  std::vector<rc::Gen<Value>> kinds = {
      rc::gen::just(Value()),
      rc::gen::map(rc::gen::arbitrary<bool>(), [](bool v) { return Value(v); }),
      rc::gen::map(rc::gen::arbitrary<uint64_t>(), [](uint64_t v) { return Value(v); }),
      rc::gen::map(rc::gen::arbitrary<int64_t>(), [](int64_t v) { return Value(v); }),
      rc::gen::map(rc::gen::arbitrary<double>(), [](double v) { return Value(v); }),
      rc::gen::map(text, [](std::string v) { return Value(std::move(v)); }),
      rc::gen::map(rc::gen::arbitrary<std::string>(),
                   [](std::string v) { return Value(flower::Bytes{std::move(v)}); })};
  size_t kind = *rc::gen::inRange<size_t>(0, kinds.size() + (depth > 0 ? 2 : 0));
  if (kind < kinds.size()) return kinds[kind];
  const int count = *rc::gen::inRange(0, 4);
  Value::List list;
  Value::Map map;
  for (int i = 0; i < count; ++i) {
    list.push_back(*AnyValue(depth - 1));
    map.emplace_back(std::to_string(i), list.back());
  }
  return rc::gen::just(kind == kinds.size() ? Value(list) : Value(map));
}

RC_GTEST_PROP(WorkerValueProperty, ValuesComeBack, ()) {
  const std::string payload = Payload(*AnyValue(3));
  const auto read = DecodeValue(payload);
  RC_ASSERT(read.ok());
  RC_ASSERT(Payload(*read) == payload);
}

RC_GTEST_PROP(WorkerValueProperty, MutatedValuesAreRefusedOrTheSameBytes, ()) {
  std::string payload = Payload(*AnyValue(3));
  for (int i = *rc::gen::inRange(1, 4); i > 0; --i)
    payload[*rc::gen::inRange<size_t>(0, payload.size())] = *rc::gen::arbitrary<char>();
  const auto read = DecodeValue(payload);
  if (read.ok()) RC_ASSERT(Payload(*read) == payload);
}

}  // namespace
}  // namespace umbel::supernode
