// Our objects against those of Flower's own classes: tests/golden/records.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "flower/records.h"
#include "flower/records_testing.h"
#include "flwr/common.pb.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::flower {
namespace {

using Json = nlohmann::ordered_json;

const Json& Golden() {
  static const Json kGolden =
      Json::parse(ReadFile(std::string(UMBEL_SOURCE_DIR) + "/tests/golden/records.json").value());
  return kGolden;
}

std::string FromHex(const Json& hex) { return HexDecode(hex.get<std::string>()).value(); }

template <typename T>
T Number(const Json& text) {
  const std::string digits = text;
  T value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}
double Double(const Json& hex) {
  const std::string bytes = FromHex(hex);
  double value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

template <typename Value>
void AddNumbers(const std::string& kind, const Json& held, std::optional<Value>& out) {
  if (kind == "double") out = Double(held);
  if (kind == "sint64") out = Number<int64_t>(held);
  if (kind == "uint64") out = Number<uint64_t>(held);
  if (kind == "double_list") out = std::vector<double>();
  if (kind == "sint_list") out = std::vector<int64_t>();
  if (kind == "uint_list") out = std::vector<uint64_t>();
  if (!kind.ends_with("_list") || !out) return;
  for (const Json& item : held) {
    if (kind == "double_list") std::get<std::vector<double>>(*out).push_back(Double(item));
    if (kind == "sint_list") std::get<std::vector<int64_t>>(*out).push_back(Number<int64_t>(item));
    if (kind == "uint_list")
      std::get<std::vector<uint64_t>>(*out).push_back(Number<uint64_t>(item));
  }
}

ConfigValue ConfigFrom(const std::string& kind, const Json& held) {
  std::optional<ConfigValue> value;
  AddNumbers(kind, held, value);
  if (kind == "bool") value = held.get<bool>();
  if (kind == "string") value = held.get<std::string>();
  if (kind == "bytes") value = Bytes{FromHex(held)};
  if (kind == "bool_list") value = held.get<std::vector<bool>>();
  if (kind == "string_list") value = held.get<std::vector<std::string>>();
  if (kind == "bytes_list") {
    std::vector<Bytes> list;
    for (const Json& item : held) list.push_back({FromHex(item)});
    value = list;
  }
  return value.value();
}

/// Writes the data in `pieces` parts that do not touch.
ArrayRef ArrayFrom(const Json& held, Spool& spool, size_t pieces) {
  std::string data = FromHex(held["data"]);
  if (held.contains("zeros")) data.resize(data.size() + held["zeros"].get<size_t>());
  if (held.contains("count"))
    for (uint32_t i = 0; i < held["count"].get<uint32_t>() / 4; ++i)
      data.append(reinterpret_cast<const char*>(&i), sizeof i);
  ArrayRef array{held["dtype"], held["shape"].get<std::vector<int64_t>>(), held["stype"], {}};
  const size_t step = data.size() / pieces + 1;
  for (size_t at = 0; at < data.size(); at += step) {
    array.pieces.push_back(spool.Append(std::string_view(data).substr(at, step)).value());
    if (pieces > 1) UMBEL_CHECK(spool.Append(std::string_view("between")).ok());
  }
  return array;
}

RecordDict RecordsFrom(const Json& content, Spool& spool, size_t pieces) {
  RecordDict records;
  for (const Json& entry : content) {
    const Json& held = entry[1];
    Record record;
    if (held.contains("arrays")) {
      for (const Json& item : held["arrays"])
        std::get<ArrayRecord>(record).emplace_back(item[0], ArrayFrom(item[1], spool, pieces));
    } else if (held.contains("metrics")) {
      auto& metrics = record.emplace<MetricRecord>();
      for (const Json& item : held["metrics"]) {
        std::optional<MetricValue> value;
        AddNumbers(item[1], item[2], value);
        metrics.emplace_back(item[0], value.value());
      }
    } else {
      auto& config = record.emplace<ConfigRecord>();
      for (const Json& item : held["config"])
        config.emplace_back(item[0], ConfigFrom(item[1], item[2]));
    }
    records.emplace_back(entry[0], std::move(record));
  }
  return records;
}

MessageHead HeadFrom(const Json& held) {
  MessageHead head;
  head.run_id = RunId{Number<uint64_t>(held["run_id"])};
  head.message_id = "not part of it";
  head.src = NodeId{Number<uint64_t>(held["src"])};
  head.dst = NodeId{Number<uint64_t>(held["dst"])};
  head.reply_to = held["reply_to"];
  head.group_id = held["group_id"];
  head.type = held["type"];
  head.ttl = Double(held["ttl"]);
  head.created_at = Double(held["created_at"]);
  if (!held["src_task_id"].is_null()) head.src_task_id = Number<uint64_t>(held["src_task_id"]);
  if (!held["dst_task_id"].is_null()) head.dst_task_id = Number<uint64_t>(held["dst_task_id"]);
  return head;
}

void ExpectSameAsFlower(const Json& golden, const Parcel& parcel, const Spool& spool) {
  EXPECT_EQ(parcel.head.message_id, golden["id"].get<std::string>());
  EXPECT_EQ(tensor::Sha256Of(parcel.tree).Hex(), golden["tree_sha256"].get<std::string>());
  EXPECT_EQ(spool.objects().size(), golden["objects"].get<size_t>());
  const auto ids = tensor::ParseTree(parcel.tree);
  ASSERT_TRUE(ids.ok()) << ids.error().message;
  EXPECT_EQ(ids->ids.size(), spool.objects().size());
  for (const ObjectId& id : ids->ids) {
    const auto whole = spool.Read(id, UINT64_MAX);
    ASSERT_TRUE(whole.ok()) << whole.error().message;
    EXPECT_EQ(tensor::ObjectIdOf(*whole), id);
    EXPECT_TRUE(tensor::ParseObject(*whole).ok());
  }
}

class RecordsGolden : public testing::TestWithParam<std::string> {};

TEST_P(RecordsGolden, ObjectsAreNamedAsFlowerNamesThem) {
  const Json& golden = Golden()[GetParam()];
  for (const size_t pieces : {1U, 7U}) {
    const auto spool = NewSpool();
    auto parcel = golden.contains("error")
                      ? MakeErrorParcel(HeadFrom(golden["head"]),
                                        {golden["error"]["code"], golden["error"]["reason"]}, spool)
                      : MakeParcel(HeadFrom(golden["head"]),
                                   RecordsFrom(golden["content"], *spool, pieces), spool);
    ASSERT_TRUE(parcel.ok()) << parcel.error().message;
    ExpectSameAsFlower(golden, *parcel, *spool);

    flwr::proto::Message message;
    ASSERT_TRUE(message.ParseFromString(parcel->message));
    EXPECT_EQ(message.metadata().message_id(), parcel->head.message_id);
    EXPECT_EQ(message.has_content(), !golden.contains("error"));
    const auto again = ReadParcel(parcel->message, parcel->tree);
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(again->head, parcel->head);
    EXPECT_EQ(again->message, parcel->message);
    EXPECT_EQ(again->error.has_value(), golden.contains("error"));
  }
}

TEST_P(RecordsGolden, RecordsComeBack) {
  const Json& golden = Golden()[GetParam()];
  if (golden.contains("error")) return;
  const auto spool = NewSpool();
  const RecordDict records = RecordsFrom(golden["content"], *spool, 1);
  auto parcel = MakeParcel(HeadFrom(golden["head"]), records, spool);
  ASSERT_TRUE(parcel.ok()) << parcel.error().message;

  // As a node has it: every object as it came over the wire.
  const auto fetched = NewSpool();
  for (const auto& [id, object] : spool->objects())
    ASSERT_TRUE(fetched->Put(id, spool->Read(id, UINT64_MAX).value()).ok());
  parcel->objects = fetched;
  const auto read = ReadRecords(*parcel);
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->size(), records.size());
  EXPECT_TRUE(SameRecords(records, spool, *read, fetched));
  for (size_t i = 0; i < records.size(); ++i) {
    if (!std::holds_alternative<ArrayRecord>(records[i].second)) continue;
    const auto& there = std::get<ArrayRecord>(records[i].second);
    const auto& here = std::get<ArrayRecord>((*read)[i].second);
    for (size_t k = 0; k < there.size(); ++k) {
      EXPECT_EQ(here[k].first, there[k].first);
      EXPECT_EQ(here[k].second.shape, there[k].second.shape);
      EXPECT_EQ(here[k].second.size(), there[k].second.size());
      EXPECT_TRUE(DataOf(here[k].second, *fetched) == DataOf(there[k].second, *spool));
    }
  }
}

TEST_P(RecordsGolden, StateIsSerializedAsFlowerDoes) {
  const Json& golden = Golden()[GetParam()];
  if (golden.contains("error")) return;
  for (const size_t pieces : {1U, 7U}) {
    const auto spool = NewSpool();
    const RecordDict records = RecordsFrom(golden["content"], *spool, pieces);
    const auto state = EncodeState(records, *spool);
    ASSERT_TRUE(state.ok()) << state.error().message;
    EXPECT_EQ(tensor::Sha256Of(*state).Hex(), golden["state_sha256"].get<std::string>());
    const auto other = NewSpool();
    const auto back = DecodeState(*state, *other);
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_TRUE(SameRecords(records, spool, *back, other));
    EXPECT_TRUE(EncodeState(*back, *other).value() == *state);
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& item : Golden().items()) names.push_back(item.key());
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, RecordsGolden, testing::ValuesIn(Names()), [](const auto& name) {
  std::string plain = name.param;
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return c == ' '; }, '_');
  return plain;
});

}  // namespace
}  // namespace umbel::flower
