// Flower's records as values. Arrays are named by where their bytes lie, so that a model never has
// to be in memory. Values and functions; safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/spool.h"

namespace umbel::flower {

/// Raw bytes, as opposed to text.
struct Bytes {
  std::string bytes;
  bool operator==(const Bytes&) const = default;
};

using MetricValue = std::variant<int64_t, uint64_t, double, std::vector<int64_t>,
                                 std::vector<uint64_t>, std::vector<double>>;
using ConfigValue = std::variant<bool, int64_t, uint64_t, double, std::string, Bytes,
                                 std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>,
                                 std::vector<double>, std::vector<std::string>, std::vector<Bytes>>;

/// Bytes, after which the next chunk of an array begins: Flower's
/// FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE.
inline constexpr uint64_t kArrayChunkSize = 5'242'880;

/// An array's bytes are an NPY file (stype "numpy.ndarray"), in pieces of a spool's file, in order.
struct ArrayRef {
  std::string dtype;  // "float32"
  std::vector<int64_t> shape;
  std::string stype;
  std::vector<FileRange> pieces;

  uint64_t size() const;  // bytes
  bool operator==(const ArrayRef&) const = default;
};

// In the order of the sender's dictionary, which is part of an object's name. Keys are distinct.
template <typename T>
using Ordered = std::vector<std::pair<std::string, T>>;
using ArrayRecord = Ordered<ArrayRef>;
using MetricRecord = Ordered<MetricValue>;
using ConfigRecord = Ordered<ConfigValue>;
using Record = std::variant<ArrayRecord, MetricRecord, ConfigRecord>;
using RecordDict = Ordered<Record>;

/// A message's own data, as flwr.proto.Metadata.
struct MessageHead {
  RunId run_id;
  std::string message_id;
  NodeId src, dst;
  std::string reply_to;
  std::string group_id;
  std::string type;
  double ttl = 0;         // seconds
  double created_at = 0;  // seconds since 1970
  std::optional<uint64_t> src_task_id, dst_task_id;

  bool operator==(const MessageHead&) const = default;
};
struct MessageError {
  int64_t code = 0;
  std::string reason;
};

/// A message with all its objects, ready to be sent or just received.
struct Parcel {
  MessageHead head;
  std::optional<MessageError> error;  // instead of content
  std::string message;                // serialized flwr.proto.Message: records left out
  std::string tree;                   // serialized flwr.proto.ObjectTree
  std::shared_ptr<Spool> objects;
};

/// How a node answers: ids swapped, same run, group and type, what remains of the ttl.
MessageHead ReplyHead(const MessageHead& instruction, double created_at);

/// errors  kInvalidArgument: no metadata, both or neither of content and error, or the message id
///         is not the tree's root.
Result<Parcel> ReadParcel(std::string message, std::string tree);

/// The content of a message whose objects are all in its spool, checked as far as it is read: types
/// and kinds of objects, JSON of the records, sizes and numbers of chunks. A chunk that the spool
/// keeps in memory is appended to its file, where pieces lie: only the thread that adds may call.
/// errors  kInvalidArgument: the message names the object and what is wrong; kNotFound: one is
///         missing; kResourceExhausted: records above 64 MiB (arrays are not read).
Result<RecordDict> ReadRecords(const Parcel& parcel);

/// Where the objects of a message are, when that is not a spool.
class ObjectSource {
 public:
  virtual ~ObjectSource() = default;
  /// A whole object. errors  kNotFound; kResourceExhausted: longer than `max`.
  virtual Result<std::string> Read(const ObjectId& id, uint64_t max) = 0;
  /// What an ArrayRef is to say of a chunk's bytes: pieces in the source's own terms.
  virtual Result<std::vector<FileRange>> Chunk(const ObjectId& id) = 0;
};
Result<RecordDict> ReadRecords(const ObjectId& message, ObjectSource& source);
/// The names of a message's records and the ids of their objects, in the order of ReadRecords.
Result<Ordered<ObjectId>> ReadRecordIds(const ObjectId& message, ObjectSource& source);
/// One of a message's records, by the id of its object.
Result<ArrayRecord> ReadArrayRecord(const ObjectId& record, ObjectSource& source);

/// A chunk has no children: "ArrayChunk", two spaces, 19 digits, NUL.
inline constexpr uint64_t kChunkHeadMax = 32;
/// How many of a chunk's `size` bytes are its head. `prefix` are its first, kChunkHeadMax or all.
/// errors  kInvalidArgument: not a chunk, or of another size.
Result<uint64_t> ChunkHeadSize(const ObjectId& id, std::string_view prefix, uint64_t size);

/// Builds the objects of a message from its records, hashing each chunk of each array (Flower cuts
/// at 5 MiB) where it lies: `spool` is the one that the pieces of its arrays name.
/// cost    one pass over the arrays.
/// errors  kInvalidArgument: a key twice, or text that is not UTF-8; kDataLoss: the file is shorter
///         than a piece says.
Result<Parcel> MakeParcel(MessageHead head, const RecordDict& records,
                          std::shared_ptr<Spool> spool);
Result<Parcel> MakeErrorParcel(MessageHead head, MessageError error, std::shared_ptr<Spool> spool);

/// A serialized flwr.proto.RecordDict without arrays by reference: the state of a Context, whose
/// arrays travel inline. Pieces of `spool` are read; 256 MiB at most.
Result<std::string> EncodeState(const RecordDict& records, const Spool& spool);
/// The reverse: inline arrays are appended to `spool`.
Result<RecordDict> DecodeState(std::string_view serialized, Spool& spool);

}  // namespace umbel::flower
