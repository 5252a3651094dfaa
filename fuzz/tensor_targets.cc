// Objects, their trees, arrays and frames.
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "flwr/common.pb.h"
#include "targets.h"
#include "tensor/frame.h"
#include "tensor/npy.h"
#include "tensor/object.h"
#include "tensor/safetensors.h"
#include "tensor/tree.h"

namespace umbel::fuzz {
namespace {

constexpr size_t kHeadMax = 4096;

struct Walk {
  std::vector<std::string> ids;  // distinct, post-order
  size_t nodes = 0;
  size_t depth = 0;
  bool valid = true;  // hexadecimal ids everywhere, the root not inside itself
  bool plain = true;  // nothing unknown
};

void Visit(const flwr::proto::ObjectTree& node, size_t depth, Walk& walk) {
  walk.depth = std::max(walk.depth, depth);
  for (const auto& child : node.children()) Visit(child, depth + 1, walk);
  ++walk.nodes;
  if (!Digest::FromHex(node.object_id()).has_value()) walk.valid = false;
  if (!node.GetReflection()->GetUnknownFields(node).empty()) walk.plain = false;
  if (std::find(walk.ids.begin(), walk.ids.end(), node.object_id()) == walk.ids.end()) {
    walk.ids.push_back(node.object_id());
  } else if (depth == 1) {
    walk.valid = false;
  }
}

}  // namespace

void ObjectHead(std::string_view bytes) {
  const auto head = tensor::ParseObjectHead(bytes, kHeadMax);
  const auto half = tensor::ParseObjectHead(bytes.substr(0, bytes.size() / 2), kHeadMax);
  // What is refused early is refused later, and what is read early stays.
  if (!half.has_value()) UMBEL_CHECK(!head.has_value());
  if (half.has_value() && half->has_value())
    UMBEL_CHECK(head.has_value() && head->has_value() && **half == **head);

  const auto whole = tensor::ParseObject(bytes);
  if (!whole.has_value()) {
    UMBEL_CHECK(!whole.error().message.empty());
    return;
  }
  UMBEL_CHECK(tensor::MakeObject(whole->type, whole->children, bytes.substr(whole->head_size)) ==
              bytes);
}

void ObjectTree(std::string_view bytes) {
  const tensor::TreeLimits limits{.depth = 16, .nodes = 1000};
  const auto tree = tensor::ParseTree(bytes, limits);
  flwr::proto::ObjectTree message;
  const bool parsed = message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  Walk walk;
  if (parsed) Visit(message, 1, walk);

  if (tree.has_value()) {
    // libprotobuf sees the same tree.
    UMBEL_CHECK(parsed && walk.valid && walk.nodes == tree->nodes);
    UMBEL_CHECK(walk.ids.size() == tree->ids.size());
    for (size_t i = 0; i < walk.ids.size(); ++i) UMBEL_CHECK(walk.ids[i] == tree->ids[i].Hex());
    UMBEL_CHECK(tree->ids.back() == tree->root);
    return;
  }
  // And what a writer writes is read, within the limits.
  const bool plain = parsed && walk.valid && walk.plain && message.SerializeAsString() == bytes;
  UMBEL_CHECK(!plain || walk.nodes > limits.nodes || walk.depth > limits.depth);
}

void NpyHead(std::string_view bytes) {
  const auto head = tensor::ParseNpyHead(bytes);
  if (!head.has_value() || !head->has_value()) return;
  const tensor::NpyHead& npy = **head;
  UMBEL_CHECK(npy.data_offset <= bytes.size() && npy.shape.size() <= tensor::kNpyDimensionsMax);
  UMBEL_CHECK(npy.item_size == 0 || npy.element_count <= (UINT64_MAX >> 1) / npy.item_size);
  for (size_t size = 0; size < npy.data_offset; size += 7) {
    const auto early = tensor::ParseNpyHead(bytes.substr(0, size));
    UMBEL_CHECK(early.has_value() && !early->has_value());
  }
}

/// The first byte says in which pieces the rest arrives.
void Safetensors(std::string_view bytes) {
  const auto size = tensor::SafetensorsHeadSize(bytes.substr(0, 8), bytes.size());
  if (!size.has_value()) return;
  UMBEL_CHECK(*size <= bytes.size() - 8);
  const uint64_t data = bytes.size() - 8 - *size;
  const auto read = tensor::ParseSafetensorsHead(bytes.substr(8, *size), data);
  if (!read.has_value()) {
    UMBEL_CHECK(!read.error().message.empty());
    return;
  }
  uint64_t at = 0;
  for (const tensor::SafeTensor& tensor : *read) {
    UMBEL_CHECK(tensor.begin == at && tensor.size <= data - at);
    at += tensor.size;
  }
  UMBEL_CHECK(at == data);
  // Written again it is read as the same.
  const auto head = tensor::MakeSafetensorsHead(*read);
  UMBEL_CHECK(head.has_value());
  const auto again = tensor::ParseSafetensorsHead(std::string_view(*head).substr(8), data);
  UMBEL_CHECK(again.has_value() && again->size() == read->size());
}

void Frames(std::string_view bytes) {
  if (bytes.empty()) return;
  const size_t piece = 1 + static_cast<uint8_t>(bytes[0]);
  const std::string_view stream = bytes.substr(1);
  tensor::FrameDecoder whole(1000);
  tensor::FrameDecoder pieces(1000);
  whole.Feed(stream);
  size_t fed = 0;
  std::string again;
  while (true) {
    const auto message = whole.Next();
    auto same = pieces.Next();
    while (same.has_value() && !same->has_value() && fed < stream.size()) {
      pieces.Feed(stream.substr(fed, piece));
      fed += std::min(piece, stream.size() - fed);
      same = pieces.Next();
    }
    UMBEL_CHECK(message.has_value() == same.has_value());
    if (!message.has_value()) return;
    UMBEL_CHECK(*message == *same);
    if (!message->has_value()) break;
    again += tensor::EncodeFrame(**message);
  }
  UMBEL_CHECK(stream.starts_with(again));
  UMBEL_CHECK(whole.AtBoundary() == (again.size() == stream.size()));
}

}  // namespace umbel::fuzz
