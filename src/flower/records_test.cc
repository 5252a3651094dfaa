#include "flower/records.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "flower/record_bytes.h"
#include "flower/record_json.h"
#include "flower/records_testing.h"
#include "flwr/common.pb.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::flower {
namespace {

using std::string_literals::operator""s;
using tensor::ObjectType;
namespace pb = flwr::proto;

/// A spool into which a stranger's objects are put, children first.
struct Stranger {
  std::shared_ptr<Spool> spool = NewSpool();

  ObjectId Put(ObjectType type, std::vector<ObjectId> children, std::string_view body) const {
    const std::string whole = tensor::MakeObject(type, children, body);
    const ObjectId id = tensor::ObjectIdOf(whole);
    UMBEL_CHECK(spool->Put(id, whole).ok());
    return id;
  }
  ObjectId Chunk(std::string_view data) const { return Put(ObjectType::kArrayChunk, {}, data); }
  ObjectId Named(ObjectType type, std::string_view name, const ObjectId& id) const {
    return Put(type, {id}, fmt::format("{{\"{}\": \"{}\"}}", name, id.Hex()));
  }
  Result<RecordDict> Message(const ObjectId& dict) const { return Root(Put(kRoot, {dict}, "")); }
  Result<RecordDict> Root(const ObjectId& root) const {
    Parcel parcel;
    parcel.head.message_id = root.Hex();
    parcel.objects = spool;
    return ReadRecords(parcel);
  }
  Result<RecordDict> Record(const ObjectId& record) const {
    return Message(Named(ObjectType::kRecordDict, "r", record));
  }
  Result<RecordDict> Array(std::vector<ObjectId> chunks, std::string_view body) const {
    const ObjectId array = Put(ObjectType::kArray, std::move(chunks), body);
    return Record(Named(ObjectType::kArrayRecord, "w", array));
  }
  static constexpr ObjectType kRoot = ObjectType::kMessage;
};

constexpr std::string_view kArray =
    R"({"dtype": "x", "shape": [1], "stype": "y", "arraychunk_ids": [0]})";

const ArrayRef& OnlyArray(const Result<RecordDict>& records) {
  return std::get<ArrayRecord>(records->at(0).second).at(0).second;
}

void ExpectBad(const Result<RecordDict>& refused, std::string_view why,
               Code code = Code::kInvalidArgument) {
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, code) << refused.error().message;
  EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
}

TEST(Records, AChunkLiesWhereItsBytesDo) {
  const Stranger stranger;
  for (const size_t size : {1U, 4000U, 4096U, 100'000U}) {
    const std::string data(size, 'd');
    const auto records = stranger.Array({stranger.Chunk(data)}, kArray);
    ASSERT_TRUE(records.ok()) << records.error().message;
    EXPECT_TRUE(DataOf(OnlyArray(records), *stranger.spool) == data);
  }
  // Cut anywhere between memory and file.
  const std::string whole = tensor::MakeObject(ObjectType::kArrayChunk, {}, "0123456789");
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    const Stranger other;
    const std::string_view rest = std::string_view(whole).substr(cut);
    other.spool->Add(tensor::ObjectIdOf(whole),
                     {whole.substr(0, cut), other.spool->Append(rest).value()});
    const auto records = other.Array({tensor::ObjectIdOf(whole)}, kArray);
    ASSERT_TRUE(records.ok()) << records.error().message;
    EXPECT_EQ(DataOf(OnlyArray(records), *other.spool), "0123456789");
  }
}

TEST(Records, AChunkMayStandSeveralTimes) {
  const Stranger stranger;
  const auto records = stranger.Array(
      {stranger.Chunk("a"), stranger.Chunk("b")},
      R"({"arraychunk_ids": [1,0,1], "new": {"a": [1, {"b": [null, 2.5, "x"]}]}, "dtype":"","stype":"","shape":[]})");
  ASSERT_TRUE(records.ok()) << records.error().message;
  EXPECT_EQ(DataOf(OnlyArray(records), *stranger.spool), "bab");
}

