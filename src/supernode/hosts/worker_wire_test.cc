#include "supernode/hosts/worker_wire.h"

#include <gtest/gtest.h>

#include <limits>

namespace umbel::supernode {
namespace {

using flower::ArrayRecord;
using flower::Bytes;
using flower::ConfigRecord;
using flower::MetricRecord;
using flower::RecordDict;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string Payload(const Value& value) { return EncodeFrame(value).value().substr(4); }

/// What the worker's end sees of a frame of ours.
Value Received(const Result<std::string>& frame) {
  UMBEL_CHECK(frame.ok());
  FrameReader reader;
  reader.Feed(*frame);
  return DecodeValue(reader.Next().value().value()).value();
}

const Value& At(const Value& map, std::string_view key) {
  for (const auto& [name, value] : *map.As<Value::Map>())
    if (name == key) return value;
  UMBEL_CHECK(false);
}

Value Without(Value map, std::string_view key) {
  std::erase_if(*map.As<Value::Map>(), [&](const auto& entry) { return entry.first == key; });
  return map;
}
Value With(const Value& map, std::string_view key, Value value) {
  Value changed = Without(map, key);
  changed.As<Value::Map>()->emplace_back(key, std::move(value));
  return changed;
}

template <typename T>
void ExpectBad(const Result<T>& refused, std::string_view why) {
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument) << refused.error().message;
  EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
}

RecordDict AllKinds() {
  return {{"arrays", ArrayRecord{{"w", {"float32", {2, 3}, "numpy.ndarray", {{0, 10}, {20, 5}}}},
                                 {"", {"", {}, "", {}}}}},
          {"metrics", MetricRecord{{"i", int64_t{-1}},
                                   {"u", UINT64_MAX},
                                   {"d", kInfinity},
                                   {"is", std::vector<int64_t>{1, -2}},
                                   {"us", std::vector<uint64_t>{1, UINT64_MAX}},
                                   {"ds", std::vector<double>{-0.0, 1}},
                                   {"none", std::vector<double>{}}}},
          {"config", ConfigRecord{{"b", true},
                                  {"i", int64_t{3}},
                                  {"d", 0.5},
                                  {"s", "text"},
                                  {"y", Bytes{"\xff\0x"}},
                                  {"bs", std::vector<bool>{true, false}},
                                  {"ss", std::vector<std::string>{"", "é"}},
                                  {"ys", std::vector<Bytes>{{"\xff"}, {""}}},
                                  {"none", std::vector<bool>{}}}}};
}

TEST(WorkerRecords, ComeBackAsTheyWere) {
  const RecordDict records = AllKinds();
  const auto read = RecordsFromValue(DecodeValue(Payload(RecordsToValue(records))).value(), 25);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(*read, records);
}

Result<RecordDict> One(std::string_view kind, Value items, uint64_t file_end = 100) {
  return RecordsFromValue(Value::List{Value(Value::List{"r", kind, std::move(items)})}, file_end);
}
Value Row(Value value) { return Value::List{Value(Value::List{"k", std::move(value)})}; }

flower::ConfigValue ConfigOf(Value value) {
  return std::get<ConfigRecord>(One("c", Row(std::move(value))).value()[0].second)[0].second;
}
flower::MetricValue MetricOf(Value value) {
  return std::get<MetricRecord>(One("m", Row(std::move(value))).value()[0].second)[0].second;
}

TEST(WorkerRecords, KindsAreChosenAsFlowerChoosesThem) {
  const Value::List mixed = {1, UINT64_MAX};
  EXPECT_EQ(MetricOf(mixed), flower::MetricValue(std::vector<uint64_t>{1, UINT64_MAX}));
  EXPECT_EQ(ConfigOf(mixed), flower::ConfigValue(std::vector<uint64_t>{1, UINT64_MAX}));
  EXPECT_EQ(MetricOf(Value::List{}), flower::MetricValue(std::vector<double>{}));
  EXPECT_EQ(ConfigOf(Value::List{}), flower::ConfigValue(std::vector<bool>{}));
  EXPECT_EQ(ConfigOf(true), flower::ConfigValue(true));
  EXPECT_EQ(ConfigOf(1), flower::ConfigValue(int64_t{1}));
  EXPECT_EQ(MetricOf(UINT64_MAX), flower::MetricValue(UINT64_MAX));
}

TEST(WorkerRecords, WhatTheyCannotHoldIsRefusedWithItsKey) {
  ExpectBad(RecordsFromValue(Value(), 0), "records: is nil, not a list");
  ExpectBad(RecordsFromValue(Value::List{1}, 0), "row 0 is not a list of 3");
  ExpectBad(RecordsFromValue(Value::List{Value(Value::List{1, "a", Value::List{}})}, 0), "row 0");
  ExpectBad(One("x", Value::List{}), "records['r']: kind is 'x'");
  ExpectBad(One("a", Value()), "records['r']: is nil, not a list");
  ExpectBad(One("m", Value::List{Value::List{"k", 1}, Value::List{"k", 2}}),
            "records['r']: key 'k' stands twice");
  ExpectBad(One("m", Row(true)), "records['r']['k']: is a bool that metrics do not have");
  ExpectBad(One("m", Row("x")), "records['r']['k']: is text");
  ExpectBad(One("m", Row(Value::List{true})), "records['r']['k']: is a list that metrics");
  ExpectBad(One("m", Row(Value())), "records['r']['k']: is nil");
  ExpectBad(One("c", Row(Value::Map{})), "records['r']['k']: is a map");
  ExpectBad(One("c", Row(Value::List{1, 2.0})), "holds a float beside an integer");
  ExpectBad(One("c", Row(Value::List{true, 1})), "holds an integer beside a bool");
  ExpectBad(One("c", Row(Value::List{Value(Value::List{})})), "records['r']['k']: holds a list");
  ExpectBad(One("c", Row(Value::List{-1, UINT64_MAX})), "holds -1 and an integer above 2^63");
}

TEST(WorkerRecords, PiecesLieInTheFile) {
  const auto array = [](Value::List shape, Value::List pieces, uint64_t file_end = 100) {
    return One("a",
               Value::List{Value(Value::List{"w", "float32", std::move(shape), "numpy.ndarray",
                                             std::move(pieces)})},
               file_end);
  };
  const auto piece = [](Value offset, Value size) {
    return Value(Value::List{std::move(offset), std::move(size)});
  };
  EXPECT_TRUE(array({2}, {piece(0, 60), piece(60, 40), piece(100, 0)}).ok());
  ExpectBad(array({2}, {piece(0, 101)}), "records['r']['w']: a piece of 101 bytes at 0 ends after");
  ExpectBad(array({2}, {piece(101, 0)}), "ends after 100");
  ExpectBad(array({2}, {piece(0, 60), piece(0, 60)}), "longer together than the file's 100 bytes");
  ExpectBad(array({2}, {piece(-1, 5)}), "before the file");
  ExpectBad(array({2}, {piece(1, INT64_MAX)}), "ends after");
  ExpectBad(array({2}, {piece(UINT64_MAX, 5)}), "a piece is not [offset, size]");
  ExpectBad(array({2}, {Value(Value::List{1})}), "a piece is not [offset, size]");
  ExpectBad(array({-1}, {}), "shape holds");
  ExpectBad(array({"x"}, {}), "shape holds");
  ExpectBad(One("a", Value::List{Value(Value::List{"w", 1, Value::List{}, "", Value::List{}})}),
            "dtype is not text");
}

TEST(WorkerControl, FramesAreRead) {
  const auto read = [](Value::Map map) {
    const auto frame = ReadControlFrame(Payload(std::move(map)));
    UMBEL_CHECK(frame.ok());
    return *frame;
  };
  const auto ready = std::get<Ready>(read({{"op", "ready"},
                                           {"protocol", 2},
                                           {"pid", 7},
                                           {"python", "3.11.2"},
                                           {"flwr", "1.41.0"},
                                           {"more", Value::List{1}}}));
  EXPECT_EQ(ready.pid, 7);
  EXPECT_EQ(ready.python, "3.11.2");
  EXPECT_EQ(ready.flwr, "1.41.0");
  EXPECT_EQ(std::get<Unfit>(read({{"op", "unfit"}, {"reason", "no flwr"}})).reason, "no flwr");
  const auto loaded = std::get<Loaded>(read({{"op", "loaded"}, {"fork", false}, {"why", "jax"}}));
  EXPECT_FALSE(loaded.fork);
  EXPECT_EQ(loaded.why, "jax");
  const auto failed = std::get<LoadFailed>(
      read({{"op", "load_failed"}, {"code", 1}, {"reason", "r"}, {"traceback", "t"}}));
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.traceback, "t");
  const auto forked = std::get<Forked>(read({{"op", "forked"}, {"id", UINT64_MAX}, {"pid", 9}}));
  EXPECT_EQ(forked.id, UINT64_MAX);
  EXPECT_EQ(forked.pid, 9);
  const auto exited =
      std::get<Exited>(read({{"op", "exited"}, {"id", 3}, {"pid", 0}, {"status", 256}}));
  EXPECT_EQ(exited.status, 256);
}

