#include "tensor/tree.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "tensor/sha256.h"
#include "tensor/wire.h"

namespace umbel::tensor {
namespace {

using std::string_literals::operator""s;

ObjectId Name(std::string_view name) { return Sha256Of(name); }

TEST(Tree, ALeafIsItsOwnRoot) {
  const auto tree = ParseTree(LeafTree(Name("a")));
  ASSERT_TRUE(tree.ok()) << tree.error().message;
  EXPECT_EQ(tree->root, Name("a"));
  EXPECT_EQ(tree->ids, std::vector{Name("a")});
  EXPECT_EQ(tree->nodes, 1U);
}

TEST(Tree, PostOrderFirstSeenFirst) {
  const TreeNode shared{Name("chunk"), {}};
  const TreeNode root{
      Name("message"),
      {{Name("x"), {shared, {Name("y"), {shared}}}}, {Name("z"), {shared}}, shared}};
  const auto tree = ParseTree(EncodeTree(root));
  ASSERT_TRUE(tree.ok()) << tree.error().message;
  EXPECT_EQ(tree->ids,
            (std::vector{Name("chunk"), Name("y"), Name("x"), Name("z"), Name("message")}));
  EXPECT_EQ(tree->nodes, 8U);
}

TEST(Tree, FieldsComeInAnyOrderAndTheLastIdCounts) {
  std::string wire;
  AppendBytesField(2, LeafTree(Name("child")), wire);
  AppendBytesField(1, Name("old").Hex(), wire);
  AppendBytesField(1, Name("root").Hex(), wire);
  const auto tree = ParseTree(wire);
  ASSERT_TRUE(tree.ok()) << tree.error().message;
  EXPECT_EQ(tree->ids, (std::vector{Name("child"), Name("root")}));
}

TEST(Tree, UnknownFieldsAreSkipped) {
  const std::string unknown = "\x18\x96\x01"s +                // field 3, varint
                              "\x21"s + std::string(8, 'x') +  // field 4, 64 bits
                              "\x2a\x03"s + "abc"s +           // field 5, bytes
                              "\x35"s + std::string(4, 'x') +  // field 6, 32 bits
                              "\x3b\x43\x08\x01\x44\x3c"s +    // field 7, a group with a group 8
                              "\x08\x05"s;                     // field 1 with another wire type
  const auto tree = ParseTree(unknown + LeafTree(Name("a")) + unknown);
  ASSERT_TRUE(tree.ok()) << tree.error().message;
  EXPECT_EQ(tree->ids, std::vector{Name("a")});
}

TEST(Tree, BrokenWireIsRefused) {
  const std::string leaf = LeafTree(Name("a"));
  for (const std::string& wire :
       {""s, leaf.substr(0, leaf.size() - 1), leaf + "\x12"s, leaf + "\x12\x05"s,
        leaf + "\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"s, leaf + "\x00\x00"s, leaf + "\x1b"s,
        leaf + "\x1c"s, leaf + "\x1b\x24"s, leaf + "\x1e"s,
        leaf + "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"s, leaf + "\x21\x01"s,
        leaf + std::string(17, '\x1b'), leaf + "\x12\x00"s, "\x0a\x00"s,
        "\x0a\x40"s + std::string(64, 'A')}) {
    const auto tree = ParseTree(wire);
    ASSERT_FALSE(tree.ok());
    EXPECT_EQ(tree.error().code, Code::kInvalidArgument) << tree.error().message;
  }
}

TEST(Tree, TheRootIsNotInsideItself) {
  const auto tree = ParseTree(EncodeTree({Name("a"), {{Name("b"), {{Name("a"), {}}}}}}));
  ASSERT_FALSE(tree.ok());
  EXPECT_EQ(tree.error().message, "object tree: root " + Name("a").Hex() + " is inside itself");
}

TEST(Tree, DepthAndNodesAreLimited) {
  TreeNode chain{Name("0"), {}};
  for (int i = 1; i < 16; ++i) chain = {Name(std::to_string(i)), {chain}};
  EXPECT_TRUE(ParseTree(EncodeTree(chain)).ok());
  EXPECT_FALSE(ParseTree(EncodeTree({Name("root"), {chain}})).ok());
  EXPECT_TRUE(ParseTree(EncodeTree({Name("root"), {chain}}), {.depth = 17, .nodes = 17}).ok());
  const auto refused = ParseTree(EncodeTree(chain), {.depth = 16, .nodes = 15});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);

  for (int i = 0; i < 1000; ++i) chain = {Name("deep" + std::to_string(i)), {chain}};
  EXPECT_FALSE(ParseTree(EncodeTree(chain)).ok());
}

TEST(Tree, ManyIdsWithTheSameStartStayFast) {
  TreeNode root{Name("root"), {}};
  for (uint32_t i = 0; i < 100'000; ++i) {
    ObjectId id;
    std::memcpy(id.bytes.data() + 28, &i, sizeof i);
    root.children.push_back({id, {}});
  }
  const auto tree = ParseTree(EncodeTree(root));
  ASSERT_TRUE(tree.ok());
  EXPECT_EQ(tree->ids.size(), 100'001U);
}

/// The obvious way, to compare with.
void Visit(const TreeNode& node, std::set<ObjectId>& seen, TreeIds& tree) {
  for (const TreeNode& child : node.children) Visit(child, seen, tree);
  ++tree.nodes;
  if (seen.insert(node.id).second) tree.ids.push_back(node.id);
}

TreeNode AnyNode(int depth) {
  TreeNode node{Name(std::to_string(*rc::gen::inRange(0, 20))), {}};
  if (depth > 0)
    for (int i = *rc::gen::inRange(0, 4); i > 0; --i) node.children.push_back(AnyNode(depth - 1));
  return node;
}

RC_GTEST_PROP(TreeProperty, EqualsTheObviousWalk, ()) {
  TreeNode root = AnyNode(4);
  root.id = Name("root");
  TreeIds expected;
  std::set<ObjectId> seen;
  Visit(root, seen, expected);
  const auto tree = ParseTree(EncodeTree(root));
  RC_ASSERT(tree.ok());
  RC_ASSERT(tree->root == root.id);
  RC_ASSERT(tree->ids == expected.ids);
  RC_ASSERT(tree->nodes == expected.nodes);
}

RC_GTEST_PROP(TreeProperty, MutatedBytesAreAnErrorOrATree, ()) {
  std::string wire = EncodeTree(AnyNode(3));
  for (int i = *rc::gen::inRange(1, 4); i > 0; --i)
    wire[*rc::gen::inRange<size_t>(0, wire.size())] = *rc::gen::arbitrary<char>();
  wire.resize(*rc::gen::inRange<size_t>(0, wire.size() + 1));
  const auto tree = ParseTree(wire);
  if (tree.ok()) {
    RC_ASSERT(tree->ids.back() == tree->root);
    RC_ASSERT(tree->ids.size() <= tree->nodes);
  } else {
    RC_ASSERT(!tree.error().message.empty());
  }
}

}  // namespace
}  // namespace umbel::tensor
