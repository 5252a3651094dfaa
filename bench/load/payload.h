// Messages and their objects, ready to be pushed. Values; functions are safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "flwr/common.pb.h"
#include "tensor/object.h"

namespace umbel::bench {

/// An object's bytes. Distinct large ones share all but their first bytes, so that a thousand of
/// them fit in memory and a sender reads from its cache.
struct Blob {
  ObjectId id;
  std::string own;
  std::string_view shared;  // follows; lives as long as the process

  uint64_t size() const { return own.size() + shared.size(); }
};

struct Envelope {
  uint64_t run_id = 0;
  uint64_t src = 1;
  uint64_t dst = 0;
  std::string reply_to;
  double created_at = 0;
  double ttl = 3600;
  std::string type = "train";
};

struct Parcel {
  flwr::proto::Message message;
  flwr::proto::ObjectTree tree;
  std::vector<Blob> objects;  // children first; the last one is the message itself

  const std::string& id() const { return message.metadata().message_id(); }
};

/// A message with no content to speak of: 2 objects.
Parcel TinyParcel(const Envelope& envelope);
/// 24 objects: message, dictionary, config, array record, ten arrays, ten chunks of a few bytes.
/// All of them differ from one `number` to the next.
Parcel SmallParcel(const Envelope& envelope, uint64_t number);
inline constexpr int kSmallParcelObjects = 24;
/// One array of `chunks` chunks of `chunk_bytes`, distinct from one `number` to the next.
Parcel LargeParcel(const Envelope& envelope, uint64_t number, int chunks, size_t chunk_bytes);

/// An object with its tree, while a parcel is put together.
struct Part {
  Blob blob;
  flwr::proto::ObjectTree tree;
};
Part MakePart(tensor::ObjectType type, const std::vector<Part>& children, std::string_view body);
/// Wraps `records` of a dictionary, named "0", "1", ..., into a message; `lower` are the objects
/// below those.
Parcel Wrap(const Envelope& envelope, std::vector<Blob> lower, std::vector<Part> records);
/// The same bytes each time.
std::string Deterministic(const google::protobuf::MessageLite& message);

double NowSeconds();

}  // namespace umbel::bench