TEST(WorkerControl, BrokenFramesNameTheKey) {
  const Value forked = Value::Map{{"op", "forked"}, {"id", 1}, {"pid", 9}};
  const auto read = [](const Value& value) { return ReadControlFrame(Payload(value)); };
  ExpectBad(ReadControlFrame("x"), "frame byte");
  ExpectBad(read(Value::List{}), "frame: is a list, not a map");
  ExpectBad(read(Without(forked, "op")), "frame: 'op' is missing");
  ExpectBad(read(With(forked, "op", 3)), "frame: 'op' is an integer, not text");
  ExpectBad(read(With(forked, "op", "reply")), "frame: 'op' is 'reply'");
  ExpectBad(read(Without(forked, "pid")), "forked: 'pid' is missing");
  ExpectBad(read(With(forked, "pid", 0)), "forked: 'pid' is 0, not in [1, 2147483647]");
  ExpectBad(read(With(forked, "pid", -1)), "forked: 'pid' is -1");
  ExpectBad(read(With(forked, "pid", true)), "forked: 'pid' is a bool");
  ExpectBad(read(With(forked, "pid", int64_t{1} << 32)), "forked: 'pid' is 4294967296");
  ExpectBad(read(With(forked, "id", -1)), "forked: 'id' is -1, not an integer from 0 up");
  const auto other = read(Value::Map{{"op", "ready"}, {"protocol", 1}});
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, Code::kFailedPrecondition);
}

