#include "supernode/hosts/worker_wire.h"

#include <limits>

#include "supernode/hosts/worker_fields.h"
#include "supernode/hosts/worker_records.h"
#include "tensor/quote.h"

namespace umbel::supernode {
namespace {

Value OptionalId(const std::optional<uint64_t>& id) { return id ? Value(*id) : Value(); }

Result<Ready> ReadReady(Fields& fields) {
  UMBEL_ASSIGN(const int64_t protocol, fields.TakeInteger("protocol"));
  if (protocol != kWorkerProtocol)
    return Fail(Code::kFailedPrecondition,
                fmt::format("ready: 'protocol' is {}, ours is {}", protocol, kWorkerProtocol));
  Ready ready;
  UMBEL_ASSIGN(ready.pid, fields.TakeInt("pid", 1));
  UMBEL_ASSIGN(ready.python, fields.TakeText("python"));
  UMBEL_ASSIGN(ready.flwr, fields.TakeText("flwr"));
  return ready;
}

Result<Loaded> ReadLoaded(Fields& fields) {
  Loaded loaded;
  UMBEL_ASSIGN(loaded.fork, fields.TakeBool("fork"));
  UMBEL_ASSIGN(loaded.why, fields.TakeText("why"));
  return loaded;
}

Result<LoadFailed> ReadLoadFailed(Fields& fields) {
  LoadFailed failed;
  UMBEL_ASSIGN(failed.code, fields.TakeInteger("code"));
  UMBEL_ASSIGN(failed.reason, fields.TakeText("reason"));
  UMBEL_ASSIGN(failed.traceback, fields.TakeText("traceback"));
  return failed;
}

Result<Exited> ReadExited(Fields& fields) {
  Exited exited;
  UMBEL_ASSIGN(exited.id, fields.TakeUnsigned("id"));
  UMBEL_ASSIGN(exited.pid, fields.TakeInt("pid", 0));
  UMBEL_ASSIGN(exited.status, fields.TakeInt("status", std::numeric_limits<int>::min()));
  return exited;
}

Result<flower::MessageHead> ReadHead(Value value) {
  UMBEL_ASSIGN(Fields fields, Fields::Of(std::move(value), "reply: head"));
  flower::MessageHead head;
  UMBEL_ASSIGN(head.type, fields.TakeText("type"));
  UMBEL_ASSIGN(head.group_id, fields.TakeText("group_id"));
  UMBEL_ASSIGN(head.ttl, fields.TakeNumber("ttl"));
  UMBEL_ASSIGN(head.created_at, fields.TakeNumber("created_at"));
  UMBEL_ASSIGN(head.reply_to, fields.TakeText("reply_to"));
  UMBEL_ASSIGN(head.src.value, fields.TakeUnsigned("src"));
  UMBEL_ASSIGN(head.dst.value, fields.TakeUnsigned("dst"));
  return head;
}

/// What every answer has.
template <typename Answer>
Result<Answer> ReadAnswer(Fields& fields, uint64_t out_offset) {
  Answer answer;
  UMBEL_ASSIGN(answer.out_end, fields.TakeUnsigned("out_end"));
  if (answer.out_end < out_offset || answer.out_end > uint64_t{INT64_MAX})
    return BadField(fields.where(), "out_end",
                    fmt::format("is {}, but writing began at {}", answer.out_end, out_offset));
  UMBEL_ASSIGN(answer.runtime_seconds, fields.TakeNumber("runtime"));
  RecordsReader reader(answer.out_end);
  if constexpr (std::is_same_v<Answer, Reply>) {
    UMBEL_ASSIGN(Value head, fields.Take("head"));
    UMBEL_ASSIGN(answer.head, ReadHead(std::move(head)));
    UMBEL_ASSIGN(Value content, fields.Take("content"));
    UMBEL_ASSIGN(answer.content, reader.Read(std::move(content), "reply: content"));
  }
  if constexpr (std::is_same_v<Answer, AppError>) {
    UMBEL_ASSIGN(answer.code, fields.TakeInteger("code"));
    UMBEL_ASSIGN(answer.reason, fields.TakeText("reason"));
  }
  UMBEL_ASSIGN(Value state, fields.Take("state"));
  UMBEL_ASSIGN(answer.state, reader.Read(std::move(state), fields.where() + ": state"));
  return answer;
}

template <typename Variant, typename Frame>
Result<Variant> As(Result<Frame> frame) {
  if (!frame.ok()) return Fail(std::move(frame).error());
  return Variant(*std::move(frame));
}

struct Opened {
  std::string op;
  Fields fields;
};
Result<Opened> Open(std::string_view payload) {
  UMBEL_ASSIGN(Value value, DecodeValue(payload));
  UMBEL_ASSIGN(Fields fields, Fields::Of(std::move(value), "frame"));
  UMBEL_ASSIGN(std::string op, fields.TakeText("op"));
  fields.Rename(op.substr(0, 16));
  return Opened{std::move(op), std::move(fields)};
}

tl::unexpected<Error> UnknownOp(std::string_view op) {
  return Fail(Code::kInvalidArgument, fmt::format("frame: 'op' is {}", tensor::Quote(op)));
}

Value LimitsToValue(const ChildLimits& limits) {
  return Value::Map{{"uid", limits.uid},
                    {"gid", limits.gid},
                    {"open_files", limits.open_files},
                    {"processes", limits.processes},
                    {"address_space", limits.address_space},
                    {"file_bytes", limits.file_bytes},
                    {"cwd", limits.cwd.empty() ? Value() : Value(limits.cwd)},
                    {"session", true}};
}

Result<std::string> StartFrame(std::string_view op, uint64_t id, const ChildLimits& limits) {
  return EncodeFrame(Value::Map{{"op", op}, {"id", id}, {"limits", LimitsToValue(limits)}});
}

}  // namespace

Value HeadToValue(const flower::MessageHead& head) {
  return Value::Map{{"run_id", head.run_id.value},
                    {"message_id", head.message_id},
                    {"src", head.src.value},
                    {"dst", head.dst.value},
                    {"reply_to", head.reply_to},
                    {"group_id", head.group_id},
                    {"type", head.type},
                    {"ttl", head.ttl},
                    {"created_at", head.created_at},
                    {"src_task_id", OptionalId(head.src_task_id)},
                    {"dst_task_id", OptionalId(head.dst_task_id)}};
}

Value ConfigToValue(const ConfigMap& config) {
  Value::Map map;
  for (const auto& [key, scalar] : config)
    map.emplace_back(key, std::visit([](const auto& held) { return Value(held); }, scalar));
  return map;
}

Result<ConfigMap> ConfigFromValue(const Value& value) {
  const auto* map = value.As<Value::Map>();
  if (map == nullptr)
    return Fail(Code::kInvalidArgument, fmt::format("config: is {}, not a map", value.TypeName()));
  ConfigMap config;
  for (const auto& [key, held] : *map) {
    const bool scalar = std::visit(
        [&, name = &key](const auto& item) {
          using T = std::decay_t<decltype(item)>;
          constexpr bool kScalar =
              std::is_constructible_v<ConfigScalar, std::in_place_type_t<T>, T>;
          if constexpr (kScalar) config.emplace(*name, ConfigScalar(std::in_place_type<T>, item));
          return kScalar;
        },
        held.held);
    if (!scalar)
      return BadField("config", key, fmt::format("is {}, not a scalar", held.TypeName()));
  }
  return config;
}

Result<ControlFrame> ReadControlFrame(std::string_view payload) {
  UMBEL_ASSIGN(Opened frame, Open(payload));
  if (frame.op == "ready") return As<ControlFrame>(ReadReady(frame.fields));
  if (frame.op == "unfit") {
    UMBEL_ASSIGN(std::string reason, frame.fields.TakeText("reason"));
    return ControlFrame(Unfit{std::move(reason)});
  }
  if (frame.op == "loaded") return As<ControlFrame>(ReadLoaded(frame.fields));
  if (frame.op == "load_failed") return As<ControlFrame>(ReadLoadFailed(frame.fields));
  if (frame.op == "forked") {
    Forked forked;
    UMBEL_ASSIGN(forked.id, frame.fields.TakeUnsigned("id"));
    UMBEL_ASSIGN(forked.pid, frame.fields.TakeInt("pid", 1));
    return ControlFrame(forked);
  }
  if (frame.op == "exited") return As<ControlFrame>(ReadExited(frame.fields));
  return UnknownOp(frame.op);
}

Result<JobFrame> ReadJobFrame(std::string_view payload, uint64_t out_offset) {
  UMBEL_ASSIGN(Opened frame, Open(payload));
  if (frame.op == "reply") return As<JobFrame>(ReadAnswer<Reply>(frame.fields, out_offset));
  if (frame.op == "error") return As<JobFrame>(ReadAnswer<AppError>(frame.fields, out_offset));
  if (frame.op == "nothing") return As<JobFrame>(ReadAnswer<Nothing>(frame.fields, out_offset));
  return UnknownOp(frame.op);
}

Result<std::string> LoadFrame(std::string_view directory, std::string_view ref,
                              std::string_view app, std::string_view environment) {
  return EncodeFrame(Value::Map{{"op", "load"},
                                {"directory", directory},
                                {"ref", ref},
                                {"app", app},
                                {"environment", environment}});
}

Result<std::string> ForkFrame(uint64_t id, const ChildLimits& limits) {
  return StartFrame("fork", id, limits);
}

Result<std::string> ServeFrame(uint64_t id, const ChildLimits& limits) {
  return StartFrame("serve", id, limits);
}

Result<std::string> StopFrame() { return EncodeFrame(Value::Map{{"op", "stop"}}); }

Result<std::string> CallFrame(const Call& call) {
  Value::Map context{{"run_id", call.message.run_id.value},
                     {"node_id", call.node_id.value},
                     {"series_id", call.series_id.value},
                     {"node_config", ConfigToValue(call.node_config)},
                     {"run_config", ConfigToValue(call.run_config)},
                     {"state", RecordsToValue(call.state)}};
  return EncodeFrame(Value::Map{{"op", "call"},
                                {"message", HeadToValue(call.message)},
                                {"content", RecordsToValue(call.content)},
                                {"context", std::move(context)},
                                {"out_offset", call.out_offset}});
}

}  // namespace umbel::supernode
