#include "tensor/object.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tensor/sha256.h"

namespace umbel::tensor {
namespace {

using std::string_literals::operator""s;

ObjectId Hex(std::string_view hex) { return Digest::FromHex(hex).value(); }

std::string Unhex(std::string_view hex) { return HexDecode(hex).value(); }

struct Golden {
  ObjectType type;
  std::vector<ObjectId> children;
  std::string body;
  std::string_view id;
};

/// The bytes and ids that flwr's own classes make: contracts/flower-earlier.md, section 3.2.
std::vector<Golden> GoldenObjects() {
  const ObjectId chunk = Hex("0bd55c552a4d962cf4398ecd7b71d1a05377410b9b904603b85f1760b8928530");
  const ObjectId array = Hex("9a6df3451aa0b992591a9034c8bd92ed282fdd133b06f879662523e78df61e38");
  const ObjectId dict = Hex("4c0d6456a20a2e58ffabf75bc0264087682f467b16be191556893ddb4c5641c0");
  std::string npy =
      "\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'fortran_order': False, "s
      "'shape': (2, 2), }"s;
  npy.resize(127, ' ');
  npy += "\n"s + Unhex("0000803f000000400000404000008040");
  return {
      {ObjectType::kArrayChunk,
       {},
       "abc",
       "8f373c1473d725a61442838233deff2aa2a89f72184e517b6a621a3b53abbbd6"},
      {ObjectType::kRecordDict,
       {},
       "{}",
       "a5fc9cb09319dc373f7a8f11a799fd0d90c359120fd6241c230de34a4f93be3e"},
      {ObjectType::kArrayRecord,
       {},
       "{}",
       "c68161c7561379629cbba143e65d069f43f30d933d924a2770859737e0b0d117"},
      {ObjectType::kArrayChunk,
       {},
       npy,
       "0bd55c552a4d962cf4398ecd7b71d1a05377410b9b904603b85f1760b8928530"},
      {ObjectType::kArray,
       {chunk},
       R"({"dtype": "float32", "shape": [2, 2], "stype": "numpy.ndarray", "arraychunk_ids": [0]})",
       "9a6df3451aa0b992591a9034c8bd92ed282fdd133b06f879662523e78df61e38"},
      {ObjectType::kArrayRecord,
       {array},
       R"({"w": ")" + array.Hex() + R"(", "\u00e9": ")" + array.Hex() + R"("})",
       "fb96f9247496234c42be44194eaa24071be4598e79af5f54057f0d135e07069d"},
      {ObjectType::kMetricRecord,
       {},
       Unhex("0a120a0c6e756d2d6578616d706c6573120210140a110a046c6f7373120909000000000000e03f"
             "0a0d0a016c1208b201050a030204050a120a03626967120b1880808080808080808001"),
       "354cbc90b9c220abbfaa3e0f1705980d735ca75637fd8b4dbda6bd7f16217c84"},
      {ObjectType::kConfigRecord,
       {},
       Unhex("0a0f0a026c721209099a9999999999b93f0a120a0c7365727665722d726f756e64120210020a070a01"
             "62120220010a080a017312032a01780a0a0a0262791204320200010a0f0a026c731209ca01060a0161"
             "0a01620a080a01651203c20100"),
       "2ecebf2a8fd4df6f4be88b8446867d04aba5f7623d8f6db19210eba40b491ec5"},
      {ObjectType::kMessage,
       {dict},
       Unhex("0a2f08d295fcd8ceb1aaaaab01180120b1d1f9d60332013139000000000018e540420574726169"
             "6e49000010e0456fda41"),
       "01ce1592256fd412039d5e7169670d2cffd966710bdb7bc1cb587d803bf4dfbd"},
      {ObjectType::kMessage,
       {},
       Unhex("0a610807180220012a40") + std::string(64, 'a') +
           Unhex("3900000000000024404205747261696e49000020e0456fda411a0808041204626f6f6d"),
       "0050aa6828af945ea5ced5e28be3dea628f57a4ebc11ff3b7c090c7bb7497476"},
  };
}

TEST(Object, GoldenVectorsAreMadeAndRead) {
  for (const Golden& golden : GoldenObjects()) {
    const std::string object = MakeObject(golden.type, golden.children, golden.body);
    EXPECT_EQ(ObjectIdOf(object).Hex(), golden.id) << object;
    const auto head = ParseObject(object);
    ASSERT_TRUE(head.ok()) << head.error().message;
    EXPECT_EQ(head->type, golden.type);
    EXPECT_EQ(head->children, golden.children);
    EXPECT_EQ(object.substr(head->head_size), golden.body);
  }
}

TEST(Object, HeadsThatCanStillBecomeValidWait) {
  const std::string id(64, 'a');
  for (const std::string& prefix :
       {""s, "A"s, "Array"s, "ArrayC"s, "Message"s, "Message "s, "Message  "s, "Message  1"s,
        "Message " + id.substr(0, 63), "Message " + id, "Message " + id + ",",
        "Message " + id + " ", "Message " + id + " 0"}) {
    const auto head = ParseObjectHead(prefix);
    ASSERT_TRUE(head.ok()) << prefix << ": " << head.error().message;
    EXPECT_FALSE(head->has_value()) << prefix;
  }
}

TEST(Object, HeadsThatCannotBecomeValidAreRefusedAtOnce) {
  const std::string id(64, 'a');
  const std::string upper(64, 'A');
  for (const std::string& prefix : {"B"s,
                                    "array"s,
                                    "Arrays"s,
                                    "Record "s,
                                    "Array\0"s,
                                    "RecordSet  2\0{}"s,
                                    "Array  \0"s,
                                    "Array  -"s,
                                    "Array  +1"s,
                                    "Array  01"s,
                                    "Array  1 "s,
                                    "Array  1x"s,
                                    "Array   1"s,
                                    "Array ,"s,
                                    "Array " + upper,
                                    "Array " + id.substr(0, 63) + " ",
                                    "Array " + id + ";",
                                    "Array " + id + "a",
                                    "Array " + id + ", ",
                                    "Array " + id + ",\0"s,
                                    "Array  99999999999999999999"s,
                                    "Array " + id + "\0"s,
                                    "\x93NUMPY"s,
                                    "\0"s}) {
    const auto head = ParseObjectHead(prefix);
    ASSERT_FALSE(head.ok()) << prefix;
    EXPECT_EQ(head.error().code, Code::kInvalidArgument);
    EXPECT_TRUE(head.error().message.starts_with("object head: ")) << head.error().message;
  }
}

TEST(Object, AHeadHasAMaximum) {
  std::string head = "Message ";
  for (int i = 0; i < 9; ++i) head += std::string(64, 'b') + ",";
  EXPECT_TRUE(ParseObjectHead(head, head.size() + 1).ok());
  const auto refused = ParseObjectHead(head, head.size());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
}

TEST(Object, TheLengthMustBeTheBodys) {
  EXPECT_TRUE(ParseObject("ArrayChunk  3\0abc"s).ok());
  EXPECT_TRUE(ParseObject("ArrayChunk  0\0"s).ok());
  for (const std::string& object : {"ArrayChunk  3\0ab"s, "ArrayChunk  3\0abcd"s, "ArrayChunk  3"s,
                                    ""s, "ArrayChunk  9999999999999999999\0"s})
    EXPECT_FALSE(ParseObject(object).ok()) << object;
  EXPECT_EQ(ParseObject("ArrayChunk  3\0ab"s).error().message,
            "object body: 2 bytes, the head says 3");
}

rc::Gen<std::string> AnyObject() {
  return rc::gen::apply(
      [](uint8_t type, const std::vector<uint8_t>& names, const std::string& body) {
        std::vector<ObjectId> children;
        for (size_t i = 0; i < names.size() && i < 4; ++i)
          children.push_back(Sha256Of(std::string(1, static_cast<char>(names[i]))));
        return MakeObject(static_cast<ObjectType>(type % 7), children, body);
      },
      rc::gen::arbitrary<uint8_t>(), rc::gen::arbitrary<std::vector<uint8_t>>(),
      rc::gen::arbitrary<std::string>());
}

RC_GTEST_PROP(ObjectProperty, EveryPrefixWaitsOrAgreesWithTheWhole, ()) {
  const std::string object = *AnyObject();
  const auto whole = ParseObject(object);
  RC_ASSERT(whole.ok());
  for (size_t size = 0; size <= object.size(); ++size) {
    const auto head = ParseObjectHead(std::string_view(object).substr(0, size));
    RC_ASSERT(head.ok());
    RC_ASSERT(head->has_value() == (size >= whole->head_size));
    if (head->has_value()) RC_ASSERT(**head == *whole);
  }
}

RC_GTEST_PROP(ObjectProperty, WhatIsReadIsWhatWouldBeWritten, ()) {
  std::string object = *AnyObject();
  const size_t at = *rc::gen::inRange<size_t>(0, object.size());
  object[at] = *rc::gen::arbitrary<char>();
  const auto head = ParseObject(object);
  // Exactly one spelling is accepted, so an id names one object only.
  if (head.ok())
    RC_ASSERT(MakeObject(head->type, head->children, object.substr(head->head_size)) == object);
}

}  // namespace
}  // namespace umbel::tensor
