#include "clientapp/records.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>

#include "clientapp/client_app.h"
#include "flower/records_testing.h"

namespace umbel::clientapp {
namespace {

constexpr uint64_t kPlenty = uint64_t{1} << 30;

Array Floats(const std::vector<float>& values) {
  return Array::Of<float>(values, std::vector{static_cast<int64_t>(values.size())}).value();
}

/// Through a spool and back.
Result<RecordDict> Again(const RecordDict& records, uint64_t bytes_max = kPlenty) {
  const auto spool = flower::NewSpool();
  UMBEL_ASSIGN(const auto kept, Keep(records, *spool));
  return Load(kept, *spool, bytes_max);
}

TEST(Records, AreDictionariesInTheOrderOfTheirMaking) {
  MetricRecord record{{"b", 1.5}, {"a", int64_t{2}}, {"b", 3.5}};
  EXPECT_EQ(record.size(), 2U);
  record["c"] = std::vector<double>{1, 2};
  record["a"] = uint64_t{7};
  std::string keys;
  for (const auto& [key, value] : record) keys += key;
  EXPECT_EQ(keys, "bac");
  EXPECT_EQ(*record.Find("b"), MetricValue(3.5));
  EXPECT_EQ(record.Find("d"), nullptr);
  EXPECT_TRUE(record.Erase("b"));
  EXPECT_FALSE(record.Erase("b"));
  EXPECT_EQ(record, (MetricRecord{{"a", uint64_t{7}}, {"c", std::vector<double>{1, 2}}}));
}

TEST(Records, IntegersAreWhatTheyAreAskedForAs) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  const ConfigRecord config{{"round", int64_t{3}}, {"below", int64_t{-1}}, {"huge", kHuge},
                            {"rate", 0.5},         {"on", true},           {"name", "x"}};
  EXPECT_EQ(*Get<int64_t>(config, "round"), 3);
  EXPECT_EQ(*Get<uint64_t>(config, "round"), 3U);
  EXPECT_EQ(*Get<double>(config, "round"), 3.0);
  EXPECT_EQ(*Get<double>(config, "rate"), 0.5);
  EXPECT_EQ(*Get<std::string>(config, "name"), "x");
  EXPECT_TRUE(*Get<bool>(config, "on"));
  EXPECT_EQ(Get<uint64_t>(config, "below").error().message,
            "'below' is not an integer of 64 bits from 0");
  EXPECT_EQ(Get<int64_t>(config, "huge").error().message, "'huge' is not an integer of 64 bits");
  EXPECT_EQ(Get<int64_t>(config, "rate").error().message, "'rate' is not an integer of 64 bits");
  EXPECT_EQ(Get<double>(config, "on").error().message, "'on' is not a number");
  EXPECT_EQ(Get<bool>(config, "round").error().code, Code::kInvalidArgument);
  EXPECT_EQ(Get<std::string>(config, "none").error().code, Code::kNotFound);
  EXPECT_EQ(*Get<std::string>(config, "none", "y"), "y");
  EXPECT_FALSE(Get<std::string>(config, "round", "y").ok());

  const ConfigMap node{{"partition-id", int64_t{4}}};
  EXPECT_EQ(*Get<uint64_t>(node, "partition-id"), 4U);
  EXPECT_EQ(Get<uint64_t>(node, "num-partitions").error().message, "there is no 'num-partitions'");
}

TEST(Records, ADictionaryNamesWhatItDoesNotHold) {
  RecordDict records;
  records["arrays"] = ArrayRecord{{"w", Floats({1, 2})}};
  EXPECT_EQ(records.Metrics("arrays").error().message, "'arrays' is not a MetricRecord");
  EXPECT_EQ(records.Arrays("array").error().message, "there is no 'array'");
  ArrayRecord& arrays = **records.Arrays("arrays");
  EXPECT_EQ(Values<float>(arrays, "w", {2})->back(), 2);
  EXPECT_EQ(Values<float>(arrays, "w", {3}).error().message, "'w': shape is [2], not [3]");
  EXPECT_EQ(Values<double>(arrays, "w", {2}).error().message, "'w': dtype is float32, not float64");
  EXPECT_EQ(Values<float>(arrays, "v", {2}).error().message, "there is no 'v'");
}

TEST(Records, ComeBackFromASpool) {
  RecordDict records;
  records["arrays"] = ArrayRecord{{"w", Floats({1, 2, 3})}, {"empty", Array()}};
  records["metrics"] = MetricRecord{{"n", int64_t{3}}, {"losses", std::vector<double>{1, 2}}};
  records["config"] = ConfigRecord{{"text", "ü"}, {"bytes", Bytes{"\xff"}}};
  records["none"] = ArrayRecord();
  const auto again = Again(records);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, records);
}

