#include "flower/records.h"

#include "flwr/common.pb.h"
#include "tensor/quote.h"
#include "tensor/tree.h"

namespace umbel::flower {

namespace pb = flwr::proto;

uint64_t ArrayRef::size() const {
  uint64_t sum = 0;
  for (const FileRange& piece : pieces) sum += piece.size;
  return sum;
}

MessageHead ReplyHead(const MessageHead& instruction, double created_at) {
  MessageHead reply;
  reply.run_id = instruction.run_id;
  reply.src = instruction.dst;
  reply.dst = instruction.src;
  reply.reply_to = instruction.message_id;
  reply.group_id = instruction.group_id;
  reply.type = instruction.type;
  reply.created_at = created_at;
  reply.ttl = instruction.created_at + instruction.ttl - created_at;
  reply.src_task_id = instruction.dst_task_id;
  reply.dst_task_id = instruction.src_task_id;
  return reply;
}

Result<Parcel> ReadParcel(std::string message, std::string tree) {
  pb::Message parsed;
  if (!parsed.ParseFromString(message))
    return Fail(Code::kInvalidArgument, fmt::format("message: its {} bytes are not a {}",
                                                    message.size(), parsed.GetTypeName()));
  if (!parsed.has_metadata()) return Fail(Code::kInvalidArgument, "message: has no metadata");
  if (parsed.has_content() == parsed.has_error())
    return Fail(Code::kInvalidArgument, parsed.has_error()
                                            ? "message: has both content and error"
                                            : "message: has neither content nor error");
  UMBEL_ASSIGN(const tensor::TreeIds ids, tensor::ParseTree(tree));
  const pb::Metadata& metadata = parsed.metadata();
  if (ids.root.Hex() != metadata.message_id())
    return Fail(Code::kInvalidArgument,
                fmt::format("message_id: {} is not its tree's root, {}",
                            tensor::Quote(metadata.message_id(), 64), ids.root.Hex()));
  Parcel parcel;
  MessageHead& head = parcel.head;
  head.run_id = RunId{metadata.run_id()};
  head.message_id = metadata.message_id();
  head.src = NodeId{metadata.src_node_id()};
  head.dst = NodeId{metadata.dst_node_id()};
  head.reply_to = metadata.reply_to_message_id();
  head.group_id = metadata.group_id();
  head.type = metadata.message_type();
  head.ttl = metadata.ttl();
  head.created_at = metadata.created_at();
  if (metadata.has_src_task_id()) head.src_task_id = metadata.src_task_id();
  if (metadata.has_dst_task_id()) head.dst_task_id = metadata.dst_task_id();
  if (parsed.has_error()) parcel.error = {parsed.error().code(), parsed.error().reason()};
  // Records travel as objects; whatever came inline is not for the app.
  if (parsed.content().items_size() > 0) {
    parsed.mutable_content()->Clear();
    message = parsed.SerializeAsString();
  }
  parcel.message = std::move(message);
  parcel.tree = std::move(tree);
  return parcel;
}

}  // namespace umbel::flower
