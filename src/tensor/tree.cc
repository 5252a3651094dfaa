#include "tensor/tree.h"

#include <array>
#include <cstring>

#include "base/random.h"
#include "tensor/quote.h"
#include "tensor/wire.h"

namespace umbel::tensor {
namespace {

constexpr uint32_t kIdField = 1;
constexpr uint32_t kChildrenField = 2;

/// The distinct ids in order of arrival, and a table of indices into them. A peer chooses the ids,
/// so the hash has a secret: ids that share their first bytes must not share a slot.
class DistinctIds {
 public:
  /// True if the id is new.
  bool Insert(const ObjectId& id) {
    if (ids_.size() * 2 >= slots_.size()) Grow();
    uint32_t& slot = slots_[Find(id)];
    if (slot != 0) return false;
    ids_.push_back(id);
    slot = static_cast<uint32_t>(ids_.size());
    return true;
  }
  std::vector<ObjectId> Take() { return std::move(ids_); }

 private:
  struct Secret {
    std::array<uint64_t, 9> words;
    Secret() {
      SystemRng rng;
      for (uint64_t& word : words) word = rng.U64();
    }
  };

  /// Pair-multiply-shift (Thorup): universal, so nobody without the secret can plan a collision.
  /// Only the highest bits are good.
  static uint64_t Hash(const ObjectId& id) {
    static const Secret kSecret;
    std::array<uint32_t, 8> words;
    std::memcpy(words.data(), id.bytes.data(), sizeof words);
    uint64_t sum = kSecret.words[8];
    for (size_t i = 0; i < words.size(); i += 2)
      sum += (words[i] + kSecret.words[i + 1]) * (words[i + 1] + kSecret.words[i]);
    return sum;
  }

  size_t Find(const ObjectId& id) const {
    size_t at = static_cast<size_t>(Hash(id) >> (64 - bits_));
    while (slots_[at] != 0 && ids_[slots_[at] - 1] != id) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void Grow() {
    bits_ = slots_.empty() ? 6 : bits_ + 1;
    slots_.assign(size_t{1} << bits_, 0);
    for (size_t i = 0; i < ids_.size(); ++i) slots_[Find(ids_[i])] = static_cast<uint32_t>(i + 1);
  }

  std::vector<ObjectId> ids_;
  std::vector<uint32_t> slots_;  // 1 + index into ids_, 0 is free
  unsigned bits_ = 0;
};

struct OpenNode {
  size_t end = 0;  // where its bytes end
  ObjectId id;
  bool named = false;
};

}  // namespace

Result<TreeIds> ParseTree(std::string_view wire, TreeLimits limits) {
  TreeIds tree;
  DistinctIds distinct;
  WireCursor cursor(wire);
  std::vector<OpenNode> path{{wire.size(), {}, false}};  // the nodes from the root to this one
  tree.nodes = 1;
  while (true) {
    OpenNode& node = path.back();
    if (cursor.at() == node.end) {
      if (!node.named)
        return Fail(Code::kInvalidArgument,
                    fmt::format("object tree: node {} has no object_id", tree.nodes));
      const bool is_new = distinct.Insert(node.id);
      if (path.size() == 1) {
        if (!is_new)
          return Fail(Code::kInvalidArgument,
                      fmt::format("object tree: root {} is inside itself", node.id.Hex()));
        tree.root = node.id;
        break;
      }
      path.pop_back();
      continue;
    }
    UMBEL_ASSIGN(const WireTag tag, cursor.ReadTag(node.end));
    const bool ours =
        tag.type == WireType::kBytes && (tag.field == kIdField || tag.field == kChildrenField);
    if (!ours) {
      UMBEL_TRY(cursor.Skip(tag, node.end));
      continue;
    }
    UMBEL_ASSIGN(const size_t size, cursor.ReadLength(node.end));
    if (tag.field == kIdField) {
      const std::string_view text = cursor.Take(size);
      auto id = Digest::FromHex(text);
      if (!id.has_value())
        return Fail(Code::kInvalidArgument,
                    fmt::format("object tree: object_id {} is not 64 lowercase hexadecimal digits",
                                Quote(text)));
      node.id = *id;
      node.named = true;
      continue;
    }
    if (path.size() == limits.depth)
      return Fail(Code::kResourceExhausted,
                  fmt::format("object tree: deeper than {} nodes", limits.depth));
    if (++tree.nodes > limits.nodes)
      return Fail(Code::kResourceExhausted,
                  fmt::format("object tree: more than {} nodes", limits.nodes));
    path.push_back({cursor.at() + size, {}, false});
  }
  tree.ids = distinct.Take();
  return tree;
}

std::string EncodeTree(const TreeNode& root) {
  std::string wire = LeafTree(root.id);
  for (const TreeNode& child : root.children)
    AppendBytesField(kChildrenField, EncodeTree(child), wire);
  return wire;
}

std::string LeafTree(const ObjectId& id) {
  std::string wire;
  AppendBytesField(kIdField, id.Hex(), wire);
  return wire;
}

}  // namespace umbel::tensor
