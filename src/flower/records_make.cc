// From records to objects.
#include <algorithm>
#include <unordered_map>

#include "flower/proto_bytes.h"
#include "flower/record_bytes.h"
#include "flower/record_json.h"
#include "flower/records.h"
#include "flwr/common.pb.h"
#include "tensor/object.h"
#include "tensor/quote.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::flower {
namespace {

namespace pb = flwr::proto;
using tensor::ObjectType;
using tensor::TreeNode;

constexpr uint64_t kReadSize = uint64_t{256} << 10;

/// An object's children, each once, in order of first appearance.
class Children {
 public:
  /// Its place among them.
  size_t Add(TreeNode child) {
    const auto [at, fresh] = places_.try_emplace(child.id, ids_.size());
    if (fresh) {
      ids_.push_back(child.id);
      nodes_.push_back(std::move(child));
    }
    return at->second;
  }
  const std::vector<ObjectId>& ids() const { return ids_; }
  std::vector<TreeNode> TakeNodes() { return std::move(nodes_); }

 private:
  std::vector<ObjectId> ids_;
  std::vector<TreeNode> nodes_;
  std::unordered_map<ObjectId, size_t> places_;
};

/// Cuts an array's pieces where Flower cuts its bytes.
class Cutter {
 public:
  explicit Cutter(const std::vector<FileRange>& pieces) : pieces_(pieces) {}

  /// The pieces of the next chunk; none at the end.
  std::vector<FileRange> Next() {
    std::vector<FileRange> cut;
    for (uint64_t room = kArrayChunkSize; room > 0 && at_ < pieces_.size();) {
      const FileRange& piece = pieces_[at_];
      const FileRange part{piece.offset + done_, std::min(room, piece.size - done_)};
      room -= part.size;
      done_ += part.size;
      if (done_ == piece.size) {
        ++at_;
        done_ = 0;
      }
      if (part.size == 0) continue;
      if (!cut.empty() && cut.back().offset + cut.back().size == part.offset) {
        cut.back().size += part.size;
      } else {
        cut.push_back(part);
      }
    }
    return cut;
  }

 private:
  const std::vector<FileRange>& pieces_;
  size_t at_ = 0;
  uint64_t done_ = 0;  // bytes of pieces_[at_]
};

class Maker {
 public:
  explicit Maker(Spool& spool) : spool_(spool) {}

  Result<TreeNode> MakeDict(const RecordDict& records) {
    UMBEL_TRY(CheckKeys(records));
    Children children;
    Ordered<ObjectId> names;
    for (const auto& [name, record] : records) {
      auto made = std::visit([this](const auto& held) { return Make(held); }, record);
      if (!made.ok()) return At(name, made.error());
      names.emplace_back(name, made->id);
      children.Add(*std::move(made));
    }
    return Store(ObjectType::kRecordDict, std::move(children), WriteNames(names));
  }

  Result<TreeNode> Store(ObjectType type, Children children, std::string_view body) {
    const std::string whole = tensor::MakeObject(type, children.ids(), body);
    const ObjectId id = tensor::ObjectIdOf(whole);
    UMBEL_TRY(spool_.Put(id, whole));
    return TreeNode{id, children.TakeNodes()};
  }

 private:
  static tl::unexpected<Error> At(std::string_view name, Error error) {
    error.message = fmt::format("{}: {}", tensor::Quote(name), error.message);
    return Fail(std::move(error));
  }

  Result<TreeNode> Make(const MetricRecord& record) {
    UMBEL_ASSIGN(const std::string body, EncodeMetrics(record));
    return Store(ObjectType::kMetricRecord, {}, body);
  }
  Result<TreeNode> Make(const ConfigRecord& record) {
    UMBEL_ASSIGN(const std::string body, EncodeConfig(record));
    return Store(ObjectType::kConfigRecord, {}, body);
  }
  Result<TreeNode> Make(const ArrayRecord& record) {
    UMBEL_TRY(CheckKeys(record));
    Children children;
    Ordered<ObjectId> names;
    for (const auto& [name, array] : record) {
      auto made = Make(array);
      if (!made.ok()) return At(name, made.error());
      names.emplace_back(name, made->id);
      children.Add(*std::move(made));
    }
    return Store(ObjectType::kArrayRecord, std::move(children), WriteNames(names));
  }
  Result<TreeNode> Make(const ArrayRef& array) {
    UMBEL_TRY(CheckText("dtype", array.dtype));
    UMBEL_TRY(CheckText("stype", array.stype));
    Children children;
    ArrayBody body{array.dtype, array.shape, array.stype, {}};
    Cutter cutter(array.pieces);
    for (auto cut = cutter.Next(); !cut.empty(); cut = cutter.Next()) {
      UMBEL_ASSIGN(const ObjectId id, MakeChunk(std::move(cut)));
      body.chunks.push_back(children.Add(TreeNode{id, {}}));
    }
    return Store(ObjectType::kArray, std::move(children), WriteArray(body));
  }

