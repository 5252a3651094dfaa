// Object trees: which objects a message consists of. On the wire a proto3 message
// `ObjectTree { string object_id = 1; repeated ObjectTree children = 2; }`, read by hand because
// one push carries millions of nodes, most of them repeats. Functions; safe from any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace umbel::tensor {

struct TreeLimits {
  size_t depth = 16;  // Flower's own trees are 5 deep: message, dict, record, array, chunk
  size_t nodes = 4'000'000;
};

struct TreeIds {
  ObjectId root;
  std::vector<ObjectId> ids;  // distinct, post-order, first seen first; the root is the last
  size_t nodes = 0;           // with repeats
};

/// cost    one pass; about 40 bytes of memory per distinct id.
/// errors  kInvalidArgument: broken wire format, an id that is not 64 lowercase hexadecimal digits,
///         the root inside itself; kResourceExhausted: above a limit.
Result<TreeIds> ParseTree(std::string_view wire, TreeLimits limits = {});

struct TreeNode {
  ObjectId id;
  std::vector<TreeNode> children;
};

std::string EncodeTree(const TreeNode& root);

/// A tree of one node.
std::string LeafTree(const ObjectId& id);

}  // namespace umbel::tensor
