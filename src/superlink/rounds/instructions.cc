#include "superlink/rounds/instructions.h"

#include "flower/proto_bytes.h"
#include "flower/record_bytes.h"
#include "flower/record_json.h"
#include "flwr/common.pb.h"
#include "tensor/object.h"
#include "tensor/tree.h"
#include "tensor/wire.h"

namespace umbel::superlink::rounds {
namespace pb = flwr::proto;
namespace {

using tensor::ObjectType;

// Fields of flwr.proto.ObjectTree.
constexpr uint32_t kTreeId = 1;
constexpr uint32_t kTreeChild = 2;

/// An object of a tree that is put together from the trees of its children.
struct Made {
  ObjectId id;
  std::string bytes;
  std::string tree;
};

Made Make(ObjectType type, std::span<const ObjectId> children, std::string_view body,
          std::span<const std::string_view> child_trees) {
  Made made;
  made.bytes = tensor::MakeObject(type, children, body);
  made.id = tensor::ObjectIdOf(made.bytes);
  tensor::AppendBytesField(kTreeId, made.id.Hex(), made.tree);
  for (const std::string_view tree : child_trees)
    tensor::AppendBytesField(kTreeChild, tree, made.tree);
  return made;
}

/// A message's own object around `content`; metadata.message_id is set afterwards, as it names it.
Made MakeMessage(pb::Message& message, const Made* content) {
  const std::string body = flower::SerializeDeterministic(message);
  Made made;
  if (content != nullptr) {
    const std::string_view tree = content->tree;
    made = Make(ObjectType::kMessage, {&content->id, 1}, body, {&tree, 1});
    message.mutable_content();
  } else {
    made = Make(ObjectType::kMessage, {}, body, {});
  }
  message.mutable_metadata()->set_message_id(made.id.Hex());
  return made;
}

/// The message as the State keeps it. `ids` are its tree's, the root last.
NewMessage ToNew(const pb::Message& message, std::string tree, std::vector<ObjectId> ids) {
  NewMessage fresh;
  const pb::Metadata& metadata = message.metadata();
  fresh.message.id = ids.back();
  fresh.message.src = NodeId{metadata.src_node_id()};
  fresh.message.dst = NodeId{metadata.dst_node_id()};
  fresh.message.reply_to = metadata.reply_to_message_id();
  fresh.message.group_id = metadata.group_id();
  fresh.message.type = metadata.message_type();
  fresh.message.created_at = metadata.created_at();
  fresh.message.ttl = metadata.ttl();
  fresh.message.bytes =
      std::make_shared<MessageBytes>(MessageBytes{message.SerializeAsString(), std::move(tree)});
  fresh.ids = std::move(ids);
  return fresh;
}

store::ObjectRow Row(RunId run_id, Made made) {
  store::ObjectRow row;
  row.run_id = run_id;
  row.object_id = made.id;
  row.size = made.bytes.size();
  row.content = std::move(made.bytes);
  return row;
}

/// Two records, or one under both keys.
Result<Made> MakeContent(const InstructionSpec& spec, const Model& model, const Made& config) {
  const flower::Ordered<ObjectId> names = {{spec.arrayrecord_key, model.record},
                                           {spec.configrecord_key, config.id}};
  UMBEL_TRY(flower::CheckKeys(names));
  const ObjectId ids[] = {model.record, config.id};
  const std::string_view trees[] = {model.tree, config.tree};
  return Make(ObjectType::kRecordDict, ids, flower::WriteNames(names), trees);
}

}  // namespace

Result<Instructions> MakeInstructions(const InstructionSpec& spec, const Model& model,
                                      const std::vector<NodeId>& nodes) {
  UMBEL_ASSIGN(const std::string config_body, flower::EncodeConfig(spec.config));
  Made config = Make(ObjectType::kConfigRecord, {}, config_body, {});
  UMBEL_ASSIGN(Made content, MakeContent(spec, model, config));
  UMBEL_ASSIGN(const tensor::TreeIds below, tensor::ParseTree(content.tree));
  Instructions made;
  for (const NodeId node : nodes) {
    pb::Message message;
    pb::Metadata* metadata = message.mutable_metadata();
    metadata->set_run_id(spec.run_id.value);
    metadata->set_src_node_id(kSuperLinkNode.value);
    metadata->set_dst_node_id(node.value);
    metadata->set_ttl(spec.ttl);
    metadata->set_message_type(spec.type);
    metadata->set_created_at(UnixSeconds(spec.now));
    Made own = MakeMessage(message, &content);
    std::vector<ObjectId> ids = below.ids;
    ids.push_back(own.id);
    made.messages.push_back(ToNew(message, std::move(own.tree), std::move(ids)));
    made.objects.push_back(Row(spec.run_id, std::move(own)));
  }
  made.objects.push_back(Row(spec.run_id, std::move(config)));
  made.objects.push_back(Row(spec.run_id, std::move(content)));
  return made;
}

namespace {

/// What a reply of node 1 says of itself; `asked` is the instruction.
Result<pb::Message> ReplyTo(std::string_view instruction, WallTime now) {
  pb::Message asked;
  if (!asked.ParseFromArray(instruction.data(), static_cast<int>(instruction.size())))
    return Fail(Code::kInvalidArgument, "an instruction is no protobuf");
  pb::Message reply;
  pb::Metadata* metadata = reply.mutable_metadata();
  metadata->set_run_id(asked.metadata().run_id());
  metadata->set_src_node_id(kSuperLinkNode.value);
  metadata->set_dst_node_id(kSuperLinkNode.value);
  metadata->set_reply_to_message_id(asked.metadata().message_id());
  metadata->set_group_id(asked.metadata().group_id());
  metadata->set_message_type(asked.metadata().message_type());
  metadata->set_created_at(UnixSeconds(now));
  metadata->set_ttl(asked.metadata().created_at() + asked.metadata().ttl() - UnixSeconds(now));
  return reply;
}

Result<Made> MakeRecord(const flower::Record& record) {
  if (const auto* metrics = std::get_if<flower::MetricRecord>(&record)) {
    UMBEL_ASSIGN(const std::string body, flower::EncodeMetrics(*metrics));
    return Make(ObjectType::kMetricRecord, {}, body, {});
  }
  const auto* config = std::get_if<flower::ConfigRecord>(&record);
  if (config == nullptr)
    return Fail(Code::kInvalidArgument, "arrays of a reply come from the model only");
  UMBEL_ASSIGN(const std::string body, flower::EncodeConfig(*config));
  return Make(ObjectType::kConfigRecord, {}, body, {});
}

}  // namespace

Result<OwnReply> MakeOwnReply(std::string_view instruction, const Model* arrays,
                              const flower::RecordDict& records, WallTime now) {
  UMBEL_ASSIGN(pb::Message message, ReplyTo(instruction, now));
  OwnReply reply;
  flower::Ordered<ObjectId> names;
  std::vector<ObjectId> children;
  std::vector<std::string> trees;
  if (arrays != nullptr) {
    names.emplace_back("arrays", arrays->record);
    children.push_back(arrays->record);
    trees.push_back(arrays->tree);
  }
  for (const auto& [name, record] : records) {
    UMBEL_ASSIGN(Made made, MakeRecord(record));
    names.emplace_back(name, made.id);
    if (!reply.objects.emplace(made.id, std::move(made.bytes)).second) continue;  // equal records
    children.push_back(made.id);
    trees.push_back(std::move(made.tree));
  }
  UMBEL_TRY(flower::CheckKeys(names));
  const std::vector<std::string_view> views(trees.begin(), trees.end());
  Made content = Make(ObjectType::kRecordDict, children, flower::WriteNames(names), views);
  Made own = MakeMessage(message, &content);
  UMBEL_ASSIGN(tensor::TreeIds ids, tensor::ParseTree(own.tree));
  reply.objects.emplace(content.id, std::move(content.bytes));
  reply.objects.emplace(own.id, std::move(own.bytes));
  reply.message = ToNew(message, std::move(own.tree), std::move(ids.ids));
  return reply;
}

Result<OwnReply> MakeOwnError(std::string_view instruction, int code, std::string reason,
                              WallTime now) {
  UMBEL_ASSIGN(pb::Message message, ReplyTo(instruction, now));
  message.mutable_error()->set_code(code);
  message.mutable_error()->set_reason(std::move(reason));
  Made own = MakeMessage(message, nullptr);
  OwnReply reply;
  reply.objects.emplace(own.id, std::move(own.bytes));
  reply.message = ToNew(message, std::move(own.tree), {own.id});
  return reply;
}

}  // namespace umbel::superlink::rounds