  Result<ObjectId> MakeChunk(std::vector<FileRange> cut) {
    if (cut.size() > 1) {  // an object's body is in one place
      std::string bytes;
      for (const FileRange& part : cut) {
        UMBEL_ASSIGN(const std::string read, spool_.Read(part));
        bytes += read;
      }
      UMBEL_ASSIGN(const FileRange together, spool_.Append(bytes));
      cut = {together};
    }
    StoredObject chunk;
    chunk.body = cut[0];
    chunk.head =
        fmt::format("{}  {}", tensor::ObjectTypeName(ObjectType::kArrayChunk), chunk.body.size);
    chunk.head.push_back('\0');
    hasher_.Reset();
    hasher_.Update(chunk.head);
    for (uint64_t done = 0; done < chunk.body.size; done += kReadSize) {
      const FileRange part{chunk.body.offset + done, std::min(kReadSize, chunk.body.size - done)};
      UMBEL_ASSIGN(const std::string bytes, spool_.Read(part));
      hasher_.Update(bytes);
    }
    const ObjectId id = hasher_.Finish();
    spool_.Add(id, std::move(chunk));
    return id;
  }

  Spool& spool_;
  tensor::Sha256 hasher_;
};

/// The message's own object, and the parcel around it.
Result<Parcel> Finish(MessageHead head, std::optional<MessageError> error, Children content,
                      Maker& maker, std::shared_ptr<Spool> spool) {
  UMBEL_TRY(CheckText("reply_to", head.reply_to));
  UMBEL_TRY(CheckText("group_id", head.group_id));
  UMBEL_TRY(CheckText("type", head.type));
  pb::Message message;
  pb::Metadata* metadata = message.mutable_metadata();
  metadata->set_run_id(head.run_id.value);
  metadata->set_src_node_id(head.src.value);
  metadata->set_dst_node_id(head.dst.value);
  metadata->set_reply_to_message_id(head.reply_to);
  metadata->set_group_id(head.group_id);
  metadata->set_ttl(head.ttl);
  metadata->set_message_type(head.type);
  metadata->set_created_at(head.created_at);
  if (head.src_task_id) metadata->set_src_task_id(*head.src_task_id);
  if (head.dst_task_id) metadata->set_dst_task_id(*head.dst_task_id);
  if (error) {
    UMBEL_TRY(CheckText("reason", error->reason));
    message.mutable_error()->set_code(error->code);
    message.mutable_error()->set_reason(error->reason);
  }
  UMBEL_ASSIGN(const TreeNode root, maker.Store(ObjectType::kMessage, std::move(content),
                                                SerializeDeterministic(message)));
  head.message_id = root.id.Hex();
  metadata->set_message_id(head.message_id);
  if (!error) message.mutable_content();
  Parcel parcel;
  parcel.head = std::move(head);
  parcel.error = std::move(error);
  parcel.message = message.SerializeAsString();
  parcel.tree = tensor::EncodeTree(root);
  parcel.objects = std::move(spool);
  return parcel;
}

}  // namespace

Result<Parcel> MakeParcel(MessageHead head, const RecordDict& records,
                          std::shared_ptr<Spool> spool) {
  Maker maker(*spool);
  Children content;
  UMBEL_ASSIGN(TreeNode dict, maker.MakeDict(records));
  content.Add(std::move(dict));
  return Finish(std::move(head), std::nullopt, std::move(content), maker, std::move(spool));
}

Result<Parcel> MakeErrorParcel(MessageHead head, MessageError error, std::shared_ptr<Spool> spool) {
  Maker maker(*spool);
  return Finish(std::move(head), std::move(error), {}, maker, std::move(spool));
}

}  // namespace umbel::flower
