#include "superlink/rounds/cyclic.h"

#include <gtest/gtest.h>

#include "superlink/rounds/rounds_testing.h"

namespace umbel::superlink::rounds {
namespace {

using testing::ArrayOf;
using testing::Filled;
using testing::ModelOf;
using testing::UpdateOf;

ModelArray Bytes(const std::string& text) { return ArrayOf("0", "|u1", {text.size()}, text); }

TEST(Cyclic, TheNextModelIsTheReplyUnchanged) {
  const Model model = ModelOf({Bytes("")});
  const std::string trees("\0\xff no JSON is asked for", 23);
  const auto cyclic = *MakeCyclic(model);
  ASSERT_TRUE(cyclic->AnyLength());
  const auto refused = *cyclic->Add(
      {UpdateOf(1, 1, {ArrayOf("0", "<f4", {1}, "1234")}), UpdateOf(3, 1, {Bytes(trees)})});
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].index, 0u);
  EXPECT_EQ(refused[0].outcome, Outcome::kWrongDtype);
  const auto next = *cyclic->Finish(1);
  ASSERT_EQ(next.arrays.size(), 1u);
  EXPECT_EQ(next.arrays[0].name, "0");
  EXPECT_EQ(next.arrays[0].dtype, "|u1");
  EXPECT_EQ(Filled(next.arrays[0], 1), trees);
  std::string piece(4, ' ');
  ASSERT_TRUE(next.arrays[0].fill(3, 4, piece).ok());
  EXPECT_EQ(piece, trees.substr(3, 4));
}

TEST(Cyclic, WithoutAReplyTheModelStays) {
  const Model model = ModelOf({Bytes("old")});
  EXPECT_EQ((*MakeCyclic(model))->Finish(1).error().code, Code::kFailedPrecondition);
}

TEST(Cyclic, RefusesAModelThatIsNoRowOfBytes) {
  EXPECT_FALSE(MakeCyclic(ModelOf({ArrayOf("0", "<f4", {1}, "1234")})).ok());
  EXPECT_FALSE(MakeCyclic(ModelOf({ArrayOf("0", "|u1", {2, 2}, "1234")})).ok());
  EXPECT_FALSE(MakeCyclic(ModelOf({Bytes("a"), Bytes("b")})).ok());
}

}  // namespace
}  // namespace umbel::superlink::rounds