Value ReplyValue() {
  return Value::Map{{"op", "reply"},
                    {"head", Value::Map{{"type", "train"},
                                        {"group_id", "g"},
                                        {"ttl", 5},
                                        {"created_at", 1.5},
                                        {"reply_to", "r"},
                                        {"src", UINT64_MAX},
                                        {"dst", 1}}},
                    {"content", RecordsToValue(AllKinds())},
                    {"state", RecordsToValue({{"s", ConfigRecord{{"n", int64_t{1}}}}})},
                    {"runtime", 0.25},
                    {"out_end", 25}};
}

TEST(WorkerJob, AnswersAreRead) {
  const auto frame = ReadJobFrame(Payload(ReplyValue()), 0);
  ASSERT_TRUE(frame.ok()) << frame.error().message;
  const Reply& reply = std::get<Reply>(*frame);
  EXPECT_EQ(reply.head.type, "train");
  EXPECT_EQ(reply.head.ttl, 5.0);
  EXPECT_EQ(reply.head.src, NodeId{UINT64_MAX});
  EXPECT_EQ(reply.content, AllKinds());
  EXPECT_EQ(reply.state.size(), 1U);
  EXPECT_EQ(reply.runtime_seconds, 0.25);
  EXPECT_EQ(reply.out_end, 25U);

  const Value error = With(With(With(ReplyValue(), "op", "error"), "code", 2), "reason", "boom");
  const auto failed = ReadJobFrame(Payload(error), 25);
  ASSERT_TRUE(failed.ok()) << failed.error().message;
  EXPECT_EQ(std::get<AppError>(*failed).code, 2);
  EXPECT_EQ(std::get<AppError>(*failed).reason, "boom");
  EXPECT_EQ(std::get<AppError>(*failed).state.size(), 1U);
  const auto nothing = ReadJobFrame(Payload(With(ReplyValue(), "op", "nothing")), 0);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(std::get<Nothing>(*nothing).out_end, 25U);
}

