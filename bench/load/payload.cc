#include "payload.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <chrono>
#include <random>

#include "base/clock.h"
#include "tensor/sha256.h"

namespace umbel::bench {
namespace pb = flwr::proto;
using tensor::ObjectType;

namespace {

constexpr size_t kFillerMax = size_t{8} << 20;

/// Bytes without a pattern, the same ones for all. Made once.
std::string_view Filler(size_t size) {
  static const std::string filler = [] {
    std::string bytes(kFillerMax, '\0');
    std::mt19937_64 generator(41);  // any seed will do: nothing depends on the values
    for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      const uint64_t word = generator();
      std::memcpy(bytes.data() + at, &word, 8);
    }
    return bytes;
  }();
  UMBEL_CHECK(size <= filler.size());
  return std::string_view(filler).substr(0, size);
}

Part MakeChunk(uint64_t number, size_t size) {
  // Other numbers in every process: a server that was loaded before must not know the objects.
  static const uint64_t salt = std::random_device{}() * uint64_t{0x9e3779b97f4a7c15};
  const std::string mark = fmt::format("{:016x}", number ^ salt);
  if (size <= mark.size()) return MakePart(ObjectType::kArrayChunk, {}, mark.substr(0, size));
  Part part;
  part.blob.own = fmt::format("ArrayChunk  {}", size);
  part.blob.own.push_back('\0');
  part.blob.own += mark;
  part.blob.shared = Filler(size - mark.size());
  tensor::Sha256 hash;
  hash.Update(part.blob.own);
  hash.Update(part.blob.shared);
  part.blob.id = hash.Finish();
  part.tree.set_object_id(part.blob.id.Hex());
  return part;
}

std::string Names(const std::vector<Part>& parts) {
  std::string json = "{";
  for (size_t i = 0; i < parts.size(); ++i)
    json += fmt::format("{}\"{}\": \"{}\"", i ? ", " : "", i, parts[i].blob.id.Hex());
  return json + "}";
}

std::string ArrayBody(size_t chunks, size_t chunk_bytes) {
  std::string indices;
  for (size_t i = 0; i < chunks; ++i) indices += fmt::format("{}{}", i ? ", " : "", i);
  return fmt::format(
      R"({{"dtype": "uint8", "shape": [{}], "stype": "numpy.ndarray", "arraychunk_ids": [{}]}})",
      chunks * chunk_bytes, indices);
}

void Collect(std::vector<Part>& parts, std::vector<Blob>& out) {
  for (Part& part : parts) out.push_back(std::move(part.blob));
}

}  // namespace

Part MakePart(ObjectType type, const std::vector<Part>& children, std::string_view body) {
  std::vector<ObjectId> ids;
  Part part;
  for (const Part& child : children) {
    ids.push_back(child.blob.id);
    *part.tree.add_children() = child.tree;
  }
  part.blob.own = tensor::MakeObject(type, ids, body);
  part.blob.id = tensor::ObjectIdOf(part.blob.own);
  part.tree.set_object_id(part.blob.id.Hex());
  return part;
}

std::string Deterministic(const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

Parcel Wrap(const Envelope& envelope, std::vector<Blob> lower, std::vector<Part> records) {
  std::vector<Part> dictionary;
  dictionary.push_back(MakePart(ObjectType::kRecordDict, records, Names(records)));
  pb::Message bare;
  pb::Metadata* metadata = bare.mutable_metadata();
  metadata->set_run_id(envelope.run_id);
  metadata->set_src_node_id(envelope.src);
  metadata->set_dst_node_id(envelope.dst);
  metadata->set_reply_to_message_id(envelope.reply_to);
  metadata->set_ttl(envelope.ttl);
  metadata->set_message_type(envelope.type);
  metadata->set_created_at(envelope.created_at);
  Part message = MakePart(ObjectType::kMessage, dictionary, Deterministic(bare));
  Parcel parcel;
  parcel.message = std::move(bare);
  parcel.message.mutable_metadata()->set_message_id(message.blob.id.Hex());
  parcel.message.mutable_content();
  parcel.tree = std::move(message.tree);
  parcel.objects = std::move(lower);
  Collect(records, parcel.objects);
  Collect(dictionary, parcel.objects);
  parcel.objects.push_back(std::move(message.blob));
  return parcel;
}

double NowSeconds() { return UnixSeconds(SystemClock().Now()); }

Parcel TinyParcel(const Envelope& envelope) { return Wrap(envelope, {}, {}); }

Parcel SmallParcel(const Envelope& envelope, uint64_t number) {
  constexpr uint64_t kArrays = 10;
  constexpr size_t kChunkBytes = 144;  // NumPy's file of four floats
  std::vector<Blob> lower;
  std::vector<Part> arrays;
  std::vector<Blob> array_blobs;
  for (uint64_t i = 0; i < kArrays; ++i) {
    std::vector<Part> chunk;
    chunk.push_back(MakeChunk(number * kArrays + i, kChunkBytes));
    arrays.push_back(MakePart(ObjectType::kArray, chunk, ArrayBody(1, kChunkBytes)));
    Collect(chunk, lower);
  }
  std::vector<Part> records;
  records.push_back(MakePart(ObjectType::kArrayRecord, arrays, Names(arrays)));
  Collect(arrays, lower);
  pb::ConfigRecord config;
  pb::ConfigRecord::Item* item = config.add_items();
  item->set_key("server-round");
  item->mutable_value()->set_sint64(static_cast<int64_t>(number));
  records.push_back(MakePart(ObjectType::kConfigRecord, {}, Deterministic(config)));
  Parcel parcel = Wrap(envelope, std::move(lower), std::move(records));
  UMBEL_CHECK(parcel.objects.size() == kSmallParcelObjects);
  return parcel;
}

Parcel LargeParcel(const Envelope& envelope, uint64_t number, int chunks, size_t chunk_bytes) {
  std::vector<Part> parts;
  for (int i = 0; i < chunks; ++i)
    parts.push_back(MakeChunk((number << 32) + static_cast<uint64_t>(i), chunk_bytes));
  std::vector<Part> arrays;
  arrays.push_back(MakePart(ObjectType::kArray, parts, ArrayBody(parts.size(), chunk_bytes)));
  std::vector<Part> records;
  records.push_back(MakePart(ObjectType::kArrayRecord, arrays, Names(arrays)));
  std::vector<Blob> lower;
  Collect(parts, lower);
  Collect(arrays, lower);
  return Wrap(envelope, std::move(lower), std::move(records));
}

}  // namespace umbel::bench
