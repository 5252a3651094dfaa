#include "superlink/verify.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tensor/object.h"
#include "tensor/tree.h"

namespace umbel::superlink {
namespace {

const RunId kRun{7};

std::string Chunk(char fill, size_t size) {
  return tensor::MakeObject(tensor::ObjectType::kArrayChunk, {}, std::string(size, fill));
}

store::MessageRow MakeMessage(const ObjectId& id, const std::vector<ObjectId>& parts,
                              std::optional<ObjectId> reply_to) {
  store::MessageRow row;
  row.message_id = id;
  row.run_id = kRun;
  row.reply_to = reply_to;
  row.touched = true;
  tensor::TreeNode root{id, {}};
  for (const ObjectId& part : parts) root.children.push_back({part, {}});
  row.tree = tensor::EncodeTree(root);
  return row;
}

TEST(DropDamaged, ADamagedReplyIsAskedForAgain) {
  const auto folder = std::filesystem::temp_directory_path() / "umbel-verify-test";
  std::filesystem::remove_all(folder);
  store::StoreOptions options;
  options.directory = folder.string();
  auto store = store::Store::Open(options);
  ASSERT_TRUE(store.ok()) << store.error().message;
  auto segments = store::Segments::Open((folder / "objects").string(), false, {});
  ASSERT_TRUE(segments.ok());
  store::Snapshot snapshot;
  std::vector<ObjectId> ids;
  for (const char fill : {'a', 'b'}) {
    const std::string object = Chunk(fill, 100'000);
    const auto extent = (*segments)->Allocate(kRun, object.size());
    ASSERT_TRUE(extent.ok());
    ASSERT_TRUE((*segments)->Write(*extent, 0, object).ok());
    ids.push_back(tensor::ObjectIdOf(object));
    snapshot.objects.push_back(
        {kRun, ids.back(), object.size(), extent->segment, extent->offset, ""});
    if (fill == 'b') {
      ASSERT_TRUE((*segments)->Write(*extent, 50'000, std::string("x")).ok());
    }
  }
  const ObjectId first = tensor::ObjectIdOf("first");
  const ObjectId second = tensor::ObjectIdOf("second");
  const ObjectId good = tensor::ObjectIdOf("good reply");
  const ObjectId bad = tensor::ObjectIdOf("bad reply");
  snapshot.messages = {MakeMessage(first, {}, {}), MakeMessage(second, {}, {}),
                       MakeMessage(good, {ids[0]}, first), MakeMessage(bad, {ids[1]}, second)};

  const auto writes = DropDamaged(snapshot, **store, **segments);

  EXPECT_EQ(writes.size(), 2u);
  ASSERT_EQ(snapshot.objects.size(), 1u);
  EXPECT_EQ(snapshot.objects[0].object_id, ids[0]);
  ASSERT_EQ(snapshot.messages.size(), 3u);
  EXPECT_TRUE(snapshot.messages[0].touched);
  EXPECT_FALSE(snapshot.messages[1].touched);
  EXPECT_EQ(snapshot.messages[2].message_id, good);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace umbel::superlink