TEST(WorkerJob, BrokenAnswersNameTheKey) {
  const Value reply = ReplyValue();
  const auto read = [](const Value& value, uint64_t out_offset = 0) {
    return ReadJobFrame(Payload(value), out_offset);
  };
  for (const char* key : {"head", "content", "state", "runtime", "out_end"})
    ExpectBad(read(Without(reply, key)), fmt::format("reply: '{}' is missing", key));
  ExpectBad(read(With(reply, "head", Value::Map{})), "reply: head: 'type' is missing");
  ExpectBad(read(With(reply, "content", 1)), "reply: content: is an integer, not a list");
  ExpectBad(read(With(reply, "out_end", 24)), "reply: content['arrays']['w']: a piece of 5 bytes");
  ExpectBad(read(reply, 26), "reply: 'out_end' is 25, but writing began at 26");
  ExpectBad(read(With(reply, "out_end", UINT64_MAX)), "reply: 'out_end'");
  // Content and state share the file.
  ExpectBad(read(With(reply, "state", At(reply, "content"))),
            "reply: state['arrays']['w']: pieces are longer together");
}

TEST(WorkerSays, FramesOfOurs) {
  const Value load = Received(LoadFrame("/apps/x", "m:app", "p/x", "/environments/y"));
  EXPECT_EQ(*At(load, "op").As<std::string>(), "load");
  EXPECT_EQ(*At(load, "directory").As<std::string>(), "/apps/x");
  EXPECT_EQ(*At(load, "environment").As<std::string>(), "/environments/y");
  EXPECT_EQ(LoadFrame("/\xff", "m:app", "", "").error().code, Code::kInvalidArgument);
  ChildLimits limits;
  limits.uid = 65534;
  const Value fork = Received(ForkFrame(UINT64_MAX, limits));
  EXPECT_EQ(*At(fork, "op").As<std::string>(), "fork");
  EXPECT_EQ(*At(fork, "id").As<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(*At(At(fork, "limits"), "uid").As<int64_t>(), 65534);
  EXPECT_EQ(At(At(fork, "limits"), "cwd").TypeName(), "nil");
  EXPECT_TRUE(*At(At(fork, "limits"), "session").As<bool>());
  EXPECT_EQ(*At(Received(ServeFrame(1, {})), "op").As<std::string>(), "serve");
  EXPECT_EQ(*At(Received(StopFrame()), "op").As<std::string>(), "stop");
}

TEST(WorkerSays, ACallHoldsAllThatAnAppSees) {
  const flower::MessageHead head{RunId{UINT64_MAX}, "id", NodeId{1}, NodeId{2}, "",          "g",
                                 "train",           10,   20,        3,         std::nullopt};
  const RecordDict content = AllKinds();
  const RecordDict state = {{"s", MetricRecord{}}};
  const ConfigMap node_config = {
      {"b", true}, {"i", int64_t{-1}}, {"u", UINT64_MAX}, {"d", 0.5}, {"s", "x"}};
  const ConfigMap run_config = {};
  const Call call{head, content, NodeId{2}, SeriesId{9}, node_config, run_config, state, 77};
  const Value frame = Received(CallFrame(call));
  const Value& message = At(frame, "message");
  EXPECT_EQ(*At(message, "run_id").As<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(*At(message, "src_task_id").As<int64_t>(), 3);
  EXPECT_EQ(At(message, "dst_task_id").TypeName(), "nil");
  EXPECT_EQ(*At(message, "ttl").As<double>(), 10.0);
  EXPECT_EQ(RecordsFromValue(At(frame, "content"), 25).value(), content);
  const Value& context = At(frame, "context");
  EXPECT_EQ(*At(context, "series_id").As<int64_t>(), 9);
  EXPECT_EQ(ConfigFromValue(At(context, "node_config")).value(), node_config);
  EXPECT_EQ(RecordsFromValue(At(context, "state"), 0).value(), state);
  EXPECT_EQ(*At(frame, "out_offset").As<int64_t>(), 77);
  ExpectBad(ConfigFromValue(Value::Map{{"k", Value()}}), "config: 'k' is nil, not a scalar");
  ExpectBad(ConfigFromValue(Value::List{}), "config: is a list, not a map");
}

}  // namespace
}  // namespace umbel::supernode