TEST(Records, ArraysAreLimitedBeforeTheyAreRead) {
  RecordDict records;
  records["arrays"] = ArrayRecord{{"w", Floats(std::vector<float>(1000))}};
  EXPECT_TRUE(Again(records, 4128).ok());
  EXPECT_EQ(Again(records, 4127).error().code, Code::kResourceExhausted);

  // One megabyte that says it is a million.
  const auto spool = flower::NewSpool();
  flower::ArrayRef bomb{"float32", {1}, "numpy.ndarray", {}};
  bomb.pieces.assign(1'000'000, *spool->Append(std::string(1 << 20, 'x')));
  EXPECT_EQ(Load({{"arrays", flower::ArrayRecord{{"w", bomb}}}}, *spool, kPlenty).error().code,
            Code::kResourceExhausted);
}

TEST(Records, ArraysThatAreNotNumPysAreNamed) {
  const auto spool = flower::NewSpool();
  const auto message = [&](const std::string& bytes, const std::string& stype) {
    flower::ArrayRef array{"float32", {1}, stype, {}};
    if (!bytes.empty()) array.pieces = {*spool->Append(bytes)};
    const auto loaded = Load({{"arrays", flower::ArrayRecord{{"w", array}}}}, *spool, kPlenty);
    return loaded.ok() ? "no error" : loaded.error().message;
  };
  const std::string npy = Floats({1}).ToNpy();
  EXPECT_EQ(message(npy, "numpy.ndarray"), "no error");
  EXPECT_EQ(message(npy, "torch"), "'arrays': 'w': stype is 'torch', not numpy.ndarray");
  EXPECT_EQ(message("", "numpy.ndarray"), "'arrays': 'w': NPY header: it is not whole");
  EXPECT_EQ(message(npy.substr(0, 100), "numpy.ndarray"),
            "'arrays': 'w': NPY header: it is not whole");
  EXPECT_EQ(message(npy.substr(0, 130), "numpy.ndarray"),
            "'arrays': 'w': NPY data has 2 bytes, its shape makes 4");
  EXPECT_NE(message("garbage", "numpy.ndarray"), "no error");
}

RC_GTEST_PROP(RecordsProperty, AnArrayMayLieInAnyPieces, ()) {
  const auto values = *rc::gen::container<std::vector<float>>(
      *rc::gen::inRange<size_t>(0, 100),
      rc::gen::map(rc::gen::inRange(-9, 9), [](int value) { return static_cast<float>(value); }));
  const Array array = Floats(values);
  const std::string npy = array.ToNpy();
  const auto spool = flower::NewSpool();
  flower::ArrayRef ref{"float32", {}, "numpy.ndarray", {}};
  for (size_t at = 0; at < npy.size();) {
    const size_t size = std::min(*rc::gen::inRange<size_t>(1, 64), npy.size() - at);
    static_cast<void>(*spool->Append(std::string("between")));
    ref.pieces.push_back(*spool->Append(npy.substr(at, size)));
    ref.pieces.push_back({ref.pieces.back().offset, 0});
    at += size;
  }
  const auto loaded = Load({{"a", flower::ArrayRecord{{"w", ref}}}}, *spool, kPlenty);
  RC_ASSERT(loaded.ok());
  RC_ASSERT(*(*loaded->Arrays("a"))->Find("w") == array);
}

}  // namespace
}  // namespace umbel::clientapp
