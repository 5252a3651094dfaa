#include "superlink/wire.h"

#include "flower/errors.h"
#include "flower/proto_bytes.h"
#include "flwr/common.pb.h"
#include "flwr/control.pb.h"
#include "tensor/object.h"
#include "tensor/tree.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace wire = flower::wire;
using flower::WireError;

Result<NewMessage> DecodeMessage(const pb::Message& message, const pb::ObjectTree& tree) {
  if (!message.has_metadata()) return WireError(wire::kBadProtobuf, "a message has no metadata");
  if (message.has_content() == message.has_error())
    return WireError(wire::kBadProtobuf, message.has_error()
                                             ? "a message has both content and error"
                                             : "a message has neither content nor error");
  const pb::Metadata& metadata = message.metadata();
  auto bytes = std::make_shared<MessageBytes>();
  bytes->tree = tree.SerializeAsString();
  auto ids = tensor::ParseTree(bytes->tree);
  if (!ids.ok())
    return WireError(wire::kBadProtobuf, fmt::format("bad object tree: {}", ids.error().message));
  if (ids->root.Hex() != metadata.message_id())
    return WireError(wire::kBadProtobuf,
                     fmt::format("metadata.message_id '{}' is not the root of its object tree, {}",
                                 metadata.message_id().substr(0, 80), ids->root.Hex()));
  NewMessage fresh;
  fresh.ids = std::move(ids->ids);
  Message& out = fresh.message;
  out.id = ids->root;
  out.src = NodeId{metadata.src_node_id()};
  out.dst = NodeId{metadata.dst_node_id()};
  out.reply_to = metadata.reply_to_message_id();
  out.group_id = metadata.group_id();
  out.type = metadata.message_type();
  out.created_at = metadata.created_at();
  out.ttl = metadata.ttl();
  if (message.has_content() && message.content().items_size() == 0) {
    bytes->body = message.SerializeAsString();
  } else {
    // Records travel as objects; whatever came inline is not for the other side.
    pb::Message bare = message;
    if (bare.has_content()) bare.mutable_content()->Clear();
    bytes->body = bare.SerializeAsString();
  }
  out.bytes = std::move(bytes);
  return fresh;
}

ErrorReply MakeErrorReply(const ErrorReplySpec& spec) {
  pb::Message message;
  pb::Metadata* metadata = message.mutable_metadata();
  metadata->set_run_id(spec.run_id.value);
  metadata->set_src_node_id(kSuperLinkNode.value);
  metadata->set_dst_node_id(kSuperLinkNode.value);
  metadata->set_reply_to_message_id(spec.reply_to);
  metadata->set_group_id(spec.group_id);
  metadata->set_ttl(spec.ttl);
  metadata->set_message_type(spec.type);
  metadata->set_created_at(spec.created_at);
  message.mutable_error()->set_code(spec.code);
  message.mutable_error()->set_reason(spec.reason);
  ErrorReply made;
  made.object =
      tensor::MakeObject(tensor::ObjectType::kMessage, {}, flower::SerializeDeterministic(message));
  made.id = tensor::ObjectIdOf(made.object);
  metadata->set_message_id(made.id.Hex());
  auto bytes = std::make_shared<MessageBytes>();
  bytes->body = message.SerializeAsString();
  bytes->tree = tensor::LeafTree(made.id);
  made.bytes = std::move(bytes);
  return made;
}

void EncodeRun(const store::RunRow& run, const store::TaskRow& task, pb::Run* out) {
  out->set_run_id(run.run_id.value);
  out->set_fab_id(run.fab_id);
  out->set_fab_version(run.fab_version);
  pb::StartRunRequest overrides;
  if (overrides.ParseFromString(run.override_config))
    *out->mutable_override_config() = overrides.override_config();
  out->set_fab_hash(run.fab_hash.Hex());
  out->set_pending_at(IsoFormat(task.pending_at));
  out->set_starting_at(IsoFormat(task.starting_at));
  out->set_running_at(IsoFormat(task.running_at));
  out->set_finished_at(IsoFormat(task.finished_at));
  out->mutable_status()->set_status(std::string(Name(task.status)));
  out->mutable_status()->set_sub_status(task.sub_status);
  out->mutable_status()->set_details(task.details);
  out->set_flwr_aid(run.flwr_aid);
  out->set_federation(run.federation);
  out->set_bytes_sent(run.bytes_sent);
  out->set_bytes_recv(run.bytes_recv);
  out->set_clientapp_runtime(run.clientapp_runtime);
  out->set_primary_task_type(run.primary_task_type);
  out->set_primary_task_id(run.primary_task_id.value);
  out->set_series_id(run.series_id.value);
  out->set_account_name(run.account_name);
}

void EncodeNode(const store::NodeRow& node, pb::NodeInfo* out) {
  out->set_node_id(node.node_id.value);
  out->set_owner_aid(node.owner_aid);
  out->set_owner_name(node.owner_name);
  out->set_status(std::string(Name(node.status)));
  out->set_registered_at(IsoFormat(node.registered_at));
  if (node.last_activated_at != WallTime{})
    out->set_last_activated_at(IsoFormat(node.last_activated_at));
  if (node.last_deactivated_at != WallTime{})
    out->set_last_deactivated_at(IsoFormat(node.last_deactivated_at));
  if (node.unregistered_at != WallTime{}) out->set_unregistered_at(IsoFormat(node.unregistered_at));
  // As Flower has it, a node that was never online has a value here once it is unregistered.
  if (node.online_until != WallTime{} || node.status == NodeStatus::kUnregistered)
    out->set_online_until(UnixSeconds(node.online_until));
  out->set_heartbeat_interval(node.heartbeat_interval);
  out->set_public_key(node.public_key);
  if (!node.location.empty()) out->set_location(node.location);
  if (!node.name.empty()) out->set_name(node.name);
}

}  // namespace umbel::superlink