TEST(Records, WrongTypesAndMissingObjectsAreNamed) {
  const Stranger s;
  const ObjectId chunk = s.Chunk("abc");
  const ObjectId gone = tensor::Sha256Of("gone");
  const ObjectId metrics = s.Put(ObjectType::kMetricRecord, {}, "");
  ExpectBad(s.Root(chunk), "is of type ArrayChunk, not Message");
  ExpectBad(s.Root(gone), gone.Hex(), Code::kNotFound);
  ExpectBad(s.Root(s.Put(ObjectType::kMessage, {}, "")), "is a message of 0 contents, not 1");
  ExpectBad(s.Root(s.Put(ObjectType::kMessage, {chunk, chunk}, "")), "of 2 contents, not 1");
  ExpectBad(s.Message(metrics), "is of type MetricRecord, not RecordDict");
  ExpectBad(s.Message(gone), gone.Hex(), Code::kNotFound);
  ExpectBad(s.Record(chunk), "is of type ArrayChunk, not a record");
  ExpectBad(s.Record(s.Named(ObjectType::kArrayRecord, "w", metrics)), "MetricRecord, not Array");
  ExpectBad(s.Record(s.Named(ObjectType::kArrayRecord, "w", gone)), gone.Hex(), Code::kNotFound);
  ExpectBad(s.Array({metrics}, kArray), "is of type MetricRecord, not ArrayChunk");
  ExpectBad(s.Array({gone}, kArray), gone.Hex(), Code::kNotFound);
  ExpectBad(s.Array({}, kArray), "'arraychunk_ids' holds 0, but there are 0 chunks");
  ExpectBad(s.Array({s.Put(ObjectType::kArrayChunk, {chunk}, "")}, kArray), "no head of a chunk");
}

TEST(Records, ObjectsThatAreNoneAreNamed) {
  const Stranger s;
  const auto put = [&](const std::string& whole) {
    const ObjectId id = tensor::Sha256Of(whole);
    UMBEL_CHECK(s.spool->Put(id, whole).ok());
    return id;
  };
  ExpectBad(s.Root(put("Message")), "object " + tensor::Sha256Of("Message").Hex());
  ExpectBad(s.Root(put("")), "object");
  ExpectBad(s.Array({put("ArrayChunk  5\0abc"s)}, kArray), "its head says 14 + 5");
  ExpectBad(s.Array({put("ArrayChunk  2\0abc"s)}, kArray), "its head says 14 + 2");
  ExpectBad(s.Array({put("ArrayChunk  ")}, kArray), "no head of a chunk");
  ExpectBad(s.Array({put("")}, kArray), "no head of a chunk");
  ExpectBad(s.Array({put(std::string(5000, 'x'))}, kArray), "object head");
  ExpectBad(s.Array({put("ArrayChunk  9999999999999999999\0a"s)}, kArray), "its head says");
  ExpectBad(s.Record(put("RecordSet  2\0{}"s)), "object head: type");
}

TEST(Records, ABodyThatIsNotTheOneExpectedIsRefused) {
  const Stranger s;
  const auto names = [&](std::string_view body, std::string_view why) {
    SCOPED_TRACE(body);
    ExpectBad(s.Message(s.Put(ObjectType::kRecordDict, {}, body)), why);
    ExpectBad(s.Record(s.Put(ObjectType::kArrayRecord, {}, body)), why);
  };
  names("", "is not JSON");
  names("{", "is not JSON");
  names("{} x", "is not JSON");
  names("[]", "the body is a list");
  names("7", "the body is an integer");
  names("\"x\"", "the body is text");
  names("null", "the body is null");
  names(R"({"a": 1})", "'a' is an integer, not an object id");
  names(R"({"a": 1e999})", "is not JSON");
  names(R"({"a": [1]})", "'a' is a list, not");
  names(R"({"a": {"b": 1}})", "'a' is an object, not");
  names(R"({"a": "abc"})", "'a' is 'abc', not an object id");
  names("{\"\xff\": 1}", "is not JSON");
  names(R"({"\ud800": 1})", "is not JSON");
  names(std::string(100'000, '['), "the body is a list");
  const std::string id = tensor::Sha256Of("x").Hex();
  names(fmt::format(R"({{"a": "{0}", "a": "{0}"}})", id), "key 'a' stands twice");

  const auto array = [&](std::string_view body, std::string_view why) {
    SCOPED_TRACE(body);
    ExpectBad(s.Array({s.Chunk("a")}, body), why);
  };
  array(R"({"dtype": "x", "shape": [1], "stype": "y"})", "'arraychunk_ids' is missing");
  array(R"({"dtype": 1})", "'dtype' is or holds an integer");
  array(R"({"dtype": ["x"]})", "'dtype' is or holds a list");
  array(R"({"shape": "x"})", "'shape' is or holds text");
  array(R"({"shape": [[1]]})", "'shape' is or holds a list");
  array(R"({"shape": [-1]})", "'shape' holds -1");
  array(R"({"shape": [1.5]})", "'shape' is or holds not a 64-bit integer");
  array(R"({"shape": [18446744073709551615]})", "not a 64-bit integer");
  array(R"({"shape": ["x"]})", "'shape' is or holds text");
  array(R"({"stype": null})", "'stype' is or holds null");
  array(R"({"arraychunk_ids": [0], "arraychunk_ids": [0]})", "'arraychunk_ids' stands twice");
  array(R"({"arraychunk_ids": [true]})", "'arraychunk_ids' is or holds a bool");
  array(R"({"new": )" + std::string(100, '['), "nested too deep");
  std::string shape = "0";
  for (int i = 0; i < 64; ++i) shape += ",0";
  array("{\"shape\": [" + shape + "]}", "more than 64 dimensions");
  array(R"({"dtype": "x", "shape": [], "stype": "y", "arraychunk_ids": [1]})", "holds 1, but");
}

TEST(Records, WhatGrowsInMemoryIsLimited) {
  const Stranger s;
  // One chunk, named twelve million times in 25 MB.
  std::string body = R"({"dtype": "x", "shape": [], "stype": "y", "arraychunk_ids": [0)";
  for (int i = 0; i < 12'000'000; ++i) body += ",0";
  ExpectBad(s.Array({s.Chunk("a")}, body + "]}"), "take more than", Code::kResourceExhausted);
  // One large record under many names.
  const std::string large = EncodeConfig({{"k", std::string(1 << 20, 'x')}}).value();
  const ObjectId record = s.Put(ObjectType::kConfigRecord, {}, large);
  std::string names = "{";
  for (int i = 0; i < 100; ++i) names += fmt::format("\"{}\": \"{}\", ", i, record.Hex());
  names.replace(names.size() - 2, 2, "}");
  ExpectBad(s.Message(s.Put(ObjectType::kRecordDict, {record}, names)), "take more than",
            Code::kResourceExhausted);
  ExpectBad(s.Message(s.Put(ObjectType::kRecordDict, {}, std::string((64 << 20) + 1, ' '))),
            "more than", Code::kResourceExhausted);
  // Values of two bytes each.
  std::string items;
  for (int i = 0; i < 10'000'000; ++i) items += "\x0a\x00"s;
  std::string list;
  tensor::AppendBytesField(26, items, list);
  std::string item;
  tensor::AppendBytesField(2, list, item);
  std::string config;
  tensor::AppendBytesField(1, item, config);
  ExpectBad(s.Record(s.Put(ObjectType::kConfigRecord, {}, config)), "take more than",
            Code::kResourceExhausted);
}

std::string ConfigOf(const std::function<void(pb::ConfigRecordValue*)>& set) {
  pb::ConfigRecord config;
  auto* item = config.add_items();
  item->set_key("k");
  set(item->mutable_value());
  return config.SerializeAsString();
}

TEST(Records, BrokenValuesAreRefusedWithTheirKey) {
  const Stranger s;
  const auto config = [&](const std::string& body, std::string_view why) {
    ExpectBad(s.Record(s.Put(ObjectType::kConfigRecord, {}, body)), why);
  };
  const auto metrics = [&](const std::string& body, std::string_view why) {
    ExpectBad(s.Record(s.Put(ObjectType::kMetricRecord, {}, body)), why);
  };
  config("\x0a", "protobuf");
  config(ConfigOf([](auto*) {}), "'k': has no value");
  std::string text = ConfigOf([](auto* value) { value->set_string("ab"); });
  text.replace(text.find("ab"), 2, "\xc3\x28");
  config(text, "'k': text '\\xc3(' is not UTF-8");
  std::string twice = ConfigOf([](auto* value) { value->set_bool_(true); });
  config(twice + twice, "key 'k' stands twice");
  metrics(twice, "'k' is not a number");
  metrics(ConfigOf([](auto* value) { value->set_string("x"); }), "'k' is not a number");
  metrics(ConfigOf([](auto* value) { value->mutable_bool_list(); }), "'k' is not a number");
  // A list of doubles of 7 bytes; a varint that does not end.
  const std::string item = "\x0a\x0f\x0a\x01k\x12\x0a"s;
  config(item +
             "\xaa\x01\x07\x0a\x05"
             "12345"s,
         "cut off");
  config("\x0a\x0a\x0a\x01k\x12\x05\xb2\x01\x02\x0a\x80"s, "protobuf");
}

TEST(Records, UnpackedListsAndUnknownFieldsAreRead) {
  Budget budget(1 << 20);
  // sint_list {vals: 1, vals: -1}, not packed; and an unknown field 9 in the item.
  const auto read =
      DecodeConfig("\x0a\x0e\x0a\x01k\x48\x05\x12\x07\xb2\x01\x04\x08\x02\x08\x01"s, budget);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->at(0).second, ConfigValue(std::vector<int64_t>{1, -1}));
}

TEST(Records, WhatCannotBeSaidIsNotMade) {
  const auto spool = NewSpool();
  const auto refused = [&](const RecordDict& records, std::string_view why,
                           Code code = Code::kInvalidArgument) {
    for (const Error& error :
         {MakeParcel({}, records, spool).error(), EncodeState(records, *spool).error()}) {
      EXPECT_EQ(error.code, code) << error.message;
      EXPECT_NE(error.message.find(why), std::string::npos) << error.message;
    }
  };
  const ArrayRef array{"x", {1}, "y", {}};
  ArrayRef short_of_bytes = array;
  short_of_bytes.pieces = {{0, 1}};
  ArrayRef no_text = array;
  no_text.dtype = "\xff";
  refused({{"a", {}}, {"a", {}}}, "key 'a' stands twice");
  refused({{"a\xff", {}}}, "is not UTF-8");
  refused({{"r", ArrayRecord{{"a", array}, {"a", array}}}}, "'r': key 'a' stands twice");
  refused({{"r", ArrayRecord{{"a", short_of_bytes}}}}, "spool", Code::kDataLoss);
  refused({{"r", ArrayRecord{{"a", no_text}}}}, "'r': 'a': dtype '\\xff' is not UTF-8");
  refused({{"r", MetricRecord{{"\xc0", 1.0}}}}, "is not UTF-8");
  refused({{"r", ConfigRecord{{"a", "\xed\xa0\x80"s}}}}, "'r': 'a': text");
  refused({{"r", ConfigRecord{{"a", std::vector<std::string>{"\xff"}}}}}, "'r': 'a': text");
  MessageHead head;
  head.group_id = "\xff";
  EXPECT_EQ(MakeParcel(head, {}, spool).error().code, Code::kInvalidArgument);
  EXPECT_EQ(MakeErrorParcel({}, {1, "\xff"}, spool).error().code, Code::kInvalidArgument);
}

TEST(Records, AStateHasAnEnd) {
  const auto spool = NewSpool();
  ArrayRef array{"x", {1}, "y", {}};
  array.pieces.assign(3, {0, uint64_t{100} << 20});
  EXPECT_EQ(EncodeState({{"r", ArrayRecord{{"a", array}}}}, *spool).error().code,
            Code::kResourceExhausted);
  array.pieces = {{0, UINT64_MAX}, {0, 2}};
  EXPECT_EQ(EncodeState({{"r", ArrayRecord{{"a", array}}}}, *spool).error().code,
            Code::kResourceExhausted);
  array = {"x", {int64_t{1} << 31}, "y", {}};
  EXPECT_EQ(EncodeState({{"r", ArrayRecord{{"a", array}}}}, *spool).error().code,
            Code::kInvalidArgument);
}

RC_GTEST_PROP(RecordsProperty, MutatedStatesAreRefusedOrRead, ()) {
  const auto spool = NewSpool();
  const FileRange piece = spool->Append(std::string_view("data")).value();
  const RecordDict records = {
      {"a", ArrayRecord{{"w", {"float32", {2, 3}, "numpy.ndarray", {piece}}}}},
      {"m", MetricRecord{{"n", int64_t{3}}, {"l", std::vector<double>{1, 2}}}},
      {"c", ConfigRecord{{"b", Bytes{"x"}}, {"t", std::vector<std::string>{"u"}}}}};
  std::string state = EncodeState(records, *spool).value();
  for (int i = *rc::gen::inRange(1, 6); i > 0; --i)
    state[*rc::gen::inRange<size_t>(0, state.size())] = *rc::gen::arbitrary<char>();
  const auto read = DecodeState(state, *spool);
  if (!read.ok()) {
    RC_ASSERT(!read.error().message.empty());
    return;
  }
  const auto again = EncodeState(*read, *spool);
  RC_ASSERT(again.ok());
  RC_ASSERT(SameRecords(DecodeState(*again, *spool).value(), spool, *read, spool));
}

// -- messages

pb::Message GoodMessage(const ObjectId& root) {
  pb::Message message;
  message.mutable_metadata()->set_message_id(root.Hex());
  message.mutable_content();
  return message;
}

TEST(Parcels, AMessageIsCheckedAgainstItsTree) {
  const ObjectId root = tensor::Sha256Of("root");
  const std::string tree = tensor::LeafTree(root);
  const auto refused = [&](const pb::Message& message, std::string_view why) {
    const auto parcel = ReadParcel(message.SerializeAsString(), tree);
    ASSERT_FALSE(parcel.ok());
    EXPECT_EQ(parcel.error().code, Code::kInvalidArgument);
    EXPECT_NE(parcel.error().message.find(why), std::string::npos) << parcel.error().message;
  };
  EXPECT_TRUE(ReadParcel(GoodMessage(root).SerializeAsString(), tree).ok());
  refused(GoodMessage(tensor::Sha256Of("other")), "is not its tree's root");
  refused({}, "no metadata");
  pb::Message both = GoodMessage(root);
  both.mutable_error();
  refused(both, "both content and error");
  pb::Message neither = GoodMessage(root);
  neither.clear_content();
  refused(neither, "neither content nor error");
  EXPECT_FALSE(ReadParcel("\xff", tree).ok());
  EXPECT_FALSE(ReadParcel(GoodMessage(root).SerializeAsString(), "\x0a").ok());
}

TEST(Parcels, RecordsThatCameInlineAreLeftOut) {
  const ObjectId root = tensor::Sha256Of("root");
  pb::Message message = GoodMessage(root);
  const std::string bare = message.SerializeAsString();
  message.mutable_content()->add_items()->set_key("inline");
  const auto parcel = ReadParcel(message.SerializeAsString(), tensor::LeafTree(root));
  ASSERT_TRUE(parcel.ok()) << parcel.error().message;
  EXPECT_EQ(parcel->message, bare);
}

TEST(Parcels, AnErrorHasNoRecords) {
  const auto parcel = MakeErrorParcel({}, {2, "boom"}, NewSpool());
  ASSERT_TRUE(parcel.ok());
  ExpectBad(ReadRecords(*parcel), "is an error");
}

TEST(Parcels, AReplyGoesBackWithWhatIsLeftOfTheTime) {
  const MessageHead instruction{
      RunId{7}, std::string(64, 'a'), NodeId{1}, NodeId{2}, "", "g", "train.x", 100, 1000, 3, 4};
  const MessageHead reply = ReplyHead(instruction, 1030);
  const MessageHead expected{
      RunId{7}, "", NodeId{2}, NodeId{1}, std::string(64, 'a'), "g", "train.x", 70, 1030, 4, 3};
  EXPECT_EQ(reply, expected);
}

}  // namespace
}  // namespace umbel::flower
